"""The room's page over HTTP and its door: what is served, to whom, and what does not get in."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import pytest
from websockets import ConnectionClosed, InvalidStatus
from websockets.asyncio.client import connect

from kit.auth import COOKIE, Identity
from kit.connection import Budget
from kit.document import document_session
from kit.history import History
from kit.packets import AnyPacket, Receipt, Write, encode
from kit.replica import connect_document
from kit.server import Server, serve
from tests.support import UPGRADE, Clock, Counting, Json, Reply, Visitor, bearer, prompt, ref, request

ROOM = "war"


class Open(NamedTuple):
    """A server with a room at an address of its own."""

    server: Server
    origin: str

    @property
    def port(self) -> int:
        return urlsplit(self.origin).port or 0

    async def ticket(self, name: str = "ann", room: str = ROOM, lasts: float = 600.0) -> str:
        """As `open_room` makes it."""
        door = self.server.door
        return await door.ticket(Identity(name, room, door.clock() + lasts), room, self.origin)

    async def get(self, target: str, **headers: str) -> Reply:
        return await request(self.port, target, headers)

    async def cookie(self, ticket: str, origin: str | None = None) -> Reply:
        headers = {"Authorization": f"Bearer {ticket}", "Origin": origin or self.origin}
        return await request(self.port, "/cookie", headers, method="POST")

    @asynccontextmanager
    async def guest(self, name: str = "ann", ticket: str | None = None, session: str = ROOM) -> AsyncIterator[Visitor]:
        """A guest's browser, its `hello` read."""
        offered = ["kit.v1", f"ticket.{ticket or await self.ticket(name)}"]
        address = f"{self.origin.replace('http', 'ws')}/s/{session}"
        async with connect(address, subprotocols=offered, origin=self.origin, proxy=None) as socket:  # type: ignore[arg-type]  # plain strings will do
            visitor = Visitor(socket)
            await visitor.receive()
            yield visitor


async def writer(history: History) -> AsyncIterator[AnyPacket]:
    """Opens a document."""
    yield Write(name="main.py", text="# the writer was here\n")


@asynccontextmanager
async def opened(store: str | None = None, **options: Any) -> AsyncIterator[Open]:
    agents = {"architect": Counting(), "coder": Counting(), "writer": writer}
    async with serve(agents, store=store, **options) as server, server.opened(ROOM, "127.0.0.1") as origin:
        yield Open(server, origin)


# ---- what is served ----


async def test_the_page_is_whole_and_asks_nothing_of_anybody_else() -> None:
    """Whatever the page and its files name is there, on the same server; nothing else is named."""
    async with opened() as here:
        wanted, seen = [f"/room/{ROOM}"], set[str]()
        while wanted:
            target = wanted.pop()
            reply = await here.get(target)
            assert reply.status == 200, target
            seen.add(target)
            assert not re.search(r"(?:src|href)=[\"'](?:\w+:)?//|url\((?!['\"]?data:)|from \"(?!\./)", reply.body), target
            named = re.findall(r"(?:src|href)=\"(\.[^\"]+)\"", reply.body) + re.findall(r"^import .*\"(.+)\";$", reply.body, re.MULTILINE)
            wanted += {urljoin(target, name) for name in named} - seen
        assert {"/widgets/page.js", "/widgets/session.js", "/widgets/panel.css", "/widgets/document.js"} <= seen


async def test_the_browser_is_told_how_strict_to_be() -> None:
    """No inline script, no other address, no frame around it, no referrer, no guessing of types."""
    async with opened() as here:
        for target, kind in ((f"/room/{ROOM}", "text/html"), ("/widgets/page.js", "text/javascript"), ("/widgets/page.css", "text/css")):
            headers = (await here.get(target)).headers
            policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert headers["content-type"] == f"{kind}; charset=utf-8"
            assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
            assert headers["cache-control"] == "no-store"
        body = (await here.get(f"/room/{ROOM}")).body
        assert re.findall(r"<script(?![^>]* src=)", body) == re.findall(r"\s(?:on\w+|style)=", body) == []


