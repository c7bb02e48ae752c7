"""Events: an instance's sessions over server-sent events: the same log and the same ids, to compare with its WebSocket.

`GET /s/<session>` streams the frames. A page's `EventSource` dials again by itself and names in `Last-Event-ID` the last id that it has
seen (https://html.spec.whatwg.org/multipage/server-sent-events.html). An id is `<log>/<id>` here, as an id means nothing in another log.
Words go the other way by `POST /s/<session>`, each a request of its own, answered by its receipt.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from kit.auth import Identity, Refused, Visit, opens
from kit.connection import BEHIND
from kit.ending import end, finish
from kit.listening import listening
from kit.packets import Word, encode
from kit.said import BadFrame, decode_said
from kit.server import Server
from kit.service import origin_of


def event(id: str, data: str) -> str:
    """A server-sent event. Its lines end where the standard says, and nowhere else; an empty `id` leaves the place as it was."""
    lines = [f"data: {line}" for line in re.split(r"\r\n|\r|\n", data)]
    return "\n".join([f"id: {id}"] * bool(id) + lines + ["", ""])


def post(http: HTTPConnection, session: str, token: str, word: Mapping[str, object]) -> dict[str, object]:
    """Say a word, and wait for its receipt; for programs, on a connection that stays open."""
    body = json.dumps({"ref": secrets.token_urlsafe(16), **word})
    http.request("POST", f"/s/{session}", body, {"Authorization": f"Bearer {token}"})
    receipt: dict[str, object] = json.load(http.getresponse())
    return receipt


class _Stream:
    """A response that does not end, as `Connection` needs a socket. Nothing comes up it."""

    def __init__(self) -> None:
        self._log = ""
        self._waiting: deque[str] = deque()
        self.waiting = 0
        self._news, self._room, self._closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        await self._closed.wait()
        for frame in list[str]():
            yield frame

    async def send(self, frame: bytes) -> None:
        while self.waiting > BEHIND:
            self._room.clear()
            await self._room.wait()
        self.send_now([frame])

    def send_now(self, frames: Sequence[bytes]) -> int:
        for frame in frames:
            fields = json.loads(frame)
            self._log = fields.get("log", self._log)
            at = fields.get("id") or fields.get("after")  # hello and gap say where to go on from
            self._waiting.append(event(f"{self._log}/{at}" if at else "", frame.decode()))
            self.waiting += len(frame)
        self._news.set()
        return self.waiting

    async def close(self, code: int, reason: str = "") -> None:
        self.abort()

    def abort(self) -> None:
        self._closed.set()
        self._news.set()

    async def told(self, serving: asyncio.Task[None]) -> AsyncIterator[str]:
        """The events, as fast as they are read, until either side closes."""
        try:
            while self._waiting or not self._closed.is_set():
                await self._news.wait()
                self._news.clear()
                while self._waiting:
                    yield self._waiting.popleft()
                self.waiting = 0
                self._room.set()
        finally:
            await finish(end({serving}))  # a client that leaves has this cancelled in every step until it is over


class _Door:
    """An instance's door, for requests without an upgrade."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def identity(self, request: Request) -> Identity:
        identity = self.server.door.bearer(request.headers.get("Authorization", ""))
        if not opens(identity.session, request.path_params["session"]):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the token is for another session")
        return identity

    async def stream(self, request: Request) -> Response:
        log, _, after = request.headers.get("Last-Event-ID", "").rpartition("/")
        visit = Visit(request.path_params["session"], after or None, log or None, self.identity(request), None)
        socket = _Stream()
        serving = asyncio.create_task(self.server.serve(socket, visit))
        return StreamingResponse(socket.told(serving), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def say(self, request: Request) -> Response:
        identity = self.identity(request)
        try:
            said = decode_said((await request.body()).decode())
        except BadFrame as bad:
            return Response(encode(bad.error), 400, media_type="application/json")
        if not isinstance(said, Word):
            return PlainTextResponse("words are POSTed, and nothing else\n", 400)
        receipt = await self.server.instance.say(request.path_params["session"], said, identity.name)
        return Response(encode(receipt), media_type="application/json")


async def _refuse(_: Request, refused: Any) -> Response:
    return PlainTextResponse(f"{refused}\n", refused.status)


@asynccontextmanager
async def events(server: Server) -> AsyncIterator[str]:
    """The sessions of an instance that runs on this loop, at one more port of loopback: gives `http://127.0.0.1:PORT`."""
    door = _Door(server)
    routes = [Route("/s/{session}", door.stream), Route("/s/{session}", door.say, methods=["POST"])]
    async with listening(Starlette(routes=routes, exception_handlers={Refused: _refuse})) as listener:
        yield origin_of(listener.sockets)
