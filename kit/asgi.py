"""ASGI: the same instance as an application for any ASGI server: uvicorn with several workers, hypercorn, a serverless runtime.

app = asgi.app(agent, store=os.environ["REDIS_URL"], secret=os.environ["KIT_SECRET"], origins=["https://example.com"])

Its lifespan opens the instance and drains it. Whoever serves it decides about buffers, pings and sizes: `UVICORN` is what the kit asks of
uvicorn (https://asgi.readthedocs.io/en/latest/specs/www.html is what it may expect of others). On SIGTERM the instance is drained before
uvicorn hears of it, which would close the sockets first and end the lifespan, with the turns, last. The workers of hypercorn 0.18 get no
signal: hypercorn waits for the sockets as long as it is patient, clients hear 1011, and then the turns are handed over. It also refuses
some requests by itself, with a 400 and no reason.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from websockets import Headers

from kit.auth import Visit
from kit.connection import CLOSING, STALLED, Closed
from kit.ending import before, end
from kit.history import Agent
from kit.packets import MAX_FRAME, SUBPROTOCOL, CloseCode
from kit.service import Service, opened

UVICORN: dict[str, Any] = {
    "ws_max_size": MAX_FRAME,
    "ws_ping_timeout": 60,  # a slow reader answers a ping only when it has read all before it
    "ws_per_message_deflate": False,  # half the CPU, a third of the memory, and no oracle (CRIME) across secrets in one stream
    "timeout_graceful_shutdown": 5,  # else a reader that stopped would hold up the drain for ever
}
DROP = "kit.drop"
"""In the scope: what ends a connection whatever waits in its buffer; uvicorn's own close waits without end for a reader that stopped.