async def test_there_is_no_page_unless_it_was_asked_for() -> None:
    """Off by default; with `rooms` on the instance's own port, for those and no other session."""
    async with serve(Counting()) as server:
        for target in (f"/room/{ROOM}", "/widgets/page.js"):
            assert (await request(server, target, {})).status == 404
    async with serve(Counting(), rooms=[ROOM]) as server:
        assert (await request(server, f"/room/{ROOM}", {})).status == (await request(server, "/widgets/page.js", {})).status == 200
        assert (await request(server, "/room/other", {})).status == 404
        async with server.opened(ROOM, "127.0.0.1"):
            pass
        assert (await request(server, f"/room/{ROOM}", {})).status == 200, "it was one before, and stays one"


@pytest.mark.parametrize(
    "target", ["panel.py", "../server.py", "%2e%2e/server.py", "..%2fserver.py", "/etc/passwd", "page.html", "", "PAGE.JS"]
)
async def test_no_other_file_is_served(target: str) -> None:
    """Only scripts and styles of the widgets, by their plain names."""
    async with opened() as here:
        assert (await here.get(f"/widgets/{target}")).status == 404


async def test_beside_the_room_nothing_is_open_there() -> None:
    """Not even to who holds a token for everything: no other session, no tickets; at the instance's own port all is as it was."""
    async with opened() as here:
        everything = bearer(here.server.token("ann"))
        for target in ("/s/other", "/s/war-2", "/s/other--main_2e_py", "/room/other", "/"):
            assert (await request(here.port, target, everything)).status == 404, target
        assert (await request(here.port, "/ticket?session=war", everything, method="POST")).status == 404
        for target in (f"/s/{ROOM}", f"/s/{ROOM}--main_2e_py"):
            assert (await request(here.port, target, everything)).status == 101, target
        assert (await request(here.server, "/s/other", everything)).status == 101


async def test_a_room_that_was_closed_is_gone() -> None:
    """Who is in it is sent away; the address does not answer; its page is nowhere."""
    async with serve(Counting()) as server:
        async with server.opened(ROOM, "127.0.0.1") as origin:
            here = Open(server, origin)
            guest = await connect(
                f"{origin.replace('http', 'ws')}/s/{ROOM}", additional_headers=bearer_of(server), subprotocols=["kit.v1"], proxy=None
            )  # type: ignore[list-item]  # a plain str will do
        assert (await Visitor(guest).closed())[0] == 1001
        with pytest.raises(ConnectionError):
            await here.get(f"/room/{ROOM}")
        assert (await request(server, f"/room/{ROOM}", {})).status == 404
        assert origin not in server.door.origins


def bearer_of(server: Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token('ann')}"}


# ---- who comes in ----


async def test_a_links_ticket_becomes_a_cookie_that_opens_the_room_and_its_documents() -> None:
    """Once. No script can read it, and no other session takes it."""
    async with opened() as here:
        ticket = await here.ticket()
        given = (await here.cookie(ticket)).headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in given.split(";")}
        browser = {**UPGRADE, "Origin": here.origin, "Cookie": given.partition(";")[0]}
        for target in (f"/s/{ROOM}", f"/s/{ROOM}--plan"):
            assert (await request(here.port, target, browser)).status == 101
        assert (await request(here.server, "/s/other", browser)).status == 401
        assert (await here.cookie(ticket)).status == 401
        for origin in ("http://evil.example", "null", here.origin.replace("127.0.0.1", "localhost"), f"{here.origin}0"):
            assert (await request(here.port, f"/s/{ROOM}", {**browser, "Origin": origin})).status == 403, "a browser sends it along"


async def test_who_has_no_good_ticket_stays_outside() -> None:
    """None at all, an invented one, one of another room, one that another page brings: each is refused before the 101."""
    async with opened() as here:
        browser = {**UPGRADE, "Origin": here.origin}

        async def knock(ticket: str | None, **headers: str) -> int:
            offered = {"Sec-WebSocket-Protocol": f"kit.v1, ticket.{ticket}"} if ticket else {}
            return (await request(here.port, f"/s/{ROOM}", {**browser, **offered, **headers})).status

        assert await knock(None) == 401
        assert await knock("A" * 32) == 401
        assert await knock(await here.ticket(room="other")) == 401
        assert await knock(await here.ticket(), Origin="http://evil.example") == 403
        assert await knock(await here.ticket(), Origin="null") == 403
        assert await knock(None, Cookie=f"{COOKIE}=invented") == 401
        assert (await here.cookie("A" * 32)).status == 401
        assert (await here.cookie(await here.ticket(), origin="http://evil.example")).status == 403
        assert await knock(await here.ticket()) == 101, "and one that is good is let in"


