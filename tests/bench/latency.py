"""Latency: 100 sessions of 20 tokens a second, the kit beside what one writes first."""

from __future__ import annotations

import asyncio
import random
from statistics import median

from tests.bench.arms import KIT, KIT_FAKE, Arm
from tests.bench.dialects import Naive
from tests.bench.paced import Delays, pace
from tests.bench.table import Row
from tests.conftest import RealStore

SESSIONS = 100
PACE = 20
NAIVE = Arm("naive design", "naive", Naive(), "none")
ARMS = (NAIVE, KIT_FAKE, KIT)


def measure(store: RealStore, seconds: float, rounds: int, rng: random.Random) -> list[Row]:
    """Rows of the table; the ratio is taken within a round, and the median of the rounds is told."""
    found: dict[Arm, list[Delays]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in rng.sample(ARMS, len(ARMS)):
            store.empty()
            found[arm].append(asyncio.run(_run(arm, store, seconds)))
    share = median(ours.p50 / naive.p50 for ours, naive in zip(found[KIT_FAKE], found[NAIVE], strict=True))
    return [
        Row("naive design (XADD and XREAD a token), fakeredis", _told(found[NAIVE])),
        Row("kit, fakeredis", f"{_told(found[KIT_FAKE])}: p50 is {share:.2f} of naive", "<= 0.20", share <= 0.2),
        Row("kit, real server", _told(found[KIT])),
    ]


def _told(rounds: list[Delays]) -> str:
    return f"p50 {median(each.p50 for each in rounds):.1f} ms, p99 {median(each.p99 for each in rounds):.1f} ms"


async def _run(arm: Arm, store: RealStore, seconds: float) -> Delays:
    with arm.started(store) as server:
        return await pace(arm, server, SESSIONS, PACE, seconds)
