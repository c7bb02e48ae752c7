"""Nothing is loaded from outside: the watch over every test in a browser sees all that a page can ask of another host."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext

pytestmark = pytest.mark.asyncio(loop_scope="session")

# .invalid is no host anywhere (RFC 2606), so nothing leaves this machine.
PAGE = """
<link rel="stylesheet" href="https://style.invalid/a.css"><img src="//image.invalid/a.png"><iframe src="http://frame.invalid/"></iframe>
<script>
  new WebSocket("ws://socket.invalid/");
  import("https://module.invalid/a.js").catch(() => {});
  const source = `fetch("http://fetch.invalid/").catch(() => {}); new WebSocket("ws://worker.invalid/");
    try { importScripts("http://script.invalid/"); } catch {}`;
  new Worker(URL.createObjectURL(new Blob([source])));
</script>
"""
HOSTS = ["fetch", "frame", "image", "module", "script", "socket", "style", "worker"]


async def test_whatever_a_page_asks_of_another_host_is_seen(context: BrowserContext, site: str, abroad: list[str]) -> None:
    """Images, styles, frames, modules, sockets, and the same from within a worker; what it asks of this machine is its own business."""
    page = await context.new_page()
    await page.goto(f"{site}/tests/browser/blank.html")
    assert abroad == []
    await page.evaluate("(html) => { document.open(); document.write(html); document.close(); }", PAGE)
    while len({*abroad}) < len(HOSTS):
        await page.wait_for_timeout(20)
    assert sorted(url.split("/")[2].removesuffix(".invalid") for url in {*abroad}) == HOSTS
    abroad.clear()
