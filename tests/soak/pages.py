"""Pages: the stories of session.js in Chromium, by the hundred."""

from __future__ import annotations

from playwright.async_api import async_playwright

from tests.browser.conftest import serve_checkout
from tests.browser.launch import launch
from tests.browser.test_schedules_js import drawn, tell


async def pages(seed: int, stories: int) -> None:
    """So many, one after the other. Raises Failed."""
    with serve_checkout() as address:
        async with async_playwright() as playwright:
            browser = await launch(playwright)
            context = await browser.new_context()
            await tell(context, address, {each: drawn(each) for each in range(seed, seed + stories)})
            await browser.close()
    print(f"{stories} stories of session.js without a broken promise", flush=True)
