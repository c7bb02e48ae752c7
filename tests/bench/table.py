"""Table: what a bench prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One number, in words; without a target it is for information."""

    what: str
    measured: str
    target: str = ""
    met: bool = True


def render(rows: Sequence[Row]) -> str:
    """The rows, in columns that line up."""
    cells = [("", "measured", "target", ""), *((r.what, r.measured, r.target, _met(r)) for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * (sum(widths) + 6), *lines[1:]])


def _met(row: Row) -> str:
    if not row.target:
        return ""
    return "met" if row.met else "MISSED"
