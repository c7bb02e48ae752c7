"""The first notebook in a real JupyterLab in a real browser: what a learner does, and what can go wrong meanwhile."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.browser.animation import animated, story
from tests.browser.jupyter import ROOT, Lab, LabPage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]
NOTEBOOK = "00_start_here.ipynb"


@asynccontextmanager
async def opened(lab: Lab, context: BrowserContext) -> AsyncIterator[LabPage]:
    """The notebook, freshly opened; its kernel is ended afterwards."""
    page = await context.new_page()
    await page.set_viewport_size({"width": 1280, "height": 1400})
    notebook = await lab.open(page, NOTEBOOK)
    yield notebook
    await notebook.close()


@pytest_asyncio.fixture(loop_scope="session")
async def notebook(lab: Lab, context: BrowserContext) -> AsyncIterator[LabPage]:
    """Run from its first cell to its last."""
    async with opened(lab, context) as notebook:
        await notebook.run_all()
        yield notebook


@pytest_asyncio.fixture(loop_scope="session")
async def begun(lab: Lab, context: BrowserContext) -> AsyncIterator[LabPage]:
    """Run up to its panel, which is connected."""
    async with opened(lab, context) as notebook:
        await notebook.run_first(2)
        await notebook.connected()
        yield notebook


def panel(page: Page) -> Locator:
    return page.locator(".kit")


async def drawn(page: Page) -> list[str]:
    """The ids in the panel, in order."""
    found: list[str] = await page.eval_on_selector_all(
        ".kit .kit-item", "(items) => items.map((item) => item.querySelector('.kit-id').textContent)"
    )
    return found


async def said(page: Page, nth_from_end: int = 0) -> str:
    """The text of the last content item but some."""
    texts = await page.locator(".kit .kit-content .kit-body").all_inner_texts()
    return texts[-1 - nth_from_end]


async def settled(page: Page) -> None:
    """Nothing is open any more."""
    await expect(panel(page).locator(".kit-do-stop")).to_be_disabled(timeout=30_000)


async def test_run_all_shows_the_three_kinds(notebook: LabPage) -> None:
    """Run All, and the panel holds what the cells said: thought, action, content, each by its word."""
    page = notebook.page
    for kind in ("prompt", "thought", "action", "content", "end"):
        await expect(panel(page).locator(f".kit-item.kit-{kind}").first).to_be_visible()
    await expect(panel(page).locator(".kit-action .kit-outcome").first).to_contain_text("Oslo")
    assert await notebook.errors() == []


async def test_run_all_twice_and_after_a_restart(notebook: LabPage) -> None:
    """A second Run All, and one after a kernel restart, end with every cell done and none in error."""
    await notebook.run_all()
    assert await notebook.errors() == []
    await notebook.restart()
    await notebook.run_all()
    assert await notebook.errors() == []
    await notebook.connected()


async def test_stop_while_a_cell_is_running(begun: LabPage) -> None:
    """The kernel is busy with a cell; the panel's Stop ends the answer all the same."""
    page = begun.page
    await begun.ask("count to 500")
    await expect(panel(page).locator(".kit-content .kit-body").last).to_contain_text("1 2 3")
    await begun.begin("import time; time.sleep(60)")
    await expect(page.locator(".jp-CodeCell .jp-InputPrompt").last).to_have_text("[*]:")
    await panel(page).locator(".kit-do-stop").click()
    await expect(panel(page).locator(".kit-end .kit-word").last).to_have_text("end: stopped")
    assert await begun.last_prompt() == "[*]:"
    await begun.command("kernelmenu:interrupt")
    numbers = (await said(page)).split()
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
    assert len(numbers) < 500


async def test_edit_answer_and_arithmetic(begun: LabPage) -> None:
    """An open turn is steered; a question of the agent's is answered with a button."""
    page = begun.page
    await begun.ask("count to 400")
    await expect(panel(page).locator(".kit-content .kit-body").last).to_contain_text("1 2 3")
    await panel(page).locator(".kit-do-edit").click()
    await panel(page).locator("textarea").fill("what is 17 * 23")
    await panel(page).locator("textarea").press("Enter")
    await settled(page)
    await expect(panel(page).locator(".kit-end .kit-word", has_text="replaced")).to_be_visible()
    assert "391" in await said(page)
    await begun.ask("What is the weather?")
    await panel(page).locator(".kit-ask").last.get_by_role("button", name="Berlin").click()
    await settled(page)
    assert "Berlin" in await said(page)


