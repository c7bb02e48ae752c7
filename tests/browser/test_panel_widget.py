"""The panel as a widget: one module for anywidget, a caption for the saved notebook, tickets and frames over the comm.

The page's side runs in Chromium; between it and the widget stands the test instead of Jupyter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect

from kit.auth import Identity
from kit.document import document_session
from kit.history import History
from kit.packets import AnyPacket, CloseCode, Content, Document, End, Prompt, Typing, Write, new_ref
from kit.replica import connect_document
from kit.server import Server, serve
from kit.widgets.panel import MAX_PIPES, Host, Panel
from tests.browser.fake_server import FakeServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOUNT = """async ([esm, url, session]) => {
    window.heard = new Set();
    const model = {
        get: (name) => ({ url, session })[name],
        send: (message) => window.toKernel(message),
        on: (event, f) => window.heard.add(f),
        off: (event, f) => window.heard.delete(f),
    };
    const module = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
    window.unmount = module.default.render({ model, el: document.body });
}"""
Mount = Callable[[str], Awaitable[Page]]
NOWHERE = "ws://127.0.0.1:9"  # discard: nothing of ours listens there


class FakeHost:
    """The lab, as far as a panel knows it."""

    def __init__(self, url: str, ticket: Callable[[str, str], str]) -> None:
        self.url, self.loop, self._ticket = url, asyncio.get_running_loop(), ticket

    def issue_ticket(self, session: str, origin: str, deliver: Callable[[str], None]) -> None:
        self.loop.call_soon(deliver, self._ticket(session, origin))


class WiredPanel(Panel):
    """A panel whose comm ends in `sent`, and in a page where `deliver` hands it on."""

    def __init__(self, host: Host, session: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self._deliveries: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        super().__init__(host, session)

    def send(self, content: dict[str, Any], buffers: Any = None) -> None:
        self.sent.append(content)
        self._deliveries.put_nowait(content)

    async def deliver(self, page: Page) -> None:
        """Hand on to the page, in order, what the kernel's side sends."""
        while True:
            await page.evaluate("(message) => [...window.heard].forEach((f) => f(message))", await self._deliveries.get())

    async def until(self, kind: str) -> None:
        """Wait for a message of this kind to be sent."""
        while not any(message["kit"] == kind for message in self.sent):
            await self._deliveries.get()

    def hear(self, message: Any) -> None:
        """What the page's side sends arrives as ipykernel hands it on."""
        self._handle_custom_msg(message, [])


@pytest_asyncio.fixture(loop_scope="session")
async def panel(server: FakeServer, session: str) -> AsyncIterator[WiredPanel]:
    panel = WiredPanel(FakeHost(server.url, server.ticket), session)
    yield panel
    panel.close()


@pytest_asyncio.fixture(loop_scope="session")
async def mount(context: BrowserContext, site: str, panel: WiredPanel) -> AsyncIterator[Mount]:
    """`await mount(url)`: a page with the widget's view, which believes the instance at `url`."""
    async with mounting(context, site, panel) as mount:
        yield mount


@asynccontextmanager
async def mounting(context: BrowserContext, site: str, panel: WiredPanel) -> AsyncIterator[Mount]:
    page = await context.new_page()
    await page.expose_function("toKernel", panel.hear)
    await page.goto(f"{site}/tests/browser/blank.html")
    delivering = asyncio.create_task(panel.deliver(page))

    async def mount(url: str) -> Page:
        await page.evaluate(MOUNT, [str(panel.get_state("_esm")["_esm"]), url, panel.session])
        return page

    yield mount
    delivering.cancel()


async def state(page: Page, beginning: str) -> None:
    await page.wait_for_function("words => document.querySelector('.kit-state').textContent.startsWith(words)", arg=beginning)


async def shows(page: Page, text: str) -> None:
    await page.wait_for_function("text => document.querySelector('.kit-log').innerText.includes(text)", arg=text)


# ---- what a saved notebook holds ----


async def test_a_forge_shows_a_caption(server: FakeServer) -> None:
    """A page that knows no widgets shows text/html or text/plain: what this was, and never an address or a credential."""
    panel = Panel(FakeHost(server.url, server.ticket), "demo")
    formats, _ = panel._repr_mimebundle_() or ({}, {})
    assert formats.keys() == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert formats["text/plain"] == "Panel of session demo: run this notebook to talk to it."
    assert formats["text/html"] == f"<p><em>{formats['text/plain']}</em></p>"


