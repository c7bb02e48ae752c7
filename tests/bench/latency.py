"""Latency: from the moment at which an agent says a token to the client's recv, on one clock: 100 sessions of 20 tokens a second."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from statistics import median, quantiles
from typing import NamedTuple

from tests.bench.child import child
from tests.bench.table import Row
from tests.bench.viewer import Viewer, viewer
from tests.conftest import RealStore

SESSIONS = 100
PACE = 20
ARMS = {"naive": ("naive", "fake"), "kit, fakeredis": ("full", "fake"), "kit, real server": ("full", "real")}


class Delays(NamedTuple):
    """Milliseconds."""

    p50: float
    p99: float


def measure(store: RealStore, seconds: float, rounds: int, rng: random.Random) -> list[Row]:
    """Rows of the table; the ratio is taken within a round, and the median of the rounds is told."""
    found: dict[str, list[Delays]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in rng.sample(list(ARMS), len(ARMS)):
            store.empty()
            found[arm].append(asyncio.run(_run(arm, store.url, int(seconds * PACE))))
    share = median(ours.p50 / naive.p50 for ours, naive in zip(found["kit, fakeredis"], found["naive"], strict=True))
    return [
        Row("naive design (XADD and XREAD a token), fakeredis", _told(found["naive"])),
        Row("kit, fakeredis", f"{_told(found['kit, fakeredis'])}: p50 is {share:.2f} of naive", "<= 0.20", share <= 0.2),
        Row("kit, real server", _told(found["kit, real server"])),
    ]


def _told(rounds: list[Delays]) -> str:
    return f"p50 {median(each.p50 for each in rounds):.1f} ms, p99 {median(each.p99 for each in rounds):.1f} ms"


async def _run(arm: str, url: str, tokens: int) -> Delays:
    name, store = ARMS[arm]
    options = {} if name == "naive" else {"store": url if store == "real" else None}
    with child(name, **options) as server:
        async with AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(viewer(server, f"session-{i}")) for i in range(SESSIONS)]
            found = await asyncio.gather(*(_watch(one, i, tokens) for i, one in enumerate(viewers)))
    delays = [delay for one in found for delay in one]
    return Delays(median(delays), quantiles(delays, n=100)[98])


async def _watch(one: Viewer, place: int, tokens: int) -> list[float]:
    await asyncio.sleep(place / SESSIONS / PACE)  # people do not start in one moment
    await one.ask(tokens=tokens, pace=PACE)
    return [1000 * (token.came - token.said) async for token in one.tokens()]
