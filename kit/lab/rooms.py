"""Rooms: a session opened to people without Jupyter, by links, on this machine or on its network, for a while."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from contextlib import suppress
from html import escape
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import segno

from kit.auth import Identity
from kit.document import is_document
from kit.ending import finish, settle
from kit.lab.start import CannotStart, Lab, start
from kit.lab.thread import run
from kit.log import SESSION

_NAME = re.compile(r"\w[\w .'-]{0,39}")


class Invitation(NamedTuple):
    """A link for one guest: it works once."""

    name: str
    link: str

    def __repr__(self) -> str:
        return f"{self.name}: {self.link}"

    def _repr_html_(self) -> str:
        code = segno.make(self.link, micro=False).svg_inline(scale=4, light="white", title=f"The link for {self.name}, as a QR code")
        link = f"<a href='{self.link}' target='_blank' rel='noopener' style='overflow-wrap: anywhere'>{self.link}</a>"
        return f"<p><strong>{escape(self.name)}</strong>: {link}</p>{code}"


class OpenRoom:
    """A room that is open: `invite` makes another link, `close` ends it before its time."""

    def __init__(self, lab: Lab, session: str, minutes: float) -> None:
        self.session = session
        self.origin = ""
        """Where its page is: `http://host:port`."""
        self.until = time.time() + minutes * 60
        self.invitations: list[Invitation] = []
        self._lab = lab
        self._leave = asyncio.Event()
        self._left = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return bool(self.origin) and not self._left.is_set()

    def invite(self, name: str) -> Invitation:
        """A link for one more guest, or for another device of one; raises ValueError for a name that nobody may have."""
        if not _NAME.fullmatch(name) or name in self._lab.server.instance.agents:
            raise ValueError(f"{name!r} is no guest's name: 1 to 40 letters, digits, spaces and . ' - and no agent's name")
        if not self.is_open:
            raise ValueError("the room is closed: open it again")
        return run(self._invite(name))

    def close(self) -> None:
        """End it now: whoever is in it is sent away, and no link works any more."""
        run(self._close())

    async def _invite(self, name: str) -> Invitation:
        ticket = await self._lab.server.door.ticket(Identity(name, self.session, self.until), self.session, self.origin)
        self.invitations.append(Invitation(name, f"{self.origin}/room/{self.session}#{ticket}"))
        return self.invitations[-1]

    async def _begin(self, host: str, port: int) -> None:
        ready: asyncio.Future[None] = self._lab.loop.create_future()
        self._lab.beside(self._live(ready, host, port))
        try:
            await ready
        except asyncio.CancelledError:  # an interrupt: nobody would find the room any more
            await finish(self._close())
            raise
        self._lab.ports.append(lambda: [urlsplit(self.origin).port or 0])

    async def _live(self, ready: asyncio.Future[None], host: str, port: int) -> None:
        try:
            async with self._lab.server.opened(self.session, host, port) as self.origin:
                settle(ready, None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.until - time.time()):
                        await self._leave.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)  # whoever opens it must hear why it is not open
        finally:
            self._left.set()
            ready.cancel()  # where the lab has ended meanwhile

    async def _close(self) -> None:
        self._leave.set()
        await self._left.wait()

    # ---- what it says of itself ----

    @property
    def sentences(self) -> list[str]:
        """What is open, to whom, for how long."""
        if not self.is_open:
            return [f"The room {self.session} is closed."]
        here = ip_address(urlsplit(self.origin).hostname or "").is_loopback
        return [
            f"The room {self.session} is open at {self.origin} until {time.strftime('%H:%M', time.localtime(self.until))}.",
            "To whom: who has one of the links below"
            + (
                ", on this machine; no other machine reaches it."
                if here
                else ", on any machine that reaches this address. It is plain http: whoever is on the way can read along."
            ),
            "To what: reading and writing in this session and its documents, asking its agents, on your key where they have one, and "
            "approving what these may not do without a yes; to no other session, no file and no notebook."
            + ("" if here else " Nobody's code is run while it is open beyond this machine."),
            "Each link works once, for an hour at most, for whoever is first; they are saved with this notebook.",
            "For one more guest: .invite('name'). To end it: .close()",
        ]

    def __repr__(self) -> str:
        return "\n".join([*self.sentences, *(map(repr, self.invitations) if self.is_open else ())])

    def _repr_html_(self) -> str:
        guests = "".join(guest._repr_html_() for guest in self.invitations) if self.is_open else ""
        return "".join(f"<p>{escape(sentence)}</p>" for sentence in self.sentences) + guests


def open_room(session: str, *guests: str, host: str = "127.0.0.1", port: int = 0, minutes: float = 60, lab: Lab | None = None) -> OpenRoom:
    """Open a session of the lab to guests by name, with a link for each, until `minutes` have passed or `close` is called.

    `host`: the address to listen on, which is all that reaches it; `0.0.0.0` is taken for this machine's address in its network. Raises
    CannotStart where it can't be listened on.
    """
    if not SESSION.fullmatch(session) or is_document(session):
        raise ValueError(f"a room is a session: 1 to 64 characters of A-Z a-z 0-9 _ - and no --; not {session!r}")
    room = OpenRoom(lab or start(), session, minutes)
    try:
        run(room._begin(_address(host), port))
    except (OSError, OverflowError, UnicodeError) as error:  # a port over 65535, a label that no name may have
        raise CannotStart(f"The room can't be opened at {host}: {error}. Is that an address of this machine, and the port free?") from None
    for name in guests or ("guest",):
        room.invite(name)
    return room


def _address(host: str) -> str:
    """An address to listen on; for 'all of them' the one that this machine has in its network. No packet is sent for that."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104  # it is not listened on: one address is enough, and less is open
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address of nobody's (RFC 5737)
        return str(probe.getsockname()[0])
