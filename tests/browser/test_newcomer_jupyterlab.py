"""Ways to begin badly, and what happens to a laptop in a course: each ends well, or says what to do.

Cells in the wrong order, an interrupt, a wrong key; a closed lid, a kernel that is restarted, a second notebook and a second browser.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.jupyter import Lab, LabPage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]
NOTEBOOK, SECOND = "00_start_here.ipynb", "second.ipynb"
NAP = 1.5
LEASE = 0.5
"""Seconds. The nap is longer than the lease, so whoever wakes up has to take its own turn over."""
QUICK = f"""from kit import lab
from kit.widgets import Panel
here = lab.start("nap", lease={LEASE})
Panel(here, "demo")"""
REFUSED = """from kit import lab
from kit.agents.model import Refuse
from kit.widgets import Panel
here = lab.start("key")
here.model.fail_next(Refuse(401, "Incorrect API key provided.", "invalid_api_key"))
Panel(here, "demo")"""


@pytest_asyncio.fixture(loop_scope="session")
async def notebook(lab: Lab, context: BrowserContext) -> AsyncIterator[LabPage]:
    """The first notebook, freshly opened."""
    notebook = await lab.open(await context.new_page(), NOTEBOOK)
    yield notebook
    await notebook.close()


async def counting(page: Page) -> None:
    await expect(page.locator(".kit-content .kit-body").last).to_contain_text("1 2 3 ")


async def counted(page: Page, to: int) -> None:
    """The whole count, without a hole and nothing twice, however many pieces it came in."""
    await expect(page.locator(".kit-end .kit-word").last).to_have_text("end: done", timeout=30_000)
    texts = await page.locator(".kit-content .kit-body").all_inner_texts()
    assert " ".join(texts).split() == [str(n) for n in range(1, to + 1)]


def everything() -> list[psutil.Process]:
    """JupyterLab, its kernels and the browser; but for the driver, by which the test reaches the browser."""
    return [process for process in psutil.Process().children(recursive=True) if process.name() != "node"]


async def test_a_lid_that_is_closed_in_mid_answer(notebook: LabPage) -> None:
    """Everything stops for longer than a lease, and wakes up at once: the answer goes on, without a hole and nothing twice."""
    await notebook.begin(QUICK)
    await notebook.connected()
    await notebook.ask("count to 200")
    await counting(notebook.page)
    asleep = everything()
    assert len(asleep) >= 3
    for process in asleep:
        process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(NAP)
    for process in asleep:
        process.send_signal(signal.SIGCONT)
    await counted(notebook.page, 200)


async def test_a_kernel_that_is_restarted_in_mid_answer(notebook: LabPage) -> None:
    """The panel says that its kernel is gone, keeps what it shows, and the cells that are run again begin anew."""
    page = notebook.page
    await notebook.run_first(2)
    await notebook.connected()
    await notebook.ask("count to 500")
    await counting(page)
    await notebook.restart()
    await expect(page.locator(".kit-state")).to_have_text(re.compile("reconnecting|waiting for a ticket|connecting"))
    await expect(page.locator(".kit-content .kit-body").last).to_contain_text("1 2 3 ")
    await notebook.run_first(2)
    await notebook.connected()
    await expect(page.locator(".kit")).to_have_count(1)
    assert await page.locator(".kit-item").count() == 0
    await notebook.ask("count to 20")
    await counted(page, 20)


async def test_two_notebooks_and_a_second_browser(notebook: LabPage, lab: Lab, context: BrowserContext, browser: Browser) -> None:
    """Each notebook has a session of its own, though both call it `demo`; a second browser on the first shows that, live."""
    shutil.copy(lab.folder / NOTEBOOK, lab.folder / SECOND)
    second = await lab.open(await context.new_page(), SECOND)
    for each in (notebook, second):
        await each.run_first(2)
        await each.connected()
    await notebook.save()
    await notebook.ask("count to 120")
    await counting(notebook.page)
    elsewhere = await browser.new_context()
    friend = await lab.open(await elsewhere.new_page(), NOTEBOOK)
    await friend.connected()
    await second.ask("count to 30")
    await counted(second.page, 30)
    for page in (notebook.page, friend.page):
        await counted(page, 120)
    await elsewhere.close()
    await second.close()


async def test_a_page_whose_timers_are_late_shows_the_panel_that_is_there(notebook: LabPage, lab: Lab, browser: Browser) -> None:
    """As those of a tab in the background: a page that asks for the widget too early must not look only once more, and too late."""
    await notebook.run_first(2)
    await notebook.connected()
    await notebook.save()
    elsewhere = await browser.new_context()
    page = await elsewhere.new_page()
    await page.add_init_script("const soon = setTimeout; window.setTimeout = (f, ms, ...of) => soon(f, ms === 100 ? 4000 : ms, ...of);")
    friend = await lab.open(page, NOTEBOOK)
    await friend.connected()
    await elsewhere.close()


async def raised(page: Page, error: str) -> None:
    """The last cell ended with an error."""
    await expect(page.locator(".jp-OutputArea-output").last).to_contain_text(error)


async def test_cells_in_the_wrong_order(notebook: LabPage) -> None:
    """Python says which name is missing; from the top, everything works."""
    await notebook.begin("here.session('demo')")
    await raised(notebook.page, "NameError: name 'here' is not defined")
    await notebook.ready()  # before that, the kernel drops what is sent to it behind an error
    await notebook.run_all()
    await notebook.connected()


async def test_an_interrupt_in_mid_cell(notebook: LabPage) -> None:
    """The cell ends, and nothing else: the answer goes on, the panel stays connected, and may stop it."""
    page = notebook.page
    await notebook.run_first(2)
    await notebook.connected()
    await notebook.begin("here.session('demo').prompt('count to 5000')")
    await expect(page.locator(".kit-content .kit-body").last).to_contain_text("1 2 3 ")
    await page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()")
    await raised(page, "KeyboardInterrupt")
    await expect(page.locator(".kit-state")).to_have_attribute("data-phase", "open")
    await page.locator(".kit-do-stop").click()
    await expect(page.locator(".kit-end .kit-word").last).to_have_text("end: stopped")
    await notebook.ask("count to 3")
    await expect(page.locator(".kit-end .kit-word").last).to_have_text("end: done")


async def test_a_wrong_key(notebook: LabPage) -> None:
    """One sentence in the panel, which names the variable."""
    await notebook.begin(REFUSED)
    await notebook.connected()
    await notebook.ask("hello")
    await expect(notebook.page.locator(".kit-end").last).to_contain_text("refuses the API key (401): check OPENAI_API_KEY.")
