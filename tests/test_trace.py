"""The trace: what stands in it is what was on the wire, byte for byte, but for credentials; and it stays small."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets import InvalidStatus, Subprotocol
from websockets.asyncio.client import connect
from websockets.frames import Frame as Reference
from websockets.frames import Opcode

from kit.history import History
from kit.lab.observe import masked
from kit.lab.records import lengths
from kit.lab.trace import Closed, Command, Frame, Handshake, Record, Trace, TurnChange
from kit.packets import AnyPacket, Content, Prompt, stored
from kit.server import Server, serve
from kit.store import open_store
from tests.support import Clock, prompt, ref

ORIGIN = "http://page.example"


async def agent(history: History) -> AsyncIterator[AnyPacket]:
    """Does as it is told."""
    match history.prompt.text:
        case "fail":
            raise RuntimeError("as I was told")
        case "wait":
            await asyncio.Event().wait()
    yield Content("done")


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.fixture
async def server(trace: Trace) -> AsyncIterator[Server]:
    async with (
        open_store() as store,
        serve(trace.observed(agent), store=trace.watch(store), create_connection=trace.connection, origins=[ORIGIN], beat=60) as running,
    ):
        yield running


async def recorded(trace: Trace, wanted: Callable[[Record], bool]) -> Record:
    """The first record that is wanted, or the first to come."""
    loop, found = asyncio.get_running_loop(), asyncio.Event()
    stop = trace.listen(lambda record: loop.call_soon_threadsafe(found.set) if wanted(record) else None)
    try:
        if not any(map(wanted, trace.records)):
            await found.wait()
        return next(filter(wanted, trace.records))
    finally:
        stop()


@contextlib.asynccontextmanager
async def visit(server: Server, **options: Any) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {server.token('ann')}"}
    async with connect(f"{server.url}/s/demo", subprotocols=[Subprotocol("kit.v1")], additional_headers=headers, **options) as socket:
        yield socket


def frames(trace: Trace, direction: str | None = None, name: str | None = None) -> list[Frame]:
    """Those of one direction and name, or of any."""
    return [f for f in trace.records.of(Frame) if direction in (None, f.direction) and name in (None, f.name)]


def ended(record: Record) -> bool:
    return isinstance(record, Frame) and record.name == "end"


# ---- bytes ----


@given(
    data=st.one_of(st.binary(max_size=200), st.integers(65_530, 65_540).map(bytes)),
    opcode=st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]),
    fin=st.booleans(),
    mask=st.booleans(),
)
def test_a_frame_is_read_as_websockets_wrote_it(data: bytes, opcode: Opcode, fin: bool, mask: bool) -> None:
    """All three length encodings, masked and not."""
    raw = Reference(opcode, data, fin).serialize(mask=mask)
    frame = Frame(0.0, 1, "up", raw)
    assert (frame.opcode, frame.fin, frame.masked, frame.payload) == (opcode, fin, mask, data)
    assert frame.header + (data if not mask else raw[len(frame.header) :]) == raw
    assert sum(lengths(raw + b"more")) == len(raw)
    assert all(not lengths(raw[:n]) for n in range(len(frame.header)))


async def test_the_bytes_are_those_of_the_tcp_stream(server: Server, trace: Trace) -> None:
    """However the stream is cut into segments: what went up stands as it was sent, what came down as it was received."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = [
        "GET /s/demo HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: kit.v1",
        f"Authorization: Bearer {server.token('ann')}",
    ]
    sent = [Reference(Opcode.TEXT, msgspec.json.encode(prompt(text))).serialize(mask=True) for text in ("one", "x" * 300, "three")]
    writer.write("\r\n".join([*head, "", ""]).encode() + sent[0] + sent[1][:1])  # a client that does not wait for the 101
    await reader.readuntil(b"\r\n\r\n")
    rest = sent[1][1:] + sent[2]
    for segment in (rest[:6], rest[6:-3], rest[-3:]):
        writer.write(segment)
        await writer.drain()
        await asyncio.sleep(0)
    ends = 0
    received = b""
    while ends < 3:
        received += await reader.read(65536)
        ends = received.count(b'"type":"end"')
    writer.close()
    await recorded(trace, lambda record: isinstance(record, Closed))
    assert [f.raw for f in frames(trace, "up")] == sent
    assert b"".join(f.raw for f in frames(trace, "down")).startswith(received)


# ---- connections ----


