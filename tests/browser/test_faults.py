"""The fault buttons in Chromium: each does what it says to a real line, a real instance and a real store; and a cell can do it all again.

The kernel's side is a real lab and a real client dials through the line; the page's side runs as anywidget runs it. Between them stands the
test instead of Jupyter.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Locator, Page, expect

from kit.client import SILENCE
from kit.lab import chaos
from kit.lab.chaos import Fault, Schedule
from kit.lab.finish import Unfinished
from kit.lab.start import Lab, finish, start
from kit.packets import Prompt, Takeover
from kit.widgets.faults import Faults
from tests.browser.looks import LOOKS, assert_accessible, assert_readable, put_on, tab_through
from tests.browser.test_store_view import LOAD
from tests.promises.support import Watcher, counting, turn_of, watch

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def lease() -> float:
    """Of every turn: long, so that no pause of a busy machine ends it. Short only where a turn goes on when it is over."""
    return 20.0


@pytest.fixture
def here(lease: float) -> Iterator[Lab]:
    lab = start("06", agents={"counter": counting(60, pace=300), "endless": counting(100_000, pace=100)}, lease=lease)
    yield lab
    lab.close()


@pytest.fixture
def faults(here: Lab) -> Faults:
    return Faults(here)


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext, site: str, faults: Faults) -> AsyncIterator[Page]:
    """A page that shows the buttons; its messages reach the kernel's side, and its state follows."""
    page, loop, news = await context.new_page(), asyncio.get_running_loop(), asyncio.Queue[Any]()
    await page.expose_function("toKernel", lambda message: faults._handle_custom_msg(message[1], []))
    await page.goto(f"{site}/tests/browser/blank.html")
    state = json.dumps({"session": faults.session, "state": faults.state})
    await page.evaluate(LOAD, [faults.get_state("_esm")["_esm"], faults.get_state("_css")["_css"], state])
    faults.observe(lambda change: loop.call_soon_threadsafe(news.put_nowait, change.new), "state")

    async def follow() -> None:
        while True:
            await page.evaluate("(state) => model.set('state', state)", await news.get())

    following = asyncio.create_task(follow())
    yield page
    following.cancel()
    await asyncio.wait({following})
    await page.close()


@pytest.fixture
def silence() -> float:
    """How long bob bears it: longer than the instance's beat. Shorter, he dials again whenever nothing is said."""
    return SILENCE


@pytest_asyncio.fixture(loop_scope="session")
async def bob(here: Lab, faults: Faults, silence: float) -> AsyncIterator[Watcher]:
    """A client that comes by the line."""
    async with watch(faults.url, "demo", "bob", token=here.token("bob"), silence=silence) as bob:
        await until(lambda: is_connected(bob))
        yield bob


async def until(true: Callable[[], object]) -> None:
    """Wait for what happens on the kit's thread, which tells nobody."""
    while not true():  # noqa: ASYNC110  # it is another thread's: no event for us
        await asyncio.sleep(0.005)


async def press(page: Page, name: str) -> Locator:
    button = page.get_by_role("button", name=name, exact=True)
    await button.click()
    return button


def is_connected(watcher: Watcher) -> bool:
    return watcher.session.state.startswith(("connected", "resumed"))


def visitors(server: Any) -> int:
    """How many connections bob has there."""
    return sum(connection.identity.name == "bob" for connection in server.connections)


# ---- the line ----


async def test_cut(page: Page, faults: Faults, bob: Watcher) -> None:
    """The client comes back, by the same line."""
    await press(page, "Cut")
    await until(lambda: faults._wire.dials == 2 and is_connected(bob))
    await expect(page.locator(".kit-state")).to_have_text("after 0 entries: cut")


@pytest.mark.parametrize("silence", [0.5])
async def test_half_open(page: Page, here: Lab, faults: Faults, bob: Watcher) -> None:
    """Nothing comes by that connection; the client notices by the silence alone, and dials again. A switch: it ends it, too."""
    button = await press(page, "Half-open")
    await expect(button).to_have_attribute("aria-pressed", "true")
    here.session("demo").prompt("go", to="counter")
    await bob.until(lambda w: "60 " in w.text())
    assert faults._wire.dials >= 2
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "false")
    assert [fault.what for fault in faults.schedule.faults] == ["vanish", "appear"]


async def test_accept_then_close(page: Page, faults: Faults, bob: Watcher) -> None:
    """The next handshake is answered, and that is all; the one after it holds."""
    await press(page, "Accept, then close")
    await press(page, "Cut")
    await until(lambda: faults._wire.dials == 3 and is_connected(bob))


async def test_duplicate(page: Page, faults: Faults, bob: Watcher) -> None:
    """The server has two connections of a client that has one."""
    await until(lambda: visitors(faults._one.node.server) == 1)
    await press(page, "Duplicate")
    await until(lambda: visitors(faults._one.node.server) == 2 and is_connected(bob))


