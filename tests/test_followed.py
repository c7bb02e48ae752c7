"""Followed: a log in which only this instance speaks is not read back; whatever is said elsewhere is heard all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kit.history import History
from kit.instance import Instance
from kit.lab.instances import Node
from kit.packets import AnyPacket, Content, Prompt, Takeover, stored
from tests.promises.support import Judge, count, counting, nodes, read_log, turn_of, watch

HOUR = 3600.0


async def thinking(history: History) -> AsyncIterator[AnyPacket]:
    """Says one piece, and then nothing: only a word can end its turn."""
    if not history.pieces:
        yield Content("1 ")
    await asyncio.Event().wait()


class Reads:
    """How many of the shared reads of an instance have come back. They wait for an hour, where they are not woken."""

    def __init__(self, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over = 0
        follow = instance.transcript.follow

        async def told(after: Any, block: float, heard: Any) -> Any:
            found = await follow(after, HOUR, heard)
            self.over += 1
            return found

        monkeypatch.setattr(instance.transcript, "follow", told)


async def left_out(node: Node, session: str = "s") -> None:
    """Until the shared read that is under way does not bring the log of the session."""
    while node.server.instance.ears.feeds[session].followed is not False:  # noqa: ASYNC110  # nobody is told
        await asyncio.sleep(0.005)


async def test_what_only_this_instance_says_is_not_read_back(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(store, counting(60, 300), 1) as (one,), watch(one.server, "s") as ann:
        reads = Reads(one.server.instance, monkeypatch)
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 5)
        await left_out(one)
        before = reads.over
        assert (await ann.ended(turn)).reason == "done"
        assert reads.over == before
        assert ann.text() == count(60)


async def test_p5_a_stop_from_elsewhere_is_heard_though_the_log_is_not_read(store: str) -> None:
    """The store tells of each word; the lease of ten minutes would tell it far too late."""
    async with (
        nodes(store, thinking, 2, lease=600.0) as (one, other),
        watch(one.server, "s") as ann,
        watch(other.server, "s", "bob") as bob,
    ):
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 1)
        await left_out(one)
        assert (await bob.session.stop()).status == "applied"
        assert (await ann.ended(turn)).reason == "stopped"
        assert (await bob.ended(turn)).reason == "stopped"
        Judge(await read_log(store, "s"))


async def test_a_word_of_which_the_store_kept_no_note_is_heard_when_the_lease_is_renewed(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps a few hundred for a shard: who was held up misses some."""
    async with nodes(store, thinking, 2) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 1)
        await left_out(one)

        async def missed(*_: object) -> None: ...

        monkeypatch.setattr(one.server.instance.ears, "_told_around", missed)
        await bob.session.stop()
        assert (await ann.ended(turn)).reason == "stopped"


async def test_who_is_silent_hears_another_who_speaks_elsewhere(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn is run here, but so is one there: nobody is alone, and both follow the log."""
    agents = {"a": thinking, "b": counting(40, 200)}
    async with nodes(store, agents, 2) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        Reads(one.server.instance, monkeypatch)
        a = turn_of(await ann.session.prompt("go", to="a"), "a")
        await bob.pieces(a, 1)
        await left_out(one)
        b = turn_of(await bob.session.prompt("go", to="b"), "b")
        for each in (ann, bob):
            assert (await each.ended(b)).reason == "done"
            assert each.text(b) == count(40)
        Judge(await read_log(store, "s"))


async def test_whose_turn_was_lost_in_a_hole_follows_the_log_again(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run ends with what it knew of the log; what another instance says from then on comes without being asked for."""
    async with nodes(store, thinking, 1, lease=600.0) as (one,), watch(one.server, "s") as ann:
        Reads(one.server.instance, monkeypatch)
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 1)
        await left_out(one)
        instance = one.server.instance
        transcript = instance.transcript
        log = (await transcript.open("s")).log
        pipe = transcript.store.redis.pipeline(transaction=True)
        pipe.xadd(log.stream, {"f": stored(Takeover(turn=turn, by="x", from_="x")), "prev": "1-1"}, "2-0")
        pipe.xadd(log.stream, {"f": stored(Prompt(text="go on", to="agent", from_="bob")), "prev": "2-0"}, "3-0")
        pipe.xtrim(log.stream, minid="3-0", approximate=False)
        await pipe.execute()
        await instance.ears.feeds["s"].catch_up()
        await ann.until(lambda w: w.gaps)
        await ann.until(lambda w: w.log and w.log[-1].id == "3-0")
        while instance._runs:  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0.005)
        await transcript.store.redis.xadd(log.stream, {"f": stored(Content("2 ", turn="3-0/agent", from_="agent", n=1))}, "3-1")
        await ann.pieces("3-0/agent", 1)


async def test_every_shard_is_followed_at_the_same_time(store: str) -> None:
    """With many shards, too: one that waited for a connection would hear nothing meanwhile."""
    async with nodes(store, counting(3), 1, shards=40) as (one,), watch(one.server, "s") as ann:
        pool = one.server.instance.transcript.store.ears.connection_pool
        while len(pool._in_use_connections) < 40:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        assert (await ann.ended(turn_of(await ann.session.prompt("go")))).reason == "done"
