"""The wire view's Python side: a frame taken apart, the twin, and what is sent to a page and when."""

from __future__ import annotations

import asyncio
import json
import queue
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output
from websockets.extensions import Extension
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader
from websockets.typing import ExtensionName

from kit.lab.start import Lab
from kit.lab.thread import loop
from kit.lab.trace import Closed, Command, Frame, Handshake, Record, Trace, TurnChange
from kit.widgets.twin import OPCODES, SHOWN, Row, as_html, as_text, fields, row_of
from kit.widgets.wire import BATCH, WireView
from tests.notebooks.save import clean

CONTROL = [Opcode.CLOSE, Opcode.PING, Opcode.PONG]


def sent(payload: str | bytes, *, masked: bool = False, opcode: Opcode = Opcode.TEXT) -> bytes:
    """A frame as websockets puts it on the wire."""
    return WebSocketFrame(opcode, payload.encode() if isinstance(payload, str) else payload).serialize(mask=masked)


def packet(n: int, text: str = "hello") -> Frame:
    return Frame(n / 100, 1, "down", sent(json.dumps({"type": "content", "id": f"1-{n}", "text": text})))


ONE_OF_EACH: list[tuple[Record, Row]] = [
    (
        Handshake(0.0, 1, "GET /s/demo HTTP/1.1\r\nHost: x", 101),
        Row(0.0, 1, "open", "handshake", "101", 0, "GET /s/demo HTTP/1.1\r\nHost: x"),
    ),
    (Frame(0.1, 1, "up", sent("hi", masked=True)), Row(0.1, 1, "up", "text", "", 8, "hi")),
    (Frame(0.2, 1, "down", sent('{"type":"end","id":"1-2"}')), Row(0.2, 1, "down", "end", "1-2", 27, '{"type":"end","id":"1-2"}')),
    (Command(0.3, "XADD", "{0}:demo:x"), Row(0.3, 0, "store", "XADD", "", 0, "{0}:demo:x")),
    (TurnChange(0.4, "1-0/demo", "called"), Row(0.4, 0, "call", "called", "1-0/demo", 0, "")),
    (TurnChange(0.5, "1-0/demo", "failed"), Row(0.5, 0, "turn", "failed", "1-0/demo", 0, "")),
    (Closed(0.6, 1, 1006), Row(0.6, 1, "close", "closed", "1006", 0, "")),
]


# ---- a frame taken apart ----


class Reserved(Extension):
    """An extension that sets the three reserved bits; reading, it takes them off (the parser refuses any that are left) and keeps them."""

    name = ExtensionName("reserved")

    def __init__(self, bits: str) -> None:
        self.bits = bits

    def encode(self, frame: WebSocketFrame) -> WebSocketFrame:
        return replace(frame, **{f"rsv{i}": bit == "1" for i, bit in enumerate(self.bits, 1)})

    def decode(self, frame: WebSocketFrame, *, max_size: int | None = None) -> WebSocketFrame:
        self.bits = f"{frame.rsv1:d}{frame.rsv2:d}{frame.rsv3:d}"
        return replace(frame, rsv1=False, rsv2=False, rsv3=False)


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, bool]:
    """A frame as websockets writes it, and whether it is masked: any opcode and bits, each of the three kinds of length."""
    opcode = draw(st.sampled_from(Opcode))
    size = draw(st.integers(0, 125) if opcode in CONTROL else st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000]))
    data = (draw(st.binary(min_size=1, max_size=16)) * size)[:size]
    if opcode is Opcode.CLOSE:
        data = b"\x03\xe8" + b"a" * min(size, 123)
    frame, masked = WebSocketFrame(opcode, data, opcode in CONTROL or draw(st.booleans())), draw(st.booleans())
    return frame.serialize(mask=masked, extensions=[Reserved(f"{draw(st.integers(0, 7)):03b}")]), masked


