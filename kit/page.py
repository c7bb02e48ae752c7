"""Page: what a browser gets over plain HTTP to join a room: one page, and the widgets' own modules and styles as they are.

Nothing is built, nothing comes from another address, no script stands in the page itself; the policy says so to the browser, too. The page
holds no secret: whoever may come in is decided at the door. So the link's ticket travels in its fragment, which no browser sends.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILES = Path(__file__).parent / "widgets"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PATH = re.compile(r"/room/(?P<room>[A-Za-z0-9_-]{1,64})|/widgets/(?P<file>[a-z]{1,32}\.(?:js|css))")


class Page(NamedTuple):
    """A file of the page, and the headers that go with it."""

    text: str
    headers: dict[str, str]


def page(target: str, rooms: Collection[str]) -> Page | None:
    """What stands at `/room/<session>` of a room, or at `/widgets/<file>` where there is any; None for anything else."""
    found = _PATH.fullmatch(target.partition("?")[0])
    if not found or not rooms or (found["room"] or next(iter(rooms))) not in rooms:
        return None
    return _file(found["file"] or "page.html")


@cache
def _file(name: str) -> Page | None:
    path = FILES / name
    return Page(path.read_text("utf-8"), {**HEADERS, "Content-Type": f"{TYPES[path.suffix]}; charset=utf-8"}) if path.is_file() else None
