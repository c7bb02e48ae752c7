"""The local model in JupyterLab, as a person meets it: a tool, a stop, a steer, by the panel's own buttons; and `kill -9` from a cell.

A part of `make test-local`. With a folder, `python -m tests.local FOLDER` leaves pictures of it there, in the light and the dark theme.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.async_api import Locator, Page, async_playwright, expect

from tests.browser.jupyter import LabPage, jupyterlab
from tests.browser.launch import launch

PATIENCE = 120_000
"""Milliseconds in which so small a model has said what is waited for, on a machine of one core."""
PANEL = """
from kit import lab
from kit.widgets import Panel
here = lab.start("local")
Panel(here, "demo")
"""
KILL = """
import json
import os
from pathlib import Path

from kit.client import connect
from kit.lab.processes import processes
from kit.lab.served import served_store
from kit.packets import Content, Takeover

Path("smol.py").write_text("from kit.agents.openai import openai_agent\\nagent = openai_agent()\\n")
os.environ["PYTHONPATH"] = os.getcwd()
said, by = {1: "", 2: ""}, 1
async with (
    served_store() as store,
    processes("smol:agent", store=store.url, lease=1.0) as (one, other),
    connect(other.url, session="s", token=one.token) as ann,
):
    async with connect(one.url, session="s", token=one.token) as visitor:
        await visitor.prompt("Tell me a long story about a frog and a princess.")
    async for entry in ann:
        by = 2 if isinstance(entry, Takeover) else by
        if isinstance(entry, Content):
            said[by] += entry.text
        if one.running and len(said[1]) > 40:
            one.kill()
        if len(said[2]) > 40:
            break
print("heard:", json.dumps([*said.values()]))
"""


async def shown(theme: str, pictures: Path | None) -> None:
    """A conversation in the panel, then the kill; asserts what any model must have done, and prints what this one said."""

    async def picture(of: Page | Locator, what: str) -> None:
        if pictures:
            await of.screenshot(path=pictures / f"{what}-{theme.lower()}.png")

    with TemporaryDirectory() as folder:
        async with jupyterlab(Path(folder), theme=f"JupyterLab {theme}") as lab, async_playwright() as playwright:
            browser = await launch(playwright)
            page = await browser.new_page(viewport={"width": 1300, "height": 1000})
            notebook = await lab.open(page, "00_start_here.ipynb")
            await notebook.begin(PANEL)
            await notebook.connected()
            await _use_a_tool(notebook)
            await picture(notebook.panel, "tool")
            await _stop_and_steer(notebook)
            await picture(notebook.panel, "steer")
            await notebook.begin(KILL)
            heard = page.locator(".jp-OutputArea-output", has_text="heard:").last
            await expect(heard).to_be_visible(timeout=PATIENCE)
            before, after = json.loads((await heard.inner_text()).partition("heard:")[2])
            print(f"kill -9 at: {before!r}; on the other process: {after!r}")
            assert before
            assert after
            await heard.scroll_into_view_if_needed()
            await picture(page, "kill")
            await notebook.close()
            await browser.close()


async def _use_a_tool(notebook: LabPage) -> None:
    await notebook.ask("What is the weather in Oslo?")
    await expect(notebook.panel.locator(".kit-end")).to_have_count(1, timeout=PATIENCE)
    await expect(notebook.panel.locator(".kit-action").first).to_contain_text('get_weather(city="Oslo")')
    await expect(notebook.panel.locator(".kit-content .kit-body").last).to_contain_text("4 degrees")


async def _stop_and_steer(notebook: LabPage) -> None:
    ends = notebook.panel.locator(".kit-end")
    content = notebook.panel.locator(".kit-content .kit-body")

    await notebook.ask("Tell me a long story about a frog and a princess.")
    await expect(content).to_have_count(2, timeout=PATIENCE)
    await notebook.panel.locator(".kit-do-stop").click()
    await expect(ends).to_have_count(2, timeout=PATIENCE)
    await expect(ends.last).to_contain_text("stopped")

    await notebook.ask("Tell me another long story about a frog and a princess.")
    await expect(content).to_have_count(3, timeout=PATIENCE)
    await notebook.panel.get_by_role("button", name="Edit").last.click()
    await notebook.page.keyboard.press("Control+A")
    await notebook.page.keyboard.insert_text("What is the weather in Rome?")  # at once: what it says may be short
    await notebook.page.keyboard.press("Enter")
    await expect(ends).to_have_count(4, timeout=PATIENCE)  # that of the second story, and that of the answer to the edit
    await expect(ends.nth(2)).to_contain_text("replaced")
    await expect(content).to_have_count(4)
    print(f"in the panel, after the edit: {await content.last.inner_text()}")