async def test_a_ticket_is_a_message_and_never_a_trait(server: FakeServer, session: str, panel: WiredPanel) -> None:
    """Traits are saved with the notebook; the page that asked gets its ticket, and only the message holds it."""
    panel.hear({"kit": "ticket", "id": "page1", "origin": "http://lab"})
    await asyncio.sleep(0)
    (message,) = panel.sent
    assert message.keys() == {"kit", "to", "ticket"}
    assert (message["kit"], message["to"]) == ("ticket", "page1")
    assert server.redeem(message["ticket"]) == (session, "http://lab")
    assert message["ticket"] not in json.dumps(panel.get_state(), default=str)


@pytest.mark.parametrize(
    "message", [None, 7, {}, {"kit": "ticket"}, {"kit": "open", "id": 1}, {"kit": "frames", "id": "x", "frames": "no"}]
)
async def test_a_message_of_another_kind_is_left_alone(panel: WiredPanel, message: Any) -> None:
    """Whatever a page sends over the comm, the kernel's side does not raise."""
    panel.hear(message)
    assert panel.sent == []


# ---- one module ----


async def test_the_bundle_is_one_module_and_reaches_the_instance_directly(panel: WiredPanel, mount: Mount) -> None:
    """anywidget loads it from a blob URL, where nothing can be imported; the ticket is all that the comm carries."""
    page = await mount(panel.url)
    await state(page, "connected")
    assert [message["kit"] for message in panel.sent] == ["ticket"]


async def test_the_clean_up_of_render_leaves_nothing(server: FakeServer, panel: WiredPanel, mount: Mount) -> None:
    page = await mount(panel.url)
    await state(page, "connected")
    await page.evaluate("window.unmount()")
    assert await page.evaluate("[document.body.childElementCount, window.heard.size]") == [0, 0]
    await asyncio.wait_for(server.visits[0].socket.wait_closed(), 5)


# ---- frames over the comm ----


async def test_where_nothing_else_works_frames_go_over_the_comm(server: FakeServer, session: str, panel: WiredPanel, mount: Mount) -> None:
    """A whole round: prompt, tokens in few messages, a restart that the page survives, and the end."""
    page = await mount(NOWHERE)
    await state(page, "connected through the kernel")
    await page.locator(".kit textarea").fill("Over the comm")
    await page.keyboard.press("Enter")
    await shows(page, "Over the comm")
    before = len(panel.sent)
    for i in range(1, 1001):
        await server.say(session, Content(f"{i} "))
    await shows(page, " 1000")
    assert len(panel.sent) - before < 100
    await server.cut(session, CloseCode.RESTART, "50")
    await server.wait_for_visits(2)
    await server.say(session, End(reason="done"))
    await shows(page, "end: done")
    text = await page.locator(".kit-content > .kit-body").all_inner_texts()
    assert "".join(text).split() == [str(i) for i in range(1, 1001)]


class RoomHost:
    """The lab with a real instance."""

    def __init__(self, server: Server) -> None:
        self.url, self.loop, self.server = server.url, asyncio.get_running_loop(), server

    def issue_ticket(self, session: str, origin: str, deliver: Callable[[str], None]) -> None:
        who = Identity("ann", session, self.server.door.clock() + 60)
        ticket = asyncio.ensure_future(self.server.door.ticket(who, session, origin))
        ticket.add_done_callback(lambda ticket: deliver(ticket.result()))


