"""Events: a session over server-sent events is the session that the WebSocket shows; the resume is the standard's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from http.client import HTTPConnection
from typing import Any

import pytest
from anyio import create_task_group

from kit.lab.events import _Stream, event, events, post
from tests.promises.support import count, counting, nodes, read_log
from tests.support import Json, prompt, request


@pytest.mark.parametrize(
    ("id", "data", "sent"),
    [
        ("L/1-0", "hi", "id: L/1-0\ndata: hi\n\n"),
        ("", "hi", "data: hi\n\n"),
        ("7", "", "id: 7\ndata: \n\n"),
        ("7", "a\nb\r\nc\rd", "id: 7\ndata: a\ndata: b\ndata: c\ndata: d\n\n"),
        ("7", "a\u2028b\x0bc\x85d", "id: 7\ndata: a\u2028b\x0bc\x85d\n\n"),
    ],
)
def test_an_event_is_written_as_the_standard_reads_it(id: str, data: str, sent: str) -> None:
    """A line of data for each line, by its three ends of lines; an empty line ends the event."""
    assert event(id, data) == sent


class Source:
    """What a page's EventSource does: it reads events and remembers the last id."""

    def __init__(self, reader: asyncio.StreamReader, last: str) -> None:
        self._reader, self.last = reader, last

    async def next(self) -> Json:
        """The next frame; raises IncompleteReadError where the response has ended."""
        data = ""
        while line := (await self._reader.readuntil(b"\n")).decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            match name:
                case "id":
                    self.last = value
                case "data":
                    data += value
        frame: Json = json.loads(data)
        return frame

    async def until(self, kind: str) -> list[Json]:
        """The frames up to one of this type."""
        frames = [await self.next()]
        while frames[-1]["type"] != kind:
            frames.append(await self.next())
        return frames


@asynccontextmanager
async def source(url: str, token: str, last: str = "", session: str = "s") -> AsyncIterator[Source]:
    """A response that is read by hand; chunks are undone (RFC 9112 section 7.1)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    resume = f"Last-Event-ID: {last}\r\n" if last else ""
    writer.write(f"GET /s/{session} HTTP/1.1\r\nHost: kit\r\nAuthorization: Bearer {token}\r\n{resume}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert b"text/event-stream" in head
    body = asyncio.StreamReader()
    task = asyncio.create_task(_unchunk(reader, body))
    try:
        yield Source(body, last)
    finally:
        task.cancel()
        writer.transport.abort()
        await asyncio.wait({task})


async def _unchunk(reader: asyncio.StreamReader, body: asyncio.StreamReader) -> None:
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body.feed_data(await reader.readexactly(size))
        await reader.readexactly(2)
    body.feed_eof()


async def say(url: str, token: str, word: Any) -> tuple[int, Any]:
    """POST a word; the status, and the receipt."""
    body = json.dumps(word).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Length": str(len(body)), "Connection": "close"}
    reply = await request(int(url.rpartition(":")[2]), "/s/s", headers, method="POST", then=body)
    return reply.status, reply.body


def ids(frames: list[Json]) -> list[str]:
    return [frame["id"] for frame in frames if "id" in frame]


async def test_a_page_that_comes_back_gets_what_follows_its_last_event(store: str) -> None:
    """Cut three times in mid-answer, it has the log, each entry once; a word by POST is answered by its receipt."""
    async with nodes(store, counting(60, pace=300), 1, join=False) as (one,), events(one.server) as url:
        seen, last = list[Json](), ""
        for part in range(4):
            async with source(url, one.token(), last) as page:
                hello = await page.next()
                assert (hello["type"], hello["status"]) == ("hello", "resumed" if part else "fresh")
                if not part:
                    status, body = await say(url, one.token(), word := prompt())
                    assert (status, json.loads(body)["status"]) == (200, "applied")
                seen += [await page.next() for _ in range(10)] if part < 3 else await page.until("end")
                last = page.last
        entries = [frame for frame in seen if "id" in frame]
        assert ids(entries) == [entry.id for entry in await read_log(store, "s")]
        assert "".join(frame["text"] for frame in entries if frame["type"] == "content") == count(60)
        assert json.loads((await say(url, one.token(), word))[1])["status"] == "duplicate"


async def test_a_program_says_its_words_on_one_connection(store: str) -> None:
    """`post` gives the receipt, and the connection stays open for the next word."""
    async with nodes(store, counting(5), 1) as (one,), events(one.server) as url:
        with closing(HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]))) as http:
            first = await asyncio.to_thread(post, http, "s", one.token(), {"type": "prompt", "text": "go"})
            again = await asyncio.to_thread(post, http, "s", one.token(), {"type": "stop"})
        assert (first["status"], again["type"]) == ("applied", "receipt")


async def test_an_id_of_another_log_is_told(store: str) -> None:
    """An EventSource only repeats what it was given: the log's name travels in the id, and so the gap is honest here, too."""
    async with nodes(store, counting(5), 1) as (one,), events(one.server) as url:
        await say(url, one.token(), prompt())
        async with source(url, one.token(), "AAAAAAAA/1-3") as page:
            hello, gap = await page.next(), await page.next()
            assert (hello["status"], gap["type"], gap["reason"]) == ("gap", "gap", "other log")
            assert ids(await page.until("end"))[0] == "1-0"
            assert page.last.startswith(f"{hello['log']}/1-")


async def test_nobody_comes_in_by_this_door_either(store: str) -> None:
    """No token, a token of another session, words that are none."""
    async with nodes(store, counting(5), 1) as (one,), events(one.server) as url:
        port = int(url.rpartition(":")[2])
        for headers in ({}, {"Authorization": f"Bearer {one.token(session='t')}"}):
            for method in ("GET", "POST"):
                assert (await request(port, "/s/s", {**headers, "Connection": "close"}, method=method)).status == 401
        assert (await say(url, one.token(), {"type": "prompt"}))[0] == 400
        assert (await say(url, one.token(), {"type": "typing", "on": True}))[0] == 400


async def test_who_leaves_takes_the_connection_along() -> None:
    """Though the first cancel got lost: starlette cancels the response in every step, so that nobody there waits for a second one."""

    async def serve() -> None:
        with suppress(asyncio.CancelledError):  # as a library may
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    serving, stream = asyncio.create_task(serve()), _Stream()

    async def respond() -> None:
        async for _ in stream.told(serving):
            pass

    async with create_task_group() as response:
        response.start_soon(respond)
        await asyncio.sleep(0.01)
        response.cancel_scope.cancel()
    assert serving.done()
