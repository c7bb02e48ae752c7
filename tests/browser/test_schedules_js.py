"""session.js in Chromium under the schedules of the Python client: the same faults, the same judge; a reload is a real one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from playwright.async_api import BrowserContext, Page, Route

from kit.auth import Identity
from kit.ending import end
from kit.lab.chaos import Fault, Schedule, Witness, play, witness
from kit.lab.framed import line_to
from kit.lab.instances import Node, instances
from kit.packets import Entry, FromServer, Prompt, decode_sent
from tests.promises.support import Judge, count, said
from tests.soak.stories import FAULTS, LEASE, SAYS, Failed, counter, over

pytestmark = pytest.mark.asyncio(loop_scope="session")
STORIES = 6
SAID = ("go", "and again")
BEGIN = """async ({ url, name }) => {
  const { connect } = await import("/kit/widgets/session.js");
  window.seen = [];
  window.session = connect({ url, session: name, random: () => 0.02, getTicket: () => window.getTicket(name) });
  session.addEventListener("entry", (event) => seen.push(event.detail));
  session.addEventListener("clear", (event) => { seen.length = 0; if (event.detail) (window.gaps ??= []).push(event.detail); });
}"""


class Story:
    """A page that talks to two instances to which things happen, and a witness on a third."""

    def __init__(self, page: Page, url: str, name: str) -> None:
        self.page, self.at = page, {"url": url, "name": name}
        self._alone = asyncio.Lock()

    async def evaluate(self, script: str, argument: Any = None) -> Any:
        """Ask the page, while it is not being loaded."""
        async with self._alone:
            return await self.page.evaluate(script, argument)

    async def reload(self) -> None:
        """F5: what it has drawn is gone, and what stands in localStorage stays."""
        async with self._alone:
            await self.page.reload()
            await self.page.evaluate(BEGIN, self.at)

    async def tell(self, schedule: Schedule, bob: Witness, stage: dict[str, Any]) -> None:
        """Raises AssertionError, or TimeoutError where something never comes."""
        playing = asyncio.create_task(play(schedule, bob, {**stage, "page": self}))
        try:
            for text in SAID:
                await self.evaluate("(text) => { session.prompt(text); }", text)
            await bob.until(lambda w: all(any(isinstance(e, Prompt) and e.text == text for e in w.seen) for text in SAID))
            last = bob.log[-1].id
            while not playing.done():
                if over(bob.log, last):
                    last = str((await bob.session.prompt("more")).id)
                await asyncio.wait({playing}, timeout=0.02)
            await playing
            last = str((await bob.session.stop()).id)
            await bob.until(lambda w: over(w.log, last))
            judge(bob.log, await self.drawn(bob.log[-1].id))
            assert await self.evaluate("() => session.unsettled") == 0
        finally:
            await end({playing})

    async def drawn(self, last: str) -> list[FromServer]:
        """What the page has handed on since the last clear, once it has come so far."""
        come = "(last) => seen.some((e) => e.id === last) && session.unsettled === 0 && seen"
        while not (seen := await self.evaluate(come, last)):  # noqa: ASYNC110  # a page can't be awaited across a reload
            await asyncio.sleep(0.02)
        gaps = await self.evaluate("() => window.gaps ?? []")
        assert not gaps, f"gaps, though nothing was lost: {gaps}"
        return [decode_sent(msgspec.json.encode(frame)) for frame in seen]


def judge(log: list[Entry], view: list[FromServer]) -> None:
    """The page has drawn what the witness saw, each word stands once, and each answer is exact."""
    verdict = Judge(log)
    assert view[: len(log)] == log
    texts = [entry.text for entry in log if isinstance(entry, Prompt)]
    assert [texts.count(text) for text in SAID] == [1, 1]
    for turn, reason in verdict.ended.items():
        if reason == "done":
            assert said(log, turn) == count(SAYS)


def drawn(seed: int) -> Schedule:
    """The Python client's faults, without what the store may lose, and reloads."""
    stage = {"page": ("reload",), **{place: what for place, what in FAULTS.items() if place != "store"}}
    return Schedule.draw(seed, random.Random(seed).randint(1, 4), 2 * SAYS, stage)


async def told(context: BrowserContext, site: str, nodes: list[Node], seed: int, schedule: Schedule) -> None:
    """One story, in a page of its own. Raises Failed."""
    safe, one, two = nodes
    name, page = f"js-{seed}-{uuid4().hex[:6]}", await context.new_page()
    await page.goto(f"{site}/tests/browser/blank.html")
    async with line_to((one, two)) as wire, witness(safe.url, name, safe.token("bob")) as bob:
        story = Story(page, wire.url, name)
        try:
            async with asyncio.timeout(40):
                await page.evaluate(BEGIN, story.at)
                await story.tell(schedule, bob, {"line": wire, "quality": wire, "one": one, "two": two})
        except (AssertionError, TimeoutError) as broken:
            seen = "\n".join(map(str, bob.seen))
            raise Failed(f"seed {seed}: {broken!r}\n{schedule!r}\n{seen}\npage: {await story.evaluate('() => seen')}") from broken
        finally:
            await page.close()


async def tell(context: BrowserContext, site: str, schedules: Mapping[int, Schedule]) -> None:
    """So many stories on three instances. Raises Failed."""
    async with instances({"agent": counter}, 3, lease=LEASE, origins=[site]) as nodes:

        async def ticket(session: str) -> str:
            door = nodes[0].server.door
            return await door.ticket(Identity("ann", session, door.clock() + 3600), session, site)

        await context.expose_function("getTicket", ticket)
        for seed, schedule in schedules.items():
            await told(context, site, nodes, seed, schedule)


async def test_session_js_keeps_p1_to_p7_under_generated_schedules(context: BrowserContext, site: str) -> None:
    """Cuts, half-open lines, instances that stop, freeze and leave, reloads: what is drawn is the log, each word is said once."""
    await tell(context, site, {seed: drawn(seed) for seed in range(STORIES)})


async def test_a_page_that_forgets_its_cursor_is_caught(context: BrowserContext, site: str) -> None:
    """The judge sees a page that begins from 0 each time it comes back."""

    async def forgetful(route: Route) -> None:
        source = (Path(__file__).parents[2] / "kit/widgets/session.js").read_text()
        assert source.count("query: () => (this.cursor && this.log ?") == 1
        await route.fulfill(
            body=source.replace("query: () => (this.cursor && this.log ?", "query: () => (false ?"), content_type="text/javascript"
        )

    await context.route("**/session.js", forgetful)
    with pytest.raises(Failed, match="gaps"):
        await tell(context, site, {0: Schedule((Fault(9, "cut", "line"),))})
