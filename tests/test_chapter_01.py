"""Chapter 01: its cells speak WebSocket to any server, and its reader reads what the library reads."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets import utils
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.streams import StreamReader

from kit.agents.scripted import scripted
from kit.lab.race import ANSWER, DUE, answering, race
from kit.lab.timeline import Run, Timeline
from kit.packets import Content, Thought
from kit.server import serve
from tests.notebooks.build import SOLUTIONS
from tests.test_line import others_have_ended

CELLS = {cell.id.removeprefix("upgrade-"): cell.source for cell in nbformat.read(SOLUTIONS / "01_upgrade.ipynb", as_version=4).cells}
"""The chapter's cells by their id: what is tested is what a learner runs."""


def run(*cells: str, **names: Any) -> dict[str, Any]:
    """Run some cells in one namespace, and give it."""
    for cell in cells:
        exec(CELLS[cell], names)
    return names


# ---- by hand, against two servers ----


@pytest.fixture(params=["kit", "uvicorn"])
async def here(request: pytest.FixtureRequest) -> AsyncIterator[SimpleNamespace]:
    """What the cells want to know of a server: the kit's, or uvicorn's with an application that talks like it."""
    if request.param == "kit":
        async with serve(scripted([Thought("Hm. "), Content("17 * 23 is "), Content("391.")])) as server:
            yield SimpleNamespace(url=server.url, token=lambda: server.token("you"))
    else:
        async with uvicorn_serving(Lookalike()) as url:
            yield SimpleNamespace(url=url, token=lambda: "none is asked for")


class Lookalike:
    """An ASGI application (spec version 2.3) that greets, keeps what was said, and tells it to whoever comes."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "subprotocol": "kit.v1"})
        for text in ('{"type":"hello","session":"by-hand"}', *self.said):
            await send({"type": "websocket.send", "text": text})
        while (event := await receive())["type"] == "websocket.receive":
            assert '"text": "what is 17 * 23"' in event["text"]
            echo = f'{{"type":"prompt","text":"{"x" * 200}"}}'
            self.said = [echo, '{"type":"content","text":"17 * 23 is 391."}', '{"type":"end"}']
            for text in self.said:
                await send({"type": "websocket.send", "text": text})


class Started(uvicorn.Server):
    """It says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def uvicorn_serving(application: Any) -> AsyncIterator[str]:
    """Uvicorn itself, as a deployment runs it, while the block runs."""
    server = Started(uvicorn.Config(application, port=0, lifespan="off", log_config=None))
    task = asyncio.create_task(server.serve())
    await server.listens.wait()
    try:
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def test_the_handshake_and_the_frames_by_hand_work_against_any_server(here: SimpleNamespace) -> None:
    """From the request line to the end of an answer, in the chapter's own cells."""
    names = await asyncio.to_thread(run, "knock", "ex-accept", "open", "write", "read-frame", "again", here=here)
    names["stream"].close()
    assert names["status"] == 101
    assert names["answer"]["sec-websocket-accept"] == names["accept_key"](names["key"])
    assert names["second"] == 126, "the naive reader meets the long length, and breaks"
    types = [packet["type"] for packet in names["packets"]]
    assert (types[0], types[1], types[-1]) == ("hello", "prompt", "end")
    assert "".join(packet["text"] for packet in names["packets"] if packet["type"] == "content") == "17 * 23 is 391."


async def test_a_frame_without_a_mask_is_answered_1002(here: SimpleNamespace) -> None:
    """By either server, and the chapter's reader reads the close."""

    def unmasked() -> tuple[int, bytes]:
        names = run("knock", "ex-accept", "open", "read-frame", here=here)
        with names["stream"] as stream:
            stream.write(b"\x81\x02{}")
            stream.flush()
            _, opcode, payload = names["read_frame"](stream)
            return opcode, payload[:2]

    assert await asyncio.to_thread(unmasked) == (Opcode.CLOSE, (1002).to_bytes(2, "big"))


# ---- the reader and the writer, against the library's ----

LENGTHS = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536]) | st.integers(0, 70_000)


