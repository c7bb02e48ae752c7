"""Herd: what happens when many clients lose one host: when each comes back, simulated, with its policy and the host's slots.

Simulated are the clients' clocks and the host's refusals, nothing else: no network, no handshake. The classes are the real ones: a policy
draws its delays from the kit's `Backoff` or from a learner's function, and a host that hands out slots asks the server's own `Slots`.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from statistics import median
from typing import Any, NamedTuple

from kit.client import SLOT, Backoff
from kit.lab.drawing import label, svg
from kit.lab.table import as_text
from kit.slots import STEP as MS
from kit.slots import Slots

Policy = Callable[[random.Random], Iterator[float]]
"""One client's delays in seconds, without end: the first is before its first retry."""
STEP = MS / 1000
"""Seconds in which clients are counted: a slot."""
CLIENTS, OUTAGE = 2000, 20.0
"""How many lose the host, and the seconds during which it refuses them."""


class Herd(NamedTuple):
    """How it went: the clients let in during each 100 ms since the host was back, their waits in order, and the tries of all."""

    counts: tuple[int, ...]
    waits: tuple[float, ...]
    tries: int

    @property
    def peak(self) -> int:
        """The most clients that were let in during 100 ms."""
        return max(self.counts)

    @property
    def median(self) -> float:
        """Seconds from the host's return until half of them were back."""
        return median(self.waits)


