"""Comparison: the kit beside its peers, which do the same job: an answer's tokens through one store, to clients who can come back.

Each in its recommended settings, uvicorn with uvloop and httptools where a peer runs on it (the kit runs on plain asyncio). A peer sends
each token as an event of its own; what the kit joins while an append is under way is told as tokens a frame. Every arm has an empty store
of its own and fresh processes in every round; the order is shuffled. Ratios are taken within a round.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from math import nan
from statistics import median
from typing import NamedTuple

from tests.bench import lifelines
from tests.bench.arms import ASGI, BARE, KIT, KIT_FAKE, LEAST, PEERS, RAW, SSE, Arm
from tests.bench.lifelines import Seen
from tests.bench.paced import Delays, pace
from tests.bench.peers.install import Missing
from tests.bench.saturated import SIZE, Speed, saturate
from tests.bench.table import Row, Table
from tests.conftest import RealStore

MANY = 20
PACE = 50


class Round(NamedTuple):
    """What was measured of an arm in one round; of those who can't come back, `drops` is None."""

    one: Speed
    many: Speed
    drops: Seen | None


class Measured(NamedTuple):
    """Of one arm: its rounds, those at a model's pace (none without a store), and what became of answers whose process was killed."""

    rounds: list[Round]
    delays: list[Delays]
    kills: list[Seen]

    def middle(self, of: Callable[[Round], float]) -> float:
        return median(of(one) for one in self.rounds)

    def delay(self, what: str) -> float:
        return median(getattr(one, what) for one in self.delays)


def measure(
    store: RealStore, seconds: float, rounds: int, *, paced: int, times: int, kills: int, peers: bool, rng: random.Random
) -> Iterator[Table]:
    """The table of all arms, then the targets. `seconds` of each measurement; `times`: drops in a round.

    `paced`: rounds at a model's pace; what the machine does beside it takes as long as the arms differ, so there are more of these.
    Without `peers`, or where they can't be had, the one is there that needs no installation.
    """
    arms, notes = _found((RAW, BARE, LEAST, KIT_FAKE, KIT, ASGI, *(PEERS if peers else ())))
    if not any(arm.is_peer for arm in arms):
        arms.append(SSE)
    measured = {arm: Measured([], [], []) for arm in arms}
    for _ in range(rounds):
        for arm in rng.sample(arms, len(arms)):
            store.empty()
            measured[arm].rounds.append(asyncio.run(_round(arm, store, seconds, times, rng)))
    stored = [arm for arm in arms if arm.store != "none"]
    for _ in range(paced):
        for arm in rng.sample(stored, len(stored)):
            store.empty()
            measured[arm].delays.append(asyncio.run(_paced(arm, store, seconds)))
    for _ in range(kills):
        for arm in rng.sample([arm for arm in arms if arm.returns], sum(arm.returns for arm in arms)):
            store.empty()
            measured[arm].kills.append(asyncio.run(lifelines.killed(arm, store)))
    yield _table(measured, times, notes)
    yield Table.of([*_targets(measured), _takeover(measured[KIT].kills)])


def _found(wanted: Sequence[Arm]) -> tuple[list[Arm], list[str]]:
    """Those that can be had here, and why others can't."""
    arms, notes = list[Arm](), list[str]()
    for arm in wanted:
        try:
            if arm.needs:
                arm.needs()
            arms.append(arm)
        except Missing as missing:
            notes.append(f"left out: {arm.name} ({missing})")
    return arms, notes


async def _round(arm: Arm, store: RealStore, seconds: float, times: int, rng: random.Random) -> Round:
    with arm.started(store) as server:
        one = await saturate(arm, server, 1, seconds)
        many = await saturate(arm, server, MANY, seconds)
        return Round(one, many, await lifelines.drops(arm, server, times, rng) if arm.resumes else None)


async def _paced(arm: Arm, store: RealStore, seconds: float) -> Delays:
    with arm.started(store) as server:
        await saturate(arm, server, MANY, seconds / 4)  # or the first tokens tell how long it takes to compile, in Node and in Python
        return await pace(arm, server, MANY, PACE, 2 * seconds)


# ---- what is told ----


