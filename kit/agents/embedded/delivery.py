"""Delivery: how answers travel: at their pace, given up where the client leaves, broken where a fault says so.

What each request came to is written down in `requests` when it is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from kit.agents.embedded.events import Event
from kit.agents.embedded.requests import Json, Refuse

Sleep = Callable[[float], Awaitable[object]]


class Stall(NamedTuple):
    """After so many events nothing more comes, and the connection stays open."""

    after: int = 2


class Cut(NamedTuple):
    """After so many events the connection is dropped; `clean`: the body ends as if all had been said, but nothing terminal was."""

    after: int = 3
    clean: bool = False


Fault = Refuse | Stall | Cut


@dataclass
class Record:
    """One request: what was asked, and how it ended: answered whole, left by the client, or cut by the server."""

    method: str
    path: str
    status: int = 0
    outcome: Literal["answered", "left", "cut"] = "left"
    body: Json = field(default_factory=dict)


class Delivery:
    """The requests of one server, at `url`.

    `requests` are the last thousand that are over, `tokens_sent` counts what was streamed, `tokens_made` what the model generated, read
    or not: what a provider would bill. `pace`, to be set at any time, is in tokens per second of each reply; None: as fast as it goes.
    """

    def __init__(self, routes: Sequence[Route], pace: float | None, key: str | None, sleep: Sleep) -> None:
        self.url = ""
        self.pace = pace
        self.requests: list[Record] = []
        self.tokens_sent = 0
        self.tokens_made = 0
        self.state = ServerState()
        self._key, self._sleep = key, sleep
        self._faults: deque[Fault] = deque()
        self._over = asyncio.Condition()
        self._total = 0
        errors: Any = {Refuse: _refused, ClientDisconnect: _gone}
        self._app = Starlette(routes=routes, exception_handlers=errors)

    def fail_next(self, *faults: Fault) -> None:
        """The next requests fail, each by one of these, in this order."""
        self._faults.extend(faults)

    async def ended(self, count: int) -> Record:
        """Wait until so many requests are over since the start; the last of those."""
        async with self._over:  # in the server's own loop
            await self._over.wait_for(lambda: self._total >= count)
        return self.requests[count - 1 - self._total]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI); its record is written when it is over, however it ends."""
        query = scope["query_string"].decode("latin-1")
        record = scope["state"]["record"] = Record(scope["method"], f"{scope['path']}?{query}" if query else scope["path"])

        async def watched(message: Message) -> None:
            record.status = message.get("status", record.status)
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                record.outcome = "answered"

        try:
            await self._app(scope, receive, watched)
        finally:
            self.requests = [*self.requests[-999:], record]
            self._total += 1
            async with self._over:
                self._over.notify_all()

    def admit(self, request: Request) -> Fault | None:
        """Check the key; the fault that is this request's, if it is not to be refused at once. Raises Refuse."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self._key is not None and given != self._key:
            raise Refuse(401, f"Incorrect API key provided: {given[:4]}***.", "invalid_api_key")
        fault = self._faults.popleft() if self._faults else None
        if isinstance(fault, Refuse):
            raise fault
        return fault

    async def paced(self, events: Iterable[Event], *, ends: bool = True) -> AsyncGenerator[Event, None]:
        """The events in their time; what never `ends` is waited for until the client leaves."""
        for event in events:
            if event.token or event.wait:
                # Without a pace sleep all the same: others want the loop, and this is where a client's leaving is noticed.
                await self._sleep(event.wait if event.wait is not None else 1 / self.pace if self.pace else 0.0)
                self.tokens_made += event.token
            yield event
        if not ends:
            await asyncio.Event().wait()

    def answer(
        self, request: Request, fault: Fault | None, events: AsyncGenerator[Event, None], whole: Json | None = None, end: bytes = b""
    ) -> Response:
        """The events as they are made and then `end`, or the `whole` in one piece once they are made."""

        async def body() -> AsyncGenerator[bytes, None]:
            stop, done = fault.after if isinstance(fault, Stall | Cut) else None, 0
            while done != stop and (event := await anext(events, None)):
                done += 1
                if whole is None:
                    await asyncio.sleep(0)  # between two that take no time, too: here a client's leaving is noticed
                    self.tokens_sent += event.token
                    yield event.encode()
            if done != stop:
                yield end if whole is None else msgspec.json.encode(whole)
            elif fault != Cut(done, clean=True):
                if isinstance(fault, Cut):
                    request.state.record.outcome = "cut"
                    self.drop(request.client)
                await asyncio.Event().wait()  # until the connection is gone, which cancels this

        # A whole answer is a stream, too: so a client that leaves before it is noticed.
        return StreamingResponse(body(), media_type="text/event-stream" if whole is None else "application/json")

    def drop(self, client: object) -> None:
        """Drop the connection of a client."""
        for connection in list(self.state.connections):
            if isinstance(connection, H11Protocol) and connection.client == client:
                connection.transport.abort()


async def _refused(request: Request, error: Refuse) -> Response:
    return JSONResponse(error.body, error.status, error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    """Who leaves before all has been asked gets no answer."""
    return _Nothing()


class _Nothing(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass
