"""Drawing: SVG that a cell shows as an image, which does not know whether its page is dark: so it has a white ground."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def svg(wide: float, high: float, title: str, parts: Iterable[str]) -> str:
    """A drawing of so many pixels, or fewer where the page is narrower; `title` says the same in words."""
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {wide:.0f} {high:.0f}' width='100%' style='max-width: {wide:.0f}px' "
        f"font-family='sans-serif' font-size='13'><title>{escape(title)}</title>"
        f"<rect width='100%' height='100%' fill='white'/>{''.join(parts)}</svg>"
    )


def label(x: float, y: float, text: str, more: str = "") -> str:
    """A line of text that begins at `x`; `more`: attributes."""
    return f"<text x='{x:.0f}' y='{y:.0f}'{more}>{escape(text)}</text>"
