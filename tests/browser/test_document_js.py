"""document.js in Chromium: it folds as kit/document.py does, and a textarea bound to it keeps what is typed, and the caret."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import to_builtins
from playwright.async_api import Page

from kit.auth import Identity
from kit.document import Text, document_session
from kit.history import History
from kit.packets import AnyPacket, Prompt, Write, decode_entry, new_ref
from kit.replica import connect_document
from kit.server import Server, serve
from tests.test_document import OPENED, STEPS, Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMPORT = 'const { Replica, bind, change, points, units, documentSession } = await import("/kit/widgets/document.js");'


async def run(page: Page, script: str, arg: Any = None) -> Any:
    return await page.evaluate(f"async (arg) => {{ {IMPORT} {script} }}", arg)


# ---- the fold ----


async def test_it_folds_every_log_as_python_does(blank: Page) -> None:
    """Logs of three people, two agents and cuts, with emoji, which JavaScript counts as two."""
    logs, texts = [], []
    for seed in range(200):
        rng, story = random.Random(seed), Story()
        story._next = 0x1F300  # beyond the 16 bits of a UTF-16 unit
        for _ in range(rng.randrange(120)):
            story.step(rng.choice(STEPS), rng.randrange(3), rng.randrange(10**6), rng.randrange(7))
        story.end()
        logs.append([to_builtins(entry) for entry in story.log.entries])
        texts.append(story.log.text.read())
    script = "return arg.map((log) => { const r = new Replica(); log.forEach((e) => r.take(e)); return r.text; });"
    assert await run(blank, script, logs) == texts
    assert sum(map(len, texts)) > 1000


STORY = """
const [opened, seed] = arg;
let x = seed * 2654435761 % 2 ** 32;
const draw = (n) => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return (x >>> 0) % n; };
const log = [opened], people = [0, 1, 2].map(() => ({ replica: new Replica(), read: 0, said: null })), known = new Set();
let [letter, word, packet, ordinal, changed] = [0x1F300, 0, 1, 0, 0];
const read = (p, n) => { for (const e of log.slice(p.read, p.read + n)) { p.replica.take(e); p.read += 1; } };
const send = (p) => { p.said ??= p.replica.send((base, splices, to) => {
  const ref = `ref-${p.read}-${Math.abs(x)}-${draw(1e9)}-00000000`; to(ref); return { type: "patch", ref, base, splices, from: "a" }; }); };
const deliver = (p) => { if (!p.said) return;
  const prev = log[log.length - 1].id;
  if (!known.has(p.said.ref)) { known.add(p.said.ref); word += 1; packet = 0; log.push({ ...p.said, id: `${word}-0`, prev }); }
  p.said = null; };
for (let i = 0; i < 150; i++) {
  const p = people[draw(3)], text = Array.from(p.replica.text), at = draw(text.length + 1);
  switch (draw(6)) {
    case 0: case 1: { const gone = Math.min(draw(3), text.length - at);
      p.replica.type(at, gone, Array.from({ length: draw(3) }, () => String.fromCodePoint(letter++)).join("")); changed += 1; break; }
    case 2: send(p); break;
    case 3: deliver(p); break;
    case 4: read(p, draw(8)); break;
    case 5: packet += 1; ordinal += 1;
      log.push({ type: "write", id: `${word}-${packet}`, name: "n", from: "c", turn: "1-0/c", n: ordinal, text: "w" });
  }
}
while (people.some((p) => p.said || p.replica.unsettled || p.read < log.length))
  for (const p of people) { deliver(p); read(p, 1e9); send(p); }
return [people.map((p) => p.replica.text), log];
"""


async def test_replicas_in_pages_end_with_the_text_that_python_folds(blank: Page) -> None:
    """People typing in pages: what their patches fold to here is what each of them sees there."""
    for seed in range(1, 41):
        texts, log = await run(blank, STORY, [to_builtins(OPENED), seed])
        here = Text()
        for entry in log:
            here.take(decode_entry(json.dumps(entry)))
        assert texts == [here.read()] * 3, seed


async def test_names_are_the_sessions_that_python_makes_of_them(blank: Page) -> None:
    names = ["main.py", "a b", "é-_😀"]
    assert await run(blank, "return arg.map((name) => documentSession('war', name))", names) == [document_session("war", n) for n in names]


@pytest.mark.parametrize(
    ("was", "now", "caret", "edit"),
    [
        ("abc", "abXc", 3, {"at": 2, "gone": 0, "insert": "X"}),
        ("aaa", "aaaa", 1, {"at": 0, "gone": 0, "insert": "a"}),
        ("aaa", "aaaa", 4, {"at": 3, "gone": 0, "insert": "a"}),
        ("aaaa", "aaa", 1, {"at": 1, "gone": 1, "insert": ""}),
        ("one two", "1 two", 1, {"at": 0, "gone": 3, "insert": "1"}),
        ("a😀b", "a😁b", 2, {"at": 1, "gone": 1, "insert": "😁"}),
    ],
)
async def test_what_was_typed_is_where_the_caret_is(blank: Page, was: str, now: str, caret: int, edit: dict[str, Any]) -> None:
    """Which of several equal letters was typed decides where it stands among what others type."""
    assert await run(blank, "return change(...arg)", [was, now, caret]) == edit


# ---- a textarea ----

OPEN = """
const { connect } = await import("/kit/widgets/session.js");
const area = Object.assign(document.createElement("textarea"), { rows: 12, cols: 60 });
document.body.replaceChildren(area);
const session = connect({ session: arg.session, url: arg.url, ticket: arg.ticket });
window.kit = { session, area, told: [], close: bind(session, area, {
  lost: (text) => window.kit.told.push(["lost", text]), problem: (reason) => reason && window.kit.told.push(["problem", reason]) }) };
