"""Server: an instance on a port of its own, with the `websockets` library.

async with serve(agent, store="redis://127.0.0.1:6379/0") as server:
    async with connect(server.url, token=server.token("ann"), session="demo") as session:
        await session.prompt("What is the weather in Oslo?")
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_address
from typing import Any
from weakref import WeakSet

from websockets import ConnectionClosed, Headers, Request, Response, Subprotocol
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.protocol import State

from kit.auth import Visit
from kit.connection import CLOSING, STALLED, Closed
from kit.ending import finish, stop_listening
from kit.history import Agent
from kit.packets import MAX_FRAME, SUBPROTOCOL, CloseCode
from kit.service import Answer, Service, opened, origin_of

_quiet = logging.getLogger("kit.server.websocket")
_quiet.setLevel(logging.INFO)  # below, `websockets` logs every header and frame, and so every credential
UNREAD = 1024 * 1024
"""Bytes in the socket's buffer from which on a client that pings, and does not read what answers, is dropped."""


class BoundedConnection(ServerConnection):
    """Drops a client that pings and does not read: the library answers each ping at once (RFC 6455 section 5.5.2), however much waits."""

    def data_received(self, data: bytes) -> None:
        before = self.transport.get_write_buffer_size()
        super().data_received(data)
        if before < self.transport.get_write_buffer_size() > UNREAD:
            self.transport.abort()


class _Socket:
    """A `websockets` connection as `Connection` needs it."""

    def __init__(self, websocket: ServerConnection) -> None:
        self.websocket = websocket

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        with suppress(ConnectionClosed):
            async for message in self.websocket:
                yield message

    async def send(self, frame: bytes) -> None:
        try:
            async with asyncio.timeout(STALLED):
                await self.websocket.send(frame, text=True)
        except ConnectionClosed as closed:
            raise Closed from closed
        except TimeoutError:
            self.abort()
            raise Closed from None

    def send_now(self, frames: Sequence[bytes]) -> int:
        """As `websockets.broadcast` sends one message, but several in one write: a system call costs more than a frame."""
        protocol, transport = self.websocket.protocol, self.websocket.transport
        if protocol.state is State.OPEN and not transport.is_closing():  # lost in this very step, the protocol does not know yet
            for frame in frames:
                protocol.send_text(frame)
            transport.write(b"".join(protocol.data_to_send()))
        return self.waiting

    @property
    def waiting(self) -> int:
        return self.websocket.transport.get_write_buffer_size()

    async def close(self, code: int, reason: str = "") -> None:
        try:
            async with asyncio.timeout(2 * CLOSING):
                await self.websocket.close(code, reason)
        except TimeoutError:  # the library waits for the buffer before it looks at the clock
            self.abort()

    def abort(self) -> None:
        self.websocket.transport.abort()


class Server(Service):
    """A running server: its `url`, its `door`, its `instance`."""

    def __init__(self, *parts: Any, create_connection: type[BoundedConnection] | None, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._create_connection = create_connection
        self._websockets: set[WebSocketServer] = set()
        self._visits: dict[ServerConnection, Visit] = {}

    @property
    def alone(self) -> bool:
        """Whether nobody but this machine can reach it, at any of its addresses."""
        sockets = (one for websockets in self._websockets for one in websockets.sockets)
        return all(ip_address(one.getsockname()[0]).is_loopback for one in sockets)

    @asynccontextmanager
    async def listening(self, host: str, port: int, only: str | None = None) -> AsyncIterator[WebSocketServer]:
        """Listen at one more address while the block runs."""
        silent = WeakSet[ServerConnection]()
        async with self._listening(host, port, only, silent) as websockets:
            self._websockets.add(websockets)
            try:
                yield websockets
            finally:
                self._websockets.discard(websockets)
                try:
                    await finish(_close(websockets))
                finally:
                    for websocket in silent:  # browsers connect before they have a request; `websockets` would wait 10 s for it
                        websocket.transport.abort()

    def _listening(
        self, host: str, port: int, only: str | None, silent: WeakSet[ServerConnection]
    ) -> AbstractAsyncContextManager[WebSocketServer]:
        def accepted(*args: Any, **options: Any) -> ServerConnection:
            websocket = (self._create_connection or BoundedConnection)(*args, **options)
            silent.add(websocket)
            return websocket

        async def asked(websocket: ServerConnection, request: Request) -> Response | None:
            silent.discard(websocket)
            return await self._decide(only, websocket, request)

        return serve_websocket(
            self._serve,
            host,
            port,
            process_request=asked,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # half the CPU, a third of the memory, and no oracle (CRIME) across secrets in one stream
            max_size=MAX_FRAME,
            ping_timeout=60,  # a slow reader answers a ping only when it has read all before it
            close_timeout=CLOSING,
            server_header=None,
            logger=_quiet,
            create_connection=accepted,  # type: ignore[arg-type]  # it is called, and no more
        )

    @asynccontextmanager
    async def opened(self, room: str, host: str, port: int = 0) -> AsyncIterator[str]:
        """A room of this instance at one more address while the block runs: its page, it and its documents, and nothing else.

        Gives the address, as the page's origin: `http://host:port`.
        """
        rooms, origins = self.instance.presence.rooms, self.door.origins
        async with self.listening(host, port, only=room) as websockets:
            origin = origin_of(websockets.sockets)
            was_one = room in rooms
            rooms.add(room)
            origins.add(origin)
            try:
                yield origin
            finally:
                origins.discard(origin)
                if not was_one:
                    rooms.discard(room)

    async def _decide(self, only: str | None, websocket: ServerConnection, request: Request) -> Response | None:
        """What answers a request instead of the 101, if anything."""
        answer = await self.answer(request.method, request.path, request.headers, only=only)
        if isinstance(answer, Answer):
            return _respond(answer)
        self._visits[websocket] = answer
        websocket.connection_lost_waiter.add_done_callback(lambda _: self._visits.pop(websocket, None))
        return None

    async def _serve(self, websocket: ServerConnection) -> None:
        visit = self._visits.pop(websocket)
        for head in (websocket.request, websocket.response):
            if head:
                head.headers.clear()  # 4 KB a connection, credentials among them, that nobody reads again
        await self.serve(_Socket(websocket), visit)


async def _close(websockets: WebSocketServer) -> None:
    """Nobody new, and whoever is still there leaves; `websockets` itself would wait for a reader that has stopped."""
    await stop_listening(websockets.server)
    await asyncio.gather(*(_Socket(one).close(CloseCode.GOING_AWAY) for one in websockets.connections), return_exceptions=True)


def _respond(answer: Answer) -> Response:
    body = answer.text.encode()
    headers = Headers({**answer.headers, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(answer.status.value, answer.status.phrase, headers, body)


@asynccontextmanager
async def serve(
    agents: Agent | Mapping[str, Agent],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    create_connection: type[BoundedConnection] | None = None,
    **options: Any,
) -> AsyncIterator[Server]:
    """Serve an agent, or several by name (the first is the default one), while the block runs; then drain.

    `create_connection`: a subclass that looks on (kit/lab/trace.py); `options` are those of `kit.service.opened`: `store`, `secret`,
    `origins`, `lease`, `max_duration`, `rooms`, ...
    """
    async with (
        opened(partial(Server, create_connection=create_connection), agents, **options) as server,
        server.listening(host, port) as websockets,
    ):
        server.origin = origin_of(websockets.sockets)
        if server.instance.presence.rooms:
            server.door.origins.add(server.origin)
        yield server
        await stop_listening(websockets.server)
        await server.drain()
