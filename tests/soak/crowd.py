"""Crowd: a full room on one instance and one real store: how late its packets are seen, and that all is silent after "stop all"."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from statistics import quantiles

from playwright.async_api import async_playwright, expect

from kit.client import Session, connect
from kit.packets import End, Entry, EntryId, Gap, Packet
from tests.bench.child import Child, child
from tests.bench.crowd import AGENTS, PARAGRAPH, ROOM
from tests.bench.dialects import Kit
from tests.browser.launch import launch

PACE = 50
HEADLESS = 39
EACH = 25
"""Stops in one session."""
BOUND = 100.0
"""Milliseconds from packet to screen, for 95 of 100."""
# Each token, in the first frame in which it can be seen. `ahead`: the wall clock less the one of the tokens.
WATCH = """(ahead) => {
    const seen = new Map();
    window.late = [];
    const look = () => {
        const now = Date.now() / 1000 - ahead;
        document.querySelectorAll(".kit-content .kit-body").forEach((body, place) => {
            for (const [, n, said] of body.textContent.slice(-2000).matchAll(/(\\d+)@([\\d.]+)x;/g)) {
                if (Number(n) <= (seen.get(place) ?? 0)) continue;
                seen.set(place, Number(n));
                window.late.push(1000 * (now - Number(said)));
            }
        });
        requestAnimationFrame(look);
    };
    look();
}"""

# The page's policy allows no string to be run, so playwright's own waiting does not work there.
DRAWN = """(count) => new Promise((done) => {
    const look = () => window.late.length >= count ? done(window.late) : requestAnimationFrame(look);
    look();
})"""


async def screens(store: str, seconds: float) -> bool:
    """Print how late 8 agents at 50 tokens/s each are seen by 39 headless clients and one page; whether both keep the bound."""
    tokens = int(seconds * PACE)
    with child("crowd", store=store) as server:
        async with async_playwright() as playwright:
            browser = await launch(playwright)
            page = await browser.new_page(viewport={"width": 1280, "height": 800})
            await page.goto(server.ready["page"])
            await expect(page.locator(".kit-state")).to_have_attribute("data-phase", "open")
            taps = [await Kit().dial(server, ROOM, stamped=True) for _ in range(HEADLESS)]
            await page.evaluate(WATCH, time.time() - time.monotonic())
            async with connect(server.url, session=ROOM, token=server.token or "") as host:
                await host.prompt(json.dumps({"tokens": tokens, "pace": PACE}), to="all")
                await asyncio.gather(*(tap.reach(AGENTS * tokens) for tap in taps))
            drawn: list[float] = await page.evaluate(DRAWN, AGENTS * tokens)
            await browser.close()
    came = [1000 * (token.came - token.said) for tap in taps for token in tap.tokens]
    speak = f"{AGENTS} agents at {PACE} tokens/s for {seconds:.0f} s, in paragraphs of {PARAGRAPH}"
    print(f"{speak}; {HEADLESS} headless clients and one page: p95 at most {BOUND:.0f} ms")
    return all([_told("packet to screen", drawn), _told("packet to headless client", came)])


def _told(name: str, delays: list[float]) -> bool:
    cuts = quantiles(delays, n=100)
    print(f"  {name}: p50 {cuts[49]:.0f} ms, p95 {cuts[94]:.0f} ms, p99 {cuts[98]:.0f} ms of {len(delays)}", flush=True)
    return cuts[94] <= BOUND


async def stops(store: str, times: int, rng: random.Random) -> int:
    """Let all speak and stop all, again and again; gives the packets of stopped turns after the receipt. Each stop ends eight turns."""
    late = 0
    with child("crowd", store=store) as server:
        for i in range(0, times, EACH):  # a turn begins by reading its whole log: one log for all would be about that
            late += await _stops(server, f"stops-{i}", min(EACH, times - i), rng)
            print(f"  {min(i + EACH, times)} stops of all, {late} packets after a receipt", flush=True)
    return late


async def _stops(server: Child, session: str, times: int, rng: random.Random) -> int:
    stopped: dict[str, EntryId] = {}
    late = 0
    async with connect(server.url, session=session, token=server.token or "") as host:
        entries = aiter(host)
        for _ in range(times):
            opened = (await host.prompt(json.dumps({"tokens": 1_000_000, "pace": PACE}), to="all")).id
            turns = {f"{opened}/agent{i}" for i in range(AGENTS)}
            stopping = asyncio.create_task(_stop_in(host, rng.uniform(0.02, 0.08)))
            ends = set[str]()
            seen = list[Packet]()
            while ends != turns:
                seen.append(await _packet(entries))
                if isinstance(seen[-1], End):
                    ends.add(seen[-1].turn)
            stopped |= dict.fromkeys(turns, await stopping)
            late += sum(not isinstance(p, End) and EntryId.parse(p.id) > stopped[p.turn] for p in seen)
    return late


async def _stop_in(host: Session, seconds: float) -> EntryId:
    await asyncio.sleep(seconds)
    receipt = await host.stop()
    assert (receipt.status, receipt.id is not None) == ("applied", True)
    return EntryId.parse(receipt.id or "")


async def _packet(entries: AsyncIterator[Entry | Gap]) -> Packet:
    while not isinstance(entry := await anext(entries), Packet):
        assert not isinstance(entry, Gap), entry
    return entry