def parsed(raw: bytes, masked: bool) -> tuple[WebSocketFrame, str]:
    """What websockets' own parser reads, and the reserved bits."""
    reader, reserved = StreamReader(), Reserved("")
    reader.feed_data(raw)
    try:
        next(WebSocketFrame.parse(reader.read_exact, mask=masked, extensions=[reserved]))
    except StopIteration as done:
        return done.value, reserved.bits
    raise AssertionError("the parser wants more bytes")


@given(frames())
def test_fields_agree_with_the_parser_of_websockets(made: tuple[bytes, bool]) -> None:
    """Each part says what an independent parser reads; with the mask taken off as the key says, the payload is the same."""
    raw, masked = made
    theirs, reserved = parsed(raw, masked)
    ours = {field.name: field for field in fields(raw)}
    assert ours["FIN"].bits == str(int(theirs.fin))
    assert ours["RSV1-3"].bits == reserved
    assert int(ours["opcode"].bits, 2) == theirs.opcode
    assert ours["MASK"].bits == str(int(masked))
    assert (ours.get("extended payload length") or ours["payload length"]).means == f"{len(theirs.data)} bytes"
    payload = raw[ours["payload"].start : ours["payload"].stop]
    if masked:
        key = bytes.fromhex(ours["masking key"].bits)
        payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    assert payload == theirs.data


@given(frames())
def test_fields_cover_every_byte_once(made: tuple[bytes, bool]) -> None:
    """In order and without a gap; only the first two bytes hold several parts, whose bits together are the byte."""
    raw, _ = made
    parts = fields(raw)
    for byte in (0, 1):
        assert int("".join(p.bits for p in parts[:5] if p.start == byte), 2) == raw[byte]
    assert [p.start for p in parts[5:]] == [2, *(p.stop for p in parts[5:-1])]
    assert parts[-1].stop == len(raw)


def test_the_opcodes_are_those_of_the_rfc() -> None:
    """As websockets names them."""
    short = {"continuation": "CONT"}
    assert {code: short.get(name, name.upper()) for code, name in OPCODES.items()} == {o.value: o.name for o in Opcode}


# ---- rows ----


@pytest.mark.parametrize(("record", "row"), ONE_OF_EACH, ids=lambda value: getattr(value, "way", ""))
def test_a_record_is_a_row(record: Record, row: Row) -> None:
    assert row_of(record) == row


def test_every_kind_of_record_has_a_row() -> None:
    """A kind that the trace learns must be taught here too."""
    assert {type(record) for record, _ in ONE_OF_EACH} == set(Record.__subclasses__())


@pytest.mark.parametrize("payload", [b"[1]", b'{"id": 7, "type": "x"}', b"\xff\xfe", b"{", b'"a"', b""])
def test_a_frame_that_is_no_packet_has_no_id(payload: bytes) -> None:
    """What a client sends may be anything."""
    assert row_of(Frame(0.0, 1, "up", sent(payload, masked=True))).id == ""


# ---- the twin ----


def test_what_is_no_trace_is_named() -> None:
    """The other widgets show a lab."""
    with pytest.raises(TypeError, match=r"as in WireView\(here\.trace\); not a Lab"):
        WireView(Lab.__new__(Lab))  # type: ignore[arg-type]  # a learner's


def test_the_twin_of_nothing_says_so() -> None:
    assert as_text(()) == "(nothing recorded)"
    assert as_html(()) == "<p>(nothing recorded)</p>"


def test_text_shows_direction_kind_id_and_size_and_takes_the_masked_frame_apart() -> None:
    """Plain text alone holds what the view shows."""
    text = as_text([record for record, _ in ONE_OF_EACH])
    assert re.search(r"^2 +0\.200 +client ← instance +end +1-2 +27 ", text, re.MULTILINE)
    assert re.search(r"^4 +0\.400 +instance → agent +called +1-0/demo", text, re.MULTILINE)
    assert re.search(r"^1 +MASK +1 +masked", text, re.MULTILINE)
    assert re.search(r"^2-5 +masking key +(\w\w ?){4} ", text, re.MULTILINE)


