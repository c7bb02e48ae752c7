"""Delay: a TCP proxy on loopback that makes a line long: what goes in at one end comes out at the other `one_way` seconds later.

Loopback answers at once, so there a design that asks three times before it answers looks as good as one that asks once. Only distance is
simulated: nothing is lost, bandwidth has no bound, who closes one direction closes both, and a reader that stops reading is not felt.
"""

from __future__ import annotations

import asyncio
from asyncio import Queue, StreamReader, StreamWriter, Task
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

from kit.ending import end

Clock = Callable[[], float]


class Line:
    """A long line: dial its `port`. `trips`: when each round trip began (the loop's clock); `bytes`: how many came in, at both ends."""

    def __init__(self, to: int, one_way: float, setup: int) -> None:
        self.port, self.bytes = 0, 0
        self.trips: list[float] = []
        self.tasks: set[Task[Any]] = set()
        self._to, self._one_way, self._setup = to, one_way, setup
        self._answered = True

    async def accept(self, near: StreamReader, back: StreamWriter) -> None:
        """Carry one connection until both ends have closed it."""
        with closing(back), suppress(OSError):  # where nobody listens, the client sees its connection close
            far, forth = await asyncio.open_connection("127.0.0.1", self._to)
            with closing(forth):
                ways = {asyncio.create_task(way) for way in (self._carry(near, forth, up=True), self._carry(far, back, up=False))}
                self.tasks |= ways
                await asyncio.wait(ways)
                self.tasks -= ways

    async def _carry(self, source: StreamReader, sink: StreamWriter, *, up: bool) -> None:
        clock, pieces = asyncio.get_running_loop().time, Queue[tuple[float, bytes]]()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take(source, pieces, clock, up=up))
            piece = b"more"
            while piece:
                due, piece = await pieces.get()
                await asyncio.sleep(due - clock())
                sink.write(piece)
                self._answered |= not up
            sink.close()

    async def _take(self, source: StreamReader, pieces: Queue[tuple[float, bytes]], clock: Clock, *, up: bool) -> None:
        # The kernel has shaken hands already, and that can't be slowed down from here: the first bytes wait for it instead.
        before, piece = self._setup if up else 0, b"more"
        while piece:
            try:
                piece = await source.read(1 << 16)
            except ConnectionError:
                piece = b""  # cut: the other end sees a close
            if piece and up and self._answered:
                self._answered, now = False, clock()
                self.trips += [now + n * 2 * self._one_way for n in range(before + 1)]
            self.bytes += len(piece)
            pieces.put_nowait((clock() + (2 * before + 1) * self._one_way, piece))
            before = 0


@asynccontextmanager
async def delayed(to: int, one_way: float, *, setup: int = 2) -> AsyncIterator[Line]:
    """A line of `one_way` seconds to the port `to` of this machine, while the block runs.

    `setup`: round trips before the first byte of a connection: 1 for TCP's handshake, and 1 for that of TLS 1.3 (RFC 8446 section 2).
    """
    line = Line(to, one_way, setup)
    server = await asyncio.start_server(line.accept, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        await end(line.tasks)