async def test_documents_go_over_the_comm_too(context: BrowserContext, site: str) -> None:
    """A page that reaches no instance sees what an agent writes, types into it, and comes back after a cut."""

    async def coder(history: History) -> AsyncIterator[AnyPacket]:
        yield Document(name="main.py", kind="python")
        yield Write(name="main.py", text="line 1\n")
        yield Document(name="plan", kind="mermaid")
        yield Write(name="plan", text="flowchart TD\n  a --> b\n")

    async with serve({"coder": coder}, origins=[site]) as server:
        panel = WiredPanel(RoomHost(server), "war")
        async with (
            mounting(context, site, panel) as mount,
            connect_document(server.url, session="war", name="main.py", token=server.token("tom")) as tom,
        ):
            page = await mount(NOWHERE)
            await state(page, "connected through the kernel")
            await server.instance.say("war", new_ref(Prompt(text="go")), "tom")
            area = page.get_by_label("Document main.py")
            await expect(area).to_have_value("line 1\n")
            await expect(page.locator(".kit-diagram text")).to_have_text(["a", "b"])
            await area.press("Control+End")
            await area.press_sequentially("line 2")
            await tom.until(lambda text: text == "line 1\nline 2")
            await server.cut(document_session("war", "main.py"))
            tom.type(0, insert="# tom\n")
            await expect(area).to_have_value("# tom\nline 1\nline 2")
            await page.evaluate("window.unmount()")
        panel.close()


@pytest.mark.parametrize("session", ["other", "other--main_2e_py", "demo--a?x=", "demo--../x", 7, None])
async def test_only_the_panels_session_and_its_documents_are_piped(server: FakeServer, session: Any) -> None:
    """Whatever a page asks of the kernel, it is not a way into anything else that the kernel can reach."""
    panel = WiredPanel(FakeHost(server.url, server.ticket), "demo")
    opened = opening(server, "demo", "p")
    panel.hear({**opened, "session": session, "id": "q"})
    panel.hear(opened)
    await panel.until("frames")
    assert [visit.session for visit in server.visits] == ["demo"]
    assert {message["to"] for message in panel.sent} == {"p"}
    panel.close()


async def test_a_panel_may_outlive_its_loop() -> None:
    """It is found with the garbage, whenever that is: what it raised there would be printed between a learner's cells."""
    host = FakeHost(NOWHERE, lambda *_: "")
    host.loop = asyncio.new_event_loop()
    panel = WiredPanel(host, "demo")
    host.loop.close()
    panel.close()


async def test_a_refusal_looks_as_it_does_to_a_page(server: FakeServer, session: str, panel: WiredPanel) -> None:
    """Without a valid ticket the pipe ends with 1006, like any WebSocket refused before 101."""
    panel.hear({**opening(server, session, "p"), "protocols": ["kit.v1", "ticket.none"]})
    await panel.until("closed")
    assert panel.sent == [{"kit": "closed", "code": 1006, "reason": "", "to": "p"}]


async def test_the_code_of_a_close_reaches_the_page(server: FakeServer, session: str, panel: WiredPanel) -> None:
    """And so does what was said before it."""
    panel.hear(opening(server, session, "p"))
    await panel.until("frames")
    await server.beside(session, Typing(on=True, from_="bob"))
    await server.cut(session, CloseCode.EXPIRED, "too late")
    await panel.until("closed")
    frames = [json.loads(frame) for message in panel.sent if message["kit"] == "frames" for frame in message["frames"]]
    assert [frame["type"] for frame in frames] == ["hello", "typing"]
    assert panel.sent[-1] == {"kit": "closed", "code": CloseCode.EXPIRED, "reason": "too late", "to": "p"}


async def test_pages_that_vanished_give_way(server: FakeServer, session: str, panel: WiredPanel) -> None:
    """A page that is gone cannot close its pipe: only so many are kept, and the oldest is closed."""
    for i in range(MAX_PIPES + 1):
        panel.hear(opening(server, session, f"p{i}"))
        await server.wait_for_visits(i + 1)
    await asyncio.wait_for(server.visits[0].socket.wait_closed(), 5)
    assert server.visits[1].socket.close_code is None


async def test_closing_the_widget_closes_its_pipes(server: FakeServer, session: str, panel: WiredPanel) -> None:
    panel.hear(opening(server, session, "p"))
    await server.wait_for_visits(1)
    panel.close()
    await asyncio.wait_for(server.visits[0].socket.wait_closed(), 5)


def opening(server: FakeServer, session: str, page: str) -> dict[str, Any]:
    """The message with which a page opens a pipe."""
    origin = "http://lab"
    protocols = ["kit.v1", f"ticket.{server.ticket(session, origin)}"]
    return {"kit": "open", "id": page, "session": session, "query": "", "protocols": protocols, "origin": origin}
