"""The store view and time travel in Chromium: what the store holds as it changes, and a session rebuilt at any id.

The kernel's side is a real lab; the page's side runs as anywidget runs it. Between them stands the test instead of Jupyter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anywidget
import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect

from kit.agents.scripted import scripted
from kit.lab.start import Lab, start
from kit.packets import Action, Ask, Content, Prompt, Receipt, Stop, Thought, ToolResult
from kit.widgets.store import StoreView
from kit.widgets.travel import Travel
from tests.browser.looks import LOOKS, assert_accessible, assert_readable, put_on, tab_through
from tests.promises.support import counting

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOAD = """async ([esm, css, state]) => {
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
    const { default: widget } = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
    const [kept, heard] = [JSON.parse(state), {}];
    window.model = {
        get: (name) => kept[name],
        set(name, value) { kept[name] = value; heard[`change:${name}`]?.(); },
        save_changes: () => window.toKernel(["save", kept.id]),
        send: (message) => window.toKernel(["send", message]),
        on(event, f) { heard[event] = f; },
        off(event) { delete heard[event]; },
        heard,
    };
    window.unmount = widget.render({ model, el: document.body });
}"""
HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m"
TALE = scripted(
    [
        Thought("Let me look."),
        Action(call="w1", name="weather", arguments={"city": "Oslo"}, on="server"),
        ToolResult(call="w1", value="rain"),
        Content(f"Rain. {HOSTILE}"),
        Ask(call="a1", text="Another city?", choices=["Rome", "no"]),
    ]
)
Mount = Callable[[anywidget.AnyWidget], Awaitable[Page]]


@pytest.fixture
def here() -> Iterator[Lab]:
    # A lease that no pause of a busy machine ends: a takeover would be a word more.
    lab = start("05", agents={"tale": TALE, "counter": counting(100_000, pace=100)}, lease=20.0)
    yield lab
    lab.close()


@pytest_asyncio.fixture(loop_scope="session")
async def heard() -> asyncio.Queue[Any]:
    """What the page says to the kernel."""
    return asyncio.Queue()


@pytest_asyncio.fixture(loop_scope="session")
async def mount(context: BrowserContext, site: str, heard: asyncio.Queue[Any]) -> AsyncIterator[Mount]:
    """`await mount(widget)`: a page that shows it, and follows its traits."""
    page = await context.new_page()
    running: set[asyncio.Task[None]] = set()

    async def mount(widget: anywidget.AnyWidget) -> Page:
        loop, news = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any]]()
        await page.expose_function("toKernel", heard.put_nowait)
        await page.goto(f"{site}/tests/browser/blank.html")
        state = {name: getattr(widget, name) for name in ("session", "picture", "frames", "id") if widget.has_trait(name)}
        await page.evaluate(LOAD, [widget.get_state("_esm")["_esm"], widget.get_state("_css")["_css"], json.dumps(state)])
        for name in state:
            widget.observe(lambda change: loop.call_soon_threadsafe(news.put_nowait, (change.name, change.new)), name)

        async def follow() -> None:
            while True:
                await page.evaluate("([name, value]) => model.set(name, value)", list(await news.get()))

        running.add(asyncio.create_task(follow()))
        return page

    yield mount
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await page.close()


def row(page: Page, table: str, text: str) -> Any:
    return page.locator(f".kit-store-{table} tbody tr", has_text=text)


# ---- the store ----


async def test_a_turn_from_its_lease_to_its_end(here: Lab, mount: Mount) -> None:
    """A prompt, its open turn with holder and lease, the log as it grows; stopped, all of that is gone and the log stays."""
    page, session = await mount(StoreView(here, "demo")), here.session("demo")
    await expect(page.locator(".kit-state")).to_have_text("live")
    await expect(page.locator(".kit-store-turns tbody")).to_have_text("none")
    asked = session.say(Prompt(text="go", to="counter"))
    turn = row(page, "turns", "1-0/counter")
    await expect(turn).to_contain_text("s left")
    await expect(row(page, "keys", ":lease:1-0/counter")).to_have_count(1)
    await expect(row(page, "keys", "{0}:open")).to_contain_text("open turns: 1")
    newest = page.locator(".kit-store-entries tbody tr th").last
    before = await newest.inner_text()
    await expect(newest).not_to_have_text(before)
    await expect(page.locator(".kit-store-entries tbody tr")).to_have_count(8)
    session.say(Stop())
    session.wait(asked)
    await expect(row(page, "entries", "stopped")).to_have_count(1)
    await expect(page.locator(".kit-store-turns tbody")).to_have_text("none")
    await expect(row(page, "keys", "refs")).to_contain_text("ref: 2")


async def test_a_lease_runs_down_in_words_and_as_a_bar(here: Lab, mount: Mount) -> None:
    """Half a lease is half a bar, which shrinks by itself, unless the reader asked for less motion. Without a holder it is free."""
    page = await mount(StoreView(here, "demo"))
    bars = "() => document.querySelector('.kit-lease i').getAnimations().length"
    for reduced, moving in (("no-preference", 1), ("reduce", 0)):
        await page.emulate_media(reduced_motion=reduced)  # type: ignore[arg-type]  # one of its literals
        picture = {  # of a lease that outlasts the test
            "state": "live",
            "lease": 200.0,
            "heads": {"turns": ["a", "b", "c"], "keys": [], "entries": []},
            "keys": [],
            "entries": [],
        }
        await page.evaluate(
            "(picture) => model.set('picture', picture)", {**picture, "turns": [["1-0/a", "Qx3vkpT-88", 100.0], ["2-0/a", "", -1]]}
        )
        held, free = await page.locator(".kit-store-turns tbody tr").all_inner_texts()
        assert held.split() == ["1-0/a", "Qx3vkpT-", "100.0", "s", "left"]
        assert free.split() == ["2-0/a", "nobody", "free:", "any", "instance", "may", "take", "it"]
        assert [await page.locator(".kit-lease i").nth(i).evaluate("(i) => i.style.transform") for i in (0, 1)] == [
            "scaleX(0.5)",
            "scaleX(0)",
        ]
        assert await page.evaluate(bars) == moving


async def test_tickets_are_counted_and_never_shown(here: Lab, mount: Mount) -> None:
    """Not in the page, nor in what a saved notebook keeps."""
    loop, given = asyncio.get_running_loop(), asyncio.Queue[str]()
    here.issue_ticket("demo", "https://page.example", lambda ticket: loop.call_soon_threadsafe(given.put_nowait, ticket) and None)
    ticket = await given.get()
    view = StoreView(here, "demo")
    page = await mount(view)
    await expect(row(page, "keys", "kit:ticket")).to_contain_text("tickets, not read: 1")
    assert ticket not in await page.content() + json.dumps(view._repr_mimebundle_())


async def test_what_is_said_is_text(here: Lab, mount: Mount) -> None:
    """Markup stays text, and escapes and bidi overrides are marks; in the twin too."""
    here.session("demo").prompt("tell")
    view = StoreView(here, "demo")
    page = await mount(view)
    await expect(row(page, "entries", "Rain.")).to_contain_text("<img src=x")
    bundle = view._repr_mimebundle_()
    assert bundle
    for text in (await page.locator(".kit").inner_text(), bundle[0]["text/plain"]):
        assert "\u202e" not in text
        assert "\x1b" not in text
    assert "<img" not in bundle[0]["text/html"]
    assert await page.locator(".kit img").count() == 0


async def test_nobody_looks_when_no_page_shows_it(here: Lab, mount: Mount, heard: asyncio.Queue[Any], monkeypatch: Any) -> None:
    """The page's word lets the looks go on; when it is old, they rest; the trace of the instance sees none of them."""
    monkeypatch.setattr("kit.widgets.store.SHOWN", 0.0)
    monkeypatch.setattr("kit.widgets.store.EVERY", 0.001)
    view, mark, loop = StoreView(here, "demo"), here.trace.mark(), asyncio.get_running_loop()
    seen, looked = [], asyncio.Event()
    view.observe(lambda change: (seen.append(change.new), loop.call_soon_threadsafe(looked.set)), "picture")
    for _ in range(3):
        here.session("demo").prompt("tell")
    assert seen == []
    await mount(view)
    assert await heard.get() == ["send", {"kit": "shown"}]
    monkeypatch.setattr("kit.widgets.store.SHOWN", 60.0)
    view._handle_custom_msg({"kit": "shown"}, [])
    await looked.wait()
    assert seen[0]["entries"][-1][2] == "ask"
    assert not [record for record in here.trace.since(mark) if "ticket" in str(record) or "HGETALL" in str(record)]


