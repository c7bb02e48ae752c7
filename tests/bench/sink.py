"""Sink: a WebSocket client that counts frames and costs next to nothing, so that what is measured is the server.

The same for every arm. It answers no pings: no arm runs as long as the server's patience (20 s to the first, 20 more for its answer).
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import msgspec

LAST = b'"type":"end"'
"""Stands in the last message of every arm."""


class Sink(asyncio.Protocol):
    """One connection. `frames`: how many messages have come; `greeted`: done when one has; `ended`: when the last one has."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.frames = 0
        self.open: asyncio.Future[None] = loop.create_future()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport
        self._request = request
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self.open.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.connection_lost(ConnectionError(head.decode(errors="replace")))
                return
            self.open.set_result(None)
        self._rest = data[self._count(data) :]
        if self.frames and not self.greeted.done():
            self.greeted.set_result(None)

    def _count(self, data: bytes) -> int:
        """Count the whole frames (RFC 6455 section 5.2; a server's are not masked); gives where the first that is not whole begins."""
        at, size = 0, len(data)
        while at + 2 <= size:
            length, begin = data[at + 1], at + 2
            if length >= 126:
                begin += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : begin], "big")
            if (end := begin + length) > size:
                break
            self.frames += 1
            if data.find(LAST, begin, end) >= 0 and not self.ended.done():
                self.ended.set_result(None)
            at = end
        return at

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in (self.open, self.greeted, self.ended):
            if not waiting.done():
                waiting.set_exception(error or ConnectionResetError("the server closed the connection"))
                waiting.exception()  # nobody may be waiting, and that is no news

    def send(self, text: bytes) -> None:
        """Send a text message, masked with zeros: the mask protects proxies, and there is none here."""
        size = len(text)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
        self.transport.write(b"\x81" + length + bytes(4) + text)


def prompt(text: str) -> bytes:
    """The frame that asks the kit's agent, with a fresh `ref`."""
    return msgspec.json.encode({"type": "prompt", "ref": secrets.token_urlsafe(16), "text": text})


@asynccontextmanager
async def sinks(url: str, paths: list[str], token: str | None) -> AsyncIterator[list[Sink]]:
    """A connection to each path while the block runs."""
    loop, address = asyncio.get_running_loop(), urlsplit(url)
    open: list[Sink] = []
    try:
        for path in paths:
            begin = partial(Sink, _request(address.netloc, path, token))
            _, sink = await loop.create_connection(begin, address.hostname or "", address.port or 80)
            open.append(sink)
            await sink.open
        yield open
    finally:
        for sink in open:
            sink.transport.abort()
        await asyncio.sleep(0)  # the step in which they are closed


def _request(host: str, path: str, token: str | None) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: kit.v1"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()