async def test_a_connection_is_handshake_frames_end(server: Server, trace: Trace) -> None:
    """In this order, with one number, and frames by the name of what they carry."""
    async with visit(server) as socket:
        await socket.send(msgspec.json.encode(prompt("hi")), text=True)
        await recorded(trace, ended)
    await recorded(trace, lambda record: isinstance(record, Closed))
    (handshake,) = trace.records.of(Handshake)
    assert handshake.request.startswith("GET /s/demo HTTP/1.1\r\n")
    assert handshake.status == 101
    assert [f.name for f in frames(trace, "up")] == ["prompt", "close"]
    assert [f.name for f in frames(trace, name="hello")] == ["hello"]
    (close,) = frames(trace, "up", "close")
    assert close.text == "1000"
    assert trace.records.of(Closed) == (trace.records[-1],)
    assert trace.records.of(Closed)[0].code == 1000


async def test_a_refusal_is_recorded_with_its_status(server: Server, trace: Trace) -> None:
    """And its connection never was a WebSocket, so it has no close code."""
    with pytest.raises(InvalidStatus):
        async with connect(f"{server.url}/s/demo", subprotocols=[Subprotocol("kit.v1")]):
            pass
    await recorded(trace, lambda record: isinstance(record, Closed))
    assert [(h.wire, h.status) for h in trace.records.of(Handshake)] == [(1, 401)]
    assert [(c.wire, c.code) for c in trace.records.of(Closed)] == [(1, None)]
    assert not frames(trace)


async def test_a_cut_has_the_code_that_nobody_sent(server: Server, trace: Trace) -> None:
    """1006 stands for: no close frame came (RFC 6455 section 7.1.5)."""
    async with visit(server):
        await recorded(trace, lambda record: isinstance(record, Frame))
        await server.cut()
        await recorded(trace, lambda record: isinstance(record, Closed))
    assert [c.code for c in trace.records.of(Closed)] == [1006]
    assert not frames(trace, name="close")


# ---- credentials ----


async def test_no_credential_is_recorded(server: Server, trace: Trace) -> None:
    """Neither of the handshake, nor the next ticket in `hello` and its key, nor the token of a `renew`; every frame keeps its length."""
    token = server.token("ann")
    async with connect(
        f"{server.url}/s/demo",
        subprotocols=[Subprotocol("kit.v1")],
        additional_headers={"Authorization": f"Bearer {token}", "Cookie": "kit_session=secret; other=secret"},
        origin=ORIGIN,  # type: ignore[arg-type]  # a plain str is what the header holds
    ) as socket:
        hello = msgspec.json.decode(await socket.recv())
        fresh = server.token("ann")
        await socket.send(msgspec.json.encode({"type": "renew", "token": fresh}), text=True)
        renewal = await recorded(trace, lambda record: isinstance(record, Frame) and record.name == "renew")
    held = str([*trace.records, *(frame.payload for frame in trace.records.of(Frame))])
    for secret in (token, fresh, hello["ticket"], "secret"):
        assert secret not in held
    assert isinstance(renewal, Frame)
    assert msgspec.json.decode(renewal.payload) == {"type": "renew", "token": "*" * len(fresh)}
    assert frames(trace, name="hello")[0].text.count("*") == len(hello["ticket"])
    assert "Authorization: Bearer ***" in trace.records.of(Handshake)[0].request


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"content","text":"a ticket. Then a token: none"}',
        '{"text":"my \\"token\\": no"}',
        "GET /s/demo?after=3-17&log=abc HTTP/1.1",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    """The trace shows the wire, not a guess at it."""
    assert masked(text.encode()) == text.encode()


@pytest.mark.parametrize("query", ["?token=abc", "?after=1-0&access_token=abc", "?ticket=abc&x=1"])
def test_a_token_in_the_url_is_hidden(query: str) -> None:
    """Where every proxy's log would have it."""
    assert b"abc" not in masked(f"GET /s/demo{query} HTTP/1.1".encode())


def test_a_ticket_among_the_subprotocols_is_hidden() -> None:
    """Where a page has to put it."""
    line = masked(b"Sec-WebSocket-Protocol: kit.v1, ticket.0123456789abcdefghijABCDEFGHIJ_-")
    assert line == b"Sec-WebSocket-Protocol: kit.v1, ticket." + b"*" * 32


# ---- store and agents ----


async def test_commands_name_their_key(server: Server, trace: Trace) -> None:
    """Of a word, of a packet and of packets that are said at once; a script is told by its first key."""
    transcript = server.instance.transcript
    log = (await transcript.open("demo")).log
    await transcript.say(log, Prompt(text="hi", from_="ann", ref="r1"))
    packet = stored(Content("a", turn="1-0/agent", n=1)), None
    for packets in ([packet], [packet, packet]):
        await transcript.append(log, 1, packets)
    told = [(c.name, c.key) for c in trace.records.of(Command) if c.key.startswith("{0}:demo")]
    assert told[-3:] == [("EVALSHA", "{0}:demo"), ("XADD", log.stream), ("EVALSHA", log.stream)]


