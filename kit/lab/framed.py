"""Framed: a line that tells of every WebSocket frame as it comes through, and leads to any of several instances."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from kit.lab.line import Line
from kit.lab.records import Frame, lengths

Heard = Callable[[Frame | bytes, bool], None]
"""Is given a frame, or (as bytes) the head of the handshake, and whether it goes up."""


class FramedLine(Line):
    """It leads to whichever of its `nodes` runs, and tells what has come through: `heard(frame, up)`."""

    heard: Heard | None = None
    nodes: Sequence[Any] = ()
    ports_behind: Sequence[int] = ()

    def accept(self, near: Any, back: Any) -> None:
        """Whoever comes back may land anywhere."""
        running = [port for port, node in zip(self.ports_behind, self.nodes, strict=True) if node.running] or self.ports_behind
        self.to = running[self.dials % len(running)]
        super().accept(near, back)

    def shut(self, connections: float = 1) -> None:
        """And the connection that is open is cut."""
        super().shut(connections)
        self.cut()

    async def _carry(self, source: Any, sink: Any, connection: Any, *, up: bool) -> None:
        frames: Any = sink if self.heard is None else _Sink(sink, up, self.heard)
        await super()._carry(source, frames, connection, up=up)


class _Sink:
    """A stream's writer that passes on one frame at a time; the first thing to pass is the head of the handshake."""

    def __init__(self, sink: Any, up: bool, heard: Heard) -> None:
        self._sink, self._up, self._heard = sink, up, heard
        self._head, self._passing = True, bytearray()

    def write(self, piece: bytes) -> None:
        self._passing += piece
        while length := self._next():
            part = bytes(self._passing[:length])
            del self._passing[:length]
            told = part if self._head else Frame(0.0, 0, "up" if self._up else "down", part)
            self._head = False
            if not self._sink.is_closing():
                self._sink.write(part)
                self._heard(told, self._up)

    def _next(self) -> int:
        if self._head:
            return self._passing.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in self._passing else 0
        needed = sum(lengths(self._passing))
        return needed if 0 < needed <= len(self._passing) else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


@asynccontextmanager
async def line_to(nodes: Sequence[Any], heard: Heard | None = None) -> AsyncIterator[FramedLine]:
    """A line to any of several instances or processes, to another one at each dial; `heard` is told of each frame."""
    wire = FramedLine(0)
    wire.nodes, wire.heard = nodes, heard
    wire.ports_behind = [int(node.url.rpartition(":")[2]) for node in nodes]  # who is started again keeps its own
    async with wire.listening():
        yield wire
