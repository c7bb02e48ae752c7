"""Observe: a server's connection that tells a trace all that passes through it, without the credentials."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from websockets.utils import apply_mask

from kit.lab.records import Closed, Direction, Frame, Handshake, lengths
from kit.server import BoundedConnection

if TYPE_CHECKING:
    from kit.lab.trace import Trace


class ObservedConnection(BoundedConnection):
    """A server's connection that tells its trace what comes and goes, as it is on the TCP stream: before the server looks at it."""

    trace: Trace

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.wire = self.trace.new_wire()
        self.request_head = ""
        self.status = 0
        self._passing: dict[Direction, bytearray] = {"up": bytearray(), "down": bytearray()}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tap: Any = _Tap(transport, lambda data: self._passed("down", data))
        super().connection_made(tap)

    def data_received(self, data: bytes) -> None:
        self._passed("up", data)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.trace.add(Closed(self.trace.now(), self.wire, self.protocol.close_code if self.status == 101 else None))

    def _passed(self, direction: Direction, data: bytes) -> None:
        self._passing[direction] += data
        if not self.request_head:
            self.request_head = masked(_head(self._passing["up"])).decode("latin-1")
        if not self.status and (answer := _head(self._passing["down"])):
            self.status = int(answer[9:12])
            self.trace.add(Handshake(self.trace.now(), self.wire, self.request_head, self.status))
        if self.status == 101:
            self._tell("up")  # what a hasty client sent before the 101 counts from then on
            self._tell("down")

    def _tell(self, direction: Direction) -> None:
        """Record the frames that are complete; a segment, or a write, may end anywhere."""
        passing = self._passing[direction]
        while (length := sum(lengths(passing))) and len(passing) >= length:
            frame = Frame(self.trace.now(), self.wire, direction, bytes(passing[:length]))
            if (clean := masked(frame.payload)) != frame.payload:
                raw = frame.header + (apply_mask(clean, frame.masking_key) if frame.masked else clean)
                frame = Frame(frame.time, self.wire, direction, raw)
            self.trace.add(frame)
            del passing[:length]


class _Tap:
    """A transport that tells what is written to it; in all else it is the transport."""

    def __init__(self, transport: asyncio.BaseTransport, tell: Callable[[bytes], None]) -> None:
        self._transport: Any = transport
        self._tell = tell

    def write(self, data: bytes) -> None:
        self._tell(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _head(stream: bytearray) -> bytes:
    """Take the head of an HTTP message off a stream, once it is complete."""
    head, end, _ = bytes(stream).partition(b"\r\n\r\n")
    if not end:
        return b""
    del stream[: len(head) + len(end)]
    return head


_SECRET = re.compile(
    rb"""(?imx) (?P<open> ^(?:authorization:\ *\w+\ |(?:set-)?cookie:\ *) ) [^\r\n]+
    | (?P<name> [?&](?:access_token|token|ticket)= ) [^&\s]+
    | (?P<field> "(?:ticket|token)"\s*:\s*" ) [^"]+
    | (?P<ticket> \bticket[.:] ) [\w-]{16,}
    | eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"""
)


def masked(data: bytes) -> bytes:
    """The same with `*` for each character of a credential: JWTs, tickets, `Authorization` and cookies; what is no secret stays."""

    def stars(found: re.Match[bytes]) -> bytes:
        kept: bytes = found[found.lastgroup] if found.lastgroup else b""
        return kept + b"*" * (len(found[0]) - len(kept))

    return _SECRET.sub(stars, data)
