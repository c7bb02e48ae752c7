"""Takeovers: how soon another process goes on when one was killed or left, and that one that wakes up late says nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kit.client import connect
from kit.history import History
from kit.lab.chaos import Witness, witness
from kit.lab.processes import Process, processes
from kit.packets import AnyPacket, Content, EntryId, Packet, Stop
from tests.promises.support import Judge
from tests.soak.stories import LEASE


async def talker(history: History) -> AsyncIterator[AnyPacket]:
    """Counts without end, 200 pieces a second, from where it stopped."""
    i = history.pieces
    while True:
        i += 1
        await asyncio.sleep(0.005)
        yield Content(f"{i} ")


@asynccontextmanager
async def _speaking(owner: Process, other: Process, session: str) -> AsyncIterator[Witness]:
    """A turn that `owner` runs, seen from `other`; in the end it is stopped, and its log is exact."""
    async with witness(other.url, session, other.token) as seen:
        async with connect(owner.url, session=session, token=owner.token) as ann:
            await ann.prompt("go")
        await seen.counted(20)
        yield seen
        stop = await seen.session.say(Stop())
        await seen.until(lambda w: [e for e in w.seen if getattr(e, "reason", "") == "stopped"])
        assert stop.status == "applied"
        Judge(seen.seen)  # type: ignore[arg-type]  # nothing was lost, so there is no gap


async def _next(seen: Witness, epoch: int) -> None:
    def went_on(w: Any) -> bool:
        return any(isinstance(e, Packet) and EntryId.parse(e.id).epoch > epoch for e in w.seen)

    await seen.until(went_on)


async def after_kills(store: str, times: int) -> list[float]:
    """Seconds from `kill -9` of the owner to the next piece."""
    took = []
    async with processes("tests.soak.takeovers:talker", 2, store=store, lease=LEASE) as (owner, other):
        for i in range(times):
            async with _speaking(owner, other, f"kill-{i}") as seen:
                began = time.monotonic()
                owner.kill()
                await _next(seen, 1)
                took.append(time.monotonic() - began)
            await owner.start()
    return took


async def after_leaving(store: str, times: int) -> list[float]:
    """Seconds from SIGTERM to the next piece, with a lease that would take much longer."""
    took = []
    async with processes("tests.soak.takeovers:talker", 2, store=store, lease=20.0) as (owner, other):
        for i in range(times):
            async with _speaking(owner, other, f"leave-{i}") as seen:
                began = time.monotonic()
                leaving = asyncio.create_task(owner.leave())
                await _next(seen, 1)
                took.append(time.monotonic() - began)
                await leaving
            await owner.start()
    return took


async def zombies(store: str, times: int) -> int:
    """Freeze the owner until another has taken over, let it wake up, and look that the log has no word or piece of it."""
    async with processes("tests.soak.takeovers:talker", 2, store=store, lease=LEASE) as (owner, other):
        for i in range(times):
            async with _speaking(owner, other, f"zombie-{i}") as seen:
                owner.freeze()
                await _next(seen, 1)
                owner.thaw()
                await seen.counted(seen.count + 20)  # the judge finds any ordinal that comes twice
    return times
