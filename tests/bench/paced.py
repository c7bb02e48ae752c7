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

    Each asks a token's time and a share of it after the one before. So its tokens come that share later, whatever beginning a turn takes:
    if all asked within one token's time, who begins turns one after the other would have the tokens of several come in one moment.
    """
    names = [f"paced-{i}" for i in range(sessions)]
    taps = [await arm.dialect.dial(server, name, stamped=True) for name in names]

    async def watch(place: int) -> list[float]:
        await asyncio.sleep(place * (1 + 1 / sessions) / pace)
        await arm.dialect.ask(server, taps[place], names[place], tokens=int(seconds * pace), pace=pace)
        await taps[place].reach(int(seconds * pace))
        return [1000 * (token.came - token.said) for token in taps[place].tokens]

    try:
        late = await asyncio.gather(*map(watch, range(sessions)))
    finally:
        for tap in taps:
            tap.transport.abort()
    delays = [delay for one in late for delay in one]
    return Delays(median(delays), quantiles(delays, n=100)[98])
