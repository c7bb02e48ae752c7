"""Line: a TCP proxy on loopback that is as bad as you make it: long, slow, cut, or silent.

Loopback answers at once and never fails, so there every design looks good. Dial the line's `url` in place of the server's (an instance's
or a store's), and do to it what networks do. What TCP promises holds here too: of a connection that lives, no byte is lost or comes twice,
and none overtakes another. A line loses connections, and time.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import Queue, StreamReader, StreamWriter, Task
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from kit.ending import end, finish, stop_listening

PIECE = 1 << 16
"""Bytes that are carried at a time."""
UNDER_WAY = 1024
"""Pieces under way in one direction; then the sender is made to wait, as by a network that is full."""


class _Connection:
    """A client's connection: the two ends, and what has happened to it."""

    def __init__(self, back: StreamWriter, *, shut: bool) -> None:
        self.back, self.forth = back, back  # until the server has been dialled
        self.passes = asyncio.Event()
        self.passes.set()
        self.shut = shut
        self.lingers = False

    def abort(self) -> None:
        """Both ends lose it, without what was under way."""
        self.back.transport.abort()
        self.forth.transport.abort()


class Line:
    """Dial its `url` or `port`. `to` is the port behind it. At any time you may set

    `delay` (seconds one way), `jitter` (up to so many seconds more, by chance) and `rate` (bytes per second, of each connection and way).
    It counts `dials`, `bytes` (in at both ends), and `trips`: when each round trip began (the loop's clock).
    """

    def __init__(
        self,
        to: int,
        delay: float = 0.0,
        jitter: float = 0.0,
        rate: float | None = None,
        setup: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        self.to, self.delay, self.jitter, self.rate = to, delay, jitter, rate
        self.url, self.port, self.closed = "", 0, False
        self.dials, self.bytes = 0, 0
        self.trips: list[float] = []
        self.tasks: dict[Task[Any], _Connection] = {}
        self._setup, self._rng = setup, rng or random.Random()
        self._flows = asyncio.Event()
        self._flows.set()
        self._answered = True
        self._to_shut = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Accept, at a `port` of its own, while the block runs."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        try:
            yield
        finally:
            self.closed = True
            await finish(self._end(server))

    async def _end(self, server: asyncio.Server) -> None:
        await stop_listening(server)
        await end(self.tasks)

    # ---- faults ----

    def cut(self) -> None:
        """Both ends lose every connection, at once and without a word."""
        for task, connection in self.tasks.items():
            connection.abort()
            task.cancel()

    def vanish(self) -> None:
        """Half-open: nothing of the connections that are open comes through any more, not even a close, and nobody is told.

        That is what a router does that forgot them, or a host that lost its power. A new connection passes.
        """
        for connection in self.tasks.values():
            connection.passes.clear()

    def appear(self) -> None:
        """What vanished comes through after all: TCP has kept it, and sent it again."""
        for connection in self.tasks.values():
            connection.passes.set()

    def linger(self) -> None:
        """Duplicate: the clients lose their connections, and the server does not hear of it; so it has the old one beside the new."""
        for connection in self.tasks.values():
            connection.lingers = True
            connection.back.transport.abort()

    def shut(self, connections: float = 1) -> None:
        """Accept, then close: so many of the next connections end right after the server's answer to the handshake."""
        self._to_shut = int(connections)

    def stall(self) -> None:
        """Slow reader: nothing that the server sends is read any more, so that its buffers fill."""
        self._flows.clear()

    def flow(self) -> None:
        """It is read again."""
        self._flows.set()

    # ---- carrying ----

    def ports(self) -> set[int]:
        """The ports of this machine that the line itself uses."""
        return {self.port, *(c.forth.get_extra_info("sockname")[1] for c in self.tasks.values())}

    def accept(self, near: StreamReader, back: StreamWriter) -> None:
        if self.closed:  # it was on its way to us when the block ended
            back.transport.abort()
            return
        connection = _Connection(back, shut=self._to_shut > 0)
        self.dials += 1
        self._to_shut -= connection.shut
        task = asyncio.create_task(self._connect(near, connection))
        self.tasks[task] = connection
        task.add_done_callback(self._over)

    def _over(self, task: Task[None]) -> None:
        """Whatever ended it: a task that is cancelled before its first step closes nothing itself."""
        self.tasks.pop(task).back.close()

    async def dial(self) -> tuple[StreamReader, StreamWriter]:
        """A connection to what is behind the line; raises OSError where nobody listens."""
        return await asyncio.open_connection("127.0.0.1", self.to)

    async def _connect(self, near: StreamReader, connection: _Connection) -> None:
        """Carry one connection until both of its ends have closed it."""
        try:
            far, connection.forth = await self.dial()
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(near, connection.forth, connection, up=True))
                ways.create_task(self._carry(far, connection.back, connection, up=False))
        except OSError:
            pass  # where nobody listens, the client sees its connection close
        finally:
            connection.forth.close()

    async def _carry(self, source: StreamReader, sink: StreamWriter, connection: _Connection, *, up: bool) -> None:
        clock, pieces = asyncio.get_running_loop().time, Queue[tuple[float, bytes]](UNDER_WAY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take(source, pieces, up=up))
            piece = b"more"
            while piece:
                due, piece = await pieces.get()
                await asyncio.sleep(due - clock())
                await connection.passes.wait()
                self._answered |= not up
                if connection.shut and not up:
                    head, end_of_head, _ = piece.partition(b"\r\n\r\n")
                    piece = head + end_of_head
                if not sink.is_closing():
                    sink.write(piece)
                    with suppress(ConnectionError):  # the sink's own reader sees it too
                        await sink.drain()
                if connection.shut and not up:
                    break
            if not (up and connection.lingers):
                sink.close()
            if connection.shut:
                connection.forth.transport.abort()

    async def _take(self, source: StreamReader, pieces: Queue[tuple[float, bytes]], *, up: bool) -> None:
        # The kernel has shaken hands already, and that can't be slowed down from here: the first bytes wait for it instead.
        clock, before, piece = asyncio.get_running_loop().time, self._setup if up else 0, b"more"
        while piece:
            piece = await self._read(source)
            if not up:
                await self._flows.wait()
            if piece and up and self._answered:
                self._answered, now = False, clock()
                self.trips += [now + n * 2 * self.delay for n in range(before + 1)]
            self.bytes += len(piece)
            due = clock() + (2 * before + 1) * self.delay + self._rng.uniform(0, self.jitter)
            await pieces.put((due, piece))  # who is due earlier than the one before waits in the queue: none overtakes another
            before = 0

    async def _read(self, source: StreamReader) -> bytes:
        """The next piece, as slowly as the line is; b"" at the end, however that came."""
        try:
            piece = await source.read(PIECE if self.rate is None else max(1, min(PIECE, int(self.rate / 20))))
        except ConnectionError:
            return b""  # the other end sees a close
        if self.rate is not None:
            await asyncio.sleep(len(piece) / self.rate)
        return piece


@asynccontextmanager
async def line(
    to: str | int,
    *,
    delay: float = 0.0,
    jitter: float = 0.0,
    rate: float | None = None,
    setup: int = 0,
    rng: random.Random | None = None,
) -> AsyncIterator[Line]:
    """A line to a URL (`ws://127.0.0.1:8123`, `redis://127.0.0.1:6379/0`) or port of this machine, while the block runs.

    `setup`: round trips before the first byte of a connection: 1 for TCP's handshake, and 1 for that of TLS 1.3 (RFC 8446 section 2).
    """
    address = urlsplit(to if isinstance(to, str) else f"ws://127.0.0.1:{to}")
    wire = Line(address.port or 0, delay, jitter, rate, setup, rng)
    async with wire.listening():
        wire.url = address._replace(netloc=f"127.0.0.1:{wire.port}").geturl()
        yield wire
