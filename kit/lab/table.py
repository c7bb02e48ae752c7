"""Table: rows of text as a notebook shows them: aligned in plain text, and as HTML that needs no style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = "text-align: left; vertical-align: top"  # Jupyter's tables are made for numbers
_SHORT = 24
"""Characters up to which a row's first cell, an id or a name, stays on one line."""


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """One line a row; a column is as wide as its widest cell."""
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, width, strict=True)).rstrip() for row in rows)


def as_html(rows: Sequence[Sequence[str]], names: Sequence[str] = ()) -> str:
    """A table with a head of names; without names the first cell of a row is its head."""
    head = "".join(f"<th scope='col' style='{_STYLE}'>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(cell, i, is_head=not names and i == 0) for i, cell in enumerate(row))}</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if names else ''}<tbody>{body}</tbody></table>"


def shorten(text: str, limit: int = 60) -> str:
    """The beginning of a text, in one line."""
    line = text.translate({ord("\n"): "⏎", ord("\r"): None})
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _cell(text: str, column: int, *, is_head: bool) -> str:
    style = _STYLE + ("; white-space: nowrap" if column == 0 and len(text) <= _SHORT else "")
    name = "th scope='row'" if is_head else "td"
    return f"<{name} style='{style}'>{escape(text)}</{name[:2]}>"