async def test_slow_reader(page: Page, here: Lab, faults: Faults, bob: Watcher) -> None:
    """Nothing is read of what the server sends, until the switch is off."""
    button = await press(page, "Slow reader")
    await expect(button).to_have_attribute("aria-pressed", "true")
    here.session("demo").prompt("go", to="counter")
    assert "60 " not in bob.text()
    await button.click()
    await bob.until(lambda w: "60 " in w.text())


async def test_sliders_by_their_keys(page: Page, faults: Faults) -> None:
    """Each step is a fault of its own, told in words; a cell moves them too."""
    for name, keys, words, knob, value in [
        ("Delay, one way", ["ArrowRight"] * 3, "60 ms", "delay", 0.06),
        ("Jitter, up to", ["End"], "1000 ms", "jitter", 1.0),
        ("Rate", ["End", "ArrowLeft"], "1 kB/s", "rate", 1000),
    ]:
        slider = page.get_by_role("slider", name=name)
        await slider.focus()
        for key in keys:
            await page.keyboard.press(key)
        await expect(slider).to_have_attribute("aria-valuetext", words)
        await until(lambda knob=knob, value=value: getattr(faults._wire, knob) == value)
    assert [fault.value for fault in faults.schedule.faults] == [0.02, 0.04, 0.06, 1.0, 500, 1000]
    faults.do("rate", 12_345)
    faults.do("delay", 0.5)
    await expect(page.locator(".kit-knob output")).to_have_text(["500 ms", "1000 ms", "12.345 kB/s"])
    await expect(page.get_by_role("slider", name="Delay")).to_have_value("25")


# ---- the instance ----


