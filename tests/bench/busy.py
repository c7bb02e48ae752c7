"""Busy: an instance on a daemon thread, as in a notebook's kernel, while the main thread is a cell that sleeps, loops, or holds the GIL."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable

from kit.server import serve
from tests.bench.child import say
from tests.bench.full import agent


def main(seconds: float) -> None:
    """Serve; at each line on stdin be busy in another way, and print when that began and ended."""
    sys.setswitchinterval(0.0005)  # as kit.lab.start does
    ready = threading.Event()
    threading.Thread(target=lambda: asyncio.run(_serve(ready)), daemon=True).start()
    ready.wait()
    for busy in (_sleep, _loop, _hold):
        if not sys.stdin.readline():
            return
        begin = time.monotonic()
        busy(seconds)
        say(began=begin, ended=time.monotonic())
    sys.stdin.read()


async def _serve(ready: threading.Event) -> None:
    async with serve(agent, store=None, join=False) as server:
        say(url=server.url, token=server.token("bench"))
        ready.set()
        await asyncio.Event().wait()


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _loop(seconds: float) -> None:
    until, n = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        n += 1


def _hold(seconds: float) -> None:
    """`sum` of a range is one call in C: no other thread runs before it returns."""
    began = time.monotonic()
    sum(range(10_000_000))
    sum(range(int(10_000_000 * seconds / (time.monotonic() - began))))


BUSY: dict[str, Callable[[float], None]] = {"sleeps": _sleep, "loops in Python": _loop, "holds the GIL in C": _hold}

if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
