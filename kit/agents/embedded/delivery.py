"""Delivery: how answers travel: at their pace, watched, given up where the client leaves, broken where a fault says so.

What each request came to is written down in `requests` when it is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from kit.agents.embedded.events import Event
from kit.agents.embedded.faults import Cut, Fail, Fault, Refuse, Refused, Stall, bad_request, server_error, wrong_key
from kit.agents.embedded.requests import BadRequest, Json

_RECORDS = 1000


@dataclass(frozen=True)
class Record:
    """One request that is over: what was asked, how many tokens its answer carried, and how it ended.

    `answered`: the whole answer was sent. `left`: the client went first. `cut`: the server dropped the connection.
    """

    method: str
    path: str
    status: int
    outcome: Literal["answered", "left", "cut"]
    tokens: int
    body: Json

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))


@dataclass
class Exchange:
    """A request under way."""

    status: int = 0
    tokens: int = 0
    body: Json = field(default_factory=dict)
    outcome: Literal["answered", "left", "cut"] | None = None


class EventStream(StreamingResponse):
    """Server-sent events whose source ends in the moment the client leaves, not when it is collected."""

    media_type = "text/event-stream"
    body_iterator: AsyncGenerator[bytes, None]

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


class Delivery:
    """The requests of one server.

    `requests` are the last thousand that are over, `tokens_sent` counts what went out to clients, `tokens_made` what the model
    generated, read or not: what a provider would bill.
    """

    def __init__(
        self, pace: float | None, key: str | None, sleep: Callable[[float], Awaitable[object]], clock: Callable[[], float]
    ) -> None:
        self.pace = pace
        self.requests: list[Record] = []
        self.tokens_sent = 0
        self.tokens_made = 0
        self.state = ServerState()
        self._key, self._sleep, self._clock = key, sleep, clock
        self._faults: deque[Fault] = deque()
        self._ended = asyncio.Condition()
        self._total = 0

    @property
    def pace(self) -> float | None:
        """Tokens per second of each reply; None: as fast as they can be sent. May be set at any time."""
        return self._pace

    @pace.setter
    def pace(self, pace: float | None) -> None:
        if pace is not None and not pace > 0:
            raise ValueError(f"a pace is a number of tokens per second above 0, or None for no delay; not {pace!r}")
        self._pace = None if pace == float("inf") else pace

    def fail_next(self, *faults: Fault) -> None:
        """The next requests fail, each by one of these, in this order."""
        self._faults.extend(faults)

    async def ended(self, count: int) -> Record:
        """Wait until so many requests are over since the start; the last of those."""
        async with self._ended:  # in the server's own loop
            await self._ended.wait_for(lambda: self._total >= count)
        return self.requests[count - 1 - self._total]

    async def watch(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request through `app`: its record is written when it is over, however it ends."""
        exchange = scope["state"]["exchange"] = Exchange()

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                exchange.outcome = exchange.outcome or "left"
            return message

        async def watched_send(message: Message) -> None:
            exchange.status = message.get("status", exchange.status)
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                exchange.outcome = exchange.outcome or "answered"

        try:
            await app(scope, watched_receive, watched_send)
        finally:
            path = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
            outcome = exchange.outcome or "cut"
            self.requests.append(Record(scope["method"], path, exchange.status, outcome, exchange.tokens, exchange.body))
            del self.requests[:-_RECORDS]
            self._total += 1
            async with self._ended:
                self._ended.notify_all()

    def route(self, endpoint: Callable[[Request, Fault | None], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def admitted(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
            if self._key is not None and given != self._key:
                raise Refused(wrong_key(given))
            fault = self._faults.popleft() if self._faults else None
            if isinstance(fault, Refuse):
                raise Refused(fault)
            try:
                return await endpoint(request, fault)
            except BadRequest as error:
                raise Refused(bad_request(str(error), error.param)) from None

        return admitted

    async def paced(self, events: Iterator[Event]) -> AsyncGenerator[Event, None]:
        due = self._clock()
        for event in events:
            if event.token:
                pace = self._pace  # read for each token: it may change meanwhile
                # Deadlines, so that late wake-ups don't add up; but a reply that fell behind does not catch up in a burst.
                due = max(due + (1 / pace if pace else 0), self._clock() - 0.02)
                # Without a pace sleep all the same: others want the loop, and this is where a client's leaving is noticed.
                await self._sleep(max(due - self._clock(), 0) if pace else 0)
                self.tokens_made += 1
            yield event

    def stream(self, request: Request, fault: Fault | None, events: AsyncGenerator[Event, None], end: bytes = b"") -> Response:
        return EventStream(self._encoded(request, fault, events, end), headers={"cache-control": "no-store"})

    async def _encoded(
        self, request: Request, fault: Fault | None, events: AsyncGenerator[Event, None], end: bytes
    ) -> AsyncGenerator[bytes, None]:
        exchange: Exchange = request.state.exchange
        stop = fault.after if isinstance(fault, Stall | Cut) else None
        sent = 0
        async with aclosing(events):
            while sent != stop and (event := await anext(events, None)):
                sent += 1
                exchange.tokens += event.token
                self.tokens_sent += event.token
                name = f"event: {event.data['type']}\n".encode() if "type" in event.data else b""
                yield name + b"data: " + msgspec.json.encode(event.data) + b"\n\n"
            if sent == stop:
                await self._break(request, fault)
            elif end:
                yield end

    async def _break(self, request: Request, fault: Fault | None) -> None:
        """Do what a Stall or Cut is for. Returns only where the body is to end as if nothing had happened."""
        exchange: Exchange = request.state.exchange
        if isinstance(fault, Cut):
            exchange.outcome = "cut"
            if fault.clean:
                return
            for connection in self.state.connections:
                if isinstance(connection, H11Protocol) and connection.client == request.client:
                    connection.transport.close()  # after what is written; an abort might lose events that were counted
        await asyncio.Event().wait()  # until the connection is gone, which cancels this

    async def whole(self, request: Request, fault: Fault | None, work: Callable[[], Awaitable[Json]]) -> Response:
        """The answer in one piece, given up where the client leaves before it is ready."""

        async def answer() -> Json:
            if isinstance(fault, Stall | Cut):
                await self._break(request, fault)
            return await work()

        making = asyncio.ensure_future(answer())
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait([making, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                return Response(status_code=499)  # nobody is there to read it
            return Response(msgspec.json.encode(making.result()), media_type="application/json")
        finally:
            making.cancel()
            leaving.cancel()
            await asyncio.wait([making, leaving])

    async def last(self, events: AsyncGenerator[Event, None], result: Callable[[], Json]) -> Json:
        """The result once all events are made; nobody reads them, but they take their time."""
        async with aclosing(events):
            async for event in events:
                if "error" in event.data:
                    raise Refused(server_error())
        return result()


def failing(events: Iterator[Event], fault: Fault | None) -> Iterator[Event]:
    """The events, ended by the model's own failure where that is the fault."""
    if not isinstance(fault, Fail):
        yield from events
        return
    error = server_error()
    response: Json | None = None
    for number, event in enumerate(events):
        response = event.data.get("response", response)
        if number < fault.after:
            yield event
        elif response is None:
            yield Event(error.body)
            return
        else:
            failed = {**response, "status": "failed", "error": {"code": error.code, "message": error.message}}
            yield Event({"type": "response.failed", "sequence_number": number, "response": failed})
            return


async def body_of(request: Request) -> Json:
    try:
        body = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}", None) from None
    if not isinstance(body, dict):
        raise BadRequest("The body of a request is a JSON object.", None)
    exchange: Exchange = request.state.exchange
    exchange.body = body
    return body


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refused(request: Request, error: Refused) -> Response:
    return JSONResponse(error.refuse.body, error.refuse.status, error.refuse.headers)


def no_route(request: Request, error: HTTPException) -> Response:
    refuse = Refuse(error.status_code, f"Invalid URL ({request.method} {request.url.path})", code="unknown_url")
    return JSONResponse(refuse.body, refuse.status, error.headers)