async def test_reload_shows_the_session_again_once(notebook: LabPage) -> None:
    """F5 in the middle of an answer: the whole session is there again, nothing twice, and the answer goes on to its end."""
    page = notebook.page
    await notebook.save()
    await notebook.ask("count to 150")
    await expect(panel(page).locator(".kit-content .kit-body").last).to_contain_text("1 2 3")
    before = await drawn(page)
    await page.reload()
    await notebook.ready()
    await expect(panel(page).locator(".kit-item").first).to_be_visible(timeout=30_000)
    await expect(panel(page).locator(".kit-content .kit-body").last).to_have_text(" ".join(map(str, range(1, 151))), timeout=30_000)
    await settled(page)
    after = await drawn(page)
    assert after[: len(before) - 1] == before[:-1]
    assert len(set(after)) == len(after)


async def test_a_cut_is_told_and_resumed(begun: LabPage) -> None:
    """The server drops the socket in the middle of an answer: the panel says where it resumed, and the count has no hole."""
    page = begun.page
    await begun.ask("count to 120")
    await expect(panel(page).locator(".kit-content .kit-body").last).to_contain_text("1 2 3")
    await begun.begin("here.cut()")
    await expect(panel(page).locator(".kit-state")).to_have_text(re.compile(r"resumed after \d+-\d+"))
    await settled(page)
    assert (await said(page)).split() == [str(n) for n in range(1, 121)]


FAULTS = """from IPython.display import display
from kit.lab import start
from kit.widgets import Faults, Panel
here = start("faults", lease=0.5)
faults = Faults(here)
display(faults, Panel(faults, "demo"))"""


# However many blocks it stands in: a takeover begins another one.
COUNTED_TO = """(number) => [...document.querySelectorAll(".kit:not(.kit-faults) .kit-content .kit-body")]
    .map((body) => body.textContent).join(" ").split(/\\s+/).includes(number)"""


async def test_a_panel_behind_the_buttons_of_faults(lab: Lab, context: BrowserContext) -> None:
    """The panel dials the line; it is cut, and its instance freezes, in the middle of an answer: it resumes, and the count has no hole."""
    page = await context.new_page()
    opened = await lab.open(page, NOTEBOOK)
    await opened.begin(FAULTS)
    shown = opened.panel
    await opened.connected()
    await opened.ask("count to 150")
    for name, sign, number in (("Cut", "cut", "10"), ("Freeze", "freeze", "20"), ("Cut", "cut", "20")):  # a frozen one may say no more
        await page.wait_for_function(COUNTED_TO, arg=number, timeout=30_000)
        await page.get_by_role("button", name=name, exact=True).click()
        await expect(page.locator(".kit-record")).to_have_text(re.compile(f"'{sign}', '(line|one)'"))
        await expect(page.locator(".kit-faults .kit-state")).to_have_text(re.compile(rf"after \d+ entries: {sign}"))
    await expect(shown.locator(".kit-takeover").first).to_be_visible()  # a busy machine may keep another lease from being renewed in time
    await expect(shown.locator(".kit-state")).to_have_text(re.compile(r"resumed after \d+-\d+"))
    await expect(shown.locator(".kit-end .kit-word")).to_have_text("end: done", timeout=15_000)
    counted = await shown.locator(".kit-content .kit-body").all_inner_texts()
    assert " ".join(counted).split() == [str(n) for n in range(1, 151)]
    await opened.close()


CHAPTERS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb") if path.name != NOTEBOOK)


@pytest.mark.parametrize("name", CHAPTERS)
async def test_each_chapter_runs_twice_and_after_a_restart(name: str, lab: Lab, context: BrowserContext) -> None:
    """Run All, Run All again, and once more with a new kernel: every cell is done, none in error, and `lab.finish()` finds nothing."""
    page = await context.new_page()
    opened = await lab.open(page, name)
    for again in (False, False, True):
        if again:
            await opened.restart()
        await opened.run_all()
        assert await opened.errors() == []
        await expect(page.locator(".jp-OutputArea-output").last).to_contain_text("finished")
    await opened.close()


async def test_the_picture_that_moves(begun: LabPage, context: BrowserContext) -> None:
    """The README's can be taken anew: small, and a browser draws it."""
    picture = animated(await story(begun))
    assert len(picture) < 300_000
    assert picture.count(b"fcTL") == 9
    page = await context.new_page()
    await page.set_content(f"<img src='data:image/png;base64,{base64.b64encode(picture).decode()}'>")
    assert await page.eval_on_selector("img", "async (image) => { await image.decode(); return image.naturalWidth; }") == 468
    await page.close()


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
async def test_screenshots(theme: str, tmp_path: Path, begun: LabPage) -> None:
    """Pictures to be looked at, in both themes; without text that is cut off or a panel that is missing."""
    page = begun.page
    await page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    await page.wait_for_function("(theme) => document.body.dataset.jpThemeName === theme", arg=theme)
    await begun.ask("what is (3 + 4) * 6")
    await settled(page)
    await panel(page).scroll_into_view_if_needed()
    picture = await panel(page).screenshot(path=tmp_path / "panel.png")
    assert len(picture) > 10_000
    await page.screenshot(path=tmp_path / "page.png")
