"""P8: bounded memory for a reader that stops reading; the others don't notice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import Subprotocol
from websockets.asyncio.client import connect

from kit.connection import BEHIND, HELD, Connection, _begin
from kit.history import History
from kit.lab.instances import Serve
from kit.log import Stored
from kit.packets import MAX_FRAME, AnyPacket, Content, EntryId, Prompt, Typing, encode
from kit.server import UNREAD
from kit.service import Service
from tests.promises.support import LEASE, Judge, Watcher, counting, nodes, read_log, turn_of, watch
from tests.support import both_servers, each_server, ref, visit

PIECE = 9_000
"""Characters in a piece: near what is joined at most, so that each is a packet."""
BOUND = BEHIND + 2 * MAX_FRAME
"""Bytes that may wait in a socket's buffer: what makes a reader slow, the entry that did, and what was being sent."""


def pouring(pieces: int, *, yielding: bool = False) -> Any:
    """An agent that says so many large pieces; `yielding`: one a loop step, as a model would."""

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        for i in range(history.pieces, pieces):
            yield Content(f"{i:08d}" + "x" * (PIECE - 8))
            if yielding:
                await asyncio.sleep(0.0005)

    return agent


class Buffers:
    """The largest that each socket's write buffer ever was; over ASGI that is two of them, the kit's queue and uvicorn's buffer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.largest = 0
        push, read_on, send = Connection.push, Connection._read_on, WebSocketsSansIOProtocol.send

        def pushing(connection: Connection, frames: Sequence[bytes], id: EntryId) -> bool:
            fast = push(connection, frames, id)
            self._look(connection)
            return fast

        async def reading(connection: Connection) -> None:
            await read_on(connection)
            self._look(connection)

        async def sending(protocol: WebSocketsSansIOProtocol, message: Any) -> None:
            await send(protocol, message)
            self.largest = max(self.largest, protocol.transport.get_write_buffer_size())

        monkeypatch.setattr(WebSocketsSansIOProtocol, "send", sending)
        monkeypatch.setattr(Connection, "push", pushing)
        monkeypatch.setattr(Connection, "_read_on", reading)

    def _look(self, connection: Any) -> None:
        self.largest = max(self.largest, connection.socket.waiting)


async def exactly_once(late: Any, log: list[Any]) -> None:
    """The plain client reads on, and gets each entry of the log once and in order."""
    for entry in log:
        frame = await late.until("prompt", "content", "end", "stop", "takeover")
        assert frame["id"] == entry.id


@both_servers
@pytest.mark.parametrize("yielding", [False, True], ids=["in bursts", "one by one"])
async def test_p8_a_reader_that_stops_reading_costs_one_buffer(
    store: str, serve: Serve, yielding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """18 MB pass it by, in bursts or one by one; its buffer stays bounded, the others get all, and it gets all when it reads again."""
    buffers = Buffers(monkeypatch)
    async with nodes(store, pouring(2000, yielding=yielding), 1, serve=serve) as (one,), visit(one.server, "s", name="slow") as slow:
        slow.socket.transport.pause_reading()
        async with watch(one.server, "s") as ann:
            turn = turn_of(await ann.session.prompt("pour"))
            await ann.ended(turn)
            assert len(one.server.connections) == 2
            assert buffers.largest <= BOUND
            slow.socket.transport.resume_reading()
            await exactly_once(slow, ann.log)
            assert ann.log == await read_log(store, "s")
            Judge(ann.log)


@each_server
async def test_p8_a_hundred_megabytes_pass_a_reader_that_stopped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is trimmed under it meanwhile, so memory stays flat; it is told of the gap, and gets what is kept."""
    buffers = Buffers(monkeypatch)
    turns, pieces = 40, 280
    async with (
        nodes(f"fake://{uuid4()}", pouring(pieces), 1, keep=2 * pieces, lease=10 * LEASE, serve=serve) as (one,),
        visit(one.server, "s", name="slow") as slow,
        watch(one.server, "s") as ann,
    ):
        await poured(ann, 2)
        slow.socket.transport.pause_reading()
        await poured(ann, 4)
        before = psutil.Process().memory_info().rss
        for _ in range(turns - 6):
            ann.seen.clear()
            ann.begin = 0
            await poured(ann, 1)
        grown = psutil.Process().memory_info().rss - before
        print(f"{turns * pieces * PIECE / 1e6:.0f} MB passed; memory grew by {grown / 1e6:.1f} MB, largest buffer {buffers.largest} bytes")
        assert buffers.largest <= BOUND
        assert grown < 20e6  # of 86 MB; the log itself keeps 5 MB, and the process holds this client, too
        slow.socket.transport.resume_reading()
        assert (await slow.until("gap"))["reason"] == "trimmed"
        first, *rest = await read_log(one.store.url, "s")
        await slow.until("prompt", id=first.id)  # what the buffers held of an earlier beginning comes before, and is trimmed by now
        await exactly_once(slow, rest)