async def test_an_expired_link_is_refused_and_an_expired_guest_sent_away() -> None:
    """At the door, and in the middle of a visit."""
    async with opened() as here:
        clock = here.server.door.clock = Clock(time.time())
        late, early = await here.ticket(lasts=60), await here.ticket(lasts=60)
        clock.now += 59.9
        async with here.guest(ticket=early) as ann:
            clock.now += 0.2
            assert (await here.cookie(late)).status == 401
            assert (await ann.closed())[0] == 4401


@pytest.mark.parametrize("name", ["architect", "coder"])
async def test_nobody_comes_under_an_agents_name(name: str) -> None:
    """What `coder` says must be the coder's."""
    async with opened() as here:
        with pytest.raises(InvalidStatus) as refused:
            async with here.guest(name):
                pass
        assert refused.value.response.status_code == 403


# ---- who is in ----


async def test_a_guest_who_floods_is_sent_away_and_the_others_go_on(store: str) -> None:
    """Words or typing: whatever it is, it ends with 4408, and what somebody else asks is answered."""
    async with opened(store, budget=lambda: Budget(2_000, 200)) as here, here.guest("ann") as ann:
        for frame in ({"type": "typing", "on": True}, prompt("x" * 5_000, to="coder")):

            async def flood(mallory: Visitor, frame: Json = frame) -> None:
                with suppress(ConnectionClosed):
                    for _ in range(300):
                        await mallory.send({**frame, **({"ref": ref()} if "ref" in frame else {})})

            async with here.guest("mallory") as mallory:
                flooding = asyncio.create_task(flood(mallory))
                assert (await mallory.closed())[0] == 4408
                await flooding
        asked = await ann.answer(prompt("still here?", to="architect"))
        assert asked["status"] == "applied"
        assert (await ann.until("content", turn=f"{asked['id']}/architect"))["text"] == "you said: still here?"


async def test_a_guest_who_floods_a_document_changes_it_ten_times_a_second_at_most(store: str) -> None:
    """And is sent away; what somebody else types meanwhile stands there at once, and all that was taken."""
    async with opened(store, budget=lambda: Budget(2_000, 200)) as here, here.guest("ann") as ann:
        await ann.send(prompt("open it", to="writer"))
        await ann.until("end")
        paper = document_session(ROOM, "main.py")
        async with (
            here.guest("mallory", session=paper) as mallory,
            connect_document(here.server.url, session=ROOM, name="main.py", token=here.server.token("bob")) as bob,
        ):
            seen = await mallory.until("write")
            with suppress(ConnectionClosed):
                for _ in range(300):
                    await mallory.send({"type": "patch", "ref": ref(), "base": seen["id"], "splices": [{"at": 0, "insert": "m"}]})
            assert (await mallory.closed())[0] == 4408
            receipts = [frame for frame in mallory.seen if isinstance(frame, Receipt)]
            taken = "m" * sum(receipt.status == "applied" for receipt in receipts)
            await bob.until(lambda text: text == f"{taken}# the writer was here\n")
            bob.type(0, insert="bob ")
            await bob.settled()
            assert bob.text == f"bob {taken}# the writer was here\n"
            assert {receipt.reason for receipt in receipts if receipt.status == "refused"} == {
                "at most ten patches a second: gather what is typed"
            }


async def test_a_name_is_text_wherever_it_comes() -> None:
    """Markup in it stays what it is in every frame; the page's part of this is in tests/browser."""
    async with opened() as here, here.guest('<img src=x onerror="alert(1)">') as ann:
        who = await ann.until("who")
        assert who["names"] == ['<img src=x onerror="alert(1)">']
        assert encode(ann.seen[-1]).count(b"<img") == 1