async def test_the_lab_ends_and_the_view_says_so(here: Lab, mount: Mount) -> None:
    page = await mount(StoreView(here, "demo"))
    here.close()
    await expect(page.locator(".kit-state")).to_have_text("the lab has ended")


# ---- time travel ----


@pytest.fixture
def told(here: Lab) -> Receipt:
    """Two turns of the tale: 1-0 to 1-5, and 2-0 to 2-5."""
    here.session("demo").prompt("tell")
    here.session("demo").prompt("again")
    return Receipt(ref="", status="applied")


async def drawn(page: Page) -> list[str]:
    """The kinds in the view, once they are drawn."""
    await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return await page.locator(".kit-log .kit-item > .kit-head .kit-word").all_inner_texts()


async def test_the_keys_go_through_time(here: Lab, told: Receipt, mount: Mount, heard: asyncio.Queue[Any]) -> None:
    """Arrows step by an id, Home and End go to the ends; what is drawn is what had been said; the kernel knows the id."""
    travel = Travel(here.session("demo"))
    page = await mount(travel)
    slider = page.get_by_role("slider", name="Up to which id")
    await slider.focus()
    whole = ["prompt", "thought", "action", "content", "ask"]
    assert await drawn(page) == [*whole, *whole]
    for key, id, kinds in [
        ("ArrowLeft", "2-4", [*whole, *whole[:4]]),
        ("Home", "1-0", ["prompt"]),
        ("ArrowRight", "1-1", ["prompt", "thought"]),
        ("ArrowLeft", "1-0", ["prompt"]),
        ("ArrowLeft", "1-0", ["prompt"]),
        ("End", "2-5", [*whole, *whole]),
    ]:
        await page.keyboard.press(key)
        assert await drawn(page) == kinds
        await expect(page.locator(".kit-state")).to_contain_text(f"at {id}: ")
        assert str(await slider.get_attribute("aria-valuetext")).startswith(f"{id}, ")
        assert await page.evaluate("model.get('id')") == id
    assert heard.get_nowait() == ["save", "2-4"]


