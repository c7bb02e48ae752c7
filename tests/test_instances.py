"""Instances: stopped, frozen, asked to leave and started cold; whatever happens to one, the other goes on."""

from __future__ import annotations

import asyncio

import pytest
from websockets.exceptions import ConnectionClosed

from kit.lab.finish import is_foreign
from kit.lab.instances import Node, instances
from kit.packets import Takeover
from kit.transcript import Transcript
from tests.promises.support import Judge, counting, freeze_past_its_lease, read_log, said, turn_of, watch
from tests.support import visit

TO = 60


async def test_a_stopped_one_hands_nothing_over(store: str) -> None:
    """Its turn waits for the lease, and then the other goes on: one takeover, by somebody."""
    async with instances(counting(TO), 2, store=store, lease=1.0) as (one, other), watch(other.server, "s", "bob") as bob:
        async with watch(one.server, "s") as ann:
            turn = turn_of(await ann.session.prompt("go"))
            await bob.pieces(turn, 10)
            await one.stop()
        assert await leases(other) == [turn]
        await bob.ended(turn)
        assert (bob.text(turn), [e.by is None for e in bob.log if isinstance(e, Takeover)]) == (said(bob.log), [False])
        Judge(await read_log(store, "s"))


async def test_one_that_leaves_hands_its_turns_over(store: str) -> None:
    """At once: the lease would have lasted ten minutes. Its clients are told to come back."""
    async with instances(counting(TO, pace=50), 2, store=store, lease=600.0) as (one, other), watch(other.server, "s", "bob") as bob:
        async with visit(one.server, "s") as socket, watch(one.server, "s") as ann:
            turn = turn_of(await ann.session.prompt("go"))
            await bob.pieces(turn, 10)
            await one.leave()
            with pytest.raises(ConnectionClosed) as closed:
                await socket.until("never")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        await bob.ended(turn)
        assert [e.by is None for e in bob.log if isinstance(e, Takeover)] == [True, False]


async def test_a_frozen_one_wakes_up_and_is_refused(store: str) -> None:
    """Past its lease another goes on; what it was about to say when it froze never lands, and it serves on."""
    async with instances(counting(300), 2, store=store, lease=0.2) as (one, other), watch(other.server, "s", "bob") as bob:
        async with watch(one.server, "s") as ann:
            turn = turn_of(await ann.session.prompt("go"))
            await freeze_past_its_lease(one, turn, ann, bob)
            assert ann.log == bob.log
        Judge(await read_log(store, "s"))


async def test_a_cold_start_keeps_the_port_and_nothing_else(store: str) -> None:
    """A client that dials the same address finds an instance that reads everything anew."""
    async with instances(counting(5), 1, store=store) as (one,), watch(one.server, "s") as ann:
        await ann.ended(turn_of(await ann.session.prompt("go")))
        before, url = one.server, one.url
        await one.stop()
        assert not one.running
        await one.start()
        assert (one.url, one.server is before, one.server.instance.ears.feeds) == (url, False, {})
        await ann.ended(turn_of(await ann.session.prompt("again")))
        assert ann.gaps == []


async def test_a_connection_ends_at_its_maximum_duration() -> None:
    """The options go to `serve`."""
    async with instances(counting(5), 1, max_duration=0.05) as (one,), visit(one.server, "s") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.until("never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_what_keeps_one_from_starting_is_raised() -> None:
    """And nothing is left over of the one that did start."""
    with pytest.raises(OSError, match="in use"):
        async with instances(counting(5), 1) as (one,), instances(counting(5), 2, port=one.server.port):
            pytest.fail("two on one port")
    assert all(is_foreign(task) for task in asyncio.all_tasks())


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
async def test_a_start_that_is_cancelled_leaves_nothing(steps: int) -> None:
    """An interrupted cell: nobody has that instance, so nobody could end it."""
    async with instances(counting(5), 1) as (one,):
        await one.stop()
        starting = asyncio.create_task(one.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert all(is_foreign(task) for task in asyncio.all_tasks())


async def test_an_end_that_is_cancelled_leaves_nothing() -> None:
    """Nor for whoever is interrupted twice."""
    running = asyncio.Event()

    async def use() -> None:
        async with instances(counting(5), 2):
            running.set()
            await asyncio.Event().wait()

    using = asyncio.create_task(use())
    await running.wait()
    for _ in range(2):
        using.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await using
    assert all(is_foreign(task) for task in asyncio.all_tasks())


async def leases(node: Node) -> list[str]:
    """The turns that somebody holds a lease of."""
    transcript: Transcript = node.server.instance.transcript
    turns = await transcript.open_turns(0)
    return [turn for (_, turn), left in zip(turns, await transcript.time_left(turns), strict=True) if left > 0]
