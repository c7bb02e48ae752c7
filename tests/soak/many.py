"""Many: a thousand live sessions on one instance for minutes: memory is flat, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import psutil

from kit.client import connect
from kit.history import History
from kit.lab.processes import Process, processes
from kit.packets import AnyPacket, Content, End, Gap, Packet

EACH = 20.0
"""Seconds of a turn; then the next one is asked for."""
PIECES = 20
KEEP = 150
"""Entries in a log, of which an instance knows and reads what it holds: full after seven turns, and only then is memory looked at."""


async def slow(history: History) -> AsyncIterator[AnyPacket]:
    """A piece a second."""
    for i in range(history.pieces + 1, PIECES + 1):
        await asyncio.sleep(EACH / PIECES)
        yield Content(f"{i} ")


async def many_sessions(store: str, sessions: int, seconds: float) -> bool:
    """Print what was seen; whether memory stayed flat. Raises AssertionError where an answer is not exact."""
    async with processes("tests.soak.many:slow", 1, store=store, keep=KEEP) as (server,):
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(_talk(server, f"many-{i}", until, i * EACH / sessions)) for i in range(sessions)]
            measured = await tasks.create_task(_memory(psutil.Process(server.process.pid), until))
        turns = sum(task.result() for task in talking)
    warm, last = max(measured[: len(measured) // 3]), max(measured[-len(measured) // 3 :])
    print(f"{sessions} sessions for {seconds:.0f} s, {KEEP} entries kept of each: {turns} answers, each exact")
    print(f"  memory, from when the logs were full: {warm / 2**20:.0f} MB, then {last / 2**20:.0f} MB")
    return last <= 1.1 * warm + (8 << 20)


async def _memory(process: psutil.Process, until: float) -> list[int]:
    """What the instance occupies, once the logs are full."""
    await asyncio.sleep(min((KEEP / PIECES + 2) * EACH, (until - time.monotonic()) / 2))
    seen = []
    while time.monotonic() < until:
        seen.append(int(process.memory_info().rss))
        await asyncio.sleep(1.0)
    return seen


async def _talk(server: Process, session: str, until: float, delay: float) -> int:
    """One turn after the other; gives how many."""
    await asyncio.sleep(delay)
    turns = 0
    async with connect(server.url, session=session, token=server.token) as own:
        while time.monotonic() < until:
            asked = asyncio.create_task(own.prompt("go"))
            text = ""
            async for entry in own:
                assert not isinstance(entry, Gap), f"{session}: {entry}"
                text += entry.text if isinstance(entry, Content) else ""
                if isinstance(entry, Packet) and isinstance(entry, End):
                    break
            assert (await asked).status == "applied"
            assert text == "".join(f"{i} " for i in range(1, PIECES + 1)), f"{session}: {text!r}"
            turns += 1
    return turns
