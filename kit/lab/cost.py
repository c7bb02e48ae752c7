"""Cost: what a month of talking to an agent costs, by the meters that are read, for each way to get the answer to a page.

Nothing here knows what is true of your platform: prices, the load and what a request or token spends are inputs. The prices below say where
and when they were read; free quotas, plans and the model's own bill are left out. A connection costs what it holds while it is open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from kit.lab.drawing import label, svg
from kit.lab.table import as_text

Meter = Literal["CPU", "memory", "requests", "data", "commands", "connections"]
METERS: tuple[Meter, ...] = ("CPU", "memory", "requests", "data", "commands", "connections")
"""In CPU seconds, GB seconds, requests, bytes, the store's commands, and seconds of open connections."""
COLOURS = ("#06c", "#690", "#b30", "#e90", "#639", "#888")
LEFT, WIDE, HIGH = 150, 480, 44
"""Of the drawing: pixels before 0, for the dearest way, and for a lane."""


class Price(NamedTuple):
    """US dollars for so many units; `source`: where that stands, and when it was read."""

    usd: float
    units: float
    source: str


_VERCEL = "vercel.com/docs/functions/usage-and-pricing, Washington (iad1), a copy read 2026-11-28"
PRICES: Mapping[Meter, Price] = {
    "CPU": Price(0.128, 3600, _VERCEL),
    "memory": Price(0.0106, 3600, _VERCEL),
    "requests": Price(0.60, 1e6, _VERCEL),
    "data": Price(0.15, 1e9, "vercel.com/blog/improved-infrastructure-pricing, of 2024-04-04: most regions"),
    "commands": Price(0.20, 1e5, "upstash.com/pricing/redis, pay as you go, as captured 2026-11-09"),
    "connections": Price(0.0, 60, "nothing by itself on this platform; a gateway may bill connection minutes: put its price here"),
}


class Load(Struct, frozen=True):
    """A month: each of `people` has a page open for `opened` seconds and gets `answers`; an answer takes `seconds` for its `tokens`."""

    people: int = 1000
    opened: float = 20 * 3600.0
    answers: int = 100
    seconds: float = 10.0
    tokens: int = 400
    gb: float = 2.0
    """Memory of an instance,"""
    share: int = 100
    """and how many connections share one at a time."""


class Way(Struct, frozen=True):
    """How a page gets an answer. A request is made `each` answer so many times, and `every` so many seconds while the page is open.

    `held`: what keeps an instance: the open page, an answer, or only a request, for `lasts` seconds. Then what is spent, in CPU
    seconds, bytes and the store's commands: for a `look` (or a dial) `every` so many seconds, for an answer's `word`, and for a `token`.
    """

    name: str
    held: Literal["page", "answer", "request"]
    each: float = 0
    every: float = math.inf
    lasts: float = 0.0
    look: tuple[float, float, float] = (0, 0, 0)
    word: tuple[float, float, float] = (0, 0, 0)
    token: tuple[float, float, float] = (0, 0, 0)


def used(load: Load, way: Way) -> dict[Meter, float]:
    """What a month of it uses, by meter."""
    answers, opened = load.people * load.answers, load.people * load.opened
    looks, tokens = opened / way.every, answers * load.tokens
    requests = answers * way.each + looks
    held = {"page": opened, "answer": answers * load.seconds, "request": requests * way.lasts}[way.held]
    cpu, data, commands = (looks * a + answers * b + tokens * c for a, b, c in zip(way.look, way.word, way.token, strict=True))
    memory = held * load.gb / load.share
    return {"CPU": cpu, "memory": memory, "requests": requests, "data": data, "commands": commands, "connections": held}


def bill(load: Load, ways: Sequence[Way], prices: Mapping[Meter, Price] = PRICES) -> Bill:
    """US dollars a month, by way and meter."""
    costs = {way.name: {m: amount / prices[m].units * prices[m].usd for m, amount in used(load, way).items()} for way in ways}
    return Bill(costs, prices)


class Bill(dict[str, dict[Meter, float]]):
    """Dollars by way and meter, and the prices with their sources."""

    def __init__(self, costs: Mapping[str, dict[Meter, float]], prices: Mapping[Meter, Price]) -> None:
        super().__init__(costs)
        self.prices = prices

    def total(self, way: str) -> float:
        return sum(self[way].values())

    def __repr__(self) -> str:
        rows = [(way, *(f"{self[way][meter]:.2f}" for meter in METERS), f"{self.total(way):.2f}") for way in self]
        sources = [f"{meter}: {price.usd:g} for {price.units:,.0f}, {price.source}" for meter, price in self.prices.items()]
        return "\n".join([as_text([("$ a month", *METERS, "all"), *rows]), *sources])

    def _repr_svg_(self) -> str:
        scale = WIDE / (max(map(self.total, self)) or 1)
        legend = [
            f"<rect x='{LEFT + 90 * i}' y='8' width='12' height='12' fill='{colour}'/>{label(LEFT + 90 * i + 16, 18, meter)}"
            for i, (meter, colour) in enumerate(zip(METERS, COLOURS, strict=True))
        ]
        lanes = [self._lane(way, 34 + HIGH * i, scale) for i, way in enumerate(self)]
        return svg(LEFT + WIDE + 90, 44 + HIGH * len(self), repr(self), legend + lanes)

    def _lane(self, way: str, y: int, scale: float) -> str:
        x, bars = float(LEFT), ""
        for meter, colour in zip(METERS, COLOURS, strict=True):
            wide = self[way][meter] * scale
            bars += f"<rect x='{x:.1f}' y='{y}' width='{wide:.1f}' height='24' fill='{colour}'/>"
            x += wide
        return f"{label(4, y + 17, way)}{bars}{label(x + 8, y + 17, f'${self.total(way):,.0f}')}"
