"""Service: an instance and its door, whoever listens for them: what a request is answered, and a connection for each visit.

What listens (server.py, asgi.py) brings requests and sockets; nothing is decided there, so that every promise holds behind each of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, urlsplit

from websockets import Headers

from kit.auth import ANY_SESSION, COOKIE, TICKET, Door, Refused, Visit, opens
from kit.connection import BEAT, Budget, Connection, Socket
from kit.history import Agent
from kit.instance import Instance
from kit.packets import CloseCode
from kit.page import page
from kit.slots import Slots
from kit.store import Store, StoreError, open_store
from kit.transcript import DAY, Transcript

log = logging.getLogger("kit.service")
ADMIT = 250
"""Connections that are let in during 100 ms: more than one core shakes hands with, so that only a herd is asked to wait."""


class Answer(NamedTuple):
    """What answers a request instead of the 101."""

    status: HTTPStatus
    text: str
    headers: dict[str, str]


class Service:
    """An `instance`, its `door`, and the `connections` that were let in. `origin` is where it listens, as a browser names it."""

    def __init__(
        self, instance: Instance, door: Door, slots: Slots, *, beat: float, max_duration: float | None, budget: Callable[[], Budget]
    ) -> None:
        self.instance = instance
        self.door = door
        self.slots = slots
        self.beat = beat
        self.max_duration = max_duration
        self.budget = budget
        self.connections: set[Connection] = set()
        self.leaving = False
        self.origin = ""

    @property
    def url(self) -> str:
        """Where it listens: `ws://127.0.0.1:PORT`."""
        return self.origin.replace("http", "ws", 1)

    @property
    def port(self) -> int:
        return urlsplit(self.origin).port or 0

    def token(self, name: str, session: str = ANY_SESSION, ttl: float = 3600.0) -> str:
        """A token for `name`: a JWT for `Authorization: Bearer`, good for one session or all."""
        return self.door.issue(name, session, ttl)

    # ---- before the 101 ----

    async def answer(self, method: str, target: str, headers: Headers, *, only: str | None = None) -> Answer | Visit:
        """The visit that a request may make, or what answers it. Where a room alone is open (`only`), there is no other path than its."""
        rooms = self.instance.presence.rooms
        try:
            if only:
                _check_path(target, only)
            if method == "GET" and (found := page(target, rooms & {only} if only else rooms)):
                return _answer(HTTPStatus.OK, found.text, found.headers)
            if method == "POST":
                return await self._issue(target, _folded(headers))
            if method == "OPTIONS" and target == "/cookie":
                return self._preflight(_folded(headers).get("Origin"))
            return await self._admit(target, _folded(headers))
        except Refused as refused:
            return _answer(refused.status, f"{refused}\n", _refusal_headers(refused.status))
        except StoreError as error:
            log.warning("nobody can be let in: the store does not answer: %s", error)
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "the store does not answer: come back in a moment\n", {"Retry-After": "1"})

    async def _admit(self, target: str, headers: Headers) -> Answer | Visit:
        if self.leaving:  # by then nobody else may listen at this address
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "this instance is about to end: come back to another\n", {"Retry-After": "1"})
        slot = self.slots.take()
        if slot.wait:  # before anything is looked at: it costs nothing, tells nothing about credentials, and spends no ticket
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, f"too many at once: come back in {slot.wait} ms\n", _retry_after(slot.wait))
        try:
            visit = await self.door.admit(target, headers)
            if visit.identity.name in self.instance.agents:
                raise Refused(HTTPStatus.FORBIDDEN, "an agent here has that name: come under another")
        except BaseException:
            self.slots.give_back(slot)  # or strangers would keep people out
            raise
        return visit

    async def _issue(self, target: str, headers: Headers) -> Answer:
        """`POST /ticket` (bearer; `?session=&origin=`) gives a ticket, `POST /cookie` (a ticket as bearer) turns one into the cookie."""
        path, _, asked = target.partition("?")
        origin, authorization = headers.get("Origin"), headers.get("Authorization", "")
        match path:
            case "/ticket":
                identity = self.door.bearer(authorization)
                query = parse_qs(asked)
                session = query.get("session", [identity.session])[0]
                if not opens(identity.session, session) or session == ANY_SESSION:
                    raise Refused(HTTPStatus.UNAUTHORIZED, "say for which session (?session=...); the token must be good for it")
                ticket = await self.door.ticket(identity, session, query.get("origin", [origin])[0])
                return _answer(HTTPStatus.OK, json.dumps({"ticket": ticket}) + "\n", {"Content-Type": "application/json"})
            case "/cookie":
                self.door.check_origin(origin)
                ticket = authorization.removeprefix("Bearer ").removeprefix(TICKET)
                identity = await self.door.spend(ticket, None, origin)
                token = self.door.issue(identity.name, identity.session, identity.expires - self.door.clock())
                secure = "; Secure" if origin and origin.startswith("https:") else ""
                cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/{secure}"
                return _answer(HTTPStatus.OK, "{}\n", {"Content-Type": "application/json", "Set-Cookie": cookie, **_cors(origin)})
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "POST goes to /ticket or /cookie")

    def _preflight(self, origin: str | None) -> Answer:
        """What a browser asks before a page of another origin may send its ticket as a bearer (Fetch standard, CORS-preflight fetch)."""
        self.door.check_origin(origin)
        allowed = {"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "Authorization"}
        return _answer(HTTPStatus.OK, "", {**_cors(origin), **allowed})

    # ---- after it ----

    async def serve(self, websocket: Socket, visit: Visit) -> None:
        """Talk to who was let in until the socket closes, or its time is up."""
        if self.leaving:  # the handshake was under way while the others were sent away
            await websocket.close(CloseCode.RESTART, "0")
            return
        beat, budget = self.beat, self.budget()
        connection = Connection(websocket, visit, self.instance, self.door, beat=beat, budget=budget, lasts=self.max_duration)
        self.connections.add(connection)
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)

    async def cut(self, session: str | None = None) -> None:
        """Drop the sockets of a session (or all) without a closing handshake, as a bad network does."""
        for connection in list(self.connections):
            if session in (None, connection.visit.session):
                connection.socket.abort()

    async def drain(self) -> None:
        """Give the turns to the other instances, and close every socket with 1012: come back, each in its slot, to one of them."""
        self.leaving = True
        await self.instance.hand_over()
        waits = self.slots.spread(len(self.connections))
        closing = [connection.socket.close(CloseCode.RESTART, str(ms)) for connection, ms in zip(self.connections, waits, strict=True)]
        await asyncio.gather(*closing, return_exceptions=True)


S = TypeVar("S", bound=Service)


@asynccontextmanager
async def opened(
    make: Callable[..., S],
    agents: Agent | Mapping[str, Agent],
    *,
    store: Store | str | None = None,
    secret: str | None = None,
    origins: Collection[str] = (),
    lease: float = 2.0,
    ttl: float = DAY,
    shards: int = 1,
    max_duration: float | None = None,
    beat: float = BEAT,
    budget: Callable[[], Budget] = Budget,
    admit: int = ADMIT,
    **options: Any,
) -> AsyncIterator[S]:
    """A service (which `make` makes) for an agent, or several by name (the first is the default one), while the block runs.

    `store`: a URL, or an open Store to share; `secret`: what tokens are signed with, shared by instances that accept each other's
    (None: a fresh one); `origins`: the pages that may connect; in seconds `lease`, `ttl` (of a session after its last word) and
    `max_duration` (of a connection); `budget` makes what a connection may say; `admit`: how many are let in during 100 ms; `options` go
    to Instance (`keep`, `overlap`, `rooms`, `presence`, `patience`, `grace`, `join`, `rng`); rooms have a page, `GET /room/<session>`.

    Raises ValueError for what can't be used. A store has no room for two applications: each needs a database of its own.
    """
    named = dict(agents) if isinstance(agents, Mapping) else {"agent": agents}
    async with _store(store) as open_one:
        transcript = Transcript(open_one, shards=shards, lease=lease, ttl=ttl)
        door = Door(secrets.token_urlsafe(32) if secret is None else secret, transcript, origins=origins)
        async with Instance(transcript, named, **options).running() as instance:
            yield make(instance, door, Slots(admit), beat=beat, max_duration=max_duration, budget=budget)


@asynccontextmanager
async def _store(store: Store | str | None) -> AsyncIterator[Store]:
    if isinstance(store, Store):
        yield store
    else:
        async with open_store(store) as opened:
            yield opened


def origin_of(sockets: Iterable[socket.socket]) -> str:
    """What a browser on this machine names as the origin of the pages that it gets there."""
    host, port = next(iter(sockets)).getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # every address, which is none to go to
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _check_path(target: str, room: str) -> None:
    kind, _, name = target.partition("?")[0].strip("/").partition("/")
    if not (kind in ("cookie", "widgets") or (kind == "room" and name == room) or (kind == "s" and opens(room, name))):
        raise Refused(HTTPStatus.NOT_FOUND, "one room is open here, and nothing else")


def _folded(headers: Headers) -> Headers:
    """Each header once: lines of one name are one list (RFC 9110 section 5.3), and two credentials together are none."""
    return Headers({name: ("; " if name.lower() == "cookie" else ", ").join(headers.get_all(name)) for name in headers})


def _answer(status: HTTPStatus, text: str, headers: Mapping[str, str]) -> Answer:
    return Answer(status, text, {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", **headers})


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
