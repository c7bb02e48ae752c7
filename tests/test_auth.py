"""Auth: the door by itself: a clock of its own, tickets in a dict, no socket. tests/promises/test_p9_door.py is the same from outside."""

from __future__ import annotations

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets import InvalidStatus

from kit.auth import Door, Identity, Refused, opens
from kit.server import serve
from tests.support import Clock, Counting, visit

SECRET = "s" * 32
PAGE = "http://127.0.0.1:8888"


class Shelf:
    """Tickets in a dict, with the seconds that each was to be kept."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.ttls: list[float] = []

    async def put_ticket(self, ticket: str, value: bytes, ttl: float) -> None:
        self.kept[ticket] = value
        self.ttls.append(ttl)

    async def take_ticket(self, ticket: str) -> bytes | None:
        return self.kept.pop(ticket, None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def door(clock: Clock, shelf: Shelf) -> Door:
    return Door(SECRET, shelf, origins=[PAGE], clock=clock)


def headers(**more: str) -> dict[str, str]:
    return {"Upgrade": "websocket", "Sec-WebSocket-Protocol": "kit.v1", **{name.replace("_", "-"): value for name, value in more.items()}}


async def status(door: Door, path: str, sent: dict[str, str]) -> int:
    with pytest.raises(Refused) as caught:
        await door.admit(path, sent)
    return int(caught.value.status)


@pytest.mark.parametrize("secret", ["", "short", "x" * 31, "é" * 15])
def test_a_short_secret_is_refused_with_what_to_do(secret: str) -> None:
    """32 bytes, not characters (RFC 7518 section 3.2)."""
    with pytest.raises(ValueError, match=r"at least 32 bytes.*KIT_SECRET"):
        Door(secret, None)
    Door("é" * 16, None)


def test_a_token_holds_from_its_second_to_its_last(door: Door, clock: Clock) -> None:
    """Valid at once, until `ttl` seconds later and not a moment longer; before its time it is not valid yet."""
    token = door.issue("ann", "demo", ttl=60)
    assert door.read_token(token) == Identity("ann", "demo", clock.now + 60)
    clock.now += 59.9
    door.read_token(token)
    clock.now += 0.1
    with pytest.raises(Refused, match="has expired"):
        door.read_token(token)
    clock.now -= 61
    with pytest.raises(Refused, match="not valid yet"):
        door.read_token(token)


@given(st.data())
def test_a_changed_token_is_refused_and_not_repeated(data: st.DataObject) -> None:
    """Whichever character is changed, left out or put in; the last one of a part may hold unused bits, so it is left alone."""
    door = Door(SECRET, None, clock=Clock())
    token = door.issue("ann")
    ends = {i - 1 for i, c in enumerate(token) if c == "."} | {len(token) - 1}
    at = data.draw(st.sampled_from([i for i in range(len(token)) if i not in ends]))
    new = data.draw(st.sampled_from(["", *(c for c in string.ascii_letters + ".-_ =\n" if c != token[at])]))
    changed = token[:at] + new + token[at + 1 :]
    with pytest.raises(Refused) as caught:
        door.read_token(changed)
    assert not any(part in str(caught.value) for part in token.split(".") if len(part) > 8)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_token_or_is_refused(text: str) -> None:
    """Nothing else is raised: it comes from strangers."""
    door = Door(SECRET, None, clock=Clock())
    with pytest.raises(Refused):
        door.read_token(text)
    with pytest.raises(Refused):
        door.bearer(text)


@given(
    st.text(max_size=40),
    st.dictionaries(st.sampled_from(["Upgrade", "Origin", "Authorization", "Cookie", "Sec-WebSocket-Protocol"]), st.text(max_size=40)),
)
async def test_any_request_is_refused_in_order(path: str, sent: dict[str, str]) -> None:
    """A request of a stranger ends in one of the refusals, whatever is in it."""
    door = Door(SECRET, Shelf(), clock=Clock())
    assert await status(door, "/" + path, sent) in (404, 426)
    assert await status(door, "/s/x?" + path, {**sent, "Upgrade": "websocket"}) in (401, 403)


async def test_the_order_of_refusals(door: Door) -> None:
    """For every combination of the five faults, the first one counts."""
    good = headers(Origin=PAGE, Authorization=f"Bearer {door.issue('ann')}")
    faults = {
        404: ("path", "/nowhere"),
        426: ("Upgrade", "h2c"),
        403: ("Origin", "http://evil"),
        401: ("Authorization", "Bearer x"),
        400: ("Sec-WebSocket-Protocol", "chat"),
    }
    for count in range(1, 6):
        for chosen in itertools.combinations(faults, count):
            sent = {**good, **{faults[code][0]: faults[code][1] for code in chosen if code != 404}}
            assert await status(door, "/nowhere" if 404 in chosen else "/s/x", sent) == chosen[0]


async def test_a_visit_has_what_was_asked_for(door: Door, clock: Clock) -> None:
    sent = headers(Authorization=f"Bearer {door.issue('ann')}", Origin=PAGE)
    visit = await door.admit("/s/demo?after=3-17&log=abc", sent)
    assert (visit.session, visit.after, visit.log, visit.origin, visit.identity.name) == ("demo", "3-17", "abc", PAGE, "ann")
    assert ((await door.admit("/s/demo", sent)).after, (await door.admit("/s/demo?after=", sent)).after) == (None, "")
    assert (await door.admit("/s/demo?after=%33-17&after=9-9", sent)).after == "3-17"


@pytest.mark.parametrize(
    ("upgrade", "good"), [("websocket", True), ("WebSocket", True), ("h2c, websocket", True), ("notwebsocket", False), ("", False)]
)
async def test_the_upgrade_is_a_list(door: Door, upgrade: str, good: bool) -> None:
    sent = headers(Upgrade=upgrade, Authorization=f"Bearer {door.issue('ann')}")
    if good:
        await door.admit("/s/x", sent)
    else:
        assert await status(door, "/s/x", sent) == 426


async def test_a_ticket_lives_as_long_as_its_token_at_most(clock: Clock) -> None:
    """The shorter of its own time and what is left of the token's; and it is checked again when it is spent."""
    shelf = Shelf()
    door = Door(SECRET, shelf, ticket_ttl=100, clock=clock)
    await door.ticket(Identity("ann", "*", clock.now + 1000), "s", None)
    ticket = await door.ticket(Identity("ann", "*", clock.now + 10), "s", None)
    assert shelf.ttls == [100, 10]
    clock.now += 10
    with pytest.raises(Refused, match="has expired"):
        await door.spend(ticket, "s", None)


