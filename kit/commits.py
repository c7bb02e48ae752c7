"""Commits: what all turns of an instance say, in as few commands as the store can take.

While appends are under way, what is said meanwhile gathers for the next (group commit). Idle: no delay. Under load: large appends.
Only a single packet is sent beside a few that are under way: at the pace of a model no token waits for another session's.
Nobody waits in between: an append leaves in the step in which it is asked for, and its turn hears where the store's answer is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from kit.log import Gone, Log, Packed, Unheard, ids_of, packed
from kit.packets import At, EntryId
from kit.scripts import APPEND, APPEND_SHA
from kit.store import Refusal, Store, is_refused_id, is_unknown_script

log = logging.getLogger("kit.commits")
Told = Callable[[list[EntryId] | Exception], None]
"""Told what became of a commit: the id of each of its packets, or Unheard, Gone, the store's own error."""
_Answer = list[bytes] | Exception
"""To a commit: the id of each of its entries, or what stands against it."""
FEW = 8
"""Up to so many single packets go in a command each; a real store takes as long for eight of them as for one script."""
BESIDE = 4
"""While fewer than so many commits are under way, a single packet is sent beside them."""


class _Commit(NamedTuple):
    """What a turn says at once: the entries of the stream that hold it, and who is told."""

    log: Log
    heard: int
    entries: list[Packed]
    told: Told


async def load(store: Store) -> None:
    """Have the store know the script of appends, by the line on which they go."""
    await store.commits.ask(_loading())


class Commits:
    """Group commit of an instance, over all its turns."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Commit] = []
        self._under_way = 0

    def add(self, log: Log, heard: int, bodies: Sequence[tuple[bytes, At | None]], told: Told) -> None:
        """Add packets, all or nothing, to a log in which they have heard the epoch `heard`."""
        commit = _Commit(log, heard, list(packed(bodies)), told)
        if not self._waiting and (not self._under_way or (self._under_way < BESIDE and _are_few([commit]))):
            self._send([commit])
        else:  # who waits goes first, also where nothing is under way: who has just been told may ask at once
            self._waiting.append(commit)

    def _send(self, commits: Sequence[_Commit]) -> None:
        """Send them, except to logs that are not as they were: where the store was restarted, their end may be gone."""
        batch = sorted((commit for commit in commits if commit.log.run == self._store.run_id), key=_shard)
        self._under_way += len(batch)
        if batch and _are_few(batch):
            # On fakeredis the script takes twice as long for one packet, and half as long again for four.
            self._store.commits.send([_xadd(commit) for commit in batch], partial(self._added, batch))
        elif batch:
            self._send_scripts(batch)
        for commit in commits:
            if commit.log.run != self._store.run_id:
                commit.told(Gone(commit.log.session))

    def _send_scripts(self, batch: Sequence[_Commit], *before: Sequence[Any]) -> None:
        """A script for each shard: on a cluster a script may only name keys of one slot."""
        shares = [list(share) for _, share in groupby(batch, _shard)]
        self._store.commits.send([*before, *map(_script, shares)], partial(self._ran, batch, shares))

    def _added(self, batch: Sequence[_Commit], answers: list[Any] | Exception) -> None:
        if isinstance(answers, Exception):
            self._tell(batch, [answers] * len(batch))
        else:
            self._tell(batch, [id if isinstance(id, Exception) else [id or b""] for id in answers])

    def _ran(self, batch: Sequence[_Commit], shares: Sequence[Sequence[_Commit]], answers: list[Any] | Exception) -> None:
        if isinstance(answers, Exception):
            self._tell(batch, [answers] * len(batch))
        elif all(is_unknown_script(answer) for answer in answers):
            self._send_scripts(batch, _loading())  # nothing was carried out, so it may be asked again
        else:
            own = answers[-len(shares) :]  # before them, that of the loading
            self._tell(batch, [one for share, answer in zip(shares, own, strict=True) for one in _shared_out(share, answer)])

    def _tell(self, batch: Sequence[_Commit], answers: Sequence[_Answer]) -> None:
        for commit, answer in zip(batch, answers, strict=True):
            self._under_way -= 1
            try:
                commit.told(_meant(commit, answer))
            except Exception:  # the others go on
                log.exception("session %s: who appended could not be told of it", commit.log.session)
        if self._waiting and not self._under_way:
            waiting, self._waiting = self._waiting, []
            self._send(waiting)


def _loading() -> Sequence[Any]:
    return "SCRIPT", "LOAD", APPEND


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


def _meant(commit: _Commit, answers: _Answer) -> list[EntryId] | Exception:
    """All entries of a commit were taken, or refused for one reason: they went in one command and share their epoch."""
    if isinstance(answers, Exception):
        return Unheard(commit.heard) if is_refused_id(answers) else answers
    refused = next((answer for answer in answers if not answer[:1].isdigit()), None)
    if refused is None:
        return [id for answer, entry in zip(answers, commit.entries, strict=True) for id in ids_of(answer, entry.packets)]
    if refused == b"":
        return Gone(commit.log.session)
    error = Refusal(refused.decode(errors="replace"))
    return Unheard(commit.heard) if is_refused_id(error) else error
