"""Paced: from the moment at which a token is said to the moment at which a client has it, on one clock."""

from __future__ import annotations

import asyncio
from statistics import median, quantiles
from typing import NamedTuple

from tests.bench.arms import Arm
from tests.bench.child import Child


class Delays(NamedTuple):
    """Milliseconds."""

    p50: float
    p99: float


async def pace(arm: Arm, server: Child, sessions: int, pace: float, seconds: float) -> Delays:
    """The delays of all tokens of so many sessions at `pace` tokens a second each.

    Starts are a token's time and a share of it apart: the phases are even, and no two turns begin within one token's time. What is said
    before the last has begun does not count.
    """
    counted = int(seconds * pace)
    names = [f"paced-{i}" for i in range(sessions)]
    taps = [await arm.dialect.dial(server, name, stamped=True) for name in names]

    async def watch(place: int) -> list[float]:
        await asyncio.sleep(place * (1 + 1 / sessions) / pace)
        said = counted + sessions - place
        await arm.dialect.ask(server, taps[place], names[place], tokens=said, pace=pace)
        await taps[place].reach(said)
        return [1000 * (token.came - token.said) for token in taps[place].tokens[-counted:]]

    try:
        late = await asyncio.gather(*map(watch, range(sessions)))
    finally:
        for tap in taps:
            tap.transport.abort()
    delays = [delay for one in late for delay in one]
    return Delays(median(delays), quantiles(delays, n=100)[98])
