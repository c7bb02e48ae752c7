"""Slots: the cap is hard, places are handed out in order, and a server keeps to it over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.auth import Identity
from kit.client import Backoff, connect
from kit.server import Server, serve
from kit.slots import Slot, Slots
from tests.support import UPGRADE, Counting, bearer, request, visit


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# ---- the class ----


def test_so_many_come_in_and_the_next_are_told_in_order(clock: Clock) -> None:
    """Two a slot: two now, two in the next one, two in the one after."""
    clock.now = 0.03
    slots = Slots(2, clock)
    assert [slots.take() for _ in range(6)] == [Slot(0, 0), Slot(0, 0), Slot(1, 70), Slot(1, 70), Slot(2, 170), Slot(2, 170)]
    clock.now = 0.1
    assert [slots.take() for _ in range(3)] == [Slot(1, 0), Slot(1, 0), Slot(3, 200)]


def test_who_was_told_and_never_comes_costs_nothing(clock: Clock) -> None:
    """Its place is anybody's; and what was told long ago is forgotten."""
    slots = Slots(1, clock)
    assert [slots.take().number for _ in range(4)] == [0, 1, 2, 3]
    clock.now = 0.1
    assert slots.take().wait == 0
    clock.now = 60.0
    assert [slots.take() for _ in range(2)] == [Slot(600, 0), Slot(601, 100)]


def test_a_place_given_back_is_free_and_only_while_its_slot_lasts(clock: Clock) -> None:
    slots = Slots(1, clock)
    slots.give_back(slots.take())
    early = slots.take()
    assert early.wait == 0
    clock.now = 0.1
    assert slots.take().wait == 0
    slots.give_back(early)
    assert slots.take().wait > 0


@given(st.integers(1, 5), st.lists(st.floats(0.0, 0.3), min_size=1, max_size=80), st.booleans())
def test_no_slot_gets_more_than_its_share(size: int, steps: list[float], obedient: bool) -> None:
    """Whoever comes whenever, and whether or not the told ones come when they were told."""
    clock = Clock()
    slots = Slots(size, clock)
    due: list[float] = []
    let_in: Counter[int] = Counter()
    while steps or due:
        is_told = due and (not steps or due[0] <= clock.now + steps[0])
        clock.now = due.pop(0) if is_told else clock.now + steps.pop(0)
        slot = slots.take()
        if slot.wait == 0:
            let_in[round(clock.now * 1000) // 100] += 1
        elif obedient:
            due = sorted([*due, clock.now + slot.wait / 1000])
    assert max(let_in.values()) <= size


def test_a_shutdown_is_spread_over_slots() -> None:
    assert list(Slots(2).spread(5)) == [0, 0, 100, 100, 200]


# ---- the server ----


@pytest.fixture
def agent() -> Counting:
    return Counting()


async def test_two_hundred_real_connections_keep_to_the_cap() -> None:
    """Twenty in each 100 ms of the server's clock, all in the end; by their own backoff these clients would take minutes."""
    times: list[float] = []

    def clock() -> float:
        times.append(time.monotonic())
        return times[-1]

    async with serve(Counting(), admit=20) as server, AsyncExitStack() as stack:
        server.slots = slots = Recorded(20, clock)
        backoff = [Backoff(base=600, limit=600) for _ in range(200)]
        options = {"token": server.token("ann"), "session": "demo", "open_timeout": 30}
        sessions = [await stack.enter_async_context(connect(server.url, backoff=b, **options)) for b in backoff]
        async with asyncio.timeout(30):
            await sessions[0].prompt("hi")
            await asyncio.gather(*(anext(aiter(session)) for session in sessions))
        assert len(server.connections) == 200
        let_in = Counter(round(at * 1000) // 100 for at, slot in zip(times, slots.given, strict=True) if slot.wait == 0)
    assert sum(let_in.values()) == 200
    assert max(let_in.values()) <= 20
    assert len(let_in) >= 10


class Recorded(Slots):
    """Slots that remember what they gave."""

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        super().__init__(size, clock)
        self.given: list[Slot] = []

    def take(self) -> Slot:
        slot = super().take()
        self.given.append(slot)
        return slot


async def test_one_too_many_is_told_when_to_come(agent: Counting, clock: Clock) -> None:
    """503 in whole seconds (RFC 9110) and in ms; nothing is looked at, so a ticket is not spent and a wrong token not told."""
    async with serve(agent, origins=["https://app.example"]) as server:
        server.slots = Slots(1, clock)
        async with visit(server):
            ticket = await server.door.ticket(Identity("ann", "*", time.time() + 60), "s", "https://app.example")
            page = {**UPGRADE, "Origin": "https://app.example", "Sec-WebSocket-Protocol": f"kit.v1, ticket.{ticket}"}
            asked = {
                name: await request(server, "/s/s", head) for name, head in [("page", page), ("wrong", bearer("no")), ("none", UPGRADE)]
            }
            assert [reply.status for reply in asked.values()] == [503] * 3
            assert [reply.headers["retry-after-ms"] for reply in asked.values()] == ["100", "200", "300"]
            assert {reply.headers["retry-after"] for reply in asked.values()} == {"1"}
            assert [reply.body for reply in asked.values()] == [f"too many at once: come back in {ms} ms\n" for ms in (100, 200, 300)]
            clock.now = 0.1
            assert (await request(server, "/s/s", page)).status == 101


async def test_strangers_take_nobodys_place(agent: Counting, clock: Clock) -> None:
    """Who is refused for another reason gives the place back, and so does who asks for a ticket without any."""
    async with serve(agent) as server:
        server.slots = Slots(1, clock)
        strangers = [await request(server, target, bearer("no")) for target in ["/s/s", "/nowhere", "/s/s"]]
        assert [reply.status for reply in strangers] == [401, 404, 401]
        assert (await request(server, "/ticket?session=s", bearer(server.token("ann")), method="POST")).status == 200
        async with visit(server):
            assert (await request(server, "/s/s", bearer("no"))).status == 503
            assert (await request(server, "/ticket?session=s", bearer(server.token("ann")), method="POST")).status == 200


async def test_an_orderly_shutdown_names_a_slot_for_each(agent: Counting) -> None:
    """The closes with 1012: so many may come back at once, so many after 100 ms, and so on."""
    async with AsyncExitStack() as stack:
        async with serve(agent, admit=4) as server:
            server.slots = Slots(10)  # to come in; the closes are spread by what the server was given
            visitors = [await stack.enter_async_context(visit(server)) for _ in range(10)]
            server.slots = Slots(4)
            closed = [asyncio.create_task(visitor.closed()) for visitor in visitors]
        assert sorted([await close for close in closed]) == sorted([(1012, "0")] * 4 + [(1012, "100")] * 4 + [(1012, "200")] * 2)


async def test_the_default_asks_nobody_to_wait(agent: Counting) -> None:
    """As many handshakes as one loop manages in 100 ms, and more, are let in."""

    async def knock(server: Server) -> int:
        return (await request(server, "/s/s", bearer(server.token("ann")))).status

    async with serve(agent) as server:
        assert Counter(await asyncio.gather(*(knock(server) for _ in range(200)))) == {101: 200}
