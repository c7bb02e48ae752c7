"""What browser tests share: one Chromium, the kit's own files over HTTP, and a server for the pages to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.browser.fake_server import FakeServer, fake_server
from tests.browser.jupyter import Lab, jupyterlab
from tests.browser.launch import launch

ROOT = Path(__file__).parents[2]

LOOPBACK = ("127.0.0.1", "::1", "localhost")

OpenPage = Callable[..., Awaitable[Page]]

PATIENCE = 50_000
"""Milliseconds after which what a page should show or do counts as missing. No test asserts how soon it comes: machines are busy."""
expect.set_options(timeout=PATIENCE)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A test's output is not an access log."""


@contextmanager
def serve_checkout(folder: Path = ROOT) -> Iterator[str]:
    """The checkout, or a folder of it, over plain HTTP while the block runs: the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The checkout over plain HTTP, as any web server would give it: the address."""
    with serve_checkout() as address:
        yield address


@pytest.fixture(scope="session")
def abroad() -> list[str]:
    """What pages, frames, workers and sockets of any context asked of a host that is not this machine."""
    return []


@pytest.fixture(autouse=True)
def nothing_from_outside(abroad: list[str]) -> Iterator[None]:
    """Whatever a test does in a browser, it does with the network unplugged, too."""
    yield
    asked, abroad[:] = list(abroad), []
    assert asked == []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(abroad: list[str]) -> AsyncIterator[Browser]:
    """One browser for all tests; a context of its own is what separates them."""

    def watch(context: BrowserContext) -> None:
        context.on("request", lambda request: note(request.url))  # of workers, too, and of their sockets
        context.on("page", lambda page: page.on("websocket", lambda socket: note(socket.url)))

    def note(url: str) -> None:
        if urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).hostname not in LOOPBACK:
            abroad.append(url)

    async with async_playwright() as playwright:
        browser = await launch(playwright)
        browser.on("context", watch)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """One JupyterLab for all tests; a page and a kernel of its own are what separates them."""
    async with jupyterlab(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A fresh profile. A page that throws fails the test."""
    context = await browser.new_context(viewport={"width": 900, "height": 760})
    context.set_default_timeout(PATIENCE)
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    await context.close()
    assert errors == []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _blank(browser: Browser) -> AsyncIterator[Page]:
    page = await browser.new_page()
    yield page
    await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def blank(_blank: Page, site: str) -> Page:
    """A page without anything, of the site and newly loaded: for tests of the modules themselves."""
    await _blank.goto(f"{site}/tests/browser/blank.html")
    return _blank


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[FakeServer]:
    async with fake_server() as fake:
        yield fake


@pytest.fixture
def session() -> str:
    return f"s{uuid4().hex[:8]}"


@pytest_asyncio.fixture(loop_scope="session")
async def open_panel(context: BrowserContext, site: str, server: FakeServer, session: str) -> AsyncIterator[OpenPage]:
    """`await open_panel()`: a page with the panel of this test's session, connected."""
    async with AsyncExitStack() as stack:

        async def ticket() -> str:
            return server.ticket(session, site)

        await context.expose_function("getTicket", ticket)

        async def open_panel(wait: bool = True) -> Page:
            page = await context.new_page()
            stack.push_async_callback(page.close)
            await page.goto(f"{site}/tests/browser/panel.html?{urlencode({'url': server.url, 'session': session})}")
            if wait:
                await page.wait_for_function("document.querySelector('.kit-state')?.dataset.phase === 'open'")
            return page

        yield open_panel
