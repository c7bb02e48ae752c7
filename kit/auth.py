"""Auth: who may come in. Everything is decided before the 101; a refusal names its reason.

Three credentials, one identity:

- programs send `Authorization: Bearer <jwt>` (RFC 6750 section 2.1);
- browsers cannot set headers on a WebSocket: they send a **ticket**, good once and for a short time, as a second subprotocol, or
- the cookie `kit_session`, which the browser adds by itself, on any page: it counts only from an allowed Origin (RFC 6455 section 10.2).

A JWT is read with one algorithm and the claims that this door wrote itself (RFC 8725 sections 3.1, 3.8, 3.9). No credential is logged.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

import jwt
from msgspec import Struct

from kit.packets import SUBPROTOCOL

COOKIE = "kit_session"
TICKET = "ticket."
ANY_SESSION = "*"
CLAIMS = ("iss", "aud", "sub", "session", "nbf", "exp")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+")  # RFC 6454 section 6.2
_PATH = re.compile(r"/s/([A-Za-z0-9_-]{1,64})")


class Refused(Exception):
    """Nobody comes in: the HTTP status, and a sentence for whoever reads the response."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Identity(Struct, frozen=True):
    """Who came in, for which session (`*`: any), until when (seconds since the epoch)."""

    name: str
    session: str
    expires: float


