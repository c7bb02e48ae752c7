"""Animation: the picture in the README that moves: `python -m tests.browser.animation` takes it anew, in a real JupyterLab."""

from __future__ import annotations

import asyncio
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright, expect

from tests.browser.jupyter import ROOT, LabPage, jupyterlab
from tests.browser.launch import launch

PICTURE = ROOT / "notebooks/images/panel-moves.png"
SIZE: Any = {"width": 468, "height": 496}
SECONDS = 0.9
SIGNATURE = b"\x89PNG\r\n\x1a\n"


async def story(notebook: LabPage) -> list[bytes]:
    """Screenshots of a panel: asked, answered, asked for more, stopped, and there again after a reload."""
    page, frames = notebook.page, list[bytes]()
    panel, box = page.locator(".kit"), page.locator(".kit textarea")

    async def look(times: int = 1) -> None:
        for _ in range(times):
            await panel.evaluate("(element) => element.scrollIntoView({ block: 'start' })")
            place = await panel.bounding_box()
            assert place
            frames.append(await page.screenshot(clip={**SIZE, "x": place["x"], "y": place["y"]}))
            await asyncio.sleep(0.2)

    await box.fill("What is the weather in Oslo?")
    await look()
    await box.press("Enter")
    await look(3)
    await expect(page.locator(".kit-end")).to_have_count(1)
    await look()
    await notebook.ask("count to 900")
    await look(2)
    await page.locator(".kit-do-stop").click()
    await expect(page.locator(".kit-end .kit-word").last).to_have_text("end: stopped")
    await look()
    await notebook.save()
    await page.reload()
    await notebook.ready()
    await expect(page.locator(".kit-end .kit-word").last).to_have_text("end: stopped")
    await look()
    return frames


def animated(frames: list[bytes], seconds: float = SECONDS) -> bytes:
    """PNG pictures of one size as one that moves, once (PNG specification, third edition, section 11.3.6)."""
    first = list(_chunks(frames[0]))
    made, number = [SIGNATURE, _chunk(*first[0]), _chunk(b"acTL", struct.pack(">II", len(frames), 1))], 0
    for place, frame in enumerate(frames):
        control = struct.pack(">I", number) + first[0][1][:8] + struct.pack(">IIHHBB", 0, 0, int(1000 * seconds), 1000, 0, 0)
        made.append(_chunk(b"fcTL", control))
        number += 1
        for kind, data in _chunks(frame):
            if kind != b"IDAT":
                continue
            made.append(_chunk(b"fdAT", struct.pack(">I", number) + data) if place else _chunk(b"IDAT", data))
            number += bool(place)
    return b"".join([*made, _chunk(b"IEND", b"")])


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(picture):
        (length,) = struct.unpack(">I", picture[at : at + 4])
        yield picture[at + 4 : at + 8], picture[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with jupyterlab(Path(folder)) as lab, async_playwright() as playwright:
            browser = await launch(playwright)
            page = await browser.new_page(viewport={"width": 900, "height": 900})
            notebook = await lab.open(page, "00_start_here.ipynb")
            await notebook.run_first(2)
            await notebook.connected()
            PICTURE.write_bytes(animated(await story(notebook)))
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
