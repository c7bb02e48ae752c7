"""The pictures of the README, taken from the real thing: `python -m tests.browser.pictures` writes notebooks/images/panel-*.png."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.async_api import async_playwright, expect

from tests.browser.jupyter import ROOT, LabPage, jupyterlab
from tests.browser.launch import launch

IMAGES = ROOT / "notebooks" / "images"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


async def draw(notebook: LabPage, path: Path) -> None:
    """A first prompt, answered: every kind of thing is in it."""
    await notebook.ask("What is the weather in Oslo?")
    await expect(notebook.panel.locator(".kit-end")).to_be_visible()
    await notebook.panel.locator("textarea").blur()
    await notebook.panel.screenshot(path=path)


async def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        for name, theme in THEMES.items():
            with TemporaryDirectory() as folder:
                async with jupyterlab(Path(folder), theme=theme) as lab:
                    page = await browser.new_page(viewport={"width": 1200, "height": 1000}, device_scale_factor=1.5)
                    notebook = await lab.open(page, "00_start_here.ipynb")
                    await notebook.run_first(2)
                    await draw(notebook, IMAGES / f"panel-{name}.png")
                    await page.close()
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