async def test_nothing_is_recorded_while_nothing_happens(server: Server, trace: Trace) -> None:
    """The instance's own looking around would push out what matters."""
    asked = server.instance.transcript.open_turns
    looked = asyncio.Event()

    async def open_turns(shard: int) -> Any:
        try:
            return await asked(shard)
        finally:
            looked.set()

    server.instance.transcript.open_turns = open_turns  # type: ignore[method-assign]  # to see it look
    looked.clear()
    await looked.wait()
    mark = trace.mark()
    looked.clear()
    await looked.wait()
    assert trace.since(mark) == ()


@pytest.mark.parametrize(("text", "what"), [("hi", "returned"), ("fail", "failed"), ("wait", "cancelled")])
async def test_calls_of_agents_are_recorded_with_how_they_ended(server: Server, trace: Trace, text: str, what: str) -> None:
    """By turn."""
    async with visit(server) as socket:
        await socket.send(msgspec.json.encode(prompt(text)), text=True)
        if text == "wait":
            await recorded(trace, lambda record: isinstance(record, TurnChange))
            await socket.send(msgspec.json.encode({"type": "stop", "ref": ref()}), text=True)
        await recorded(trace, ended)
    assert [(t.turn, t.what) for t in trace.records.of(TurnChange)] == [("1-0/agent", "called"), ("1-0/agent", what)]


async def test_what_is_no_agent_is_still_told_apart(trace: Trace) -> None:
    """An observed function that gives no packets is the same nonsense as before."""
    nonsense: Any = lambda history: 42  # noqa: E731
    assert trace.observed(nonsense)(History((), "1-0/agent")) == 42  # type: ignore[comparison-overlap]  # nonsense


# ---- the record itself ----


def command(n: int) -> Command:
    return Command(float(n), "SET", str(n))


def test_a_mark_stays_good_when_old_records_go() -> None:
    """`keep` bounds the count; `since` gives what is kept of what followed."""
    trace = Trace(keep=10)
    for n in range(5):
        trace.add(command(n))
    mark = trace.mark()
    for n in range(5, 12):
        trace.add(command(n))
    assert trace.since(mark) == tuple(command(n) for n in range(5, 12))
    for n in range(12, 30):
        trace.add(command(n))
    assert trace.since(mark) == trace.records == tuple(command(n) for n in range(20, 30))
    assert trace.since(trace.mark()) == ()


def test_large_frames_are_bounded_in_bytes() -> None:
    """20,000 frames of 64 KiB would be 1.3 GB."""
    trace = Trace(size=1000)
    for _ in range(50):
        trace.add(Frame(0.0, 1, "down", bytes(300)))
    assert len(trace.records) == 3


def test_time_begins_at_zero_and_is_the_given_clock() -> None:
    """So that a test or a notebook can turn it."""
    clock = Clock(100.0)
    trace = Trace(clock)
    assert trace.now() == 0
    clock.now += 2.5
    assert trace.now() == 2.5


def test_a_listener_that_fails_is_told_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """And neither the connection nor the other listeners notice."""
    trace, heard = Trace(), list[Record]()
    calls = []

    def broken(record: Record) -> None:
        calls.append(record)
        raise ZeroDivisionError

    trace.listen(broken)
    stop = trace.listen(heard.append)
    trace.add(command(1))
    trace.add(command(2))
    stop()
    stop()
    trace.add(command(3))
    assert calls == [command(1)]
    assert heard == [command(1), command(2)]
    assert "a listener of the trace failed" in caplog.text


def test_a_trace_reads_as_a_table() -> None:
    """Direction by glyph and word; a text that is long or has lines stays in its row; markup stays text."""
    trace = Trace()
    trace.add(Frame(0.25, 1, "down", Reference(Opcode.TEXT, b"<b>\n" + b"x" * 100).serialize(mask=False)))
    trace.add(command(1))
    assert repr(trace).splitlines() == [f"0.250  wire 1 ↓ down  text  106  <b>⏎{'x' * 55}…", "1.000  store          SET        1"]
    html = trace._repr_html_()
    assert "<th scope='col'" in html
    assert "&lt;b&gt;⏎" in html
    assert repr(Trace()) == "(nothing recorded)"


def test_a_long_trace_is_shown_from_its_end() -> None:
    """A notebook with 20,000 rows would not open any more."""
    trace = Trace()
    for n in range(700):
        trace.add(command(n))
    lines = repr(trace).splitlines()
    assert len(lines) == 501
    assert lines[-2].endswith("  699")
    assert lines[-1] == "(200 earlier ones are not shown)"
    assert trace._repr_html_().count("<tr>") == 501
