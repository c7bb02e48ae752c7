"""Server: an instance on a port: the upgrade, the door, and a connection for each visit.

async with serve(agent, store="redis://127.0.0.1:6379/0") as server:
    async with connect(server.url, token=server.token("ann"), session="demo") as session:
        await session.prompt("What is the weather in Oslo?")
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs

from websockets import ConnectionClosed, Headers, Request, Response, Subprotocol
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.protocol import State

from kit.auth import ANY_SESSION, COOKIE, TICKET, Door, Refused, Visit, opens
from kit.connection import BEAT, Budget, Closed, Connection
from kit.history import Agent
from kit.instance import Instance
from kit.packets import MAX_FRAME, SUBPROTOCOL, CloseCode
from kit.page import page
from kit.slots import Slots
from kit.store import Store, StoreError, open_store
from kit.transcript import DAY, Transcript

log = logging.getLogger("kit.server")
ADMIT = 250
"""Connections that are let in during 100 ms: more than one core shakes hands with, so that only a herd is asked to wait."""
_quiet = logging.getLogger("kit.server.websocket")
_quiet.setLevel(logging.INFO)  # below, `websockets` logs every header and frame, and so every credential


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
            await self.websocket.send(frame, text=True)
        except ConnectionClosed as closed:
            raise Closed from closed

    def send_now(self, frames: Sequence[bytes]) -> int:
        """As `websockets.broadcast` sends one message, but several in one write: a system call costs more than a frame."""
        protocol, transport = self.websocket.protocol, self.websocket.transport
        if protocol.state is State.OPEN:
            for frame in frames:
                protocol.send_text(frame)
            transport.write(b"".join(protocol.data_to_send()))
        return transport.get_write_buffer_size()

    async def close(self, code: int, reason: str = "") -> None:
        await self.websocket.close(code, reason)


class Server:
    """A running server: its `url`, its `door`, its `instance`."""

    def __init__(
        self,
        instance: Instance,
        door: Door,
        slots: Slots,
        *,
        beat: float,
        max_duration: float | None,
        budget: Callable[[], Budget],
        create_connection: type[ServerConnection] | None,
    ) -> None:
        self.instance = instance
        self.door = door
        self.slots = slots
        self.beat = beat
        self.max_duration = max_duration
        self.budget = budget
        self._create_connection = create_connection
        self.connections: set[Connection] = set()
        self.leaving = False
        self._websockets: WebSocketServer
        self._rooms: set[WebSocketServer] = set()
        self._visits: dict[ServerConnection, Visit] = {}

    @property
    def port(self) -> int:
        return int(next(iter(self._websockets.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        return _url(self._websockets)

    @property
    def alone(self) -> bool:
        """Whether nobody but this machine can reach it, at any of its addresses."""
        sockets = (one for websockets in (self._websockets, *self._rooms) for one in websockets.sockets)
        return all(ip_address(one.getsockname()[0]).is_loopback for one in sockets)

    def token(self, name: str, session: str = ANY_SESSION, ttl: float = 3600.0) -> str:
        """A token for `name`: a JWT for `Authorization: Bearer`, good for one session or all."""
        return self.door.issue(name, session, ttl)

    def _listening(self, host: str, port: int, only: str | None = None) -> AbstractAsyncContextManager[WebSocketServer]:
        return serve_websocket(
            self._serve,
            host,
            port,
            process_request=partial(self._admit, only),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # half the CPU, a third of the memory, and no oracle (CRIME) across secrets in one stream
            max_size=MAX_FRAME,
            ping_timeout=60,  # a slow reader answers a ping only when it has read all before it
            close_timeout=1.0,  # for a client that does not answer: neither a flood nor a drain waits for it longer
            server_header=None,
            logger=_quiet,
            create_connection=self._create_connection,
        )

    @asynccontextmanager
    async def opened(self, room: str, host: str, port: int = 0) -> AsyncIterator[str]:
        """A room of this instance at one more address while the block runs: its page, it and its documents, and nothing else.

        Gives the address, as the page's origin: `http://host:port`.
        """
        rooms, origins = self.instance.presence.rooms, self.door.origins
        async with self._listening(host, port, only=room) as websockets:
            origin = _origin(websockets)
            was_one = room in rooms
            rooms.add(room)
            origins.add(origin)
            self._rooms.add(websockets)
            try:
                yield origin
            finally:
                self._rooms.discard(websockets)
                origins.discard(origin)
                if not was_one:
                    rooms.discard(room)

    # ---- before the 101 ----

    async def _admit(self, only: str | None, websocket: ServerConnection, request: Request) -> Response | None:
        """What answers a request instead of the 101, if anything; where a room alone is open, there is no other path than its own."""
        rooms = self.instance.presence.rooms
        try:
            if only:
                _check_path(request.path, only)
            if request.method == "GET" and (found := page(request.path, rooms & {only} if only else rooms)):
                return _respond(HTTPStatus.OK, found.text, found.headers)
            if request.method == "POST":
                return await self._issue(request)
            if request.method == "OPTIONS" and request.path == "/cookie":
                return self._preflight(request.headers.get("Origin"))
            slot = self.slots.take()
            if slot.wait:  # before anything is looked at: it costs nothing, tells nothing about credentials, and spends no ticket
                return _respond(HTTPStatus.SERVICE_UNAVAILABLE, f"too many at once: come back in {slot.wait} ms\n", _retry_after(slot.wait))
            try:
                visit = await self.door.admit(request.path, _folded(request.headers))
                if visit.identity.name in self.instance.agents:
                    raise Refused(HTTPStatus.FORBIDDEN, "an agent here has that name: come under another")
                self._visits[websocket] = visit
            except BaseException:
                self.slots.give_back(slot)  # or strangers would keep people out
                raise
            websocket.connection_lost_waiter.add_done_callback(lambda _: self._visits.pop(websocket, None))
            return None
        except Refused as refused:
            return _respond(refused.status, f"{refused}\n", _refusal_headers(refused.status))
        except StoreError as error:
            log.warning("nobody can be let in: the store does not answer: %s", error)
            return _respond(HTTPStatus.SERVICE_UNAVAILABLE, "the store does not answer: come back in a moment\n", {"Retry-After": "1"})

    async def _issue(self, request: Request) -> Response:
        """`POST /ticket` (bearer; `?session=&origin=`) gives a ticket, `POST /cookie` (a ticket as bearer) turns one into the cookie."""
        path, _, asked = request.path.partition("?")
        headers = _folded(request.headers)
        origin, authorization = headers.get("Origin"), headers.get("Authorization", "")
        match path:
            case "/ticket":
                identity = self.door.bearer(authorization)
                query = parse_qs(asked)
                session = query.get("session", [identity.session])[0]
                if not opens(identity.session, session) or session == ANY_SESSION:
                    raise Refused(HTTPStatus.UNAUTHORIZED, "say for which session (?session=...); the token must be good for it")
                ticket = await self.door.ticket(identity, session, query.get("origin", [origin])[0])
                return _respond(HTTPStatus.OK, json.dumps({"ticket": ticket}) + "\n", {"Content-Type": "application/json"})
            case "/cookie":
                self.door.check_origin(origin)
                ticket = authorization.removeprefix("Bearer ").removeprefix(TICKET)
                identity = await self.door.spend(ticket, None, origin)
                token = self.door.issue(identity.name, identity.session, identity.expires - self.door.clock())
                cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
                return _respond(HTTPStatus.OK, "{}\n", {"Content-Type": "application/json", "Set-Cookie": cookie, **_cors(origin)})
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "POST goes to /ticket or /cookie")

    def _preflight(self, origin: str | None) -> Response:
        """What a browser asks before a page of another origin may send its ticket as a bearer (Fetch standard, CORS-preflight fetch)."""
        self.door.check_origin(origin)
        allowed = {"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "Authorization"}
        return _respond(HTTPStatus.OK, "", {**_cors(origin), **allowed})

    # ---- after it ----

    async def _serve(self, websocket: ServerConnection) -> None:
        visit = self._visits.pop(websocket)
        for head in (websocket.request, websocket.response):
            if head:
                head.headers.clear()  # 4 KB a connection, credentials among them, that nobody reads again
        if self.leaving:  # its handshake was under way while the others were sent away
            await websocket.close(CloseCode.RESTART, "0")
            return
        socket, lasts = _Socket(websocket), self.max_duration
        connection = Connection(socket, visit, self.instance, self.door, beat=self.beat, budget=self.budget(), lasts=lasts)
        self.connections.add(connection)
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)

    async def cut(self, session: str | None = None) -> None:
        """Drop the sockets of a session (or all) without a closing handshake, as a bad network does."""
        for connection in list(self.connections):
            if session in (None, connection.visit.session):
                connection.socket.websocket.transport.abort()  # type: ignore[attr-defined]  # ours are `_Socket`s


def _url(websockets: WebSocketServer) -> str:
    host, port = next(iter(websockets.sockets)).getsockname()[:2]
    return f"ws://{f'[{host}]' if ':' in host else host}:{port}"


def _origin(websockets: WebSocketServer) -> str:
    """What a browser names as the origin of the pages that it gets there."""
    return _url(websockets).replace("ws", "http", 1)


def _check_path(target: str, room: str) -> None:
    kind, _, name = target.partition("?")[0].strip("/").partition("/")
    if not (kind in ("cookie", "widgets") or (kind == "room" and name == room) or (kind == "s" and opens(room, name))):
        raise Refused(HTTPStatus.NOT_FOUND, "one room is open here, and nothing else")


def _folded(headers: Headers) -> Headers:
    """Each header once: lines of one name are one list (RFC 9110 section 5.3), and two credentials together are none."""
    return Headers({name: ("; " if name.lower() == "cookie" else ", ").join(headers.get_all(name)) for name in headers})


def _respond(status: HTTPStatus, text: str, headers: Mapping[str, str]) -> Response:
    body = text.encode()
    base = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Cache-Control": "no-store",
    }
    return Response(status.value, status.phrase, Headers({**base, **headers}), body)


def _refusal_headers(status: HTTPStatus) -> dict[str, str]:
    match status:
        case HTTPStatus.UPGRADE_REQUIRED:
            return {"Upgrade": "websocket"}  # RFC 9110 section 15.5.22: the response must name the protocol
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}  # RFC 9110 section 15.5.2
        case _:
            return {}


def _retry_after(ms: int) -> dict[str, str]:
    """RFC 9110 section 10.2.3 knows whole seconds only; `retry-after-ms` is what model providers' clients read."""
    return {"Retry-After": str(-(-ms // 1000)), "retry-after-ms": str(ms)}


def _cors(origin: str | None) -> dict[str, str]:
    return {} if origin is None else {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}


@asynccontextmanager
async def serve(
    agents: Agent | Mapping[str, Agent],
    *,
    store: Store | str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    secret: str | None = None,
    origins: Collection[str] = (),
    lease: float = 2.0,
    ttl: float = DAY,
    shards: int = 1,
    max_duration: float | None = None,
    beat: float = BEAT,
    budget: Callable[[], Budget] = Budget,
    admit: int = ADMIT,
    create_connection: type[ServerConnection] | None = None,
    **options: Any,
) -> AsyncIterator[Server]:
    """Serve an agent, or several by name (the first is the default one), while the block runs; then drain.

    `store`: a URL, or an open Store to share; `secret`: what tokens are signed with, shared by instances that accept each other's
    (None: a fresh one); `origins`: the pages that may connect; `lease`, `ttl` and `max_duration` (of a connection) in seconds; `budget`
    makes what a connection may say; `admit`: how many are let in during 100 ms; `create_connection`: a subclass that looks on
    (kit/lab/trace.py); `options` go to Instance and Run (`keep`, `rooms`, `patience`, `grace`, `join`, `rng`); rooms have a
    page, `GET /room/<session>`.
    """
    named = dict(agents) if isinstance(agents, Mapping) else {"agent": agents}
    async with _opened(store) as opened:
        transcript = Transcript(opened, shards=shards, lease=lease, ttl=ttl)
        door = Door(secret or secrets.token_urlsafe(32), transcript, origins=origins)
        async with Instance(transcript, named, **options).running() as instance:
            server = Server(
                instance, door, Slots(admit), beat=beat, max_duration=max_duration, budget=budget, create_connection=create_connection
            )
            async with server._listening(host, port) as server._websockets:
                if instance.presence.rooms:
                    door.origins.add(_origin(server._websockets))
                yield server
                server._websockets.close(close_connections=False)  # nobody new
                await instance.hand_over()
                await _dismiss(server)


async def _dismiss(server: Server) -> None:
    """Close every socket with 1012: come back, each in its slot, to another instance."""
    server.leaving = True
    waits = server.slots.spread(len(server.connections))
    closing = [connection.socket.close(CloseCode.RESTART, str(ms)) for connection, ms in zip(server.connections, waits, strict=True)]
    await asyncio.gather(*closing, return_exceptions=True)


@asynccontextmanager
async def _opened(store: Store | str | None) -> AsyncIterator[Store]:
    if isinstance(store, Store):
        yield store
    else:
        async with open_store(store) as opened:
            yield opened
