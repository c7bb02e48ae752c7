"""Dialects: how a client talks to each kind of server: dial (perhaps where it left off), ask, and what a message looks like.

All are written by hand over a bare socket: a library of one's own for each arm would be measured with it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
from typing import Any
from urllib.parse import urlsplit

from tests.bench.child import Child
from tests.bench.tap import Tap


class Dialect:
    """Raw TCP; the others differ in what they say. A place is what `place` gives of a tap, to go on after it at another."""

    frame = b"x;"
    cursor: re.Pattern[bytes] | None = None
    start: str | None = None
    """The place of somebody who has seen nothing."""

    async def dial(self, server: Child, session: str, after: str | None = None, *, stamped: bool = False) -> Tap:
        """A connection to a session, where tokens come."""
        tap = await self._connect(server, stamped)
        tap.listen()
        return tap

    async def ask(self, server: Child, tap: Tap, session: str, **what: Any) -> None:
        """Ask for tokens."""
        tap.transport.write(json.dumps(what).encode() + b"\n")

    def place(self, tap: Tap) -> str | None:
        return tap.after

    async def _connect(self, server: Child, stamped: bool = False) -> Tap:
        address = urlsplit(server.url)
        loop = asyncio.get_running_loop()
        _, tap = await loop.create_connection(lambda: Tap(self.frame, self.cursor, stamped), address.hostname or "", address.port or 0)
        return tap


class Bare(Dialect):
    """A WebSocket on which JSON asks."""

    subprotocol = "kit.v1"

    async def dial(self, server: Child, session: str, after: str | None = None, *, stamped: bool = False) -> Tap:
        tap = await self._connect(server, stamped)
        await self._upgrade(server, tap, self._path(session, after))
        tap.listen()
        return tap

    async def ask(self, server: Child, tap: Tap, session: str, **what: Any) -> None:
        tap.transport.write(_frame(json.dumps(what)))

    def _path(self, session: str, after: str | None) -> str:
        return f"/s/{session}"

    async def _upgrade(self, server: Child, tap: Tap, path: str, *more: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *more]
        if self.subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {self.subprotocol}")
        tap.transport.write(_request(server, "GET", path, *lines))
        await tap.expect(rb"\AHTTP/1.1 101 .*?\r\n\r\n")


class Kit(Bare):
    """The kit's own protocol."""

    frame = b'"type":"content"'
    cursor: re.Pattern[bytes] | None = re.compile(rb'\{"id":"(\d+-\d+)"[^{}]*x;"[^{}]*\}')

    async def dial(self, server: Child, session: str, after: str | None = None, *, stamped: bool = False) -> Tap:
        tap = await self._connect(server, stamped)
        tap.after = after
        credentials = [f"Authorization: Bearer {server.token}"] if server.token else []
        await self._upgrade(server, tap, self._path(session, after), *credentials)
        if server.token:
            await tap.expect(rb'"type":"hello"[^{}]*\}')
        tap.listen()
        return tap

    async def ask(self, server: Child, tap: Tap, session: str, **what: Any) -> None:
        tap.transport.write(_frame(json.dumps({"type": "prompt", "ref": secrets.token_urlsafe(16), "text": json.dumps(what)})))

    def _path(self, session: str, after: str | None) -> str:
        return f"/s/{session}" + (f"?after={after}" if after else "")


class Naive(Kit):
    """The same, of a server that gives no ids."""

    cursor: re.Pattern[bytes] | None = None


