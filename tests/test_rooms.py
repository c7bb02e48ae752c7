"""lab.open_room: what it says, to whom it gives links, and that it ends."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from websockets.asyncio.client import connect

from kit.lab import Lab, finish, open_room, run, start
from kit.lab.rooms import OpenRoom
from kit.lab.start import CannotStart
from tests.support import Counting, request


@pytest.fixture
def lab() -> Iterator[Lab]:
    here = start(agents={"architect": Counting(), "coder": Counting()})
    yield here
    here.close()


def _status(room: OpenRoom, target: str, headers: dict[str, str] | None = None, method: str = "GET") -> int:
    return run(request(urlsplit(room.origin).port or 0, target, {} if headers is None else headers, method=method)).status


def _enter(room: OpenRoom, link: str) -> int:
    """What the page does with the ticket of its link."""
    headers = {"Authorization": f"Bearer {urlsplit(link).fragment}", "Origin": room.origin}
    return _status(room, "/cookie", headers, "POST")


def test_it_says_what_is_open_to_whom_and_for_how_long(lab: Lab) -> None:
    """In words, before anybody comes in; with a link and a QR code for each guest."""
    room = open_room("war", "Ann", "Bob", minutes=5)
    text = repr(room)
    assert f"open at {room.origin} until" in text
    assert "on this machine; no other machine reaches it" in text
    assert "to no other session, no file and no notebook" in text
    for guest, name in zip(room.invitations, ("Ann", "Bob"), strict=True):
        assert f"{name}: {guest.link}" in text
        assert re.fullmatch(rf"{re.escape(room.origin)}/room/war#[\w-]{{32}}", guest.link)
        assert f"<a href='{guest.link}'" in room._repr_html_()
    assert room._repr_html_().count("<svg") == 2
    assert _status(room, "/room/war") == 200


def test_each_link_lets_one_guest_in_and_there_is_always_another(lab: Lab) -> None:
    """A link that was used is used up."""
    room = open_room("war")
    (first,) = room.invitations
    assert [_enter(room, first.link), _enter(room, first.link)] == [200, 401]
    assert _enter(room, room.invite("Cleo").link) == 200


@pytest.mark.parametrize("name", ["coder", "", "x" * 41, "<img src=x>", "a\nb", " Ann"])
def test_some_names_are_nobodys(lab: Lab, name: str) -> None:
    """An agent's, above all."""
    room = open_room("war")
    with pytest.raises(ValueError, match="no guest's name"):
        room.invite(name)
    assert len(room.invitations) == 1


def test_closing_ends_it(lab: Lab) -> None:
    """No address, no links, and the lab has nothing left over."""
    room = open_room("war")
    room.close()
    assert repr(room) == "The room war is closed."
    with pytest.raises(ConnectionError):
        _status(room, "/room/war")
    with pytest.raises(ValueError, match="closed"):
        room.invite("Ann")
    assert room.origin not in lab.server.door.origins


def test_its_time_ends_it(lab: Lab) -> None:
    """By itself."""
    room = open_room("war", minutes=0.2 / 60)
    run(room._left.wait())
    assert not room.is_open
    with pytest.raises(ConnectionError):
        _status(room, "/room/war")


def test_the_lab_takes_its_room_with_it(lab: Lab) -> None:
    """And an open room is none of the sockets that a chapter's last cell complains of."""
    room = open_room("war")
    finish()
    lab.close()
    assert not room.is_open


def test_beyond_this_machine_it_says_so_and_no_code_runs(lab: Lab) -> None:
    """`0.0.0.0` is this machine's address in its network; nothing listens on the others."""
    assert lab.server.alone
    room = open_room("war", host="0.0.0.0")
    address = urlsplit(room.origin).hostname
    assert address not in ("127.0.0.1", "0.0.0.0")
    assert "whoever is on the way can read along" in repr(room)
    assert "Nobody's code is run" in repr(room)
    assert not lab.server.alone
    here = [line.laddr for line in psutil.Process().net_connections("tcp") if line.status == "LISTEN"]
    assert [at.ip for at in here if at.port == urlsplit(room.origin).port] == [address]
    room.close()
    assert lab.server.alone


def test_an_address_that_is_not_this_machines_is_refused_in_a_sentence(lab: Lab) -> None:
    """So is a name that is no session's, or a document's."""
    with pytest.raises(CannotStart, match="Is that an address of this machine"):
        open_room("war", host="198.51.100.7")
    with pytest.raises(CannotStart, match="0-65535"):
        open_room("war", port=70_000)
    for name in ("war--plan", "a b", ""):
        with pytest.raises(ValueError, match="a room is a session"):
            open_room(name)


def test_a_class_of_forty_fits_into_one_room(lab: Lab) -> None:
    """All come in at once, each by a link of their own, and all read to its end what one of them asks."""
    names = [f"Guest {n}" for n in range(1, 41)]
    room = open_room("war", *names)
    port = urlsplit(room.origin).port or 0

    async def attend(link: str, asks: bool) -> tuple[str, int]:
        """Join as the page does; gives the whole answer, and how many people are told to be here."""
        headers = {"Authorization": f"Bearer {urlsplit(link).fragment}", "Origin": room.origin}
        cookie = (await request(port, "/cookie", headers, method="POST")).headers["set-cookie"].partition(";")[0]
        where = f"ws://127.0.0.1:{port}/s/war"
        asking: dict[str, Any] = {"additional_headers": {"Cookie": cookie}, "origin": room.origin, "subprotocols": ["kit.v1"]}
        async with connect(where, **asking) as socket:
            text, here, ended = "", 0, False
            async for frame in (json.loads(sent) async for sent in socket):
                here = max(here, len(frame.get("names", ())))
                if asks and here == len(names):
                    asks = False
                    await socket.send(json.dumps({"type": "prompt", "ref": "r" * 16, "text": "count"}))
                text += frame["text"] if frame["type"] == "content" else ""
                ended = ended or frame["type"] == "end"
                if ended and here == len(names):
                    break
            return text, here

    async def class_of_forty() -> list[tuple[str, int]]:
        async with asyncio.timeout(30):
            return await asyncio.gather(*(attend(guest.link, n == 0) for n, guest in enumerate(room.invitations)))

    seen = run(class_of_forty())
    assert {here for _, here in seen} == {40}
    assert len({text for text, _ in seen}) == 1