@pytest.mark.parametrize(("silence", "lease"), [(0.5, 0.3)])
async def test_freeze(page: Page, here: Lab, faults: Faults, bob: Watcher) -> None:
    """Its turn goes on at the lab's own when the lease is over; who dials meanwhile comes there; thawed, it says nothing late."""
    turn = turn_of(await bob.session.prompt("go", to="endless"), "endless")
    await bob.pieces(turn, 5)
    button = await press(page, "Freeze")
    await expect(page.locator(".kit-faults > .kit-note")).to_have_text(
        "The second instance is frozen; who dials now comes to the lab's own."
    )
    await until(lambda: any(isinstance(e, Takeover) for e in here.session("demo").transcript))
    await until(lambda: visitors(here.server) == 1)  # by its silence
    await button.click()
    await expect(page.locator(".kit-faults > .kit-note")).to_contain_text("runs; who dials now comes to the second instance")
    await bob.session.stop(turn)
    await bob.ended(turn)
    numbers = [int(n) for n in bob.text(turn).split()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(("name", "lease", "gives", "state"), [("Stop", 0.3, False, "is stopped"), ("Leave", 20.0, True, "has left")])
async def test_stop_and_leave_and_a_cold_start(
    page: Page, here: Lab, faults: Faults, bob: Watcher, name: str, gives: bool, state: str
) -> None:
    """Stopped, it hands nothing over; leaving, it does. Then it can only be started, at its address."""
    turn = turn_of(await bob.session.prompt("go", to="endless"), "endless")
    await bob.pieces(turn, 5)
    url = faults._one.node.url
    await press(page, name)
    await expect(page.locator(".kit-faults > .kit-note")).to_contain_text(state)
    await expect(page.get_by_role("button", name="Cold start")).to_be_enabled()
    for other in ("Freeze", "Stop", "Leave"):
        await expect(page.get_by_role("button", name=other, exact=True)).to_be_disabled()
    await until(lambda: visitors(here.server) == 1)
    await bob.until(lambda w: any(isinstance(e, Takeover) and e.by for e in w.log))
    assert any(isinstance(e, Takeover) and e.by is None for e in bob.log) is gives
    await press(page, "Cold start")
    await expect(page.get_by_role("button", name="Stop", exact=True)).to_be_enabled()
    assert faults._one.node.url == url
    await press(page, "Cut")
    await until(lambda: visitors(faults._one.node.server) == 1)
    await bob.session.stop(turn)
    await bob.ended(turn)


# ---- the store ----


async def test_pause(page: Page, here: Lab, bob: Watcher) -> None:
    """It answers neither instance, until the switch is off."""
    button = await press(page, "Pause")
    await expect(button).to_have_attribute("aria-pressed", "true")
    asked = asyncio.create_task(bob.session.prompt("go", to="counter"))
    said = asyncio.create_task(asyncio.to_thread(here.session("demo").say, Prompt(text="go", to="counter")))
    _, waiting = await asyncio.wait({asked, said}, timeout=0.2)
    assert len(waiting) == 2
    await button.click()
    for receipt in await asyncio.gather(asked, said):
        assert receipt.status in ("applied", "duplicate")


async def test_trim_and_flush(page: Page, here: Lab, bob: Watcher) -> None:
    """The beginning of the log is gone; then all of it, and with the next word the client is told."""
    for _ in range(2):
        await bob.ended(turn_of(await bob.session.prompt("go", to="counter"), "counter"))
    await press(page, "Trim")
    await until(lambda: here.session("demo").transcript[0].id != "1-0")
    assert here.session("demo").transcript[0].id.endswith("-0"), "whole epochs go"
    await press(page, "Flush")
    await until(lambda: not here.session("demo").transcript)
    here.session("demo").say(Prompt(text="go", to="counter"))
    await bob.until(lambda w: w.gaps)


# ---- the record ----


async def test_what_was_done_is_code_that_does_it_again(page: Page, here: Lab, faults: Faults, bob: Watcher) -> None:
    """Counted in entries from where the record began; replayed, it falls in the same places after the moment of the replay."""
    await bob.ended(turn_of(await bob.session.prompt("go", to="counter"), "counter"))
    await until(lambda: faults._seen.count == 62)
    await page.get_by_role("button", name="Begin the record anew").click()
    await expect(page.locator(".kit-record")).to_have_text("Schedule()")
    turn = turn_of(await bob.session.prompt("go", to="endless"), "endless")
    await bob.pieces(turn, 20)
    await press(page, "Cut")
    await expect(page.locator(".kit-record")).to_contain_text("'cut', 'line'")
    schedule = eval(await page.locator(".kit-record").inner_text(), vars(chaos))
    assert schedule == faults.schedule
    assert schedule.faults[0].after >= 20
    await bob.session.stop(turn)
    await bob.ended(turn)
    began, dials = faults._seen.count, faults._wire.dials
    faults.replay(schedule)
    turn = turn_of(await bob.session.prompt("go", to="endless"), "endless")
    await until(lambda: faults._wire.dials == dials + 1)
    assert faults._seen.count >= began + schedule.faults[0].after
    states: list[str] = []
    faults.observe(lambda change: states.append(change.new["instance"]), "state")
    faults.replay(Schedule((Fault(1, "freeze", "one", seconds=0.05),)))
    await until(lambda: any("is frozen" in state for state in states) and "runs" in states[-1])
    await bob.session.stop(turn)


async def test_the_twin_is_the_record(faults: Faults) -> None:
    """And a cell can do what a button does."""
    faults.do("delay", 0.2)
    faults.do("cut")
    bundle = faults._repr_mimebundle_()
    assert bundle
    assert bundle[0]["text/plain"].splitlines() == [
        "Faults for session demo: run this notebook to press them.",
        "Done so far: Schedule((",
        "    Fault(0, 'delay', 'line', value=0.2),",
        "    Fault(0, 'cut', 'line'),",
        "))",
    ]
    assert faults.schedule == Schedule((Fault(0, "delay", "line", 0.2), Fault(0, "cut", "line")))


async def test_a_chapter_with_faults_leaves_nothing_behind(here: Lab, faults: Faults, monkeypatch: Any) -> None:
    """The line, the second instance and the witness are the lab's own, and end with it."""
    assert repr(await asyncio.to_thread(finish)).startswith("✓")
    async with watch(faults.url, "demo", "bob", token=here.token("bob")) as bob:
        await until(lambda: is_connected(bob))
        with pytest.raises(Unfinished) as left:
            await asyncio.to_thread(finish)
        assert str(left.value).count("socket is open") == 1  # bob's own end
    monkeypatch.setenv("KIT_STRICT", "1")
    assert repr(await asyncio.to_thread(finish)).startswith("✓")
    assert faults.state["said"] == "The lab has ended"


# ---- how it looks ----


async def test_it_can_be_used_without_a_mouse(page: Page, faults: Faults) -> None:
    """Tab goes through the buttons in the order in which they stand, Space presses; what has the focus can be seen."""
    line = ["Cut", "Half-open", "Accept, then close", "Duplicate", "Slow reader", "Delay, one way", "Jitter, up to", "Rate"]
    rest = ["Freeze", "Stop", "Leave", "Pause", "Trim", "Flush", "What was done, as code", "Begin the record anew"]  # it runs: no start
    assert await tab_through(page, 16) == [*line, *rest]
    button = page.get_by_role("button", name="Half-open")
    await button.press("Space")
    await expect(button).to_have_attribute("aria-pressed", "true")
    await until(lambda: faults.schedule.faults)


@pytest.mark.parametrize(("lab", "scheme", "width"), LOOKS)
async def test_it_reads_in_every_theme_and_width(
    here: Lab, faults: Faults, page: Page, tmp_path: Path, scheme: Any, lab: str | None, width: int
) -> None:
    """For those who see it, and those who don't. A screenshot of each is kept to be looked at."""
    for what, value in (("delay", 0.1), ("vanish", None), ("stop", None)):
        faults.do(what, value)
    await put_on(page, lab, scheme, width, 700)
    await expect(page.locator(".kit-record")).to_contain_text("'stop'")
    await page.screenshot(path=tmp_path / f"faults-{lab or 'page'}-{scheme}-{width}.png")
    await assert_readable(page, texts=15)
    await assert_accessible(page)


async def test_a_lab_ends_though_its_store_is_paused(here: Lab, faults: Faults) -> None:
    """With a word under way to the instance beside the cells: it waits for the store, and the instance's end for it."""
    async with watch(here.url, "demo", token=here.token()) as ann:
        await until(lambda: is_connected(ann))
        await asyncio.to_thread(faults.do, "pause")
        saying = asyncio.create_task(ann.session.prompt("one"))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(here.close)
        saying.cancel()
