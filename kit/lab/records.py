"""Records: what a trace holds: handshakes, frames and ends of connections, store commands, and calls of agents."""

from __future__ import annotations

from html import escape
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct
from websockets.frames import Opcode
from websockets.utils import apply_mask

from kit.lab.table import as_html, as_text, shorten

Direction = Literal["up", "down"]
SHOWN = 500
"""Records in one table at most: a notebook with all of them would not open any more."""
What = Literal["called", "returned", "cancelled", "failed"]


class Record(Struct, frozen=True):
    """Something that happened, `time` seconds after the trace began."""

    time: float

    def row(self) -> tuple[str, str, str, str]:
        """Where, what, bytes and text, for a table."""
        raise NotImplementedError


class Handshake(Record, frozen=True):
    """An HTTP request on a TCP connection (a *wire*: 1, 2, ...), its head as text, and the status of the answer."""

    wire: int
    request: str
    status: int

    def row(self) -> tuple[str, str, str, str]:
        return f"wire {self.wire}", f"handshake {self.status}", str(len(self.request)), self.request.partition("\r\n")[0]


class Frame(Record, frozen=True):
    """A WebSocket frame (RFC 6455 section 5.2), `up` from the client or `down` to it. `raw`: its bytes as on the TCP stream."""

    wire: int
    direction: Direction
    raw: bytes

    @property
    def fin(self) -> bool:
        return bool(self.raw[0] & 0x80)

    @property
    def opcode(self) -> int:
        return self.raw[0] & 0x0F

    @property
    def masked(self) -> bool:
        return bool(self.raw[1] & 0x80)

    @property
    def header(self) -> bytes:
        return self.raw[: sum(lengths(self.raw)[:1])]

    @property
    def masking_key(self) -> bytes:
        return self.header[-4:] if self.masked else b""

    @property
    def payload(self) -> bytes:
        """What was sent, without its mask."""
        body = self.raw[len(self.header) :]
        return apply_mask(body, self.masking_key) if self.masked else body

    @property
    def text(self) -> str:
        """The payload as text; of a close frame its code and reason, of what is no text its bytes in hex."""
        payload = self.payload
        if self.opcode == Opcode.CLOSE:
            return f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode('utf-8', 'replace')}".rstrip() if payload else ""
        return payload.decode("utf-8", "replace") if self.opcode in (Opcode.TEXT, Opcode.CONT) else payload.hex(" ")

    @property
    def name(self) -> str:
        """The `type` of what it carries (`thought`, `prompt`, ...), or its opcode (`ping`, `close`, `text`, ...)."""
        if self.opcode == Opcode.TEXT:
            try:
                return msgspec.json.decode(self.payload, type=_Typed).type
            except (msgspec.DecodeError, UnicodeDecodeError):
                return "text"
        return Opcode(self.opcode).name.lower() if self.opcode in list(Opcode) else f"opcode {self.opcode}"

    def row(self) -> tuple[str, str, str, str]:
        return f"wire {self.wire} {'↑' if self.direction == 'up' else '↓'} {self.direction}", self.name, str(len(self.raw)), self.text


class Closed(Record, frozen=True):
    """The TCP connection is gone. `code`: of the close frame that came; 1006 without one; None where no WebSocket was opened."""

    wire: int
    code: int | None

    def row(self) -> tuple[str, str, str, str]:
        return f"wire {self.wire}", "closed", "", "" if self.code is None else str(self.code)


class Command(Record, frozen=True):
    """What the instance asked of the store, about which key."""

    name: str
    key: str

    def row(self) -> tuple[str, str, str, str]:
        return "store", self.name, "", self.key


class TurnChange(Record, frozen=True):
    """The agent of a turn was called, or came to an end."""

    turn: str
    what: What

    def row(self) -> tuple[str, str, str, str]:
        return "agent", self.what, "", self.turn


AnyRecord = TypeVar("AnyRecord", bound=Record)


class Records(tuple[Record, ...]):
    """Records in their order, shown as a table."""

    __slots__ = ()

    def of(self, kind: type[AnyRecord]) -> tuple[AnyRecord, ...]:
        """Those of one kind, as in `trace.since(mark).of(Handshake)`."""
        return tuple(record for record in self if isinstance(record, kind))

    def rows(self) -> list[tuple[str, ...]]:
        """Seconds, where, what, bytes, and the beginning of the text."""
        told = [(record.time, *record.row()) for record in self]
        return [(f"{at:.3f}", *more, shorten(text)) for at, *more, text in told]

    def __repr__(self) -> str:
        return as_text(Records(self[-SHOWN:]).rows()) + self._left_out() if self else "(nothing recorded)"

    def _repr_html_(self) -> str:
        return as_html(Records(self[-SHOWN:]).rows(), ("s", "where", "what", "bytes", "text")) + escape(self._left_out())

    def _left_out(self) -> str:
        return f"\n({len(self) - SHOWN} earlier ones are not shown)" if len(self) > SHOWN else ""


class _Typed(Struct):
    """All that `Frame.name` wants to know."""

    type: str = "text"


def lengths(data: bytes | bytearray) -> tuple[int, int] | tuple[()]:
    """The lengths of the header and of the payload of the frame that begins here; nothing where too little of it has come to tell."""
    if len(data) < 2:
        return ()
    more = {126: 2, 127: 8}.get(data[1] & 0x7F, 0)
    header = 2 + more + (4 if data[1] & 0x80 else 0)
    if len(data) < header:
        return ()
    return header, int.from_bytes(data[2 : 2 + more], "big") if more else data[1] & 0x7F
