"""Grid: the kit on both stores and behind both servers, with one session and with many: as fast as it goes, and at a model's pace."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

from tests.bench.arms import ASGI, ASGI_FAKE, KIT, KIT_FAKE, Arm
from tests.bench.comparison import PACE
from tests.bench.paced import Delays, pace
from tests.bench.saturated import SIZE, Speed, saturate
from tests.bench.table import Table
from tests.bench.throughput import ANSWER
from tests.conftest import RealStore

ARMS = KIT_FAKE, ASGI_FAKE, KIT, ASGI


class Cell(NamedTuple):
    """An arm with so many sessions, in one round. With the most of them there are no delays: a core can't say as many one by one."""

    speed: Speed
    delays: Delays | None


def measure(store: RealStore, seconds: float, rounds: int, rng: random.Random, sessions: Sequence[int]) -> Iterator[Table]:
    """`sessions`: how many, in three sizes; the delays are of the first two. Medians of the rounds, in which the order is shuffled."""
    cases = list(itertools.product(ARMS, sessions))
    cells: dict[tuple[Arm, int], list[Cell]] = {case: [] for case in cases}
    for _ in range(rounds):
        for arm, count in rng.sample(cases, len(cases)):
            store.empty()
            cells[arm, count].append(asyncio.run(_cell(arm, store, count, seconds, most=count == sessions[-1])))
    first, *others = (f"{count:,}" for count in sessions)
    head = ["", f"tokens/s, {first} session", *others, f"a CPU second, {first}", *others]
    head += [f"p50, p99 ms at {PACE} tokens/s, {first}", *others[:-1]]
    rows = [[arm.name, *_row([cells[arm, count] for count in sessions])] for arm in ARMS]
    told = f"joined frames, tokens of {SIZE} characters, at {others[-1]} in answers of {ANSWER}; a CPU second of the server's process"
    yield Table([head, *rows], [told])


async def _cell(arm: Arm, store: RealStore, sessions: int, seconds: float, *, most: bool) -> Cell:
    with arm.started(store) as server:
        await saturate(arm, server, 2, seconds / 4)  # or what is loaded at the first prompt is on the tokens' account
        speed = await saturate(arm, server, sessions, seconds, ANSWER if most else None)
        return Cell(speed, None if most else await pace(arm, server, sessions, PACE, 2 * seconds))


def _row(counts: Sequence[Sequence[Cell]]) -> Iterator[str]:
    speeds: list[Callable[[Speed], float]] = [lambda speed: speed.wall, lambda speed: speed.cpu]
    for what in speeds:
        yield from (f"{median(what(cell.speed) for cell in cells):,.0f}" for cells in counts)
    for cells in counts:
        if delays := [cell.delays for cell in cells if cell.delays]:
            yield f"{median(each.p50 for each in delays):.1f}, {median(each.p99 for each in delays):.1f}"
