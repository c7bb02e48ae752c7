"""P3: no packet stands in an epoch whose opening word its agent had not read."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from kit.feed import Feed
from kit.lab.instances import Node, Serve
from kit.log import Log, Stored, Unheard
from kit.packets import Content, EntryId, Prompt, Receipt
from kit.transcript import Transcript
from tests.promises.support import Judge, Watcher, counting, endless, nodes, read_log, watch
from tests.support import both_servers

WORDS = 150
"""Of each of the two users."""


class Hearing:
    """What each feed had taken in when one of its appends was *sent*: noted beside the kit, from the entries that it was given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.words: defaultdict[Feed, set[int]] = defaultdict(set)
        self.appends = self.refused = 0
        self.violations: list[str] = []
        self.heard: frozenset[int]
        take, append, begin, send = Feed._take, Feed.append, Feed.send, Transcript.send

        def listening(feed: Feed, entry: Stored) -> None:
            if entry.id.is_word:
                self.words[feed].add(entry.id.epoch)
            take(feed, entry)

        async def noting(feed: Feed, bodies: Sequence[Any]) -> None:
            self.heard = frozenset(self.words[feed])
            await append(feed, bodies)

        def noting_at_once(feed: Feed, bodies: Sequence[Any], told: Any) -> None:
            self.heard = frozenset(self.words[feed])
            begin(feed, bodies, told)

        def sending(transcript: Transcript, log: Log, heard: int, bodies: Sequence[Any], told: Any) -> None:
            had_heard = self.heard  # noted in this same step

            def judging(answer: list[Stored] | Exception) -> None:
                self.refused += isinstance(answer, Unheard)
                if not isinstance(answer, Exception):
                    self.appends += 1
                    self.violations += [str(entry.id) for entry in answer if entry.id.epoch not in had_heard]
                told(answer)

            send(transcript, log, heard, bodies, judging)

        patch.setattr(Feed, "_take", listening)
        patch.setattr(Feed, "append", noting)
        patch.setattr(Feed, "send", noting_at_once)
        patch.setattr(Transcript, "send", sending)


async def shout(person: Watcher, rng: random.Random, name: str) -> list[Receipt]:
    """Prompts to all agents, stops and edits of what one has seen, without waiting for anything but the receipts."""
    receipts = []
    for i in range(WORDS):
        seen = [e for e in person.log if isinstance(e, Prompt)]
        roll = rng.random()
        if roll < 0.5 or not seen:
            receipts.append(await person.session.prompt(f"{name} {i}", to=rng.choice(["one", "two", "three"])))
        elif roll < 0.75:
            receipts.append(await person.session.stop(f"{(word := rng.choice(seen[-5:])).id}/{word.to}"))
        elif roll < 0.8:
            receipts.append(await person.session.stop())
        else:
            receipts.append(await person.session.edit(f"{(word := rng.choice(seen[-5:])).id}/{word.to}", f"{name} {i}"))
    return receipts


@both_servers
async def test_p3_three_agents_never_speak_past_two_shouting_users(store: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three agents on two instances against 300 words: whatever stands in the log was said by somebody who had heard."""
    hearing = Hearing(monkeypatch)
    agents = {"one": endless, "two": endless, "three": counting(50, pace=3000)}
    async with (
        # A shorter lease is lost on a busy machine, and two that lose it duel for ever.
        nodes(store, agents, 2, serve=serve, lease=10.0) as (left, right),
        watch(left.server, "loud", "ann") as ann,
        watch(right.server, "loud", "bob") as bob,
    ):
        said = await asyncio.gather(shout(ann, random.Random(1), "ann"), shout(bob, random.Random(2), "bob"))
        await ann.session.stop()
        log = await quiet(store, [left, right])
        judge = Judge(log)
        assert not judge.open
        assert hearing.appends > 20
        assert not hearing.violations
        assert hearing.refused > 0
        for receipts, name in zip(said, ("ann", "bob"), strict=True):
            assert len(receipts) == WORDS
            judge.agrees(receipts, name)
        for person in (ann, bob):
            await person.reached(EntryId.parse(log[-1].id))
            assert person.seen == log
        assert sum(isinstance(entry, Content) for entry in log) > 20


async def quiet(store: str, running: list[Node]) -> list[Any]:
    """The log, once nobody runs a turn in it any more."""
    while any(node.server.instance._runs for node in running):
        await asyncio.wait([task for node in running for task in node.server.instance._runs.values()])
    return await read_log(store, "loud")