def _table(measured: dict[Arm, Measured], times: int, notes: list[str]) -> Table:
    head = ["", "tokens/s, 1 session", f"{MANY} sessions", "a CPU second", "a frame", "p50 ms", "p99 ms", "back after ms"]
    head += [f"lost, doubled in {times} drops", "after kill -9 of the producer"]
    rows = [[f"{arm.name}{f' ({arm.note})' if arm.note else ''}", *_cells(found)] for arm, found in measured.items()]
    told = [
        f"tokens of {SIZE} characters (raw and bare: messages of 120 bytes); a CPU second of the server's processes, at {MANY} sessions;",
        f"p50, p99: from said to received, {MANY} sessions of {PACE} tokens/s; back after: a client that was away for",
        f"{1000 * lifelines.AWAY:.0f} ms dials, and has the next token. The kit's lease in the kills: {lifelines.LEASE} s.",
    ]
    return Table([head, *rows], [*told, *notes])


def _cells(found: Measured) -> list[str]:
    speeds: list[Callable[[Round], float]] = [lambda r: r.one.wall, lambda r: r.many.wall, lambda r: r.many.cpu]
    cells = [f"{found.middle(speed):,.0f}" for speed in speeds]
    cells.append(f"{found.middle(lambda r: r.one.joined):.0f}, {found.middle(lambda r: r.many.joined):.0f}")
    if found.delays:
        cells += [f"{found.delay(what):.1f}" for what in Delays._fields]
    if drops := _drops(found):
        cells.append(f"{median([wait for one in drops for wait in one.waits] or [nan]):.1f}")
        lost, doubled, said = (sum(each) for each in zip(*((one.lost, one.doubled, one.said) for one in drops), strict=True))
        cells += [f"{lost}, {doubled} of {said}", _fate(found.kills)]
    return cells


def _drops(found: Measured) -> list[Seen]:
    return [one.drops for one in found.rounds if one.drops]


def _fate(kills: list[Seen]) -> str:
    if not kills:
        return ""
    came, newcomer, said = (median(values) for values in zip(*((one.came, one.newcomer, one.said) for one in kills), strict=True))
    waits = [wait for one in kills for wait in one.waits]
    again = sum(one.doubled for one in kills)
    goes = f"goes on in {median(waits):.0f} ms" if len(waits) == len(kills) else "ends there"
    return f"{goes}: {came:.0f} of {said:.0f}, {again} doubled; whoever comes later gets {newcomer:.0f}"


def _targets(measured: dict[Arm, Measured]) -> list[Row]:
    ours = measured[KIT]
    peers = {arm: found for arm, found in measured.items() if arm.is_peer and "first reader" not in arm.name}
    rows = []
    speeds: list[tuple[str, Callable[[Round], float], float]] = [
        ("1 session", lambda r: r.one.wall, 10),
        (f"{MANY} sessions", lambda r: r.many.wall, 8),
    ]
    for what, speed, target in speeds:
        best = max(peers, key=lambda arm: peers[arm].middle(speed))
        ratio = median(speed(our) / speed(their) for our, their in zip(ours.rounds, peers[best].rounds, strict=True))
        rows.append(Row(f"tokens/s, {what}: the kit on a real store", f"{ratio:.1f} times {best.name}", f">= {target}", ratio >= target))
    for what in Delays._fields:
        best = min(peers, key=lambda arm: peers[arm].delay(what))
        ratio = median(getattr(our, what) / getattr(their, what) for our, their in zip(ours.delays, peers[best].delays, strict=True))
        told = f"{ours.delay(what):.2f} ms, {ratio:.2f} times {best.name}"
        rows.append(Row(f"{what} at {PACE} tokens/s: the kit on a real store", told, "<= the best peer's", ratio <= 1))
    whole = _drops(ours) + ours.kills + _drops(measured[ASGI]) + measured[ASGI].kills
    inexact = sum(one.lost + one.doubled for one in whole)
    rows.append(Row("tokens lost or doubled in all drops and kills", f"{inexact} of {sum(one.said for one in whole)}", "0", inexact == 0))
    return rows


def _takeover(kills: list[Seen]) -> Row:
    """From `kill -9` of the instance to the next token at a client that goes to another one."""
    waits = [wait for one in kills for wait in one.waits]
    bound = 1000 * (lifelines.LEASE + 0.5)
    told = f"median {median(waits):.0f} ms, worst {max(waits):.0f} ms of {len(kills)}"
    met = len(waits) == len(kills) and max(waits) <= bound
    return Row(f"takeover after kill -9 (lease {lifelines.LEASE} s)", told, "<= lease + 500 ms", met)
