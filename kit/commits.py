"""Commits: what all turns of an instance say, in as few commands as the store can take.

While one append is under way, what is said meanwhile gathers for the next (group commit). Idle: no delay. Under load: large appends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from kit.log import Gone, Log, Packed, Unheard, ids_of, packed
from kit.packets import At, EntryId
from kit.scripts import APPEND, APPEND_SHA
from kit.store import Refusal, Store, StoreError, is_refused_id, is_unknown_script

_Answer = list[bytes] | Exception
"""To a commit: the id of each of its entries, or what stands against it."""
FEW = 8
"""Up to so many single packets go in a command each; a real store takes as long for eight of them as for one script."""


class _Commit(NamedTuple):
    """What a turn says at once: the entries of the stream that hold it, and who waits for its ids."""

    log: Log
    heard: int
    entries: list[Packed]
    ids: asyncio.Future[list[EntryId]]


async def load(store: Store) -> None:
    """Have the store know the script of appends, by the line on which they go."""
    await store.commits.ask(("SCRIPT", "LOAD", APPEND))


class Commits:
    """Group commit of an instance: while one append is under way, what all its turns say meanwhile gathers for the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Commit] = []
        self._busy: asyncio.Task[None] | None = None

    async def add(self, log: Log, heard: int, bodies: Sequence[tuple[bytes, At | None]]) -> list[EntryId]:
        ids: asyncio.Future[list[EntryId]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Commit(log, heard, list(packed(bodies)), ids))
        if self._busy is None:
            self._busy = asyncio.create_task(self._work())
        return await ids

    async def _work(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                if batch := self._still_meant(waiting):
                    await self._send(sorted(batch, key=_shard))
        finally:
            self._busy = None

    def _still_meant(self, waiting: Sequence[_Commit]) -> list[_Commit]:
        """Those of logs that are as they were: where the store was restarted meanwhile, what came before in a log may be gone."""
        for commit in waiting:
            if commit.log.run != self._store.run_id and not commit.ids.done():
                commit.ids.set_exception(Gone(commit.log.session))
        return [commit for commit in waiting if commit.log.run == self._store.run_id]

    async def _send(self, batch: Sequence[_Commit]) -> None:
        try:
            answers = await (self._append_each(batch) if _are_few(batch) else self._append(batch))
        except StoreError as error:
            answers = [error] * len(batch)
        for commit, answer in zip(batch, answers, strict=True):
            if not commit.ids.done():
                _settle(commit, answer)

    async def _append_each(self, batch: Sequence[_Commit]) -> list[_Answer]:
        """A command for each: on fakeredis the script takes twice as long for one packet, and half as long again for four."""
        ids = await self._store.commits.ask(*map(_xadd, batch))
        return [id if isinstance(id, Exception) else [id or b""] for id in ids]

    async def _append(self, batch: Sequence[_Commit]) -> list[_Answer]:
        """A script for each shard: on a cluster a script may only name keys of one slot."""
        shares = [list(share) for _, share in groupby(batch, _shard)]
        while True:
            answers = await self._store.commits.ask(*map(_script, shares))
            if not all(is_unknown_script(answer) for answer in answers):
                return [one for share, answer in zip(shares, answers, strict=True) for one in _shared_out(share, answer)]
            await load(self._store)  # nothing was carried out, so it may be asked again


def _shard(commit: _Commit) -> int:
    return commit.log.shard


def _are_few(batch: Sequence[_Commit]) -> bool:
    """Single packets, as at the pace of a model, and not many at a time."""
    return len(batch) <= FEW and all(len(commit.entries) == commit.entries[0].packets == 1 for commit in batch)


def _xadd(commit: _Commit) -> Sequence[Any]:
    (entry,) = commit.entries
    at = ("at", entry.at) if entry.at else ()
    return "XADD", commit.log.stream, "NOMKSTREAM", f"{commit.heard}-*", "f", entry.body, *at


def _script(share: Sequence[_Commit]) -> Sequence[Any]:
    keys = [commit.log.stream for commit in share for _ in commit.entries]
    args = [arg for commit in share for entry in commit.entries for arg in (commit.heard, *entry)]
    return "EVALSHA", APPEND_SHA, len(keys), *keys, *args


def _shared_out(share: Sequence[_Commit], answer: list[bytes] | Exception) -> Iterator[_Answer]:
    """What a script answered, commit by commit."""
    each = iter(answer if isinstance(answer, list) else ())
    for commit in share:
        yield answer if isinstance(answer, Exception) else [next(each) for _ in commit.entries]


def _settle(commit: _Commit, answers: _Answer) -> None:
    """All entries of a commit were taken, or refused for one reason: they went in one command and share their epoch."""
    if isinstance(answers, Exception):
        commit.ids.set_exception(Unheard(commit.heard) if is_refused_id(answers) else answers)
        return
    refused = next((answer for answer in answers if not answer[:1].isdigit()), None)
    if refused is None:
        commit.ids.set_result([id for answer, entry in zip(answers, commit.entries, strict=True) for id in ids_of(answer, entry.packets)])
    elif refused == b"":
        commit.ids.set_exception(Gone(commit.log.session))
    elif is_refused_id(error := Refusal(refused.decode(errors="replace"))):
        commit.ids.set_exception(Unheard(commit.heard))
    else:
        commit.ids.set_exception(error)
