"""The whole room: a JupyterLab panel and two windows that joined by links. What is asked, edited, stopped and drawn is the same in all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import nbformat
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.jupyter import Lab, LabPage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

CELLS = [
    """
import asyncio
from kit import lab
from kit.lab.diagram import Diagram
from kit.packets import Content, Document, Write
from kit.room import room
from kit.widgets import Panel

PLAN = "flowchart LR\\n  people([People]) -->|words| log[(Transcript)]\\n"

async def architect(history):
    yield Document(name="plan", kind="mermaid")
    yield Write(name="plan", text=PLAN)
    yield Content("There is a plan.\\n@coder write it\\n@tester test it")

async def coder(history):
    yield Document(name="main.py", kind="python")
    for i in range(1, 61):
        await asyncio.sleep(0.05)
        yield Write(name="main.py", text=f"line {i}\\n")
    yield Content("Written.")

async def tester(history):
    for i in range(1_000_000):
        await asyncio.sleep(0.05)
        yield Content(f"{i} ")

here = lab.start(agents=room({"architect": architect, "coder": coder, "tester": tester}))
war = lab.open_room("war", "Ann", "Bob")
war
""",
    'Panel(here, "war")',
    "Diagram(PLAN)",
]


@pytest_asyncio.fixture(loop_scope="session")
async def notebook(lab: Lab, browser: Browser) -> AsyncIterator[LabPage]:
    """A room in a notebook, its cells run."""
    page = await browser.new_page(viewport={"width": 1280, "height": 2400})
    opened = await _room(lab, page)
    yield opened
    await opened.close()


async def _room(lab: Lab, page: Page) -> LabPage:
    cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "room.ipynb")
    opened = await lab.open(page, "room.ipynb")
    await opened.run_all()
    return opened


async def test_a_panel_and_two_windows_are_in_one_room(notebook: LabPage, browser: Browser, tmp_path: Path) -> None:
    """Ann edits what the coder writes, Bob stops the tester and reloads, the diagram is in all three and in a cell of its own."""
    jupyter = notebook.page
    assert await notebook.errors() == []
    await expect(jupyter.locator(".jp-RenderedMermaid :is(svg, img)")).to_be_visible()
    await expect(jupyter.locator(".jp-RenderedHTML svg")).to_have_count(2)
    links = re.findall(r"http://127[^\s<]+#[\w-]{32}", await jupyter.locator(".jp-RenderedHTML").first.inner_text())
    ann, bob = [await (await browser.new_context(viewport={"width": 1280, "height": 800})).new_page() for _ in links]
    pages = (jupyter, ann, bob)
    for page, link in zip((ann, bob), links, strict=True):
        await page.goto(link)
    for page in pages:
        await expect(page.locator(".kit-people bdi")).to_have_text(["Ann", "Bob", "you"])
    await ann.get_by_label("Prompt").fill("Build it")
    await ann.get_by_label("Prompt").press("Enter")
    for page in pages:
        await expect(page.locator(".kit-diagram text")).to_have_text(["words", "People", "Transcript"])
    code = ann.get_by_label("Document main.py")
    await expect(code).to_have_value(re.compile("line 3\n"))
    await code.evaluate("area => area.setSelectionRange(0, 0)")
    await code.press_sequentially("# Ann\n")
    await bob.get_by_role("button", name="Stop tester").click()
    await bob.reload()
    for page in pages:
        await expect(page.get_by_label("Document main.py")).to_have_value(
            "# Ann\n" + "".join(f"line {i}\n" for i in range(1, 61)), timeout=15_000
        )
        await expect(page.locator(".kit-speaking button")).to_have_count(0)
    logs = [await page.locator(".kit-log").inner_text() for page in pages]
    assert logs[0] == logs[1] == logs[2]
    await jupyter.locator(".kit").screenshot(path=tmp_path / "panel.png")
    await jupyter.screenshot(path=tmp_path / "notebook.png")
    for page in (ann, bob):
        await page.context.close()
