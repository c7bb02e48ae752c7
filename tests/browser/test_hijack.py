"""Cross-site hijacking in a real browser: a page on another origin opens a WebSocket, and the browser sends the victim's cookie with it.

RFC 6455 section 10.2: only the Origin tells the server that it was not the victim's own page. Nothing here forges a header: what is sent,
and what the page's script gets to see, is Chromium's own doing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from kit.lab.attacks import without
from kit.lab.trace import Handshake, Trace
from kit.packets import Prompt, new_ref
from kit.server import Server, serve
from tests.browser.conftest import ROOT, serve_checkout
from tests.support import Counting, Json, request

pytestmark = pytest.mark.asyncio(loop_scope="session")

ATTACK = """
(url) => new Promise((resolve) => {
  const seen = { opened: false, frames: [] };
  const socket = new WebSocket(url, ["kit.v1"]);
  socket.onopen = () => { seen.opened = true; };
  socket.onmessage = ({ data }) => {
    seen.frames.push(JSON.parse(data));
    const [hello, last] = [seen.frames[0], seen.frames.at(-1)];
    if ((last.id ?? hello.after) === hello.head) socket.close();
  };
  socket.onclose = ({ code, reason }) => resolve({ ...seen, code, reason });
})
"""
"""All that a page can do: no header is set, for script can set none. Resolves when the log was read to its end, or the socket closed."""

LOG_IN = """
([url, ticket]) => fetch(url, { method: "POST", credentials: "include", headers: { Authorization: `Bearer ${ticket}` } })
  .then((reply) => reply.status, () => "blocked")
"""
"""A page turns its ticket into the cookie; of another origin the browser asks first (a preflight), and blocks what is not allowed."""


@pytest.fixture(scope="module")
def evil_port() -> Iterator[int]:
    """The attacker's own web server: the same machine, another port, hence another origin."""
    with serve_checkout(ROOT / "tests" / "browser") as address:
        yield urlsplit(address).port or 0


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest_asyncio.fixture(loop_scope="session")
async def door(site: str, trace: Trace) -> AsyncIterator[Server]:
    """An instance that lets pages of `site` in, with something said in the session `demo` that is nobody else's business."""
    async with serve(Counting(), origins=[site], create_connection=trace.connection) as server:
        await server.instance.say("demo", new_ref(Prompt(text="the code is 4711")), "ann")
        yield server


async def ticket_for(door: Server, page: str) -> str:
    headers = {"Authorization": f"Bearer {door.token('ann')}"}
    ticket: str = json.loads((await request(door, f"/ticket?session=demo&origin={page}", headers, method="POST")).body)["ticket"]
    return ticket


async def log_in(page: Page, door: Server, ticket: str) -> int | str:
    status: int | str = await page.evaluate(LOG_IN, [f"http://127.0.0.1:{door.port}/cookie", ticket])
    return status


@pytest_asyncio.fixture(loop_scope="session")
async def victim(context: BrowserContext, door: Server, site: str) -> BrowserContext:
    """A browser that is logged in: its own page has turned a ticket into the cookie (HttpOnly, SameSite=Strict)."""
    page = await opened(context, f"{site}/tests/browser/blank.html")
    assert await log_in(page, door, await ticket_for(door, site)) == 200
    (cookie,) = await context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("kit_session", True, "Strict")
    return context


async def opened(context: BrowserContext, url: str) -> Page:
    page = await context.new_page()
    await page.goto(url)
    return page


async def attack(page: Page, door: Server) -> Json:
    seen: Json = await page.evaluate(ATTACK, f"{door.url}/s/demo")
    return seen


def handshake(trace: Trace) -> Handshake:
    """The last WebSocket handshake that reached the server."""
    return [record for record in trace.records.of(Handshake) if record.request.startswith("GET /s/")][-1]


async def test_the_victims_own_page_reads_the_session(victim: BrowserContext, door: Server, site: str) -> None:
    """The cookie is a credential: the attacks below are about who uses it."""
    seen = await attack(await opened(victim, f"{site}/tests/browser/blank.html"), door)
    assert [frame.get("text") for frame in seen["frames"]][1] == "the code is 4711"


async def test_a_page_on_another_origin_reads_it_too_without_the_origin_check(
    victim: BrowserContext, door: Server, evil_port: int, trace: Trace
) -> None:
    """Another port is another origin, but the same site and the same jar: neither SameSite=Strict, HttpOnly nor CORS is in the way."""
    page = await opened(victim, f"http://127.0.0.1:{evil_port}/blank.html")
    with without(door, "origin"):
        seen = await attack(page, door)
    assert (seen["opened"], seen["frames"][1]["text"]) == (True, "the code is 4711")
    sent = handshake(trace)
    assert sent.status == 101
    assert f"Origin: http://127.0.0.1:{evil_port}\r\n" in sent.request
    assert "\r\nCookie: " in sent.request


async def test_with_it_the_same_page_is_refused_and_learns_nothing(
    victim: BrowserContext, door: Server, evil_port: int, trace: Trace
) -> None:
    """403 on the wire, cookie and all; script sees a close with 1006, no status and no sentence."""
    seen = await attack(await opened(victim, f"http://127.0.0.1:{evil_port}/blank.html"), door)
    assert seen == {"opened": False, "frames": [], "code": 1006, "reason": ""}
    assert handshake(trace).status == 403
    assert "\r\nCookie: " in handshake(trace).request
    assert door.connections == set()


async def test_a_page_on_another_origin_gets_no_cookie(context: BrowserContext, door: Server, evil_port: int, trace: Trace) -> None:
    """Not even for a ticket that it overheard: the browser's question is answered with 403, and the ticket is not sent."""
    evil = f"http://127.0.0.1:{evil_port}"
    assert await log_in(await opened(context, f"{evil}/blank.html"), door, await ticket_for(door, evil)) == "blocked"
    assert await context.cookies() == []
    (asked,) = [record for record in trace.records.of(Handshake) if record.request.startswith("OPTIONS")]
    assert (asked.status, "Authorization: " in asked.request) == (403, False)


async def test_of_another_site_the_cookie_stays_at_home(victim: BrowserContext, door: Server, evil_port: int, trace: Trace) -> None:
    """`localhost` is another site than 127.0.0.1: SameSite=Strict alone keeps the cookie back, a second line behind the Origin check."""
    page = await opened(victim, f"http://localhost:{evil_port}/blank.html")
    with without(door, "origin"):
        seen = await attack(page, door)
    assert seen["code"] == 1006
    assert handshake(trace).status == 401
    assert "\r\nCookie: " not in handshake(trace).request


async def test_whatever_the_reason_script_sees_1006(context: BrowserContext, door: Server, site: str, trace: Trace) -> None:
    """401 for want of a cookie, 404 for an unknown path: a page can't tell them apart."""
    page = await opened(context, f"{site}/tests/browser/blank.html")
    for path, status in (("/s/demo", 401), ("/s/no.such.name", 404)):
        seen: Json = await page.evaluate(ATTACK, f"{door.url}{path}")
        assert (seen["opened"], seen["code"], seen["reason"]) == (False, 1006, "")
        assert handshake(trace).status == status
