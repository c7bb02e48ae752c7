"""Timeline: runs of a race side by side: where each round trip begins, and where each token comes."""

from __future__ import annotations

from typing import NamedTuple

from kit.lab.drawing import label, svg

LEFT, SCALE, HIGH = 130, 1000, 26
"""Of the drawing: pixels before 0 ms, for a second, and for a run."""


class Run(NamedTuple):
    """How it went, in seconds since the question: when each round trip began and each token came; and the bytes, both ways."""

    way: str
    trips: tuple[float, ...]
    tokens: tuple[float, ...]
    bytes: int

    @property
    def before(self) -> int:
        """The round trips that began before the first token came."""
        return sum(trip < self.tokens[0] for trip in self.trips)

    @property
    def gap(self) -> float:
        """The longest wait from one token to the next."""
        return max(b - a for a, b in zip(self.tokens, self.tokens[1:], strict=False))


class Timeline(tuple[Run, ...]):
    """Runs on one scale: `|` a round trip begins, `●` tokens come, a column for 10 ms."""

    __slots__ = ()

    def __repr__(self) -> str:
        width = max(len(run.way) for run in self)
        scale = "".join(f"{ms:<10}" for ms in self._scale())
        return "\n".join([f"{'ms':<{width}}  {scale}".rstrip(), *(f"{run.way:<{width}}  {_line(run)}" for run in self)])

    def _repr_svg_(self) -> str:
        marks = [label(LEFT + ms * SCALE // 1000, 18, f"{ms} ms") for ms in self._scale()]
        lanes = [_lane(run, 46 + HIGH * n) for n, run in enumerate(self)]
        return svg(LEFT + self._scale().stop * SCALE // 1000 + 40, HIGH * len(self) + 40, repr(self), marks + lanes)

    def _scale(self) -> range:
        """Milliseconds to name, the last one past the end."""
        return range(0, int(max(run.tokens[-1] for run in self) * 1000) + 100, 100)


def _line(run: Run) -> str:
    columns = ["-"] * (int(run.tokens[-1] * 100) + 1)
    for at in run.trips:
        columns[int(at * 100)] = "|"
    for at in run.tokens:
        columns[int(at * 100)] = "●"
    return "".join(columns)


def _lane(run: Run, y: int) -> str:
    end, *trips = (int(LEFT + at * SCALE) for at in (run.tokens[-1], *run.trips))
    line = f"<path d='M{LEFT} {y}H{end}{''.join(f'M{x} {y - 8}v16' for x in trips)}' stroke='#888' stroke-width='2'/>"
    dots = (f"<circle cx='{LEFT + at * SCALE:.0f}' cy='{y}' r='5' fill='#06c' fill-opacity='.6'/>" for at in run.tokens)
    return f"{label(4, y + 4, run.way)}{line}{''.join(dots)}"