def herd(policy: Policy, *, slots: int | None = None, listens: bool = True, outage: float = OUTAGE, seed: int = 1) -> Herd:
    """Let CLIENTS lose their host for `outage` seconds.

    `slots`: how many it lets in during 100 ms (None: all); `listens`: clients that are told when to come do so; a page is not told.
    Raises ValueError for a policy that dials more than a thousand times in one outage.
    """
    rng, now = random.Random(seed), outage
    host = Slots(slots or CLIENTS, clock=lambda: now)
    coming = [(*_first(policy(rng), outage), n) for n in range(CLIENTS)]
    tries, waits = sum(entry[1] for entry in coming), []
    queue = [(at, n, delays) for at, _, delays, n in coming]
    heapify(queue)
    while queue:
        now, n, delays = heappop(queue)
        wait = host.take().wait
        if wait == 0:
            waits.append(now - outage)
        else:
            tries += 1
            heappush(queue, (now + (max(wait / 1000, SLOT) if listens else next(delays)), n, delays))
    counts = Counter(round((outage + wait) * 1000) // MS - round(outage * 1000) // MS for wait in waits)
    return Herd(tuple(counts[i] for i in range(max(counts) + 1)), tuple(waits), tries)


def _first(delays: Iterator[float], outage: float) -> tuple[float, int, Iterator[float]]:
    """When a client first finds the host back, and at which try."""
    at = 0.0
    for tries, delay in enumerate(delays, 1):
        at += delay
        if at >= outage:
            return at, tries, delays
        if tries > 1000:
            raise ValueError(f"a thousand dials in {at:.1f} s: a policy must not dial without end")
    raise ValueError("the delays end: a client that gives up never comes back")


def limit(median: float) -> int:
    """The peak that chance allows at a median wait: clients uniform over twice that time, each by itself.

    The count in each 100 ms is then Poisson's; what is given is the median of the greatest of those counts.
    """
    steps = max(1.0, 2 * median / STEP)
    mean, most, below = CLIENTS / steps, -1, 0.0
    while below**steps < 0.5:
        most += 1
        below += math.exp(most * math.log(mean) - mean - math.lgamma(most + 1))
    return most


# ---- policies ----


def of_backoff(make: Callable[..., Backoff]) -> Policy:
    """The policy of a class like the kit's `Backoff`, or of a function that makes one: `make(rng=...)`, then `next()` again and again."""
    return lambda rng: iter(make(rng=rng).next, None)


def fixed(rng: random.Random) -> Iterator[float]:
    """A second, always."""
    while True:
        yield 1.0


def exponential(rng: random.Random, base: float = 0.5, cap: float = 30.0) -> Iterator[float]:
    """Doubling, without chance."""
    for n in count():
        yield min(cap, base * 2.0**n)


def equal_jitter(rng: random.Random) -> Iterator[float]:
    """Half of it sure, half of it by chance."""
    for delay in exponential(rng):
        yield rng.uniform(delay / 2, delay)


def full_jitter(rng: random.Random) -> Iterator[float]:
    """All of it by chance."""
    for delay in exponential(rng):
        yield rng.uniform(0, delay)


def decorrelated_jitter(rng: random.Random, base: float = 0.5, cap: float = 30.0) -> Iterator[float]:
    """By chance between the base and three times the delay before."""
    delay = base
    while True:
        delay = min(cap, rng.uniform(base, 3 * delay))
        yield delay


def socketio(rng: random.Random) -> Iterator[float]:
    """socket.io-client 4.8.4 as it comes: 1 s doubling up to 5 s, each half more or half less (`reconnectionDelay` and its neighbours)."""
    for n in count():
        ms, chance = 1000 * 2.0 ** min(n, 60), rng.random()
        more = 1 if int(chance * 10) % 2 else -1
        yield int(min(ms + more * int(chance * 0.5 * ms), 5000)) / 1000


def websockets(rng: random.Random) -> Iterator[float]:
    """websockets 17.4 as it comes (`websockets.client.backoff`): 0 to 5 s by chance (RFC 6455 section 7.2.3), then 3.1 s, growing."""
    yield rng.random() * 5
    delay = 3.1
    while True:
        yield min(delay, 90.0)
        delay *= 1.618


KNOWN: Mapping[str, Policy] = {
    "fixed, 1 s": fixed,
    "exponential": exponential,
    "equal jitter": equal_jitter,
    "full jitter": full_jitter,
    "decorrelated": decorrelated_jitter,
    "socket.io 4.8.4": socketio,
    "websockets 17.4": websockets,
    "the kit": of_backoff(Backoff),
}
"""The jitters with the numbers of the kit before it was tuned: 0.5 s doubling up to 30 s."""


# ---- drawing ----

LEFT, SECOND, HIGH, TOP = 150, 34, 46, 60
"""Of the drawing: pixels before 0 s, for a second, and for a lane; and the clients in 100 ms at which a lane is full."""
SHOWN = 16.0
"""Seconds that are drawn."""


class Herds(dict[str, Herd]):
    """Herds by name, side by side; each beside what chance allows at its median wait."""

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Name, peak, median, limit, tries a client."""
        body = [(name, str(h.peak), f"{h.median:.1f} s", str(limit(h.median)), f"{h.tries / len(h.waits):.0f}") for name, h in self.items()]
        return [("", "peak in 100 ms", "median wait", "limit of chance", "tries each"), *body]

    def __repr__(self) -> str:
        return as_text(self.rows())

    def _repr_svg_(self) -> str:
        wide, high = LEFT + SECOND * (SHOWN + 1) + 130, (HIGH + 14) * len(self) + 60
        legend = label(
            LEFT, high - 6, "bars: clients let in during 100 ms; dashes: the peak that chance brings at this median; triangle: the median"
        )
        scale = [label(LEFT + s * SECOND, 18, f"{s} s") for s in range(0, int(SHOWN) + 1, 2)]
        lanes = [_lane(name, each, 26 + (HIGH + 14) * (n + 1)) for n, (name, each) in enumerate(self.items())]
        return svg(wide, high, repr(self), [*scale, *lanes, legend])


def _lane(name: str, each: Herd, y: int) -> str:
    """Bars of 100 ms on the line `y`, the limit of chance above them, and the median below."""
    bars = "".join(f"M{_x(i * STEP):.1f} {y}v{-_tall(n):.1f}" for i, n in enumerate(each.counts[: int(SHOWN / STEP)]) if n)
    chance, until = y - _tall(limit(each.median)), min(2 * each.median, SHOWN)
    cut = f" (cut off at {TOP})" if each.peak > TOP else ""
    told = [label(4, y - 16, name), label(4, y, f"peak {each.peak}{cut}"), label(_x(SHOWN) + 8, y - 16, f"median {each.median:.1f} s")]
    return (
        f"<path d='M{LEFT} {y}H{_x(SHOWN):.0f}' stroke='#888'/><path d='{bars}' stroke='#06c' stroke-width='2.6'/>"
        f"<path d='M{LEFT} {chance:.1f}H{_x(until):.1f}' stroke='#b30' stroke-dasharray='5 3'/>"
        f"<path d='M{_x(min(each.median, SHOWN)):.1f} {y + 1}l-4 7h8z' fill='#222'/>{''.join(told)}"
    )


def _x(seconds: float) -> float:
    return LEFT + seconds * SECOND


def _tall(clients: int) -> float:
    return min(clients, TOP) * HIGH / TOP


def compare(policies: Mapping[str, Policy], **options: Any) -> Herds:
    """A herd of each, with the same options (those of `herd`)."""
    return Herds({name: herd(policy, **options) for name, policy in policies.items()})
