"""The room's page in real windows, joined by links: who sees what, who edits what, what comes back, and what stays outside."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from kit.auth import Identity
from kit.connection import Budget
from kit.history import History
from kit.lab.rooms import _address
from kit.packets import AnyPacket, Content, Document, Prompt, Stop, Write, new_ref
from kit.room import room
from kit.server import Server, serve
from tests.browser.conftest import PATIENCE
from tests.browser.looks import assert_accessible, assert_readable

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = "war"
EVIL = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
PLAN = "flowchart TD\n  people([People]) -->|words| log[Transcript]\n  log --> coder{Coder}\n"
CODE = [f"line {i} of the coder\n" for i in range(1, 31)]


class Agents:
    """An architect that draws, a coder that writes as far as it is let, a tester that counts until it is stopped."""

    def __init__(self) -> None:
        self.lines = asyncio.Semaphore(0)

    async def architect(self, history: History) -> AsyncIterator[AnyPacket]:
        for packet in [Document(name="plan", kind="mermaid"), Write(name="plan", text=PLAN), Content("There is a plan.")][history.pieces :]:
            yield packet

    async def coder(self, history: History) -> AsyncIterator[AnyPacket]:
        steps = [Document(name="main.py", kind="python"), *(Write(name="main.py", text=line) for line in CODE), Content("Written.")]
        for step in steps[history.pieces :]:
            if isinstance(step, Write):
                await self.lines.acquire()
            yield step

    async def tester(self, history: History) -> AsyncIterator[AnyPacket]:
        for i in range(1_000_000):
            await asyncio.sleep(0.01)
            yield Content(f"{i} ")

    def write(self, lines: int = len(CODE)) -> None:
        for _ in range(lines):
            self.lines.release()


class OpenRoom:
    """A server with an open room, and browsers that join it."""

    def __init__(self, server: Server, origin: str, agents: Agents, browser: Browser, stack: AsyncExitStack) -> None:
        self.server, self.origin, self.agents, self._browser, self._stack = server, origin, agents, browser, stack
        self.errors: list[str] = []

    async def link(self, name: str, session: str = ROOM, lasts: float = 600.0) -> str:
        ticket = await self.server.door.ticket(Identity(name, session, time.time() + lasts), session, self.origin)
        return f"{self.origin}/room/{ROOM}#{ticket}"

    async def profile(self, **options: Any) -> BrowserContext:
        """A browser of somebody's own. A page that throws, asks another host or breaks its policy fails the test."""
        context = await self._browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self._stack.push_async_callback(context.close)
        context.set_default_timeout(PATIENCE)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("request", lambda r: None if r.url.startswith((self.origin, "data:")) else self.errors.append(r.url))
        context.on("console", lambda m: self.errors.append(m.text) if "Content Security Policy" in m.text else None)
        return context

    async def join(self, name: str, context: BrowserContext | None = None, **options: Any) -> Page:
        page = await (context or await self.profile(**options)).new_page()
        await page.goto(await self.link(name))
        await inside(page)
        return page

    async def says(self, word: Prompt | Stop, name: str = "host") -> None:
        """Somebody at another client."""
        assert (await self.server.instance.say(ROOM, new_ref(word), name)).status == "applied"


