"""Ways to begin badly, in a real JupyterLab: each ends well, or says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.jupyter import Lab, LabPage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]
REFUSED = """from kit import lab
from kit.agents.model import Refuse
from kit.widgets import Panel
here = lab.start("key")
here.model.fail_next(Refuse(401, "Incorrect API key provided.", "invalid_api_key"))
Panel(here, "demo")"""


@pytest_asyncio.fixture(loop_scope="session")
async def notebook(lab: Lab, context: BrowserContext) -> AsyncIterator[LabPage]:
    """The first notebook, freshly opened."""
    page = await context.new_page()
    yield await lab.open(page, "00_start_here.ipynb")
    await page.evaluate("() => window.jupyterapp.shell.currentWidget?.sessionContext.shutdown()")
    await page.close()


async def connected(page: Page) -> None:
    await expect(page.locator(".kit-state").last).to_have_attribute("data-phase", "open", timeout=30_000)


async def ask(page: Page, text: str) -> None:
    await page.locator(".kit textarea").last.fill(text)
    await page.locator(".kit textarea").last.press("Enter")


async def raised(page: Page, error: str) -> None:
    """The last cell ended with an error."""
    await expect(page.locator(".jp-OutputArea-output").last).to_contain_text(error)


async def test_cells_in_the_wrong_order(notebook: LabPage) -> None:
    """Python says which name is missing; from the top, everything works."""
    await notebook.begin("here.session('demo')")
    await raised(notebook.page, "NameError: name 'here' is not defined")
    await notebook.run_all()
    await connected(notebook.page)


async def test_an_interrupt_in_mid_cell(notebook: LabPage) -> None:
    """The cell ends, and nothing else: the answer goes on, the panel stays connected, and may stop it."""
    page = notebook.page
    await notebook.run_first(2)
    await connected(page)
    await notebook.begin("here.session('demo').prompt('count to 5000')")
    await expect(page.locator(".kit-content .kit-body").last).to_contain_text("1 2 3 ")
    await page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()")
    await raised(page, "KeyboardInterrupt")
    await expect(page.locator(".kit-state")).to_have_attribute("data-phase", "open")
    await page.locator(".kit-do-stop").click()
    await expect(page.locator(".kit-end .kit-word").last).to_have_text("end: stopped")
    await ask(page, "count to 3")
    await expect(page.locator(".kit-end .kit-word").last).to_have_text("end: done")


async def test_a_wrong_key(notebook: LabPage) -> None:
    """One sentence in the panel, which names the variable."""
    await notebook.begin(REFUSED)
    await connected(notebook.page)
    await ask(notebook.page, "hello")
    await expect(notebook.page.locator(".kit-end").last).to_contain_text("refuses the API key (401): check OPENAI_API_KEY.")
