"""Lifelines: what a client has of an answer whose line is cut again and again, and of one whose server is killed."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from statistics import median
from typing import NamedTuple

from tests.bench.arms import KIT, KIT_FAKE, Arm
from tests.bench.child import Child
from tests.bench.table import Row
from tests.bench.tap import Tap, Token
from tests.conftest import RealStore

PACE = 50
LEASE = 0.5
AWAY = 0.1
"""Seconds that a client stays away."""
SILENCE = 2.5
"""Seconds without a token after which nothing more is expected; an instance of the kit is missed for `LEASE` and 0.5 s."""


class Seen(NamedTuple):
    """Of `said` tokens: those that came, those that never did, those that came again; and the milliseconds until there was one again."""

    said: int
    came: int
    lost: int
    doubled: int
    waits: list[float]
    newcomer: int = 0
    """Tokens that somebody gets who comes when all is over."""

    @classmethod
    def of(cls, tokens: Iterable[Token], said: int, waits: list[float], newcomer: int = 0) -> Seen:
        ordinals = [token.n for token in tokens]
        return cls(said, len(set(ordinals)), said - len(set(ordinals)), len(ordinals) - len(set(ordinals)), waits, newcomer)


async def drops(arm: Arm, server: Child, times: int, rng: random.Random) -> Seen:
    """Cut the client's line so many times in one answer; it stays away for a moment and comes back with its place."""
    said = int(times * (0.2 + 2 * AWAY) * PACE)
    name, waits, seen = "dropped", list[float](), list[Token]()
    tap = await arm.dialect.dial(server, name, stamped=True)
    await arm.dialect.ask(server, tap, name, tokens=said, pace=PACE)
    for _ in range(times):
        await _more(tap, rng.randint(3, 8))
        tap.transport.abort()
        seen += tap.tokens
        place = arm.dialect.place(tap)
        await asyncio.sleep(AWAY)
        began = time.monotonic()
        tap = await arm.dialect.dial(server, name, place, stamped=True)
        if await _more(tap, 1):
            waits.append(1000 * (tap.tokens[0].came - began))
    await _rest(tap, said)
    tap.transport.abort()
    return Seen.of([*seen, *tap.tokens], said, waits)


def resume(store: RealStore, times: int) -> list[Row]:
    """From the dial to the first token that was missed, in a log of a few hundred, on both stores."""
    rows = []
    for name, arm in (("fakeredis", KIT_FAKE), ("real server", KIT)):
        store.empty()
        with arm.started(store) as server:
            took = asyncio.run(_resume(arm, server, times))
        told = f"median {median(took):.1f} ms, worst {max(took):.1f} ms of {times}"
        rows.append(Row(f"resume, {name}: dial to next packet", told, "median <= 10 ms", median(took) <= 10))
    return rows


async def _resume(arm: Arm, server: Child, times: int) -> list[float]:
    whole = await arm.dialect.dial(server, "s", stamped=True)
    await arm.dialect.ask(server, whole, "s", tokens=300 + 10 * times, pace=1000)
    places = {}
    while whole.count < 300 + 10 * times:
        await whole.reach(whole.count + 1)
        places[arm.dialect.place(whole)] = whole.count
    took = []
    for place, seen in random.Random(times).sample(list(places.items())[:-1], times):
        began = time.monotonic()
        again = await arm.dialect.dial(server, "s", place, stamped=True)
        await again.reach(1)
        took.append(1000 * (again.tokens[0].came - began))
        assert again.tokens[0].n == seen + 1, "not the next one"
        again.transport.abort()
    return took


async def killed(arm: Arm, store: RealStore) -> Seen:
    """`kill -9` of the process in which the answer is made, after a second; the client goes to another one on the same store."""
    said, name = 3 * PACE, "killed"
    shared = {"secret": secrets.token_urlsafe(32), "lease": LEASE} if not arm.is_peer else {}
    with arm.started(store, **shared) as victim, arm.started(store, **shared) as other:
        tap = await arm.dialect.dial(victim, name, stamped=True)
        await arm.dialect.ask(victim, tap, name, tokens=said, pace=PACE)
        await _more(tap, PACE)  # long enough for the kit's lease to have been renewed
        victim.kill()
        died = time.monotonic()
        seen, waits = list(tap.tokens), list[float]()
        again = await _dialled(arm, other, name, arm.dialect.place(tap))
        if again:
            await _rest(again, said)
            seen += again.tokens
            waits = [1000 * (token.came - died) for token in again.tokens if token.said > died][:1]
        late = await _dialled(arm, other, name, arm.dialect.start)
        if late:
            await _rest(late, said)
        return Seen.of(seen, said, waits, len(late.tokens) if late else 0)


async def _dialled(arm: Arm, server: Child, name: str, place: str | None) -> Tap | None:
    """None where the server turns the client away."""
    with suppress(ConnectionResetError):
        return await arm.dialect.dial(server, name, place, stamped=True)
    return None


async def _more(tap: Tap, tokens: int) -> bool:
    """Wait for so many more; False where none comes any more."""
    with suppress(TimeoutError, ConnectionResetError):
        async with asyncio.timeout(SILENCE):
            await tap.reach(tap.count + tokens)
        return True
    return False


async def _rest(tap: Tap, said: int, silence: float = SILENCE) -> None:
    """Wait for the last token, or until no more come."""
    while not (tap.tokens and tap.tokens[-1].n == said):
        before = tap.count
        with suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(silence):
                await tap.reach(before + 1)
        if tap.count == before:
            return
