"""Saturated: so many sessions at once, each asking for as many tokens as can be said in about a second."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from tests.bench.arms import Arm
from tests.bench.child import Child

SIZE = 36
"""Characters of a token, so that the kit's frame of one token has 120 bytes."""


class Speed(NamedTuple):
    """Tokens a second, tokens a CPU second of the server's processes (a real store's own is not counted), and tokens a frame."""

    wall: float
    cpu: float
    joined: float


async def saturate(arm: Arm, server: Child, sessions: int, seconds: float, each: int | None = None, **what: bool) -> Speed:
    """Ask for more and more, until an answer takes at least half of `seconds`; that one counts. `each`: one answer, of so many tokens."""
    names = [f"full-{sessions}-{i}" for i in range(sessions)]
    taps = [await arm.dialect.dial(server, name) for name in names]
    try:
        total, once, each = 0, each is not None, each or max(1, 1000 // sessions)
        while True:
            frames, cpu, began = sum(tap.frames for tap in taps), server.cpu(), time.monotonic()
            for name, tap in zip(names, taps, strict=True):
                await arm.dialect.ask(server, tap, name, tokens=each, size=SIZE, **what)
            total += each
            await asyncio.gather(*(tap.reach(total) for tap in taps))
            took, used = time.monotonic() - began, server.cpu() - cpu
            if once or took >= seconds / 2:
                frames = sum(tap.frames for tap in taps) - frames
                return Speed(sessions * each / took, sessions * each / max(used, 0.01), sessions * each / frames)
            each = int(each * min(10.0, max(2.0, seconds / took)))
    finally:
        for tap in taps:
            tap.transport.abort()