def read_token(token: str, secret: str, now: float) -> Identity:
    """The identity in a JWT that was signed with `secret` and is valid `now` (seconds since the epoch); raises Refused (401)."""
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            audience="kit",
            issuer="kit",
            # PyJWT reads the system's clock; ours is an argument, so the times are checked below.
            options={"require": [*CLAIMS], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        name, expires, begins = claims["sub"], float(claims["exp"]), float(claims["nbf"])
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
        raise Refused(HTTPStatus.UNAUTHORIZED, f"the token is not valid here: {error}") from None
    if not begins <= now < expires:
        what = "has expired" if now >= expires else "is not valid yet"
        raise Refused(HTTPStatus.UNAUTHORIZED, f"the token {what}")
    return Identity(name, str(claims["session"]), expires)


def opens(good_for: str, session: str) -> bool:
    """Whether a credential for one session lets into another: into itself and its documents, `<session>--<name>`; `*` into all."""
    return good_for in (ANY_SESSION, session) or session.rpartition("--")[:2] == (good_for, "--")


class Tickets(Protocol):
    """Where tickets wait: written once, taken once."""

    async def put_ticket(self, ticket: str, value: bytes, ttl: float) -> None: ...
    async def take_ticket(self, ticket: str) -> bytes | None: ...


class Visit(Struct, frozen=True):
    """A request that may come in: the session and cursor it asks for, who it is, and the Origin where a browser sent it."""

    session: str
    after: str | None
    log: str | None
    identity: Identity
    origin: str | None


class Door:
    """One door with one secret. `origins` are the pages that may connect, such as `http://127.0.0.1:8888`.

    Without `tickets` it can issue and read tokens, and nothing else.
    """

    def __init__(
        self,
        secret: str,
        tickets: Tickets | None,
        *,
        origins: Collection[str] = (),
        ticket_ttl: float = 3600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if len(secret.encode()) < 32:
            raise ValueError("the secret needs at least 32 bytes (RFC 7518 section 3.2): set KIT_SECRET to a longer one")
        self._secret = secret
        self._tickets = tickets
        if wrong := [origins] if isinstance(origins, str) else [origin for origin in origins if not _ORIGIN.fullmatch(origin)]:
            raise ValueError(f"origins are a list of pages as browsers name them, such as ['https://example.com']: not {wrong[0]!r}")
        self.origins = set(origins)
        self._ticket_ttl = ticket_ttl
        self.clock = clock

    # ---- tokens and tickets ----

    def issue(self, name: str, session: str = ANY_SESSION, ttl: float = 3600.0) -> str:
        """A JWT for `name`, good for one session or (`*`) all, for `ttl` seconds."""
        now = self.clock()
        claims = {"iss": "kit", "aud": "kit", "sub": name, "session": session, "iat": int(now), "nbf": int(now), "exp": int(now + ttl)}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def read_token(self, token: str) -> Identity:
        """The identity in a JWT of this door's, now; raises Refused (401)."""
        return read_token(token, self._secret, self.clock())

    async def ticket(self, identity: Identity, session: str, origin: str | None) -> str:
        """A ticket, good once, for this session from this Origin."""
        ticket = secrets.token_urlsafe(24)
        value = {"name": identity.name, "session": session, "origin": origin, "expires": identity.expires}
        if self._tickets is None:
            raise ValueError("this door has nowhere to keep tickets: give it `tickets`")
        ttl = max(0.001, min(self._ticket_ttl, identity.expires - self.clock()))
        await self._tickets.put_ticket(ticket, json.dumps(value).encode(), ttl)
        return ticket

    async def spend(self, ticket: str, session: str | None, origin: str | None) -> Identity:
        """The identity behind a ticket, which is used up even where it is refused; raises Refused (401)."""
        is_one = re.fullmatch(r"[A-Za-z0-9_-]{32}", ticket)
        value = await self._tickets.take_ticket(ticket) if self._tickets and is_one else None
        if value is None:
            raise Refused(HTTPStatus.UNAUTHORIZED, "the ticket is unknown, spent or expired: get a new one")
        held = json.loads(value)
        if held["origin"] != origin or (session and not opens(held["session"], session)):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the ticket is for another session or another page: get one for this")
        if self.clock() >= held["expires"]:
            raise Refused(HTTPStatus.UNAUTHORIZED, "the ticket has expired: get a new one")
        return Identity(held["name"], held["session"], held["expires"])

    # ---- requests ----

    async def admit(self, path: str, headers: Mapping[str, str]) -> Visit:
        """The visit that a WebSocket request asks for; raises Refused: 404, 426, 403, 401 or 400, in this order."""
        address, _, query = path.partition("?")  # a request's target is not a URL: urlsplit would read `//host/s/x`, and raise at `//[`
        found = _PATH.fullmatch(address)
        if not found:
            raise Refused(HTTPStatus.NOT_FOUND, "sessions are at /s/<name>, a name of 1 to 64 characters of A-Z a-z 0-9 _ -")
        if "websocket" not in [protocol.strip().lower() for protocol in headers.get("Upgrade", "").split(",")]:
            raise Refused(HTTPStatus.UPGRADE_REQUIRED, "this address speaks WebSocket: send Upgrade: websocket")
        origin = headers.get("Origin")
        self.check_origin(origin)
        offered = [p.strip() for p in headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
        identity = await self._credentials(headers, offered, found[1], origin)
        if not opens(identity.session, found[1]):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the token is for another session")
        if SUBPROTOCOL not in offered:
            raise Refused(HTTPStatus.BAD_REQUEST, f"offer the subprotocol {SUBPROTOCOL}")
        asked = parse_qs(query, keep_blank_values=True)
        return Visit(found[1], asked.get("after", [None])[0], asked.get("log", [None])[0], identity, origin)

    def check_origin(self, origin: str | None) -> None:
        """Refuse (403) a page that is not allowed here; a program sends no Origin."""
        if origin is not None and origin not in self.origins:
            raise Refused(HTTPStatus.FORBIDDEN, f"pages from {origin:.100} may not connect here")

    async def _credentials(self, headers: Mapping[str, str], offered: list[str], session: str, origin: str | None) -> Identity:
        authorization = headers.get("Authorization")
        if authorization is not None:
            return self.bearer(authorization)
        for protocol in offered:
            if protocol.startswith(TICKET):
                return await self.spend(protocol.removeprefix(TICKET), session, origin)
        token = _cookie(headers.get("Cookie", ""))
        if token is None:
            raise Refused(HTTPStatus.UNAUTHORIZED, "come with a bearer token, a ticket or the session cookie")
        if origin is None:  # a program has a header for its token; a cookie without an Origin has lost its page
            raise Refused(HTTPStatus.UNAUTHORIZED, "the session cookie counts only from a page: send the token as a bearer")
        return self.read_token(token)

    def bearer(self, authorization: str) -> Identity:
        """The identity in an `Authorization: Bearer` header; raises Refused (401)."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Refused(HTTPStatus.UNAUTHORIZED, "the scheme is Bearer")
        return self.read_token(token.strip())


def _cookie(header: str) -> str | None:
    """The session cookie out of all that the browser sends for this host, whatever the others look like (RFC 6265 section 5.4).

    `http.cookies` would stop, or raise, at a neighbour's cookie that it can't read; and cookies don't know ports.
    """
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), None)