@asynccontextmanager
async def opened(browser: Browser, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[OpenRoom]:
    agents = Agents()
    named = room({"architect": agents.architect, "coder": agents.coder, "tester": agents.tester})
    async with serve(named, **options) as server, server.opened(ROOM, host) as origin, AsyncExitStack() as stack:
        here = OpenRoom(server, origin, agents, browser, stack)
        yield here
        assert here.errors == []


@pytest_asyncio.fixture(loop_scope="session")
async def here(browser: Browser) -> AsyncIterator[OpenRoom]:
    async with opened(browser) as here:
        yield here


async def inside(page: Page) -> None:
    await expect(page.locator(".kit-state")).to_have_attribute("data-phase", "open")


async def ask(page: Page, text: str, to: str | None = None) -> None:
    if to:
        await page.get_by_label("To", exact=True).select_option(to)
    await page.get_by_label("Prompt").fill(text)
    await page.get_by_label("Prompt").press("Enter")


def said(page: Page) -> Any:
    return expect(page.locator(".kit-log"))


def document(page: Page, name: str = "main.py") -> Any:
    return page.get_by_label(f"Document {name}")


# ---- together ----


async def test_two_windows_see_each_other_and_one_conversation(here: OpenRoom) -> None:
    """Who is here and who types; a prompt to an agent that one chooses; what it says is the same in both."""
    ann, bob = await here.join("Ann"), await here.join("Bob", viewport={"width": 375, "height": 740})
    for page in (ann, bob):
        await expect(page.get_by_label("Here now").get_by_role("listitem")).to_have_text(["Ann", "Bob"])
    await bob.get_by_label("Prompt").press_sequentially("Plan")
    await expect(ann.locator(".kit-types")).to_have_text("Bob is typing")
    await ask(bob, "Plan it", to="architect")
    await expect(ann.locator(".kit-types")).to_have_count(0)
    for page in (ann, bob):
        await said(page).to_contain_text("There is a plan.")
        await expect(page.locator(".kit-prompt .kit-from")).to_have_text("Bob \u2192 architect")
        await expect(document(page, "plan")).to_have_value(PLAN)
    await bob.close()
    await expect(ann.get_by_label("Here now").get_by_role("listitem")).to_have_text(["Ann"])


async def test_one_agent_is_stopped_and_the_other_goes_on(here: OpenRoom) -> None:
    """A button for each that speaks; `Stop all` ends the rest."""
    ann, bob = await here.join("Ann"), await here.join("Bob")
    await ask(ann, "Test and write", to="all")
    speaking = bob.get_by_role("group", name="Speaking or waiting").get_by_role("button")
    await expect(speaking).to_have_text(["Stop coder", "Stop tester"])
    await bob.get_by_role("button", name="Stop tester").click()
    await expect(speaking).to_have_text(["Stop coder"])
    here.agents.write(5)
    await expect(document(ann)).to_have_value("".join(CODE[:5]))
    await ann.get_by_role("button", name="Stop all").click()
    await expect(speaking).to_have_count(0)
    await expect(bob.locator(".kit-end .kit-word")).to_have_text(["end: done", "end: stopped", "end: stopped"])


async def test_two_that_speak_at_the_same_time_can_be_read(here: OpenRoom) -> None:
    """What each says stands together, however their packets mingle; a word is between what was said before and after it."""
    ann = await here.join("Ann")
    await ask(ann, "Write it", to="coder")
    await ask(ann, "Test it", to="tester")
    written = ann.locator(".kit-write", has_text="main.py").locator(".kit-text")
    counted = ann.locator(".kit-content .kit-text")
    for lines in range(1, 6):
        here.agents.write(1)
        await expect(written).to_have_text(["".join(CODE[:lines])])
        await expect(counted).to_have_text([re.compile(rf"^0 1 2( \d+)* {10 * lines} ")])
    await ask(ann, "Now", to="architect")
    await said(ann).to_contain_text("There is a plan.")
    here.agents.write(1)
    await expect(written).to_have_text(["".join(CODE[:5]), CODE[5]])
    here.agents.write(20)
    await expect(written.last).to_contain_text(CODE[25])
    assert await written.last.evaluate("({ parentElement: box }) => box.scrollHeight - box.scrollTop - box.clientHeight < 2"), "in sight"


async def test_a_person_edits_what_the_coder_writes_and_a_window_comes_back_whole(here: OpenRoom) -> None:
    """The edit and the agent's lines stand in both; a reload shows the same again, without a ticket in its address."""
    ann, bob = await here.join("Ann"), await here.join("Bob")
    await ask(ann, "Write it", to="coder")
    here.agents.write(5)
    await expect(document(bob)).to_have_value("".join(CODE[:5]))
    await document(bob).evaluate("area => area.setSelectionRange(0, 0)")
    await document(bob).press_sequentially("# Bob was here\n")
    here.agents.write(5)
    whole = "# Bob was here\n" + "".join(CODE[:10])
    for page in (ann, bob):
        await expect(document(page)).to_have_value(whole)
    await bob.reload()
    await inside(bob)
    here.agents.write()
    for page in (ann, bob):
        await said(page).to_contain_text("Written.")
        await expect(document(page)).to_have_value("# Bob was here\n" + "".join(CODE))
    shown = [await page.locator(".kit-log").inner_text() for page in (ann, bob)]
    assert shown[0] == shown[1]
    await expect(ann.get_by_label("Here now").locator("bdi")).to_have_text(["Ann", "Bob"])


# ---- how one gets in, and stays ----


async def test_the_ticket_leaves_the_address_bar_and_stays_out_of_the_history(here: OpenRoom) -> None:
    """What lets the window in again is a cookie that no script of the page can read."""
    ann = await here.join("Ann")
    assert await ann.evaluate("[location.href, document.cookie, history.length]") == [f"{here.origin}/room/{ROOM}", "", 2]
    (cookie,) = await ann.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("kit_session", True, "Strict")


async def test_two_windows_of_one_person_come_back_after_a_cut(here: OpenRoom) -> None:
    """They share a store for the next ticket: one finds it spent, and the cookie lets it in."""
    context = await here.profile()
    first, second = await here.join("Ann", context), await context.new_page()
    await second.goto(f"{here.origin}/room/{ROOM}")
    await inside(second)
    for text in ("once", "twice"):
        await here.server.cut()
        await here.says(Prompt(text=f"After the cut {text}", to="architect"))
        for page in (first, second):
            await said(page).to_contain_text(f"After the cut {text}")


async def test_who_comes_by_a_new_link_is_whom_it_was_made_for(here: OpenRoom) -> None:
    """Not whom this browser was before."""
    context = await here.profile()
    await here.join("Ann", context)
    cleo = await here.join("Cleo", context)
    await ask(cleo, "Who am I?", to="architect")
    await expect(cleo.locator(".kit-prompt .kit-from")).to_have_text("Cleo \u2192 architect")


@pytest.mark.parametrize("link", ["none", "used", "expired", "of another room", "invented"])
async def test_without_a_good_link_the_page_stays_shut_and_says_so(here: OpenRoom, link: str) -> None:
    """Nothing of the room is shown; the sentence says what to do."""
    await here.says(Prompt(text="The code is 4711", to="architect"))
    good = await here.link("Ann")
    if link == "used":
        first = await (await here.profile()).new_page()
        await first.goto(good)
        await inside(first)
    page = await (await here.profile()).new_page()
    links = {
        "none": good.partition("#")[0],
        "used": good,
        "expired": await here.link("Ann", lasts=-1.0),
        "of another room": await here.link("Eve", "other"),
        "invented": f"{good[:-6]}AAAAAA",
    }
    await page.goto(links[link])
    await expect(page.locator("#door")).to_contain_text("ask for another link")
    assert "4711" not in await page.locator("body").inner_text()


async def test_on_the_network_it_works_over_plain_http(browser: Browser, abroad: list[str]) -> None:
    """At an address that is not loopback there is no randomUUID, no subtle and no locks: nothing needs them. No other host is asked."""
    async with opened(browser, _address("0.0.0.0")) as here:
        ann, bob = await here.join("Ann"), await here.join("Bob")
        assert await ann.evaluate("[isSecureContext, typeof crypto.randomUUID, typeof crypto.subtle, typeof navigator.locks]") == [
            False, "undefined", "undefined", "undefined",
        ]  # fmt: skip
        await ask(ann, "Write it", to="coder")
        here.agents.write()
        await expect(document(bob)).to_have_value("".join(CODE))
        await bob.reload()
        await expect(document(bob)).to_have_value("".join(CODE))
        assert {urlsplit(url).netloc for url in abroad} == {urlsplit(here.origin).netloc}
        abroad.clear()


# ---- what is only text ----


async def test_markup_in_names_words_and_documents_is_text(here: OpenRoom) -> None:
    """In every place where it is shown."""

    async def evil(history: History) -> AsyncIterator[AnyPacket]:
        yield Document(name="<b>", kind=EVIL)
        yield Write(name="<b>", text=EVIL)
        yield Document(name=EVIL[:20], kind="mermaid")
        yield Write(name=EVIL[:20], text=EVIL)
        yield Content(EVIL)

    here.server.instance.agents[f"x{EVIL}"] = evil
    ann = await here.join(EVIL)
    await ask(ann, EVIL, to=f"x{EVIL}")
    await said(ann).to_contain_text("end: done")
    for sheet in await ann.locator(".kit-sheet textarea").all():
        await expect(sheet).to_have_value(EVIL)
    await expect(ann.locator(".kit-diagram")).to_contain_text("<img src=x")
    await expect(ann.get_by_label("Here now")).to_have_text(EVIL)
    assert await ann.evaluate("window.pwned") is None
    assert await ann.locator("main :is(img, script, a, b)").count() == 0


# ---- who does harm ----


FLOOD = """() => {
  const { session } = document.querySelector(".kit").kit;
  const told = (done) => session.addEventListener("state", () => session.state.words.startsWith("told to slow down") && done());
  return new Promise((done) => {
    told(done);
    for (let i = 0; i < 300; i += 1) session.typing(true);
  });
}"""


async def test_a_guest_whose_page_floods_is_slowed_down_and_the_others_go_on(browser: Browser) -> None:
    """It is told so; the others' windows answer as before."""
    async with opened(browser, budget=lambda: Budget(2_000, 200)) as here:
        ann, mallory = await here.join("Ann"), await here.join("Mallory")
        await mallory.evaluate(FLOOD)
        await ask(ann, "Plan it", to="architect")
        await said(ann).to_contain_text("There is a plan.")
        await expect(document(ann, "plan")).to_have_value(PLAN)
        await inside(mallory)


# ---- pictures ----


async def test_a_diagram_is_drawn_in_both_windows_and_a_broken_one_says_why(here: OpenRoom) -> None:
    """Its source stays beside it, to be repaired by anybody."""
    ann, bob = await here.join("Ann"), await here.join("Bob")
    await ask(ann, "Plan it", to="architect")
    for page in (ann, bob):
        await expect(page.locator(".kit-diagram text")).to_have_text(["words", "People", "Transcript", "Coder"])
    await document(bob, "plan").press("Control+End")
    await document(bob, "plan").press_sequentially("  coder ~> people")
    for page in (ann, bob):
        await expect(page.locator(".kit-diagram")).to_have_text('Not drawn: line 4: an arrow such as --> is missing at " ~> people"')
        await expect(document(page, "plan")).to_have_value(PLAN + "  coder ~> people")


async def test_a_page_whose_frames_are_late_draws_the_diagram_as_it_is(here: OpenRoom) -> None:
    """A busy browser draws the text long after it came: the diagram waits for the text, and not for a moment of its own."""
    ann = await here.join("Ann")
    await ann.evaluate(
        "() => { const soon = requestAnimationFrame; window.requestAnimationFrame = (f) => setTimeout(() => soon(f), 500); }"
    )
    await ask(ann, "Plan it", to="architect")
    await expect(document(ann, "plan")).to_have_value(PLAN)
    await expect(ann.locator(".kit-diagram text")).to_have_text(["words", "People", "Transcript", "Coder"])


# ---- how it looks ----


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read(here: OpenRoom, tmp_path: Path, scheme: Literal["light", "dark"], width: int) -> None:
    """In both schemes, by those who see it and those who don't. A screenshot of each is kept to be looked at."""
    ann = await here.join("Ann", color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": 800})
    await here.join("Bob")
    await ask(ann, "Plan it", to="architect")
    await ask(ann, "Write it", to="coder")
    here.agents.write(20)
    await ask(ann, "Test it", to="tester")
    await expect(document(ann)).to_have_value("".join(CODE[:20]))
    await expect(ann.get_by_role("button", name="Stop tester")).to_be_visible()
    await expect(ann.get_by_role("heading", level=1)).to_have_text(f"Room {ROOM}")
    await ann.screenshot(path=tmp_path / f"room-{scheme}-{width}.png", full_page=True)
    await assert_readable(ann, texts=30)
    await assert_accessible(ann, "html")


async def test_everything_is_reached_by_keys(here: OpenRoom) -> None:
    """From the prompt on: to whom, send, stop, the documents; each says its name."""
    ann = await here.join("Ann")
    await ask(ann, "Plan it", to="architect")
    await expect(document(ann, "plan")).to_have_value(PLAN)
    await ask(ann, "Test it", to="tester")
    await expect(ann.get_by_role("button", name="Stop tester")).to_be_visible()
    await ann.get_by_label("Transcript").focus()
    names = []
    for _ in range(9):
        await ann.keyboard.press("Tab")
        names.append(await ann.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"))
    assert names == ["Written into plan", "Stop tester", "Prompt", "To", "Send", "Stop all", "Edit", "plan mermaid", "Document plan"]
