"""Panel: what a person sees in JupyterLab: how late the last of many tokens is drawn, and how soon a stop is seen while a cell is busy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from playwright.async_api import Page, async_playwright, expect

from tests.bench.table import Row
from tests.browser.jupyter import LabPage, jupyterlab
from tests.browser.launch import launch

FAST = """
import asyncio, time
from kit.packets import Content, Prompt

async def fast(history):
    begin = time.monotonic()
    for i in range(1, 2001):
        await asyncio.sleep(max(0, begin + i / 1000 - time.monotonic()))
        yield Content(f"{i} " if i < 2000 else f"last:{time.time() * 1000:.0f}")

here.add(fast=fast)
here.session("demo").say(Prompt(text="go", to="fast")).status
"""
WATCH = """() => {
    window.tasks = [];
    new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: "longtask" });
    window.lag = new Promise((done) => {
        const look = () => {
            const bodies = document.querySelectorAll(".kit-content .kit-body");
            const last = /last:(\\d+)/.exec(bodies[bodies.length - 1]?.textContent.slice(-40) ?? "");
            last ? done(Date.now() - Number(last[1])) : requestAnimationFrame(look);
        };
        look();
    });
}"""
STOP = """() => new Promise((done) => {
    const ends = document.querySelectorAll(".kit-end").length;
    const body = [...document.querySelectorAll(".kit-content .kit-body")].pop();
    let text = body.textContent, changed = 0;
    const clicked = performance.now();
    document.querySelector(".kit-do-stop").click();
    const look = () => {
        if (body.textContent !== text) { text = body.textContent; changed = performance.now() - clicked; }
        document.querySelectorAll(".kit-end").length > ends ? done(changed) : requestAnimationFrame(look);
    };
    look();
})"""


def measure(stops: int) -> list[Row]:
    """Rows of the table; `stops`: how many answers are stopped."""
    with TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder), stops))


async def _measure(folder: Path, stops: int) -> list[Row]:
    async with async_playwright() as playwright, jupyterlab(folder) as lab:
        browser = await launch(playwright)
        page = await browser.new_page(viewport={"width": 1200, "height": 900})
        notebook = await lab.open(page, "00_start_here.ipynb")
        await notebook.run_first(2)
        await notebook.connected()
        rows = [*await _fast(page, notebook), await _stops(page, notebook, stops)]
        await browser.close()
        return rows


async def _fast(page: Page, notebook: LabPage) -> list[Row]:
    await page.evaluate(WATCH)
    await notebook.begin(FAST)
    lag = await page.evaluate("window.lag")
    longest = max(await page.evaluate("window.tasks"), default=0)
    return [
        Row("panel: 2,000 tokens at 1,000/s, last said to last visible", f"{lag:.0f} ms", "<= 50 ms", lag <= 50),
        Row("panel: longest task of the page meanwhile", f"{longest:.0f} ms", "<= 100 ms", longest <= 100),
    ]


async def _stops(page: Page, notebook: LabPage, stops: int) -> Row:
    await notebook.begin(f"time.sleep({3 * stops + 20})")
    late = []
    for _ in range(stops):
        await page.locator(".kit textarea").fill("count to 900")
        await page.locator(".kit textarea").press("Enter")
        await expect(page.locator(".kit-content .kit-body").last).to_contain_text("1 2 3 4 5 6", timeout=60_000)
        late.append(await page.evaluate(STOP))
        await expect(page.locator(".kit-do-stop")).to_be_disabled(timeout=60_000)
    worst = median(late)
    return Row(f"panel: stop beside a busy cell to the last token (median of {stops})", f"{worst:.0f} ms", "<= 50 ms", worst <= 50)