def test_html_reads_without_style_or_drawing() -> None:
    """A forge may strip every style and the SVG: the table still says it all, and the drawing is well-formed where it stays."""
    records = [record for record, _ in ONE_OF_EACH]
    html = as_html(records)
    assert "<style" not in html
    assert "class=" not in html
    drawing, rest = re.fullmatch(r"(<svg.*?</svg>)(.*)", html, re.DOTALL).groups()  # type: ignore[union-attr]  # a mismatch is the failure
    arrows = [path for path in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}path") if "H" in path.attrib["d"]]
    assert len(arrows) == len(records)
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", rest)]
    for row in map(row_of, records):
        assert {f"{row.time:.3f}", row.kind, row.id} <= {*cells}
    assert "<th scope='col'" in rest


def test_of_many_records_the_twin_shows_the_beginning_and_the_end() -> None:
    """And says how many it leaves out."""
    records = [packet(n) for n in range(1000)]
    lines = as_text(records).splitlines()
    assert [line.split()[0] for line in lines[1 : SHOWN + 2]] == [*map(str, range(12)), "…", *map(str, range(988, 1000))]
    assert lines[13].endswith(f"{1000 - SHOWN} more")
    assert f"{1000 - SHOWN} more" in as_html(records)
    assert "⋮ 988" in as_html(records)


NASTY = "<img src=x onerror=alert(1)> \u202eolleh \x1b[31mred\x07"


@pytest.mark.parametrize(
    "record", [Frame(0.0, 1, "up", sent(NASTY, masked=True)), Command(0.0, NASTY, NASTY), TurnChange(0.0, NASTY, "called")]
)
def test_text_of_others_stays_text(record: Record) -> None:
    """No markup, no terminal escape and no reordering comes through."""
    html, text = as_html([record]), as_text([record])
    assert "<img" not in html
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", html + text)
    assert "<U+202E>" in text


# ---- what a page gets ----


class WiredView(WireView):
    """A view whose comm ends in a queue."""

    def __init__(self, trace: Trace, shown: Literal["all", "wire"] = "all") -> None:
        self.sent: queue.Queue[dict[str, Any]] = queue.Queue()
        super().__init__(trace, shown)

    def send(self, content: dict[str, Any], buffers: Any = None) -> None:
        self.sent.put({**content, "raw": buffers[0]})

    def hear(self, message: Any) -> None:
        """What a page sends arrives as ipykernel hands it on."""
        self._handle_custom_msg(message, [])

    def received(self) -> dict[str, Any]:
        """The next message."""
        return self.sent.get(timeout=5)


@pytest.fixture
def trace() -> Trace:
    return Trace(clock=lambda: 0.0)


@pytest.fixture
def view(trace: Trace) -> Iterator[WiredView]:
    view = WiredView(trace)
    yield view
    view.close()


def record(trace: Trace, count: int) -> None:
    """Record at once, on the loop, as an instance does."""

    async def add() -> None:
        for _ in range(count):
            trace.add(packet(trace.mark()))

    asyncio.run_coroutine_threadsafe(add(), loop()).result(5)


def test_what_was_recorded_is_the_state_at_the_moment_it_is_asked_for(trace: Trace, view: WiredView) -> None:
    """A page that loads again gets all of it, not what there was when the cell ran."""
    assert view.get_state("recorded")["recorded"]["rows"] == []
    record(trace, 3)
    state = view.get_state("recorded")["recorded"]
    assert (state["after"], state["first"]) == (0, 0)
    assert [row.id for row in state["rows"]] == ["1-0", "1-1", "1-2"]
    assert state["raw"] == b"".join(packet(n).raw for n in range(3))


def test_records_travel_in_few_messages(trace: Trace, view: WiredView) -> None:
    """A thousand frames at once are one message: jupyter_server drops over a thousand a second."""
    record(trace, 1000)
    batch = view.received()
    assert (batch["kit"], batch["after"], batch["first"], len(batch["rows"])) == ("records", 0, 0, 1000)
    assert sum(row.size for row in batch["rows"]) == len(batch["raw"])
    json.dumps(batch["rows"])