class Sse(Dialect):
    """`GET` for the events, `POST` to ask, `Last-Event-ID` to go on (the HTML standard, section 9.2)."""

    frame = b"data: "
    cursor = re.compile(rb"id: (\S+)\ndata: [^\n]*x;\n\n")

    async def dial(self, server: Child, session: str, after: str | None = None, *, stamped: bool = False) -> Tap:
        tap = await self._connect(server, stamped)
        tap.after = after
        place = [f"Last-Event-ID: {after}"] if after else []
        tap.transport.write(_request(server, "GET", f"/s/{session}", "Accept: text/event-stream", *place))
        await tap.expect(rb"\AHTTP/1.1 200 .*?\r\n\r\n")
        tap.listen()
        return tap

    async def ask(self, server: Child, tap: Tap, session: str, **what: Any) -> None:
        asking = await self._connect(server)
        asking.transport.write(_post(server, f"/s/{session}", what))
        await asking.expect(rb"\AHTTP/1.1 202 .*?\r\n\r\n")
        asking.transport.abort()


class SocketIo(Bare):
    """Engine.IO 4 over a WebSocket, with Socket.IO 5 on it; with a place (`pid offset`) it asks for connection state recovery."""

    subprotocol = ""
    frame = b'42["token"'
    cursor = re.compile(rb'42\["token","[^"]*x;"(?:,"(\d+-\d+)")?\]')

    async def dial(self, server: Child, session: str, after: str | None = None, *, stamped: bool = False) -> Tap:
        tap = await self._connect(server, stamped)
        await self._upgrade(server, tap, "/socket.io/?EIO=4&transport=websocket")
        await tap.expect(rb"0\{.*?\}")
        pid, _, offset = (after or "").partition(" ")
        tap.after = offset or None
        tap.transport.write(_frame("40" + (json.dumps({"pid": pid, "offset": offset}) if offset else "")))
        # What was missed comes before the answer to `40`: nothing of it may be passed over.
        found = await tap.expect(rb'40\{"sid":"([^"]*)"(?:,"pid":"([^"]*)")?\}', keep=True)
        tap.transport.write(_frame(f'42["join","{session}"]'))
        tap.name = (found[2] or b"").decode()
        if not after:
            await tap.expect(rb'42\["joined"[^\]]*\]')
        tap.listen()
        return tap

    async def ask(self, server: Child, tap: Tap, session: str, **what: Any) -> None:
        tap.transport.write(_frame(f"42{json.dumps(['ask', session, what])}"))

    def place(self, tap: Tap) -> str | None:
        return f"{tap.name} {tap.after or ''}"


class Resumable(Dialect):
    """`POST` begins an answer and carries it; `GET` with the number of characters that have come goes on with it."""

    start = "0"

    async def dial(self, server: Child, session: str, after: str | None = None, *, stamped: bool = False) -> Tap:
        tap = await self._connect(server, stamped)
        if after:
            tap.transport.write(_request(server, "GET", f"/s/{session}?skip={after}"))
            tap.chars = int(after)
            await tap.expect(rb"\AHTTP/1.1 200 .*?\r\n\r\n")
        tap.listen()
        return tap

    async def ask(self, server: Child, tap: Tap, session: str, **what: Any) -> None:
        tap.transport.write(_post(server, f"/s/{session}", what))

    def place(self, tap: Tap) -> str | None:
        return str(tap.chars)


class Resumed(Resumable):
    """The same, of a reader who has come back, as the first one's tokens do not pass the store."""

    async def ask(self, server: Child, tap: Tap, session: str, **what: Any) -> None:
        first = await self._connect(server)
        first.transport.write(_post(server, f"/s/{session}", {**what, "awaited": True}))
        await first.expect(rb"\AHTTP/1.1 200 .*?\r\n\r\n")
        first.transport.abort()
        tap.transport.write(_request(server, "GET", f"/s/{session}?skip=0"))


def _frame(text: str) -> bytes:
    """A text message, masked with zeros: the mask protects proxies, and there is none here (RFC 6455 section 5.3)."""
    payload = text.encode()
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


def _request(server: Child, method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {urlsplit(server.url).netloc}", *lines, "", ""]).encode()


def _post(server: Child, path: str, what: Any) -> bytes:
    body = json.dumps(what).encode()
    return _request(server, "POST", path, "Content-Type: application/json", f"Content-Length: {len(body)}") + body