@st.composite
def frames(draw: st.DrawFn) -> tuple[Frame, bool]:
    """Any frame that RFC 6455 allows, and whether it is masked; control frames are short and whole."""
    opcode = draw(st.sampled_from(Opcode))
    if opcode in CTRL_OPCODES:
        payload = b"\x03\xe8bye" if opcode is Opcode.CLOSE else draw(st.binary(max_size=125))
        return Frame(opcode, payload), draw(st.booleans())
    unit = draw(st.binary(min_size=1, max_size=9))
    length = draw(LENGTHS)
    return Frame(opcode, (unit * (length // len(unit) + 1))[:length], fin=draw(st.booleans())), draw(st.booleans())


def parsed(raw: bytes, *, mask: bool) -> Frame:
    """What the library's own parser reads."""
    reader = StreamReader()
    reader.feed_data(raw)
    try:
        next(Frame.parse(reader.read_exact, mask=mask))
    except StopIteration as result:
        frame: Frame = result.value
        return frame
    raise AssertionError("the frame is not complete")


@settings(deadline=None)
@given(st.lists(frames(), min_size=1, max_size=4))
def test_the_reader_agrees_with_the_librarys_parser(sent: list[tuple[Frame, bool]]) -> None:
    """On frames of all kinds and lengths, one behind the other: each is read to its last byte and no further."""
    read_frame = run("read-frame", utils=utils)["read_frame"]
    raw = [frame.serialize(mask=mask) for frame, mask in sent]
    stream = BytesIO(b"".join(raw))
    for one, (_, mask) in zip(raw, sent, strict=True):
        theirs = parsed(one, mask=mask)
        assert read_frame(stream) == (theirs.fin, theirs.opcode, bytes(theirs.data))
    assert not stream.read()


@settings(deadline=None)
@given(st.text() | LENGTHS.map("x".__mul__), st.binary(min_size=4, max_size=4))
@example("ü" * 63, b"mask")
def test_the_frame_of_the_exercise_is_read_by_the_librarys_parser(text: str, mask: bytes) -> None:
    """As the text that went in, in as few bytes as the RFC asks for."""
    raw = run("ex-frame")["text_frame"](text, mask)
    theirs = parsed(raw, mask=True)
    assert (theirs.opcode, theirs.fin, bytes(theirs.data).decode()) == (Opcode.TEXT, True, text)
    assert len(raw) == len(Frame(Opcode.TEXT, text.encode()).serialize(mask=True))


@given(st.binary(min_size=16, max_size=16).map(base64.b64encode))
def test_the_accept_of_the_exercise_is_the_librarys(key: bytes) -> None:
    """For any key that a client may draw."""
    assert run("ex-accept")["accept_key"](key.decode()) == utils.accept_key(key.decode())


# ---- the race ----


async def test_each_way_gets_the_whole_answer_and_its_trips_are_counted() -> None:
    """The chapter's own ways, over a shorter line; the counts are those that it asserts."""
    names = run("polling", "events", "websocket", json=json)
    ways = {
        "polling": lambda port: names["by_polling"](port, every=0.05),
        "long polling": lambda port: names["by_polling"](port, every=0, wait="&wait=1"),
        "SSE, new": lambda port: names["by_events"](port, kept=False),
        "SSE, kept alive": lambda port: names["by_events"](port, kept=True),
        "WebSocket, new": lambda port: names["by_websocket"](port, opened=False),
        "WebSocket, open": lambda port: names["by_websocket"](port, opened=True),
    }
    runs = await race(ways, 0.02)
    assert [run.way for run in runs] == list(ways)
    assert [len(run.tokens) for run in runs] == [len(ANSWER)] * len(ways)
    assert [run.before for run in runs][1:] == [2, 3, 1, 4, 1]
    assert all(run.tokens[0] >= DUE[0] + run.before * 0.02 - 0.001 for run in runs[2:])
    await others_have_ended()


async def test_a_way_that_fails_fails_the_race() -> None:
    """With what it raised, and nothing is left running."""

    def broken(_: int) -> Iterator[str]:
        yield "ready"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await race({"broken": broken}, 0.0)
    await others_have_ended()


async def test_the_server_takes_its_connections_with_it() -> None:
    """One that is kept alive would stay for uvicorn's five seconds."""
    async with answering(asyncio.get_running_loop().time) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nNot Found")
    async with asyncio.timeout(3.0):
        assert await reader.read() == b""
    writer.close()


# ---- its picture ----

TIMELINE = Timeline([Run("a <way>", (0.0, 0.02), (0.051, 0.053, 0.121), 10), Run("b", (0.0,), (0.1,), 5)])


def test_a_timeline_is_readable_as_text() -> None:
    """A column is 10 ms; each run's line ends with its last token."""
    assert repr(TIMELINE).splitlines() == ["ms       0         100       200", "a <way>  |-|--●------●", "b        |---------●"]


def test_a_timeline_is_a_picture_that_says_the_same() -> None:
    """Well-formed, with the text as its title, a dot for each token."""
    picture = ElementTree.fromstring(TIMELINE._repr_svg_())
    svg = "{http://www.w3.org/2000/svg}"
    assert picture.findtext(f"{svg}title") == repr(TIMELINE)
    assert len(picture.findall(f"{svg}circle")) == 4
    assert [text.text for text in picture.findall(f"{svg}text")] == ["0 ms", "100 ms", "200 ms", "a <way>", "b"]


def test_a_run_knows_its_trips_before_the_first_token_and_its_longest_pause() -> None:
    """Trips after it are of no interest to whoever waits."""
    run = Run("a", (0.0, 0.05, 0.2), (0.1, 0.13, 0.3), 0)
    assert run.before == 2
    assert run.gap == pytest.approx(0.17)