async def test_a_ticket_carries_its_own_session(door: Door, clock: Clock) -> None:
    """Of a token that is good for all, it is good for one."""
    ticket = await door.ticket(Identity("ann", "*", clock.now + 60), "s", PAGE)
    assert await door.spend(ticket, "s", PAGE) == Identity("ann", "s", clock.now + 60)


async def test_tickets_are_not_guessable(door: Door, clock: Clock) -> None:
    """24 bytes of chance, as 32 characters that a subprotocol may hold (RFC 6455 section 4.1: a token)."""
    tickets = {await door.ticket(Identity("ann", "*", clock.now + 60), "s", PAGE) for _ in range(100)}
    assert len(tickets) == 100
    assert all(len(ticket) == 32 and set(ticket) <= set(string.ascii_letters + string.digits + "-_") for ticket in tickets)


async def test_a_door_without_a_shelf_has_no_tickets(clock: Clock) -> None:
    door = Door(SECRET, None, clock=clock)
    with pytest.raises(Refused):
        await door.spend("x" * 32, "s", None)
    with pytest.raises(ValueError, match="tickets"):
        await door.ticket(Identity("ann", "*", clock.now + 60), "s", None)


# ---- a session and its documents ----


@pytest.mark.parametrize(
    ("good_for", "session", "enters"),
    [
        ("war", "war", True),
        ("war", "war--main_2e_py", True),
        ("war--main_2e_py", "war--main_2e_py", True),
        ("war--main_2e_py", "war", False),
        ("war--main_2e_py", "war--other", False),
        ("war", "warm--main", False),
        ("war", "war-main", False),
        ("war", "war--plans--main", False),
        ("war", "war---main", False),  # the room before the last two dashes is `war-`
        ("war-", "war---main", True),
        ("*", "war--main", True),
        ("", "war", False),
    ],
)
async def test_who_may_enter_a_session_may_enter_its_documents_and_no_more(door: Door, good_for: str, session: str, enters: bool) -> None:
    """By token, by ticket and by cookie alike; who may enter a document may enter nothing else."""
    assert opens(good_for, session) == enters
    token = door.issue("ann", good_for)
    ticket = await door.ticket(door.read_token(token), good_for, PAGE)
    tries = [
        headers(Authorization=f"Bearer {token}"),
        {**headers(Origin=PAGE), "Cookie": f"kit_session={token}"},
        {**headers(Origin=PAGE), "Sec-WebSocket-Protocol": f"kit.v1, ticket.{ticket}"},
    ]
    for sent in tries if good_for != "*" else tries[:2]:
        if enters:
            assert (await door.admit(f"/s/{session}", sent)).session == session
        else:
            assert await status(door, f"/s/{session}", sent) == 401


async def test_the_next_ticket_of_a_document_is_the_documents(store: str) -> None:
    """A ticket for the room opens a document; what its hello gives for the next time opens that document alone."""
    async with serve(Counting(), store=store, origins=[PAGE]) as server:
        for_room = await server.door.ticket(Identity("ann", "war", server.door.clock() + 60), "war", PAGE)
        page = {"origin": PAGE, "additional_headers": {}}
        async with visit(server, "war--main", subprotocols=["kit.v1", f"ticket.{for_room}"], **page) as visitor:
            ticket = str(visitor.hello.ticket)
        with pytest.raises(InvalidStatus, match="401"):
            async with visit(server, "war", subprotocols=["kit.v1", f"ticket.{ticket}"], **page):
                pass