async def test_a_cell_and_a_button_move_it_too(here: Lab, told: Receipt, mount: Mount) -> None:
    """`travel.id = "1-2"` in a cell; the buttons beside the slider; and nobody is asked to answer a question of the past."""
    travel = Travel(here.session("demo"), "1-5")
    page = await mount(travel)
    assert len(await drawn(page)) == 5
    assert await page.get_by_role("button", name="Rome").count() == 0
    travel.id = "1-2"
    await expect(page.locator(".kit-state")).to_have_text("at 1-2: 3 of 12 entries")
    await page.get_by_role("button", name="On").click()
    await expect(page.locator(".kit-state")).to_have_text("at 1-3: 4 of 12 entries")
    await expect(page.locator(".kit-outcome")).to_contain_text("rain")
    await page.get_by_role("button", name="Back").click()
    await expect(page.locator(".kit-outcome")).to_have_count(0)


async def test_tab_goes_from_the_steps_to_the_text(here: Lab, told: Receipt, mount: Mount) -> None:
    """In the order in which they stand; what of the past can't be answered is not among them."""
    page = await mount(Travel(here.session("demo")))
    await drawn(page)
    assert await tab_through(page, 4) == ["◀ Back", "Up to which id", "On ▶", "What had been said"]


async def test_the_twin_is_the_session_at_its_id(here: Lab, told: Receipt) -> None:
    bundle = Travel(here.session("demo"), "1-2")._repr_mimebundle_()
    assert bundle
    assert [line.split()[:3] for line in bundle[0]["text/plain"].splitlines()[1:]] == [
        ["1-0", "you", "prompt"],
        ["1-1", "tale", "thought"],
        ["1-2", "tale", "action"],
    ]
    with pytest.raises(ValueError, match="holds no 1-9"):
        Travel(here.session("demo"), "1-9")


# ---- how they look ----


@pytest.mark.parametrize(("lab", "scheme", "width"), LOOKS)
@pytest.mark.parametrize("widget", ["store", "travel"])
async def test_it_reads_in_every_theme_and_width(
    here: Lab, told: Receipt, mount: Mount, tmp_path: Path, widget: str, scheme: Any, lab: str | None, width: int
) -> None:
    """For those who see it, and those who don't. A screenshot of each is kept to be looked at."""
    here.session("demo").say(Prompt(text="go", to="counter"))
    page = await mount(StoreView(here, "demo") if widget == "store" else Travel(here.session("demo"), "2-4"))
    await put_on(page, lab, scheme, width)
    await drawn(page)
    await page.screenshot(path=tmp_path / f"{widget}-{lab or 'page'}-{scheme}-{width}.png")
    await assert_readable(page, texts=15)
    await assert_accessible(page)