async def poured(person: Watcher, turns: int) -> None:
    for _ in range(turns):
        await person.ended(turn_of(await person.session.prompt("pour")))


@both_servers
async def test_p8_what_is_held_for_a_reader_that_stopped_is_bounded_in_bytes(store: str, serve: Serve) -> None:
    """A log of large words: 200 entries, as many as are read at once, would be 12 MB for each that stopped. And all of it comes."""
    entries = [Stored(EntryId(i, 0), b"x" * 50_000, EntryId(i - 1, 0)) for i in range(1, 201)]
    held = _begin(entries)
    assert held == entries[: len(held)]
    assert HELD <= sum(len(entry.body) for entry in held) < HELD + 50_000
    async with nodes(store, counting(1), 1, serve=serve) as (one,), watch(one.server, "s") as ann:
        for _ in range(40):
            await ann.ended(turn_of(await ann.session.prompt("x" * 50_000)))
        async with visit(one.server, "s", name="late") as late:
            await exactly_once(late, ann.log)


@both_servers
@pytest.mark.parametrize("how", ["it is told more", "it is sent away", "its credentials run out", "the server goes"])
async def test_p8_a_reader_that_stopped_for_good_is_dropped(store: str, serve: Serve, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its buffer full, the libraries' pings and closes wait for it without end. Nothing is kept of it, its socket neither."""
    for module in ("kit.server", "kit.asgi"):
        monkeypatch.setattr(f"{module}.STALLED", 0.3 if how == "it is told more" else 60.0)
    lasts = {"max_duration": 1.0} if how == "it is sent away" else {}
    async with nodes(store, pouring(2000), 1, **lasts, serve=serve) as (one,):
        token = one.server.token("slow", ttl=2.0 if how == "its credentials run out" else 60.0)
        async with visit(one.server, "s", token=token) as slow:
            slow.socket.transport.pause_reading()
            (connection,) = one.server.connections
            await one.server.instance.say("s", Prompt(text="pour", ref=ref()), "ann")
            async with asyncio.timeout(20):
                if how == "the server goes":
                    while not connection.socket.waiting or connection in connection.feed.live:  # noqa: ASYNC110  # nobody tells
                        await asyncio.sleep(0.01)
                    await one.server.drain()
                while one.server.connections or lines(one.server):  # noqa: ASYNC110  # the same
                    await asyncio.sleep(0.01)
            slow.socket.transport.abort()


def lines(server: Service) -> list[Any]:
    """The server's ends of all connections to it."""
    return [line for line in psutil.Process().net_connections("tcp") if line.laddr.port == server.port and line.status == "ESTABLISHED"]


@both_servers
async def test_p8_the_others_do_not_wait(store: str, serve: Serve) -> None:
    """With ten readers that stopped, a turn takes hardly longer for the one who reads than with none."""
    async with nodes(store, pouring(300, yielding=True), 1, serve=serve) as (one,), watch(one.server, "s") as ann:
        alone = await timed(ann)
        async with asyncio.TaskGroup() as group:
            done = asyncio.Event()
            stopped = [group.create_task(stop_reading(one.server, done)) for _ in range(10)]
            while len(one.server.connections) < 11:
                await asyncio.wait(stopped, timeout=0.01)
            crowded = min([await timed(ann) for _ in range(3)])
            done.set()
        print(f"alone {alone * 1000:.0f} ms, beside ten that stopped reading {crowded * 1000:.0f} ms")
        assert crowded < 3 * alone + 0.2


async def stop_reading(server: Service, done: asyncio.Event) -> None:
    async with visit(server, "s", name="slow") as slow:
        slow.socket.transport.pause_reading()
        await done.wait()
        slow.socket.transport.abort()


async def timed(person: Watcher) -> float:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await poured(person, 1)
    return loop.time() - begin


@asynccontextmanager
async def stopped(server: Service) -> AsyncIterator[tuple[Any, Any]]:
    """Somebody who has stopped reading; gives the server's end of the line, and his."""
    async with visit(server, "s", name="slow") as slow:
        slow.socket.transport.pause_reading()
        (victim,) = [c for c in server.connections if c.identity.name == "slow"]
        transport = victim.socket.websocket.transport  # type: ignore[attr-defined]  # the server's sockets are `_Socket`s
        # What the system holds for a reader is not the server's memory; with little of it, the server's own buffer is what is seen.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        slow.socket.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        yield transport, slow.socket.transport
        slow.socket.transport.abort()


async def test_p8_typing_is_not_kept_for_a_reader_that_stopped(store: str) -> None:
    """What goes around the log is dropped for it: a person who types cannot fill the server's memory."""
    async with (
        nodes(store, pouring(1), 1) as (one,),
        visit(one.server, "s", name="x" * 4000) as ann,
        stopped(one.server) as (transport, _),
    ):
        largest, more = 0, 60  # so many that they would not fit, once it is slow
        while more:
            await ann.send({"type": "typing", "on": True})
            await ann.until("typing")
            largest = max(largest, transport.get_write_buffer_size())
            more -= largest > BEHIND
        assert largest <= BOUND


async def test_p8_nor_is_what_many_say_at_once(store: str) -> None:
    """Where a hundred are typing, all of it may arrive in one piece."""
    async with nodes(store, pouring(1), 1) as (one,), visit(one.server, "s") as ann, stopped(one.server) as (transport, _):
        transcript = one.server.instance.transcript
        frames = [encode(Typing(on=True, from_=f"{i:04d}" + "x" * 8000)) for i in range(100)]
        pipe = transcript.store.redis.pipeline(transaction=True)
        for frame in frames:
            pipe.xadd(transcript.around_key(0), {"f": b"s " + frame})
        await pipe.execute()
        names = {(await ann.until("typing"))["from"][:4] for _ in frames}
        assert len(names) == len(frames)
        assert BEHIND < transport.get_write_buffer_size() <= BOUND


async def test_p8_nor_are_answers_to_its_pings(store: str) -> None:
    """The library answers each at once: who pings and does not read is dropped."""
    ping = b"\x89\xfd" + bytes(4) + bytes(125)  # masked by nothing (RFC 6455 sections 5.2 and 5.5.2)
    async with nodes(store, counting(1), 1) as (one,), stopped(one.server) as (transport, theirs):
        largest = 0
        for _ in range(400):  # 50 MB, if it were let
            theirs.write(ping * 1000)
            await asyncio.sleep(0.001)
            largest = max(largest, transport.get_write_buffer_size())
            if transport.is_closing():
                break
        assert transport.is_closing()
        assert UNREAD / 2 < largest < 2 * UNREAD


async def test_p8_one_that_stopped_is_dropped_though_nothing_more_is_said(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less waits for it than makes a reader slow, and too much for the library's pings, which wait for the buffer."""
    monkeypatch.setattr("kit.server.STALLED", 2.0)
    async with (
        nodes(store, pouring(10), 1, beat=0.1) as (one,),
        watch(one.server, "s") as ann,
        stopped(one.server) as (transport, _),
    ):
        await poured(ann, 1)
        assert 32 * 1024 < transport.get_write_buffer_size() <= BEHIND
        async with asyncio.timeout(20):
            while len(one.server.connections) > 1:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)


async def test_p8_a_room_that_is_closed_waits_for_none_of_them(store: str) -> None:
    """The library would: until the reader's buffer is empty."""
    async with nodes(store, pouring(2000), 1) as (one,), watch(one.server, "s") as ann, AsyncExitStack() as stack:
        async with asyncio.timeout(None) as limit:
            async with one.server.opened("s", "127.0.0.1") as origin:
                slow = await stack.enter_async_context(_at(origin, one.server.token("slow")))
                slow.transport.pause_reading()
                await poured(ann, 1)
                while not any(c.socket.waiting for c in one.server.connections):  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.01)
                limit.reschedule(asyncio.get_running_loop().time() + 20)
            assert len(one.server.connections) == 1
        slow.transport.abort()


def _at(origin: str, token: str) -> connect:
    """A plain client of a room's own address."""
    headers = {"Authorization": f"Bearer {token}"}
    return connect(f"{origin.replace('http', 'ws', 1)}/s/s", additional_headers=headers, subprotocols=[Subprotocol("kit.v1")], proxy=None)
