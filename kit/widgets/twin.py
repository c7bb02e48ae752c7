"""Twin: a trace as it reads where no script runs: in a saved notebook, on a forge's page, in a terminal.

Nothing here needs a style. Where a page strips the drawing too, the table says the same in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import msgspec
from msgspec import Struct
from websockets.frames import Opcode

from kit.lab.table import as_html as html_table
from kit.lab.table import as_text as text_table
from kit.lab.table import shorten
from kit.lab.trace import Closed, Command, Frame, Handshake, Record, TurnChange
from kit.text import inert

SHOWN = 24
"""Records in the twin at most: the beginning and the end."""
LANES = ("client", "instance", "store", "agent")
WAYS = {
    "open": (0, 1, "⇄"),
    "up": (0, 1, "→"),
    "down": (1, 0, "←"),
    "close": (0, 1, "✕"),
    "store": (1, 2, "→"),
    "call": (1, 3, "→"),
    "turn": (3, 1, "←"),
}
"""How a record moves: from lane, to lane, and its sign between the two, left to right. wireview.js draws the same."""
HEAD = ("#", "time (s)", "direction", "kind", "id", "bytes", "text")


class Row(NamedTuple):
    """One record, as a row of the table. `way`: a key of WAYS; `wire` is 0 for what goes over none, `size` for what is no frame."""

    time: float
    wire: int
    way: str
    kind: str
    id: str
    size: int
    text: str


class _Id(Struct):
    """All that a row wants to know of a frame's JSON."""

    id: str = ""


def row_of(record: Record) -> Row:
    """One record, as a row."""
    match record:
        case Frame(time=time, wire=wire, direction=direction, raw=raw):
            return Row(time, wire, direction, record.name, _id(record), len(raw), record.text)
        case Handshake(time=time, wire=wire, request=request, status=status):
            return Row(time, wire, "open", "handshake", str(status), 0, request)
        case Closed(time=time, wire=wire, code=code):
            return Row(time, wire, "close", "closed", "" if code is None else str(code), 0, "")
        case Command(time=time, name=name, key=key):
            return Row(time, 0, "store", name, "", 0, key)
        case TurnChange(time=time, turn=turn, what=what):
            return Row(time, 0, "call" if what == "called" else "turn", what, turn, 0, "")
        case _:
            raise TypeError(f"no row is known for a {type(record).__name__}")


def raw_of(record: Record) -> bytes:
    """The bytes of a frame; of anything else none."""
    return record.raw if isinstance(record, Frame) else b""


def _id(frame: Frame) -> str:
    try:
        return msgspec.json.decode(frame.payload, type=_Id).id if frame.opcode == Opcode.TEXT else ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


# ---- the bytes of a frame ----

OPCODES = {0x0: "continuation", 0x1: "text", 0x2: "binary", 0x8: "close", 0x9: "ping", 0xA: "pong"}


class Field(NamedTuple):
    """One part of a frame: where it stands (`raw[start:stop]`; the first two bytes hold several), its bits or bytes, what they say."""

    name: str
    start: int
    stop: int
    bits: str
    means: str


def fields(raw: bytes) -> list[Field]:
    """Each part of a whole frame, in order (RFC 6455 section 5.2). wirebytes.js takes it apart alike; a test holds the two together."""
    first, second = f"{raw[0]:08b}", f"{raw[1]:08b}"
    short = raw[1] & 0x7F
    at = 2 + {126: 2, 127: 8}.get(short, 0)
    start = at + 4 * (raw[1] >> 7)
    extension = {"000": "no extension", "100": "compressed (RFC 7692)"}.get(first[1:4], "an extension's")
    found = [
        Field("FIN", 0, 1, first[0], "last fragment" if first[0] == "1" else "more follow"),
        Field("RSV1-3", 0, 1, first[1:4], extension),
        Field("opcode", 0, 1, first[4:], OPCODES.get(raw[0] & 0xF, "reserved")),
        Field("MASK", 1, 2, second[0], "masked" if start > at else "not masked"),
        Field("payload length", 1, 2, second[1:], f"{short}: see the next {8 * (at - 2)} bits" if at > 2 else f"{short} bytes"),
    ]
    if at > 2:
        found.append(Field("extended payload length", 2, at, raw[2:at].hex(" "), f"{int.from_bytes(raw[2:at], 'big')} bytes"))
    if start > at:
        found.append(Field("masking key", at, start, raw[at:start].hex(" "), "XORed with the payload"))
    return [*found, Field("payload", start, len(raw), "", f"{len(raw) - start} bytes{', masked' if start > at else ''}")]


# ---- as text and as HTML ----


def as_text(records: Sequence[Record]) -> str:
    """The table, and a frame's bytes, in plain text."""
    parts = [text_table([HEAD, *_cells(records)])]
    if frame := _example(records):
        parts += [_title(frame), text_table(_bytes(frame))]
    return "\n\n".join(parts) if records else "(nothing recorded)"


