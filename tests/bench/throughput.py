"""Throughput: tokens a CPU second of the server's process (a real store's own process is not counted), as a share of the bare library's.

100 connections in every arm, frames of 120 bytes, everything as fast as it goes: the bare arm sends in a tight loop, so the agents
speak in one; in the arms "a token a step" each agent lets the loop turn between two tokens. The arms of a round are shuffled, each in
processes of its own on an empty store; a ratio is taken within its round, and the median of the rounds is told.
"""

from __future__ import annotations

import asyncio
import json
import random
from statistics import median
from typing import NamedTuple

from tests.bench.child import Child, child
from tests.bench.sink import Sink, prompt, sinks
from tests.bench.table import Row
from tests.conftest import RealStore

SESSIONS = 100
TEXT = 36
"""Characters of a token, so that its frame has 120 bytes."""


class Arm(NamedTuple):
    """What is measured; `length`: how many times the tokens of the slowest arm it takes to run as long."""

    what: str
    store: str = ""
    join: bool = False
    step: bool = False
    length: int = 2
    target: float | None = None


BARE = Arm("bare websockets, 100 connections", length=4)
ARMS = (
    BARE,
    Arm("full path, real server, one frame a token", "real", target=0.45),
    Arm("full path, fakeredis, one frame a token", "fake", target=0.35),
    Arm("full path, real server, one frame a token, a token a step", "real", step=True, length=1),
    Arm("full path, fakeredis, one frame a token, a token a step", "fake", step=True, length=1),
    Arm("full path, real server, joined frames", "real", join=True, length=6),
    Arm("full path, fakeredis, joined frames", "fake", join=True, length=6),
)


class Run(NamedTuple):
    """Tokens a CPU second, and tokens a frame."""

    rate: float
    joined: float


def measure(store: RealStore, tokens: int, rounds: int, rng: random.Random) -> list[Row]:
    """Rows of the table; `tokens`: of each session in the slowest arms."""
    runs: dict[Arm, list[Run]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in rng.sample(ARMS, len(ARMS)):
            store.empty()
            runs[arm].append(asyncio.run(_run(arm, store.url, tokens * arm.length)))
    return [_row(arm, runs) for arm in ARMS]


async def _run(arm: Arm, url: str, tokens: int) -> Run:
    options = {"store": url if arm.store == "real" else None, "join": arm.join}
    with child("bare") if arm is BARE else child("full", **options) as server:
        async with sinks(server.url, [f"/s/session-{i}" for i in range(SESSIONS)], server.token) as clients:
            await _drain(arm, clients, 10)
            return await _timed(arm, server, clients, tokens)


async def _timed(arm: Arm, server: Child, clients: list[Sink], tokens: int) -> Run:
    for client in clients:
        client.frames, client.ended = 0, asyncio.get_running_loop().create_future()
    before = server.cpu()
    await _drain(arm, clients, tokens)
    seconds = server.cpu() - before
    frames = sum(client.frames for client in clients)
    if not arm.join:
        assert frames >= SESSIONS * tokens, f"{arm.what}: {frames} frames for {SESSIONS * tokens} tokens"
    return Run(SESSIONS * tokens / seconds, SESSIONS * tokens / frames)


async def _drain(arm: Arm, clients: list[Sink], tokens: int) -> None:
    asked = json.dumps({"tokens": tokens, "size": TEXT, "step": arm.step})
    for client in clients:
        client.send(asked.encode() if arm is BARE else prompt(asked))
    await asyncio.gather(*(client.ended for client in clients))


def _row(arm: Arm, runs: dict[Arm, list[Run]]) -> Row:
    rate = median(run.rate for run in runs[arm])
    if arm is BARE:
        return Row(arm.what, f"{rate:,.0f} messages a CPU second")
    ratio = median(run.rate / bare.rate for run, bare in zip(runs[arm], runs[BARE], strict=True))
    frames = f", {median(run.joined for run in runs[arm]):.0f} a frame" if arm.join else ""
    told = f"{ratio:.2f} of bare ({rate:,.0f} tokens a CPU second{frames})"
    return Row(arm.what, told) if arm.target is None else Row(arm.what, told, f">= {arm.target}", ratio >= arm.target)
