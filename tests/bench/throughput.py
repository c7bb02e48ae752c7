"""Throughput: tokens a CPU second of the server's process (a real store's own process is not counted), as a share of the bare library's.

100 connections, frames of 120 bytes where they are not joined, everything as fast as it goes: the bare arm sends in a tight loop, so the
agents speak in one; in the arms "a token a step" each agent lets the loop turn between two tokens. The arms of a round are shuffled,
each in processes of its own on an empty store; a ratio is taken within its round, and the median of the rounds is told.
"""

from __future__ import annotations

import asyncio
import random
from statistics import median
from typing import NamedTuple

from tests.bench.arms import ASGI, BARE, KIT, KIT_FAKE, WORKERS, Arm
from tests.bench.saturated import Speed, saturate
from tests.bench.table import Row
from tests.conftest import RealStore


class Case(NamedTuple):
    """An arm in one of its ways to speak."""

    what: str
    arm: Arm
    sessions: int = 100
    join: bool = True
    step: bool = False
    target: float | None = None
    each: int | None = None
    """Tokens of an answer, where not as many as can be said in the time."""

    @property
    def name(self) -> str:
        joined = "joined frames" if self.join else "one frame a token"
        more = ", a token a step" if self.step else f", answers of {self.each} tokens" if self.each else ""
        return f"{self.what}, {self.sessions:,} sessions, {joined}{more}"


ANSWER = 500
FAKE, REAL = "full path, fakeredis", "full path, real server"
BASE = Case("bare websockets", BARE)
JOINED = (Case(REAL, KIT, target=1.5), Case(FAKE, KIT_FAKE, target=0.9))
ONE, FOUR = Case("full path, uvicorn, real server", ASGI), Case("full path, 4 workers of uvicorn, real server", WORKERS)
CASES = (
    BASE,
    Case(REAL, KIT, join=False, target=0.45),
    Case(FAKE, KIT_FAKE, join=False, target=0.35),
    Case(REAL, KIT, join=False, step=True),
    Case(FAKE, KIT_FAKE, join=False, step=True),
    *JOINED,
    ONE,
    FOUR,
)
Runs = dict[Case, list[Speed]]


def measure(store: RealStore, seconds: float, rounds: int, rng: random.Random, most: int = 1000) -> list[Row]:
    """Rows of the table; `seconds`: of each measurement; `most`: sessions, beside which the cost of a token is told.

    To begin a turn costs as much as hundreds of tokens, so that is told of answers of one length.
    """
    few = [case._replace(target=None, each=ANSWER) for case in JOINED]
    many = [case._replace(sessions=most) for case in few]
    cases = [*CASES, *few, *many]
    runs: Runs = {case: [] for case in cases}
    for _ in range(rounds):
        for case in rng.sample(cases, len(cases)):
            store.empty()
            runs[case].append(asyncio.run(_run(case, store, seconds)))
    grown = [_growth(*pair, runs) for pair in zip(few, many, strict=True)]
    return [*(_row(case, runs) for case in cases), *grown, _workers(runs)]


async def _run(case: Case, store: RealStore, seconds: float) -> Speed:
    options = {} if case.arm is BARE else {"join": case.join}
    with case.arm.started(store, **options) as server:
        speed = await saturate(case.arm, server, case.sessions, seconds, case.each, **({"step": True} if case.step else {}))
    assert case.join or speed.joined == 1, f"{case.name}: {speed.joined} tokens a frame"
    return speed


def _row(case: Case, runs: Runs) -> Row:
    rate = median(run.cpu for run in runs[case])
    if case is BASE:
        return Row("bare websockets, 100 connections", f"{rate:,.0f} messages a CPU second")
    ratio = median(run.cpu / bare.cpu for run, bare in zip(runs[case], runs[BASE], strict=True))
    frames = f", {median(run.joined for run in runs[case]):.0f} a frame" if case.join else ""
    told = f"{ratio:.2f} of bare ({rate:,.0f} tokens a CPU second{frames})"
    return Row(case.name, told) if case.target is None else Row(case.name, told, f">= {case.target}", ratio >= case.target)


def _growth(few: Case, many: Case, runs: Runs) -> Row:
    ratio = median(a.cpu / b.cpu for a, b in zip(runs[few], runs[many], strict=True))
    name = f"{many.what}: cost of a token at {many.sessions:,} sessions"
    return Row(name, f"{ratio:.2f} times that at 100, in answers of {ANSWER}", "<= 1.5 times", ratio <= 1.5)


def _workers(runs: Runs) -> Row:
    ratio = median(one.cpu / four.cpu for one, four in zip(runs[ONE], runs[FOUR], strict=True))
    return Row(f"{FOUR.what}: cost of a token", f"{ratio:.2f} times that of one", "<= 1.2 times", ratio <= 1.2)