"""


async def coder(history: History) -> AsyncIterator[AnyPacket]:
    for i in range(60):
        yield Write(name="main.py", text=f"line {i}\n")
        await asyncio.sleep(0.01)


async def open_document(page: Page, server: Server, site: str, name: str) -> None:
    """A page with the document in a textarea; its ticket is for the room, which is good for the room's documents."""
    await page.goto(f"{site}/tests/browser/blank.html")
    ticket = await server.door.ticket(Identity(name, "war", server.door.clock() + 60), "war", site)
    await run(page, OPEN, {"session": document_session("war", "main.py"), "url": server.url, "ticket": ticket})


async def test_two_pages_type_into_what_an_agent_writes(context: Any, site: str) -> None:
    """Both carets stay where they are, every key stands in all three replicas, and the agent's lines stay whole."""
    async with (
        serve({"coder": coder}, origins=[site]) as server,
        connect_document(server.url, session="war", name="main.py", token=server.token("tom")) as tom,
    ):
        ann, bob = await context.new_page(), await context.new_page()
        await open_document(ann, server, site, "ann")
        await open_document(bob, server, site, "bob")
        await server.instance.say("war", _prompt("go"), "tom")
        await tom.until(lambda text: "line 3\n" in text)
        for page in (ann, bob):
            await page.wait_for_function("kit.area.value.includes('line 2\\n')")
        await ann.evaluate("kit.area.focus(); kit.area.setSelectionRange(0, 0)")
        await ann.keyboard.type("# ann 😀 was here\n", delay=15)
        await bob.evaluate(
            "kit.area.focus(); kit.area.setSelectionRange(kit.area.value.indexOf('line 2'), kit.area.value.indexOf('line 2'))"
        )
        await bob.keyboard.type("# and bob\n", delay=15)
        whole = await tom.until(lambda text: "line 59\n" in text and "and bob\n" in text and "here\n" in text)
        for page in (ann, bob):
            await page.wait_for_function("text => kit.area.value === text", arg=whole)
            assert await page.evaluate("kit.told") == []
        assert whole.startswith("# ann 😀 was here\n")
        assert "# and bob\nline 2\n" in whole
        assert [line for line in whole.splitlines() if line.startswith("line")] == [f"line {i}" for i in range(60)]
        caret = "() => kit.area.value.slice(0, kit.area.selectionStart)"
        assert (await ann.evaluate(caret)) == "# ann 😀 was here\n"
        assert (await bob.evaluate(caret)).endswith("# and bob\n")
        for page in (ann, bob):
            await page.close()


async def test_what_is_typed_without_a_connection_arrives_later(context: Any, site: str) -> None:
    """The line is cut in mid-word, others type on; a reload right after the last key loses nothing that was under way."""
    async with (
        serve({"coder": coder}, origins=[site]) as server,
        connect_document(server.url, session="war", name="main.py", token=server.token("tom")) as tom,
    ):
        ann = await context.new_page()
        await open_document(ann, server, site, "ann")
        await server.instance.say("war", _prompt("go"), "tom")
        whole = await tom.until(lambda text: "line 59\n" in text)
        await ann.wait_for_function("text => kit.area.value === text", arg=whole)
        await ann.evaluate("kit.area.focus(); kit.area.setSelectionRange(4, 4)")
        await ann.keyboard.type("abc")
        await server.cut(document_session("war", "main.py"))
        tom.type(0, insert="tom ")
        await ann.keyboard.type("def")
        await tom.until(lambda text: text.startswith("tom lineabcdef 0"))
        await ann.wait_for_function("kit.area.value.startsWith('tom lineabcdef 0')")
        await ann.keyboard.type("!")
        await ann.reload()
        await open_document(ann, server, site, "ann")
        await ann.wait_for_function("kit.area.value.startsWith('tom lineabcdef! 0')")
        await ann.close()


def _prompt(text: str) -> Any:
    return new_ref(Prompt(text=text))
