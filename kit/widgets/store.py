"""Store view: what the store holds of a session, in a notebook's output, as it changes: `StoreView(here, "demo")`.

The kit's thread looks, four times a second, while a page shows the view; and a page says that it does, as a turn's run says that it lives:
again and again. What is sent is a trait, so that a page that loads again has the newest picture at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from html import escape
from typing import Any

import msgspec
from traitlets import Dict, Unicode

from kit.lab.picture import Picture, look
from kit.lab.start import Lab
from kit.lab.table import as_html, as_text
from kit.lab.thread import run
from kit.store import StoreError
from kit.text import inert
from kit.widgets.widget import Widget, module, style

EVERY = 0.25
"""Seconds between two looks."""
SHOWN = 60.0
"""Seconds for which a page's word that it shows the view is good: a cell that runs long keeps the next one waiting."""
HEADS = {
    "turns": ("open turn", "held by", "lease"),
    "entries": ("id", "who", "what", "text"),
    "keys": ("key", "type", "holds", "expires in"),
}


class StoreView(Widget):
    """Shows the keys of a session and of its shard, the newest entries of its log, and the lease of each open turn."""

    _esm = module("comm.js", "text.js", "storeview.js")
    _css = style("storeview.css")
    session = Unicode().tag(sync=True)
    picture = Dict().tag(sync=True)

    def __init__(self, host: Lab, session: str = "demo") -> None:
        self._transcript = host.server.instance.transcript
        self._loop = host.loop
        self._shown = asyncio.Event()
        self._until = self._loop.time() + SHOWN
        first = run(look(self._transcript, session))
        super().__init__(session=session, picture=self._sent(first, "live"))
        host.beside(self._follow())

    def _sent(self, picture: Picture, state: str) -> dict[str, Any]:
        return {**msgspec.to_builtins(picture), "heads": HEADS, "lease": self._transcript.lease, "state": state}

    async def _follow(self) -> None:
        try:
            while True:
                await asyncio.sleep(EVERY)
                if self._loop.time() > self._until:
                    self._shown.clear()
                    await self._shown.wait()
                try:
                    self.picture = self._sent(await look(self._transcript, self.session), "live")
                except StoreError:
                    self.picture = {**self.picture, "state": "the store does not answer"}
        finally:
            self.picture = {**self.picture, "state": "the lab has ended"}

    def heard(self, message: Any) -> None:
        match message:
            case {"kit": "shown"}:
                self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        self._until = self._loop.time() + SHOWN
        self._shown.set()

    # ---- the twin ----

    def _tables(self) -> list[tuple[tuple[str, ...], list[Sequence[str]]]]:
        """Heads and rows of what is shown, as text that is never obeyed."""
        turns = [(turn, by or "nobody", f"{left:.1f} s left" if by else "free") for turn, by, left in self.picture["turns"]]
        tables = {**self.picture, "turns": turns}
        return [(heads, [[inert(cell) for cell in row] for row in tables[name]]) for name, heads in HEADS.items() if tables[name]]

    def twin(self) -> tuple[str, str]:
        title, tables = f"What the store holds of session {self.session}", self._tables()
        text = "\n\n".join([title, *(as_text([heads, *rows]) for heads, rows in tables)])
        html = f"<p>{escape(title)}</p>" + "".join(as_html(rows, heads) for heads, rows in tables)
        return text, html
