"""Line: it is as long, as slow and as broken as it is told to be; and of a connection that lives, no byte is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from kit.lab.line import Line, line
from kit.store import open_store


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def echo(one_way: float = 0.0, setup: int = 0, **options: Any) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A line to a server that says everything again; the line, and a connection through it."""

    async def say_again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while piece := await reader.read(1 << 16):
                writer.write(piece)

    server = await asyncio.start_server(say_again, "127.0.0.1", 0)
    with closing(server):
        async with line(port_of(server), delay=one_way, setup=setup, **options) as wire:
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            with closing(writer):
                yield wire, reader, writer
    await others_have_ended()


async def until(true: Callable[[], bool]) -> None:
    """Turn the loop until it is so."""
    while not true():  # noqa: ASYNC110  # neither a line nor a plain server tells when it has read something
        await asyncio.sleep(0)


async def others_have_ended() -> None:
    """Return when this is the only task; a task that does not end is a test that does not end."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


async def test_a_line_is_as_long_as_it_says() -> None:
    """The first answer waits for the handshakes, the next one for its own round trip; never less, and both are counted."""
    clock = asyncio.get_running_loop().time
    async with echo(0.01, setup=2) as (wire, reader, writer):
        for trips in (3, 4):
            asked = clock()
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            assert clock() - asked >= (3 if trips == 3 else 1) * 0.02 - 0.001
            assert len(wire.trips) == trips
        assert wire.trips[1] - wire.trips[0] == pytest.approx(0.02)
        assert wire.bytes == 16


async def test_what_is_under_way_does_not_wait_for_each_other() -> None:
    """A line delays, it does not queue: a megabyte in many pieces takes as long as one byte, and stays in order."""
    clock, sent = asyncio.get_running_loop().time, b"".join(b"%07d " % n for n in range(1 << 17))
    async with echo(0.1) as (_, reader, writer):
        asked = clock()
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        assert clock() - asked < 2.0, "at most 64 KiB a round trip would take 3.2 s"


async def test_who_speaks_again_without_an_answer_begins_no_new_trip() -> None:
    """Also where the first words have arrived."""
    arrived = asyncio.Queue[bytes]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while piece := await reader.read(1 << 16):
                arrived.put_nowait(piece)

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    with closing(server):
        async with line(port_of(server), delay=0.001) as wire:
            _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            with closing(writer):
                for said in (b"one", b"two"):
                    writer.write(said)
                    assert await arrived.get() == said
                assert len(wire.trips) == 1
    await others_have_ended()


@pytest.mark.parametrize("one_way", [0.0, 0.005])
async def test_a_close_travels_behind_what_was_said_before_it(one_way: float) -> None:
    """Nothing of the last words is lost."""

    async def say_goodbye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"goodbye" * 1000)
        writer.close()

    server = await asyncio.start_server(say_goodbye, "127.0.0.1", 0)
    with closing(server):
        async with line(port_of(server), delay=one_way) as wire:
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            with closing(writer):
                assert await reader.read() == b"goodbye" * 1000


async def test_a_line_to_nobody_closes() -> None:
    """As a server does that has just died behind its load balancer."""
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = port_of(server)
    server.close()
    await server.wait_closed()
    async with line(port) as wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        with closing(writer):
            assert await reader.read() == b""


async def test_a_line_takes_its_connections_with_it() -> None:
    """When its block ends they close, though both of their ends would go on."""
    never = asyncio.Event()

    async def stay(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            writer.write(b"here")
            await never.wait()

    server = await asyncio.start_server(stay, "127.0.0.1", 0)
    with closing(server):
        async with line(port_of(server)) as wire:
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            assert await reader.readexactly(4) == b"here"
        assert await reader.read() == b""
    writer.close()
    never.set()
    await others_have_ended()


# ---- faults ----


async def test_a_cut_takes_both_ends_their_connection() -> None:
    """Abruptly: neither end can go on, what was under way is gone; and the line takes the next one."""
    async with echo() as (wire, reader, writer):
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        wire.delay = 5.0
        writer.write(b"under way")
        await until(lambda: wire.bytes == 6 + 6 + 9)
        wire.cut()
        assert await reader.read() == b""
        wire.delay = 0.0
        assert await said_again(wire, b"after") == b"after"
        assert wire.dials == 2


async def test_what_vanishes_is_told_to_nobody_and_appears_in_order() -> None:
    """Neither words nor a close come through; a new connection passes; when the old one appears again, nothing of it is lost."""
    heard = asyncio.Queue[bytes]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while piece := await reader.read(1 << 16):
                heard.put_nowait(piece)
            heard.put_nowait(b"closed")

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    with closing(server):
        async with line(port_of(server)) as wire:
            _, old = await asyncio.open_connection("127.0.0.1", wire.port)
            old.write(b"here ")
            assert await heard.get() == b"here "
            wire.vanish()
            old.write(b"lost?")
            old.close()
            _, new = await asyncio.open_connection("127.0.0.1", wire.port)
            new.write(b"another")
            assert await heard.get() == b"another"
            assert heard.empty()
            wire.appear()
            assert [await heard.get(), await heard.get()] == [b"lost?", b"closed"]
            new.close()
    await others_have_ended()


async def test_a_connection_that_lingers_is_gone_for_the_client_alone() -> None:
    """The server keeps it beside the new one and goes on talking to it, until the line is cut."""
    talking = list[asyncio.StreamWriter]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.append(writer)
        writer.write(b"hello")
        with closing(writer):
            with suppress(ConnectionError):
                await reader.read()
            talking.remove(writer)

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    with closing(server):
        async with line(port_of(server)) as wire:
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            assert await reader.readexactly(5) == b"hello"
            wire.linger()
            assert await reader.read() == b""
            writer.close()
            again, other = await asyncio.open_connection("127.0.0.1", wire.port)
            assert await again.readexactly(5) == b"hello"
            assert len(talking) == 2
            talking[0].write(b"to nobody")
            await talking[0].drain()
            wire.cut()
            await until(lambda: not talking)
            other.close()
    await others_have_ended()


async def test_a_shut_line_answers_the_handshake_and_closes() -> None:
    """So often as it is told: the client has seen its 101, and not one frame."""

    async def greet(socket: Any) -> None:
        await socket.send("hello")
        await socket.wait_closed()

    async with serve(greet, "127.0.0.1", 0) as server, line(next(iter(server.sockets)).getsockname()[1]) as wire:
        wire.shut(2)
        for _ in range(2):
            async with connect(wire.url, proxy=None) as socket:
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is None, "nothing was said, not even goodbye"
        async with connect(wire.url, proxy=None) as socket:
            assert await socket.recv() == "hello"


async def test_a_stalled_line_fills_the_servers_buffers() -> None:
    """The server feels a reader that does not read; when it flows again, every byte comes."""
    sent, much = asyncio.Event(), bytes(32 << 20)

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            writer.write(much)
            await writer.drain()
            sent.set()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    with closing(server):
        async with line(port_of(server)) as wire:
            wire.stall()
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            with closing(writer), pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await sent.wait()
            wire.flow()
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            with closing(writer):
                assert len(await reader.read()) == len(much)
    await others_have_ended()


async def test_a_throttled_line_takes_its_time() -> None:
    """2 KB at 20 KB/s take a tenth of a second; set free, it is as quick as before."""
    clock = asyncio.get_running_loop().time
    async with echo(rate=40_000.0) as (wire, reader, writer):
        took = []
        for rate in (20_000.0, None):  # both ways; halves of it at the same time
            wire.rate = rate
            asked = clock()
            writer.write(bytes(2000))
            assert await reader.readexactly(2000) == bytes(2000)
            took.append(clock() - asked)
        assert took[0] >= 0.14
        assert took[1] < took[0]


async def test_jitter_is_drawn_from_the_seed_and_overtakes_nobody() -> None:
    """Each piece takes a time of its own between `delay` and `delay + jitter`; what was sent first comes first."""
    clock, took = asyncio.get_running_loop().time, list[float]()
    async with echo(jitter=0.02, rng=random.Random(4)) as (_, reader, writer):
        for _ in range(6):
            asked = clock()
            writer.write(b"ping")
            await reader.readexactly(4)
            took.append(clock() - asked)
        for i in range(50):
            writer.write(b"%03d" % i)
            await asyncio.sleep(0)
        assert await reader.readexactly(150) == b"".join(b"%03d" % i for i in range(50))
    assert max(took) - min(took) > 0.005
    drawn = random.Random(4)
    assert took[0] >= drawn.uniform(0, 0.02) + drawn.uniform(0, 0.02)


async def test_a_line_to_a_store_keeps_its_url(real_store_url: str) -> None:
    """It stands before a store as before an instance; while it has vanished, a command waits."""
    async with line(real_store_url) as wire, open_store(wire.url) as store:
        assert wire.url == f"redis://127.0.0.1:{wire.port}/0"
        await store.redis.set("a", 1)
        wire.vanish()
        waiting = asyncio.create_task(store.redis.get("a"))
        async with open_store(real_store_url) as other:
            assert await other.redis.get("a") == b"1"
        assert not waiting.done()
        wire.appear()
        assert await waiting == b"1"


async def said_again(wire: Line, what: bytes) -> bytes:
    """What a new connection through the line gets back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    with closing(writer):
        writer.write(what)
        return await reader.readexactly(len(what))


async def test_a_connection_that_comes_as_the_block_ends_is_closed() -> None:
    """A client that dialled just then is not left with a line that nobody carries."""
    async with line(1) as wire:
        pass
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    with suppress(ConnectionError):
        assert await reader.read() == b""
    assert not wire.tasks
    writer.close()
    server.close()


async def test_a_connection_that_is_not_carried_yet_is_closed_with_the_block() -> None:
    """Its task is cancelled before its first step, and so has nothing of its own that closes it."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    with closing(server):
        async with line(port_of(server)) as wire:
            near, back = await asyncio.open_connection("127.0.0.1", port_of(server))
            wire.accept(near, back)
        assert back.transport.is_closing()
        await back.wait_closed()
