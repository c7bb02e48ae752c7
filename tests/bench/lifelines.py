"""Lifelines: how soon the stream goes on: after a client's reconnect, and after the instance was killed."""

from __future__ import annotations

import asyncio
import secrets
import time
from statistics import median

from tests.bench.child import Child, child
from tests.bench.table import Row
from tests.bench.viewer import viewer
from tests.conftest import RealStore

PACE = 50
LEASE = 0.5


def resume(store: RealStore, times: int) -> list[Row]:
    """From the end of the new handshake to the first packet that was missed, in a log of a few hundred, on both stores."""
    rows = []
    for name in ("fakeredis", "real server"):
        store.empty()
        with child("full", store=store.url if name == "real server" else None) as server:
            took = asyncio.run(_resume(server, times))
        told = f"median {median(took):.1f} ms, worst {max(took):.1f} ms of {times}"
        rows.append(Row(f"resume, {name}: handshake to next packet", told, "median <= 10 ms", median(took) <= 10))
    return rows


async def _resume(server: Child, times: int) -> list[float]:
    took = []
    async with viewer(server, "s") as whole:
        await whole.ask(tokens=300 + 10 * times, pace=1000)
        ids = [token.id async for token in whole.tokens()]
    for i in range(times):
        cursor = ids[len(ids) // 2 + i]
        async with viewer(server, "s", cursor) as again:
            opened = time.monotonic()
            async for token in again.tokens():
                assert token.id == ids[ids.index(cursor) + 1], "not the next one"
                took.append(1000 * (token.came - opened))
                break
    return took


def takeover(store: RealStore, times: int) -> list[Row]:
    """From `kill -9` of the instance to the next token, as a client of another instance sees it; the store is a real server."""
    took = [asyncio.run(_takeover(store)) for _ in range(times)]
    told = f"median {1000 * median(took):.0f} ms, worst {1000 * max(took):.0f} ms of {times}"
    return [Row(f"takeover after kill -9 (lease {LEASE} s)", told, "<= lease + 500 ms", max(took) <= LEASE + 0.5)]


async def _takeover(store: RealStore) -> float:
    store.empty()
    options = {"store": store.url, "lease": LEASE, "secret": secrets.token_urlsafe(32)}
    with child("full", **options) as victim, child("full", **options) as other:
        async with viewer(victim, "s") as asking, viewer(other, "s") as watching:
            await asking.ask(tokens=3 * PACE, pace=PACE)
            tokens = aiter(watching.tokens())
            for _ in range(PACE):  # long enough for the lease to have been renewed
                await anext(tokens)
            victim.kill()
            killed = time.monotonic()
            async for token in tokens:
                if token.said > killed:
                    return token.came - killed
    raise AssertionError("the turn did not go on")
