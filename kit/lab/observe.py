"""Observe: a server's connection that tells a trace all that passes through it, without the credentials."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection
from websockets.utils import apply_mask

from kit.lab.records import Closed, Direction, Frame, Handshake, lengths

if TYPE_CHECKING:
    from kit.lab.trace import Trace


class ObservedConnection(ServerConnection):
    """A server's connection that tells its trace what comes and goes, as bytes, before it looks at them itself."""

    trace: Trace

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.wire = self.trace.new_wire()
        self.status = 0
        self._came = bytearray()
        self._head = ""

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self._head and (end := self._came.find(b"\r\n\r\n")) >= 0:
            self._head = masked(bytes(self._came[:end])).decode("latin-1")
            del self._came[: end + 4]
        self._tell_frames()
        super().data_received(data)

    def send_data(self) -> None:
        # What `data_to_send` is about to give: the answer to the handshake, then one item for each frame.
        for data in self.protocol.writes:
            if self.status == 101 and data:
                self._tell(data, "down")
            elif not self.status and data.startswith(b"HTTP/1.1 "):
                self.status = int(data[9:12])
                self.trace.add(Handshake(self.trace.now(), self.wire, self._head, self.status))
        super().send_data()
        self._tell_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.trace.add(Closed(self.trace.now(), self.wire, self.protocol.close_code if self.status == 101 else None))

    def _tell_frames(self) -> None:
        """A TCP segment ends anywhere: tell the frames that are complete. None counts before the 101."""
        while self.status == 101 and (length := sum(lengths(self._came))) and len(self._came) >= length:
            self._tell(bytes(self._came[:length]), "up")
            del self._came[:length]

    def _tell(self, raw: bytes, direction: Direction) -> None:
        frame = Frame(self.trace.now(), self.wire, direction, raw)
        if (clean := masked(frame.payload)) != frame.payload:
            raw = frame.header + (apply_mask(clean, frame.masking_key) if frame.masked else clean)
            frame = Frame(frame.time, self.wire, direction, raw)
        self.trace.add(frame)


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
