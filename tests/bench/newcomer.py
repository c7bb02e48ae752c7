"""Newcomer: from a fresh clone to the first answer in the panel, with empty caches, and then once more.

`python -m tests.bench.newcomer` downloads all that `make lab` does. It is no row of the bench: what it measures first is the line.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from pathlib import Path

from playwright.async_api import Browser, async_playwright, expect

from tests.browser.jupyter import ROOT, SETTINGS, LabPage, listening
from tests.browser.launch import launch

CONFIG = {"LabApp": {"expose_app_in_browser": True}, "ServerApp": {"open_browser": False}}  # so that it can be driven


async def first_answer(checkout: Path, home: Path, browser: Browser) -> str:
    """`make lab`, the first two cells, a prompt in the panel: after how many seconds each was there, and what that took of CPU.

    The browser's own is not counted.
    """
    env = {**os.environ, "PIP_CACHE_DIR": str(home / "pip"), "UV_CACHE_DIR": str(home / "uv"), "IPYTHONDIR": str(home / "ipython")}
    env |= {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "runtime", "data")}
    env |= {f"JUPYTERLAB_{name.upper()}_DIR": str(home / name) for name in ("settings", "workspaces")}
    used, began, stamps = sum(os.times()[2:4]), time.monotonic(), {}
    with (home / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("make", "lab", cwd=checkout, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        server = await listening(home / "runtime", process, home / "log")
        stamps["JupyterLab listens"] = time.monotonic()
        page = await browser.new_page()
        await page.goto(f"{server['url']}lab/tree/00_start_here.ipynb?token={server['token']}&reset")
        notebook = LabPage(page)
        await notebook.ready()
        stamps["notebook open, kernel up"] = time.monotonic()
        await notebook.run_first(2)
        await notebook.connected()
        stamps["panel connected"] = time.monotonic()
        await notebook.ask("What is 17 * 23?")
        await expect(page.locator(".kit .kit-content .kit-body").last).to_contain_text("391", timeout=60_000)
        stamps["first answer"] = time.monotonic()
        await notebook.close()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()
    told = ", ".join(f"{name} {at - began:.1f} s" for name, at in stamps.items())
    return f"{told} ({sum(os.times()[2:4]) - used:.1f} s of CPU)"


async def main() -> None:
    """Cold, then warm: a line each."""
    with tempfile.TemporaryDirectory() as folder:
        checkout, home = Path(folder) / "kit", Path(folder) / "home"
        await (await asyncio.create_subprocess_exec("git", "clone", "--quiet", ROOT, checkout)).wait()
        (home / "config").mkdir(parents=True)
        (home / "config" / "jupyter_config.json").write_text(json.dumps(CONFIG))
        for name, settings in SETTINGS.items():
            path = home / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(settings))
        async with async_playwright() as playwright:
            browser = await launch(playwright)
            print("cold:", await first_answer(checkout, home, browser), flush=True)
            print("warm:", await first_answer(checkout, home, browser))


if __name__ == "__main__":
    asyncio.run(main())
