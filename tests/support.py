"""Support: what the tests of the door, of bad input and of the client share: a plain WebSocket client, raw requests, an agent that counts.

Nothing here uses kit/client.py: a stranger's client must be able to do all this.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from websockets import ConnectionClosed
from websockets.asyncio.client import ClientConnection, connect

from kit.history import History
from kit.packets import AnyPacket, Content, FromServer, Hello, decode_sent
from kit.service import Service
from tests.started import Project

Json = dict[str, Any]

both_servers = pytest.mark.parametrize(
    ("store", "serve"), [("fakeredis", "websockets"), ("real", "websockets"), ("real", "asgi")], indirect=True
)
"""The test runs on both stores, as all do, and once more over ASGI: for what the server that listens might spoil."""
each_server = pytest.mark.parametrize("serve", ["websockets", "asgi"], indirect=True)
"""The same, of a test that has a store of its own."""


def ref() -> str:
    """A new `ref` for a word."""
    return secrets.token_urlsafe(16)


def prompt(text: str = "hi", **fields: Any) -> Json:
    return {"type": "prompt", "ref": ref(), "text": text, **fields}


class Counting:
    """An agent that says what it was asked, and remembers each prompt that reached it."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    async def __call__(self, history: History) -> AsyncIterator[AnyPacket]:
        self.prompts.append(history.prompt.text)
        yield Content(f"you said: {history.prompt.text:.40}")


class Clock:
    """A clock that is moved by hand; seconds since the epoch."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# ---- a plain client ----


class Visitor:
    """A socket of the plain `websockets` client, with JSON in and out."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[FromServer] = []
        """Every frame that came, as kit/packets.py reads it: a frame that no client could decode raises here."""
        self._beside: deque[Json] = deque()
        """What came before the answer that was waited for, and has not been looked at yet."""
        self._count = itertools.count()

    @property
    def hello(self) -> Hello:
        assert isinstance(self.seen[0], Hello)
        return self.seen[0]

    async def send(self, frame: Json | str | bytes, *, text: bool | None = None) -> None:
        """Send JSON, or (a str or bytes) exactly this; `text=True` sends bytes as a text frame, whatever they hold."""
        await self.socket.send(json.dumps(frame) if isinstance(frame, dict) else frame, text=text)

    async def receive(self) -> Json:
        frame = await self.socket.recv()
        self.seen.append(decode_sent(frame))
        fields: Json = json.loads(frame)
        return fields

    async def closed(self) -> tuple[int, str]:
        """The code and the reason with which the server closes the connection; what comes before that is passed over."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise
            return closed.rcvd.code, closed.rcvd.reason

    async def until(self, *types: str, **fields: Any) -> Json:
        """The next frame of one of these types with these fields; others are passed over."""
        while True:
            frame = self._beside.popleft() if self._beside else await self.receive()
            if frame["type"] in types and all(frame.get(name) == value for name, value in fields.items()):
                return frame

    async def answers(self, *frames: Json | str | bytes) -> list[Json]:
        """Send the frames; gives the errors and receipts that answer them, up to a last frame's of its own.

        What comes between them, such as what an agent says at once, is left for `until`.
        """
        marker = f"marker-{next(self._count)}"
        for frame in frames:
            await self.send(frame)
        await self.send({"type": marker})
        answers: list[Json] = []
        while marker not in (frame := await self.receive()).get("text", ""):
            (answers if frame["type"] in ("error", "receipt") else self._beside).append(frame)
        return answers

    async def answer(self, frame: Json | str | bytes) -> Json:
        """Send a frame; gives its one answer."""
        (answer,) = await self.answers(frame)
        return answer


@asynccontextmanager
async def visit(
    server: Service | Project, session: str = "s", *, name: str = "ann", token: str | None = None, query: str = "", **options: Any
) -> AsyncIterator[Visitor]:
    """A plain client in a session, its `hello` read."""
    headers = {"Authorization": f"Bearer {server.token(name) if token is None else token}"}
    options = {"additional_headers": headers, "subprotocols": ["kit.v1"], **options}
    async with connect(f"{server.url}/s/{session}{query}", proxy=None, **options) as socket:
        visitor = Visitor(socket)
        assert (await visitor.receive())["type"] == "hello"
        yield visitor


def stop_clock(server: Service) -> float:
    """Let no time pass for the door, until the test sets `server.door.clock = time.time`: all before that is in time, however slow."""
    now = time.time()
    server.door.clock = lambda: now
    return now


# ---- raw HTTP ----


class Reply(NamedTuple):
    """An HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: str


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol": "kit.v1",
}
"""A complete opening handshake (RFC 6455 section 4.1), but for credentials."""


async def request(
    server: Service | int,
    target: str,
    headers: Mapping[str, str] | list[tuple[str, str]] = UPGRADE,
    *,
    method: str = "GET",
    then: bytes = b"",
) -> Reply:
    """One raw request to a server (or port), with the bytes `then` on its heels; gives the response, or its head where that is the 101."""
    lines = list(headers.items()) if isinstance(headers, Mapping) else headers
    head = "".join(f"{name}: {value}\r\n" for name, value in [("Host", "kit"), *lines])
    reader, writer = await asyncio.open_connection("127.0.0.1", server if isinstance(server, int) else server.port)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + then)
        raw = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = raw.strip().split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        body = b"" if first.split()[1] == "101" else await reader.readexactly(int(found["content-length"]))
        return Reply(int(first.split()[1]), found, body.decode())
    finally:
        writer.close()
        await writer.wait_closed()


def bearer(token: str) -> dict[str, str]:
    return {**UPGRADE, "Authorization": f"Bearer {token}"}


def masked(text: str) -> bytes:
    """A client's text frame (RFC 6455 section 5.2) under the mask 0, up to 125 bytes."""
    payload = text.encode()
    assert len(payload) <= 125
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload
