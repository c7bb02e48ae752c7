"""Panel: a session in a notebook's output. The page-side client does the work; the kernel only mounts it and hands out a ticket.

The page opens its own WebSocket to the instance, so that Stop works while a cell is running; comms wait for the cell to end. Where
the page can reach the instance neither directly nor through jupyter-server-proxy, its frames are piped over the widget's comm.

No credential is ever a trait: traits are saved with the notebook. A ticket travels as a message, which is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import Any, Protocol

from traitlets import Unicode

from kit.auth import opens
from kit.log import SESSION
from kit.widgets.pipe import Pipe
from kit.widgets.widget import Widget, module, style


class Host(Protocol):
    """What the panel needs of the lab: where the instance is, the loop it runs on, and tickets for pages."""

    @property
    def url(self) -> str: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    def issue_ticket(self, session: str, origin: str, deliver: Callable[[str], None]) -> None:
        """Return at once and call `deliver(ticket)` later, from any thread."""


MAX_PIPES = 32
"""Sockets that may be piped at a time, one for each page and one for each document in it. A page that vanished cannot say so: the oldest
gives way."""


class Panel(Widget):
    """Shows a session of the instance that `host` runs, as in `Panel(lab.start(), "demo")`."""

    _esm = module(
        "wire.js",
        "shelf.js",
        "text.js",
        "comm.js",
        "transports.js",
        "connection.js",
        "outbox.js",
        "session.js",
        "turns.js",
        "people.js",
        "document.js",
        "textarea.js",
        "diagram.js",
        "documents.js",
        "view.js",
        "actions.js",
        "panel.js",
    )
    _css = style()
    url = Unicode().tag(sync=True)
    session = Unicode().tag(sync=True)

    def __init__(self, host: Host, session: str = "demo") -> None:
        super().__init__(url=host.url, session=session)
        self._host = host
        self._loop = host.loop
        self._pipes: dict[str, Pipe] = {}  # touched on the loop only

    def twin(self) -> tuple[str, str]:
        caption = f"Panel of session {self.session}: run this notebook to talk to it."
        return caption, f"<p><em>{escape(caption)}</em></p>"

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop may have ended, and with it the pipes
            self._loop.call_soon_threadsafe(self._close_pipes)
        super().close()

    def _close_pipes(self) -> None:
        while self._pipes:
            self._pipes.popitem()[1].close()

    def heard(self, message: Any) -> None:
        match message:
            case {"kit": "ticket", "id": str(page), "origin": str(origin)}:
                self._host.issue_ticket(self.session, origin, lambda ticket: self.send({"kit": "ticket", "to": page, "ticket": ticket}))
            case {"kit": "open", "id": str(page), "session": str(name), "query": str(query), "protocols": list(sub), "origin": str(origin)}:
                if SESSION.fullmatch(name) and opens(self.session, name):
                    self._loop.call_soon_threadsafe(self._open, page, f"{self.url}/s/{name}{query}", sub, origin)
            case {"kit": "frames", "id": str(page), "frames": list(frames)}:
                self._loop.call_soon_threadsafe(self._said, page, frames)
            case {"kit": "close", "id": str(page)}:
                self._loop.call_soon_threadsafe(self._hang_up, page)

    def _open(self, page: str, url: str, protocols: list[str], origin: str) -> None:
        if len(self._pipes) >= MAX_PIPES:
            self._hang_up(next(iter(self._pipes)))

        def send(message: dict[str, Any]) -> None:
            if message["kit"] == "closed":
                self._pipes.pop(page, None)
            self.send({**message, "to": page})

        self._pipes[page] = Pipe(url, protocols, origin, send)

    def _said(self, page: str, frames: list[str]) -> None:
        if pipe := self._pipes.get(page):
            pipe.say(frames)

    def _hang_up(self, page: str) -> None:
        if pipe := self._pipes.pop(page, None):
            pipe.close()