def as_html(records: Sequence[Record]) -> str:
    """The lanes as SVG, the table, and a frame's bytes."""
    if not records:
        return "<p>(nothing recorded)</p>"
    parts = [_lanes(records), html_table(_cells(records), HEAD)]
    if frame := _example(records):
        parts += [f"<p>{escape(_title(frame))}</p>", html_table(_bytes(frame), ("bytes", "part", "bits or bytes", "meaning"))]
    return "".join(parts)


def _chosen(records: Sequence[Record]) -> list[tuple[int, Record]]:
    numbered = [*enumerate(records)]
    return numbered if len(numbered) <= SHOWN else numbered[: SHOWN // 2] + numbered[-SHOWN // 2 :]


def _cells(records: Sequence[Record]) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = []
    for n, record in _chosen(records):
        row = row_of(record)
        if cells and n > int(cells[-1][0]) + 1:
            cells.append(("…", "", "", "", "", "", f"{len(records) - SHOWN} more"))
        cells.append(
            (
                str(n),
                f"{row.time:.3f}",
                direction(row),
                *(inert(part) for part in (row.kind, row.id)),
                str(row.size or ""),
                _cut(row.text),
            )
        )
    return cells


def direction(row: Row) -> str:
    """`client → instance`."""
    start, end, sign = WAYS[row.way]
    return f"{LANES[min(start, end)]} {sign} {LANES[max(start, end)]}"


def _cut(text: str, most: int = 60) -> str:
    return shorten(inert(text.partition("\r\n")[0]), most)


def _example(records: Sequence[Record]) -> Frame | None:
    """The frame that teaches most: the first that is masked, else the first."""
    frames = [r for r in records if isinstance(r, Frame)]
    return next((f for f in frames if f.masked), frames[0] if frames else None)


def _title(frame: Frame) -> str:
    row = row_of(frame)
    return f"The bytes of a frame, {direction(row)}: {_cut(f'{row.kind} {row.id}'.strip())}"


def _bytes(frame: Frame) -> list[tuple[str, ...]]:
    rows = [(f"{f.start}" if f.stop - f.start < 2 else f"{f.start}-{f.stop - 1}", f.name, f.bits, f.means) for f in fields(frame.raw)]
    *head, (where, name, _, _) = rows
    start = len(frame.header)
    sent = frame.raw[start : start + 16].hex(" ") + (" …" if len(frame.raw) > start + 16 else "")
    return [*head, (where, name, sent, _cut(frame.text))]


# ---- the lanes ----

_WIDTH, _ROW, _TOP = 600, 24, 34
_X = [_WIDTH * (2 * lane + 1) // (2 * len(LANES)) for lane in range(len(LANES))]


def _lanes(records: Sequence[Record]) -> str:
    """The sequence diagram. Colours are the page's own (`currentColor`), so that it reads on light and dark."""
    chosen = _chosen(records)
    height = _TOP + _ROW * len(chosen) + 6
    heads = (f'<text x="{x}" y="16" text-anchor="middle" font-weight="bold">{lane}</text>\n' for x, lane in zip(_X, LANES, strict=True))
    lines = (f'<line x1="{x}" x2="{x}" y1="24" y2="{height}" stroke="currentColor" stroke-opacity="0.35"/>' for x in _X)
    arrows = (_arrow(_TOP + _ROW * i, f"⋮ {n}" if i and n > chosen[i - 1][0] + 1 else str(n), row_of(r)) for i, (n, r) in enumerate(chosen))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="Sequence diagram; the table below says the same" font-family="sans-serif" font-size="12" fill="currentColor">'
        f"{''.join(heads)}{''.join(lines)}{''.join(arrows)}</svg>"
    )


def _arrow(y: int, number: str, row: Row) -> str:
    start, end, _ = WAYS[row.way]
    a, b, y = _X[start], _X[end], y + _ROW - 6
    back = 8 if b < a else -8
    tip = f"M{b - 4},{y - 4} l8,8 m-8,0 l8,-8" if row.way == "close" else f"M{b},{y} l{back},-4 v8 z"
    dash = ' stroke-dasharray="5 3"' if row.way in ("store", "call", "turn") else ""
    label = escape(_cut(f"{row.kind} {row.id}".strip(), 24))
    middle = (_X[min(start, end)] + _X[min(start, end) + 1]) // 2
    return (
        f'<text x="4" y="{y + 4}" fill-opacity="0.75">{number}</text>\n<text x="{middle}" y="{y - 4}" text-anchor="middle">{label}</text>\n'
        f'<path d="M{a},{y} H{b}" stroke="currentColor" fill="none"{dash}/><path d="{tip}" stroke="currentColor"/>'
    )
