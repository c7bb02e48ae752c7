"""Balancer: one address for several instances, as plain as a balancer can be: it carries bytes and knows nothing of sockets or sessions.

Each connection goes to the next instance, and past those where nobody listens. That is all the kit asks of one: no stickiness, as any
instance can go on where another left off, and no health checks, as an instance that drains stops listening before it says so to anybody.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from kit.lab.line import Line


class Balancer(Line):
    """Dial its `url` or `port`. `carried` counts the connections to each port behind it; what a `Line` can suffer, it can suffer too."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(ports[0])
        self.carried: Counter[int] = Counter()
        self._ports = deque(ports)

    async def dial(self) -> tuple[StreamReader, StreamWriter]:
        for _ in range(len(self._ports)):
            port = self._ports[0]
            self._ports.rotate(-1)
            with suppress(OSError):
                ends = await asyncio.open_connection("127.0.0.1", port)
                self.carried[port] += 1
                return ends
        raise ConnectionRefusedError(f"nobody listens at any of the ports {sorted(self._ports)}")


@asynccontextmanager
async def balancer(urls: Sequence[str]) -> AsyncIterator[Balancer]:
    """One address, while the block runs, for the instances at these URLs of this machine (`ws://127.0.0.1:8123`)."""
    one = Balancer([int(url.rpartition(":")[2]) for url in urls])
    async with one.listening():
        yield one