def test_a_long_run_is_cut_and_goes_on_where_it_ended(trace: Trace, view: WiredView) -> None:
    """No message is so long that the page stumbles over it."""
    record(trace, 2 * BATCH + 1)
    batches = [view.received() for _ in range(3)]
    assert [(b["after"], len(b["rows"])) for b in batches] == [(0, BATCH), (BATCH, BATCH), (2 * BATCH, 1)]


def test_while_the_page_may_be_loading_a_batch_repeats_what_went_before(trace: Trace, view: WiredView) -> None:
    """Its module is not there yet to hear, and a kernel that is busy with the next cell would not hear it ask."""
    record(trace, 1)
    assert len(view.received()["rows"]) == 1
    record(trace, 1)
    assert [row.id for row in view.received()["rows"]] == ["1-0", "1-1"]


def test_a_page_that_lacks_something_is_sent_it_again(trace: Trace, view: WiredView) -> None:
    """From the mark it names; and from then on only what is new."""
    record(trace, 5)
    view.received()
    view.hear({"kit": "since", "mark": 2})
    again = view.received()
    assert (again["after"], [row.id for row in again["rows"]]) == (2, ["1-2", "1-3", "1-4"])
    record(trace, 1)
    assert [row.id for row in view.received()["rows"]] == ["1-5"]


def test_what_the_trace_let_go_is_not_asked_for_forever() -> None:
    """`after` stays what was asked, `first` says where the kept ones begin."""
    trace = Trace(clock=lambda: 0.0, keep=10)
    view = WiredView(trace)
    record(trace, 25)
    batch = view.batch(3)
    assert (batch["after"], batch["first"], len(batch["rows"])) == (3, 15, 10)
    view.close()


def test_a_view_that_nobody_sees_rests(trace: Trace, view: WiredView) -> None:
    """A cell that is run again leaves its view behind: it sends no more, until a page shows it."""
    view.hear({"kit": "rest"})
    other = WiredView(trace)
    record(trace, 5)
    other.received()  # its batch was due after the other view's would have been
    assert view.sent.empty()
    view.hear({"kit": "since", "mark": 2})
    assert [row.id for row in view.received()["rows"]] == ["1-2", "1-3", "1-4"]
    other.close()


def test_a_closed_view_listens_no_more(trace: Trace) -> None:
    view = WiredView(trace)
    view.close()
    record(trace, 1)
    assert trace._listeners == []


@pytest.mark.parametrize("message", [None, 7, {}, {"kit": "since"}, {"kit": "since", "mark": "x"}, {"kit": "since", "mark": None}])
def test_a_message_of_another_kind_is_left_alone(view: WiredView, message: Any) -> None:
    """Whatever a page sends over the comm, the kernel's side does not raise."""
    view.hear(message)


def test_the_twin_too_may_leave_out_what_went_over_no_wire(trace: Trace) -> None:
    """Frames, handshakes and closes: a saved page has no filter with which to find them among the store's commands."""
    for each, _ in ONE_OF_EACH:
        trace.add(each)
    for shown, ways in (("all", ["open", "up", "down", "store", "call", "turn", "close"]), ("wire", ["open", "up", "down", "close"])):
        view = WiredView(trace, "wire" if shown == "wire" else "all")
        formats, _ = view._repr_mimebundle_() or ({}, {})
        kept = [each for each, row in ONE_OF_EACH if row.way in ways]
        assert (formats["text/plain"], formats["text/html"]) == (as_text(kept), as_html(kept))
        view.close()


def test_a_saved_notebook_holds_the_twin_and_no_state(trace: Trace) -> None:
    """Both twins are there for pages without widgets; the reference to the view is taken out before it is stored."""
    record(trace, 2)
    view = WiredView(trace)
    formats, _ = view._repr_mimebundle_() or ({}, {})
    assert formats["text/plain"] == as_text(trace.records)
    notebook = new_notebook(cells=[new_code_cell(outputs=[new_output("display_data", data=formats)])])
    clean(notebook)
    assert notebook.cells[0].outputs[0].data.keys() == {"text/plain", "text/html"}
    view.close()
