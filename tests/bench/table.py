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


class Table(NamedTuple):
    """Cells, the head first (a row may end early), and sentences about them."""

    cells: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        return cls([["", "measured", "target", ""], *([r.what, r.measured, r.target, _met(r)] for r in rows)])

    def render(self) -> str:
        """In columns that line up."""
        columns = len(self.cells[0])
        rows = [[*row, *[""] * (columns - len(row))] for row in self.cells]
        widths = [max(len(row[i]) for row in rows) for i in range(columns)]
        head, *lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([head, "-" * (sum(widths) + 2 * columns - 2), *lines, *self.notes])


def _met(row: Row) -> str:
    if not row.target:
        return ""
    return "met" if row.met else "MISSED"
