"""Attacks: a hand that knocks, and the door with one defence taken out, so that each can be seen to hold something.

`kit/auth.py` has no switches: no setting leaves a defence out. Here a switch is a subclass that changes one step of the door, and stands
before a server for the length of a block. Only lessons and tests import this.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from unittest.mock import patch
from urllib.parse import parse_qs

import jwt
from jwt.utils import base64url_decode
from msgspec import Struct
from msgspec.structs import replace
from websockets import Headers, InvalidStatus, Subprotocol, http11
from websockets.asyncio.client import connect

from kit.auth import ANY_SESSION, Door, Identity, Refused, Visit
from kit.packets import SUBPROTOCOL
from kit.server import Server

PUBLIC_KEY = b'{"kty":"RSA","e":"AQAB","n":"u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u"}'
"""An identity provider's public key as anybody may fetch it. A door that also took the provider's tokens would hold it."""
_LATE = float(1 << 40)


class Answer(Struct, frozen=True):
    """What a handshake came to: the status; after a 101 the log of the session as it was sent, else the sentence of the refusal."""

    status: int
    read: tuple[str, ...]


async def knock(url: str, headers: Mapping[str, str] | None = None, protocols: tuple[str, ...] = (SUBPROTOCOL,)) -> Answer:
    """Send a handshake to `ws://.../s/<session>`; where it opens, read the log up to its head, and leave."""
    offered = [Subprotocol(protocol) for protocol in protocols]
    try:
        async with connect(url, additional_headers=headers, subprotocols=offered, compression=None, proxy=None) as socket:
            hello = json.loads(await socket.recv())
            at, read = hello["after"], []
            while at != hello["head"]:
                read.append(str(await socket.recv()))
                at = json.loads(read[-1]).get("id", at)
            return Answer(101, tuple(read))
    except InvalidStatus as refused:
        return Answer(refused.response.status_code, (bytes(refused.response.body).decode().strip(),))


def read_naively(token: str, *keys: bytes) -> dict[str, object]:
    """The claims of a JWT that says itself how it wants to be checked. Raises ValueError."""
    text, _, signature = token.rpartition(".")
    header, claims = (json.loads(base64url_decode(part)) for part in text.split("."))
    good = [hmac.digest(key, text.encode(), "sha256") for key in keys]
    if header["alg"] != "none" and base64url_decode(signature) not in good:
        raise ValueError("the signature does not fit")
    return dict(claims)


class AnyOrigin(Door):
    """Whatever page a browser shows may connect."""

    def check_origin(self, origin: str | None) -> None:
        """Nobody is refused."""


class AnyAlgorithm(Door):
    """The token says how it is signed, and any key that the door knows will do."""

    def read_token(self, token: str) -> Identity:
        with suppress(ValueError):  # signed anew, its claims are looked at as always
            token = jwt.encode(read_naively(token, self._secret.encode(), PUBLIC_KEY), self._secret, algorithm="HS256")
        return super().read_token(token)


class ReusableTickets(Door):
    """A ticket is looked up, not taken."""

    async def spend(self, ticket: str, session: str | None, origin: str | None) -> Identity:
        held = await self._tickets.take_ticket(ticket) if self._tickets else None
        if self._tickets and held:
            await self._tickets.put_ticket(ticket, held, 60.0)
        identity = await super().spend(ticket, session, origin)
        if self._tickets and held:
            await self._tickets.put_ticket(ticket, held, 60.0)
        return identity


class TokenInAddress(Door):
    """A token may also come as `?token=`, which is what logs keep."""

    async def admit(self, path: str, headers: Mapping[str, str]) -> Visit:
        for token in parse_qs(path.partition("?")[2]).get("token", []):
            headers = Headers({**headers, "Authorization": f"Bearer {token}"})
        return await super().admit(path, headers)


class Guests(Door):
    """Whoever has no credentials that are good comes in as a guest, to be asked later, by somebody else."""

    async def _credentials(self, headers: Mapping[str, str], offered: list[str], session: str, origin: str | None) -> Identity:
        with suppress(Refused):
            return await super()._credentials(headers, offered, session, origin)
        return Identity("guest", session, _LATE)


class AskedOnce(Door):
    """Credentials are looked at before the 101, and never again."""

    async def admit(self, path: str, headers: Mapping[str, str]) -> Visit:
        visit = await super().admit(path, headers)
        return replace(visit, identity=replace(visit.identity, expires=_LATE))


def ignoring(claim: str, good: object) -> type[Door]:
    """A door that checks a token's signature and all of its claims but one."""

    class Ignoring(Door):
        def read_token(self, token: str) -> Identity:
            with suppress(jwt.PyJWTError):  # what is not signed with our secret stays as it is, to be refused below
                claims = json.loads(jwt.api_jws.decode(token, self._secret, algorithms=["HS256"]))
                token = jwt.encode(claims | {claim: good}, self._secret, algorithm="HS256")
            return super().read_token(token)

    return Ignoring


def forgetting(field: str) -> type[Door]:
    """A door that takes a ticket for one `session`, or from one page (`origin`), wherever it is brought."""

    class Forgetting(Door):
        async def spend(self, ticket: str, session: str | None, origin: str | None) -> Identity:
            if self._tickets and (held := await self._tickets.take_ticket(ticket)):
                brought = {"session": session, "origin": origin}[field]
                await self._tickets.put_ticket(ticket, json.dumps(json.loads(held) | {field: brought}).encode(), 60.0)
            return await super().spend(ticket, session, origin)

    return Forgetting


WITHOUT: dict[str, type[Door]] = {
    "origin": AnyOrigin,
    "algorithm": AnyAlgorithm,
    "audience": ignoring("aud", "kit"),
    "issuer": ignoring("iss", "kit"),
    "expiry": ignoring("exp", _LATE),
    "not before": ignoring("nbf", 0),
    "session": ignoring("session", ANY_SESSION),
    "single use": ReusableTickets,
    "ticket's session": forgetting("session"),
    "ticket's page": forgetting("origin"),
    "clean address": TokenInAddress,
    "before the 101": Guests,
    "expiry on the open socket": AskedOnce,
    "header limit": Door,  # it is the library's, see `without`
}


@contextmanager
def without(server: Server, defence: str) -> Iterator[None]:
    """The server, while the block runs, with one of its defences (a key of WITHOUT) taken out."""
    kept, weak = server.door, copy(server.door)
    weak.__class__ = WITHOUT[defence]
    limit = 1 << 20 if defence == "header limit" else http11.MAX_LINE_LENGTH
    server.door = weak
    try:
        with patch.object(http11, "MAX_LINE_LENGTH", limit):
            yield
    finally:
        server.door = kept