Only where uvicorn calls the app itself: another application around it hides the transport, and with it this and `_send_at_once`.
"""


class _Socket:
    """An ASGI WebSocket as `Connection` needs it.

    ASGI's `send` waits while the server's buffer is full, so what must not wait is queued here, and a task sends it. A reader that is slow
    costs what `Connection` lets into the queue, and the server's buffer: with uvicorn 64 KiB and a frame.
    """

    def __init__(self, receive: Receive, send: Send, limit: asyncio.Timeout) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._queue: deque[bytes] = deque()
        self.waiting = 0
        self._order = asyncio.Lock()
        self._closed = False
        self._flushing: asyncio.Task[None] | None = None

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (message := await self._receive())["type"] == "websocket.receive" and not self._closed:
            text: str | None = message.get("text")
            frame: bytes = message["bytes"] if text is None else text.encode()
            if len(frame) > MAX_FRAME:  # behind a server that lets larger ones pass
                await self.close(CloseCode.TOO_LARGE)
                break
            yield frame if text is None else text
        self._closed = True

    async def send(self, frame: bytes) -> None:
        self._put([frame])
        await self._flush()
        if self._closed:
            raise Closed

    def send_now(self, frames: Sequence[bytes]) -> int:
        if not self._closed:
            self._put(frames)
            if not self._flushing or self._flushing.done():  # else it sends these, too
                self._flushing = asyncio.create_task(self._flush())
        return self.waiting

    def _put(self, frames: Sequence[bytes]) -> None:
        self._queue.extend(frames)
        self.waiting += sum(map(len, frames))

    async def _flush(self) -> None:
        async with self._order:
            while self._queue and not self._closed:
                frame = self._queue.popleft()
                try:
                    async with asyncio.timeout(STALLED):
                        await self._send({"type": "websocket.send", "text": frame.decode()})
                except (OSError, RuntimeError):  # it takes nothing, has left, or (uvicorn) was sent away: not always is that received, too
                    self._closed = True
                    self.abort(CLOSING)
                self.waiting -= len(frame)

    async def close(self, code: int, reason: str = "") -> None:
        if not self._closed:
            self._closed = True
            self.abort(CLOSING)
            with suppress(OSError, RuntimeError):  # the same
                async with asyncio.timeout(CLOSING):
                    await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def abort(self, after: float = 0.0) -> None:
        """The application returns, which is all that ASGI knows of it."""
        with suppress(RuntimeError):  # it is returning
            self._limit.reschedule(asyncio.get_running_loop().time() + after)

    async def flushed(self) -> None:
        """Nothing is sent any more."""
        await end({self._flushing} if self._flushing else ())


class App(Starlette):
    """The application. It is a Starlette one: it may have routes of its own, or be mounted where somebody runs its lifespan, `running`."""

    def __init__(self, agents: Agent | Mapping[str, Agent], **options: Any) -> None:
        super().__init__(lifespan=App.running)
        self.router.default = self._answer
        self._agents, self._options = agents, options
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The instance and its door; raises RuntimeError where the lifespan has not begun."""
        if self._service is None:
            raise RuntimeError("the instance is not open: serve the app with its lifespan on, or inside `async with app.running()`")
        return self._service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
        if callable(getattr(transport, "abort", None)):  # uvicorn's, of asyncio or uvloop
            _send_at_once(transport)
            scope[DROP] = transport.abort
        await super().__call__(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The instance is open inside the block; at its end turns are handed over, and who is still connected is sent away."""
        _hide_headers()
        async with opened(Service, self._agents, **self._options) as self._service:
            async with before(signal.SIGTERM, self._service.drain):  # the server itself would close the sockets first
                yield
            await self._service.drain()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self.service.answer(scope.get("method", "GET"), _target(scope), _headers(scope))
        if isinstance(answer, Visit):
            try:
                await _talk(self.service, answer, receive, send)
            finally:
                if DROP in scope:
                    asyncio.get_running_loop().call_later(CLOSING, scope[DROP])
        elif scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
            await Response(answer.text, answer.status, answer.headers)(scope, receive, send)
            await asyncio.sleep(0)  # until uvicorn has closed the socket, it would log a refusal as a handshake that was forgotten
        else:
            await send({"type": "websocket.close"})  # the server's 403, whatever the reason is


def app(agents: Agent | Mapping[str, Agent], *, secret: str, **options: Any) -> App:
    """The application of an agent, or of several by name.

    `secret`: what tokens are signed with, the same in every worker; `options` are those of `kit.service.opened`: `store`, `origins`,
    `lease`, `max_duration`, `rooms`, ... Without a `store` each worker would have sessions of its own.
    """
    return App(agents, secret=secret, **options)


async def _talk(service: Service, visit: Visit, receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            talk = _Socket(receive, send, limit)
            try:
                await service.serve(talk, visit)
            finally:
                await talk.flushed()


def _send_at_once(transport: Any) -> None:
    """Else a token may wait 40 ms for the client's acknowledgement of the last one (Nagle's algorithm, RFC 896).

    asyncio sees to that, but not where uvicorn's workers share a socket (https://github.com/Kludex/uvicorn/issues/3149, open in 0.54).
    """
    if sock := transport.get_extra_info("socket"):
        with suppress(OSError):  # a Unix socket holds nothing back
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _target(scope: Scope) -> str:
    """The address below the one where the app is mounted. None of ours has an escape in it, and none comes to mean one of them."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if b"%" in scope.get("raw_path", b""):
        path = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _headers(scope: Scope) -> Headers:
    """The request's headers. Those of the upgrade are the server's affair: HTTP/2 has no `Upgrade`, and wsproto takes away what it read."""
    theirs = (b"upgrade", b"sec-websocket-protocol") if scope["type"] == "websocket" else (b"upgrade",)
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"] if name not in theirs)
    if scope["type"] == "websocket":
        headers["Upgrade"] = "websocket"
        headers["Sec-WebSocket-Protocol"] = ", ".join(scope["subprotocols"])
    return headers


def _hide_headers() -> None:
    """At DEBUG uvicorn has `websockets` log every header, and so every credential."""
    loud = logging.getLogger("uvicorn.error")
    if loud.getEffectiveLevel() < logging.INFO:
        loud.setLevel(logging.INFO)
