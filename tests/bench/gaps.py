"""Gaps: the longest time without a token, as a client in another process sees it, while a cell is busy beside the server's thread."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from tests.bench.busy import BUSY
from tests.bench.child import Child, child
from tests.bench.dialects import Kit
from tests.bench.table import Row
from tests.bench.tap import Tap

PACE = 100


def measure(seconds: float) -> list[Row]:
    """Rows of the table; `seconds`: of each way to be busy."""
    with child("busy", seconds=seconds) as server:
        gaps = asyncio.run(_run(server, seconds))
    rows = []
    for way, gap in gaps.items():
        goal = way != "holds the GIL in C"
        rows.append(Row(f"longest gap while the cell {way}", f"{1000 * gap:.0f} ms", "< 50 ms" if goal else "", gap < 0.05 or not goal))
    return rows


async def _run(server: Child, seconds: float) -> dict[str, float]:
    kit = Kit()
    tap = await kit.dial(server, "cell", stamped=True)
    await kit.ask(server, tap, "cell", tokens=int(3 * (seconds + 2) * PACE), pace=PACE)
    gaps = {}
    for way in BUSY:
        await tap.reach(tap.count + PACE // 5)  # some tokens on either side, so that the gap has edges
        gaps[way] = await _gap(server, tap)
    tap.transport.abort()
    return gaps


async def _gap(server: Child, tap: Tap) -> float:
    first = len(tap.tokens) - 1
    assert server.process.stdin
    server.process.stdin.write("go\n")
    server.process.stdin.flush()
    span = await asyncio.get_running_loop().run_in_executor(None, server.told)
    await tap.reach(tap.count + PACE // 5)
    came = [token.came for token in tap.tokens[first:]]
    assert came[0] < span["began"] < span["ended"] < came[-1], "the stream did not last as long as the cell"
    return max(after - before for before, after in pairwise(came) if after > span["began"] and before < span["ended"])
