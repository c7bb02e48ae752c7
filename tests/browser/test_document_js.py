"""document.js in Chromium: it folds as kit/document.py does, and a textarea bound to it keeps what is typed, and the caret."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import to_builtins
from playwright.async_api import Page

from kit.auth import Identity
from kit.document import Text, document_session
from kit.history import Agent, History
from kit.packets import MAX_WORD, AnyPacket, Prompt, Write, decode_entry, new_ref
from kit.replica import SharedDocument, connect_document
from kit.server import Server, serve
from tests.test_document import OPENED, STEPS, Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMPORT = """
const { Replica, documentSession } = await import("/kit/widgets/document.js");
const { bind, change } = await import("/kit/widgets/textarea.js");
"""


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
let [letter, word, packet, ordinal, reloads] = [0x1F300, 0, 1, 0, 0], typed = new Set();
const read = (p, n) => { for (const e of log.slice(p.read, p.read + n)) { p.replica.take(e); p.read += 1; } };
const send = (p) => { const sent = p.said ? null : p.replica.send(); if (sent) p.said = { type: "patch", ...sent, from: "a" }; };
const reload = (p) => { const left = JSON.parse(JSON.stringify(p.replica.left("log")));
  Object.assign(p, { replica: new Replica(left), read: 0, said: p.said && left?.sent ? { type: "patch", ...left.sent, from: "a" } : null });
  reloads += left?.sent && left.typed.length ? 1 : 0; };
const deliver = (p) => { if (!p.said) return;
  const prev = log[log.length - 1].id;
  if (!known.has(p.said.ref)) { known.add(p.said.ref); word += 1; packet = 0; log.push({ ...p.said, id: `${word}-0`, prev }); }
  p.said = null; };
for (let i = 0; i < 150; i++) {
  const p = people[draw(3)], text = Array.from(p.replica.text), at = draw(text.length + 1);
  switch (draw(7)) {
    case 0: case 1: { if (!p.replica.ready) break;
      const gone = Math.min(draw(3), text.length - at), new_ = Array.from({ length: draw(3) }, () => String.fromCodePoint(letter++));
      for (const letter of text.slice(at, at + gone)) typed.delete(letter);
      for (const letter of new_) typed.add(letter);
      p.replica.type(at, gone, new_.join("")); break; }
    case 2: send(p); break;
    case 3: deliver(p); break;
    case 4: read(p, draw(8)); break;
    case 6: if (!draw(3)) reload(p); break;
    case 5: packet += 1; ordinal += 1;
      log.push({ type: "write", id: `${word}-${packet}`, name: "n", from: "c", turn: "1-0/c", n: ordinal, text: "w" });
  }
}
while (people.some((p) => p.said || p.replica.unsettled || p.read < log.length))
  for (const p of people) { deliver(p); read(p, 1e9); send(p); }
return [people.map((p) => p.replica.text), log, [...typed], reloads];
"""


async def test_replicas_in_pages_end_with_the_text_that_python_folds(blank: Page) -> None:
    """People typing in pages that are reloaded: what is folded here is what all of them see, with each letter that nobody deleted."""
    reloads = 0
    for seed in range(1, 61):
        texts, log, typed, count = await run(blank, STORY, [to_builtins(OPENED), seed])
        here = Text()
        for entry in log:
            here.take(decode_entry(json.dumps(entry)))
        assert texts == [here.read()] * 3, seed
        assert sorted(letter for letter in texts[0] if letter != "w") == typed, seed
        reloads += count
    assert reloads > 40, "while a patch was under way and more had been typed"


PASTE = """
const replica = new Replica(), log = [arg.opened], sizes = [];
replica.take(arg.opened);
replica.type(0, 0, arg.paste);
replica.type(Array.from(arg.paste).length, 0, "typed behind it");
for (let word = 1; replica.unsettled; word++) {
  const sent = replica.send(), prev = log[log.length - 1].id;
  sizes.push(new TextEncoder().encode(JSON.stringify(sent)).length);
  log.push({ type: "patch", ...sent, from: "a", id: `${word}-0`, prev });
  replica.take(log[log.length - 1]);
}
return [replica.text, log, sizes];
"""


async def test_a_whole_file_is_pasted_in_several_words(blank: Page) -> None:
    """Each is one that the server takes, whatever its characters are; nothing is left out, and what is typed behind it comes after it."""
    paste = "".join(random.Random(5).choices("ab\x01\U0001f600\n", k=30_000))
    text, log, sizes = await run(blank, PASTE, {"opened": to_builtins(OPENED), "paste": paste})
    here = Text()
    for entry in log:
        here.take(decode_entry(json.dumps(entry)))
    assert text == here.read() == paste + "typed behind it"
    assert max(sizes) <= MAX_WORD


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


@asynccontextmanager
async def beside(context: Any, site: str, agent: Agent) -> AsyncIterator[tuple[Server, SharedDocument, Page]]:
    """A document that an agent begins to write, open to tom in a program and to ann in a page."""
    async with (
        serve({"coder": agent}, origins=[site]) as server,
        connect_document(server.url, session="war", name="main.py", token=server.token("tom")) as tom,
    ):
        ann = await context.new_page()
        await open_document(ann, server, site, "ann")
        await server.instance.say("war", _prompt("go"), "tom")
        yield server, tom, ann
        await ann.close()


async def windows(history: History) -> AsyncIterator[AnyPacket]:
    yield Write(name="main.py", text="one\r\ntwo\r\nthree\r\n")


async def test_a_text_with_carriage_returns_is_typed_into(context: Any, site: str) -> None:
    """A textarea holds none: each is shown by a sign, so that places stay places, and one key is one letter in the log."""
    async with beside(context, site, windows) as (_, tom, ann):
        await tom.until(lambda text: text.endswith("three\r\n"))
        await ann.wait_for_function("kit.area.value.endsWith('three\u240d\\n')")
        await ann.evaluate("kit.area.focus(); kit.area.setSelectionRange(6, 6)")
        await ann.keyboard.type("X")
        assert await tom.until(lambda text: "X" in text) == "one\r\ntXwo\r\nthree\r\n"
        tom.type(0, insert="zero\r\n")
        await ann.wait_for_function("kit.area.value.startsWith('zero\u240d\\none')")
        await tom.settled()
        assert tom.text == "zero\r\none\r\ntXwo\r\nthree\r\n"


async def test_what_is_typed_without_a_connection_arrives_later(context: Any, site: str) -> None:
    """The line is cut in mid-word, others type on; a reload right after the last key loses nothing that was under way."""
    async with beside(context, site, coder) as (server, tom, ann):
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


# ---- a page that goes away ----


class Held:
    """An instance that takes what ann says, and carries it out only when it is let."""

    def __init__(self, server: Server) -> None:
        self.let = asyncio.Event()
        self.waiting = asyncio.Event()
        self._say, server.instance.say = server.instance.say, self.say  # type: ignore[method-assign]  # this one instance's

    async def say(self, session: str, word: Any, name: str, *rest: Any, **more: Any) -> Any:
        if name == "ann":
            self.waiting.set()
            await self.let.wait()
        return await self._say(session, word, name, *rest, **more)


@asynccontextmanager
async def held(context: Any, site: str) -> AsyncIterator[tuple[Server, Held, SharedDocument, Page]]:
    """A document that the coder has written; tom, and ann's page, whose first patch `abc` is under way and stays there."""
    async with (
        serve({"coder": coder}, origins=[site]) as server,
        connect_document(server.url, session="war", name="main.py", token=server.token("tom")) as tom,
    ):
        await server.instance.say("war", _prompt("go"), "tom")
        whole = await tom.until(lambda text: "line 59\n" in text)
        hold, ann = Held(server), await context.new_page()
        await open_document(ann, server, site, "ann")
        await ann.wait_for_function("text => kit.area.value === text", arg=whole)
        await ann.evaluate("kit.area.focus(); kit.area.setSelectionRange(4, 4)")
        await ann.keyboard.type("abc")
        await hold.waiting.wait()
        try:
            yield server, hold, tom, ann
        finally:
            hold.let.set()
            await ann.close()


BEGINS = "text => kit.area.value.startsWith(text)"
LEFT = "Object.keys(localStorage).filter((key) => key.includes('typed:')).length"


async def test_a_reload_while_a_patch_is_under_way_loses_nothing(context: Any, site: str) -> None:
    """What was typed after it, in it and elsewhere, is there again at once, merged with what others wrote, and is said once."""
    async with held(context, site) as (server, hold, tom, ann):
        await ann.keyboard.type("def")
        await ann.evaluate("kit.area.setSelectionRange(5, 6)")
        await ann.keyboard.type("B😀")
        await ann.evaluate("kit.area.setSelectionRange(kit.area.value.length, kit.area.value.length)")
        await ann.keyboard.type("the end")
        tom.type(0, insert="tom ")
        await ann.reload()
        await open_document(ann, server, site, "ann")
        await ann.wait_for_function(BEGINS, arg="tom lineaB😀cdef 0")
        assert await ann.evaluate(f"[{LEFT}, kit.told]") == [0, []]
        assert tom.text.startswith("tom line 0"), "it is not said yet"
        await ann.evaluate("kit.area.focus(); kit.area.setSelectionRange(0, 0)")
        await ann.keyboard.type("!")
        hold.let.set()
        whole = await tom.until(lambda text: text.startswith("!tom lineaB😀cdef 0") and text.endswith("line 59\nthe end"))
        assert len(whole) == len("!tom aB😀cdefthe end") + sum(len(f"line {i}\n") for i in range(60))


async def test_two_windows_of_one_person_do_not_say_what_the_other_typed(context: Any, site: str) -> None:
    """One that is opened meanwhile leaves to the other what that one will say itself."""
    async with held(context, site) as (server, hold, tom, ann):
        await ann.keyboard.type("def")
        other = await context.new_page()
        await open_document(other, server, site, "ann")
        await other.wait_for_function("kit.area.value.endsWith('line 59\\n')")
        hold.let.set()
        whole = await tom.until(lambda text: text.startswith("lineabcdef 0"))
        for page in (ann, other):
            await page.wait_for_function("text => kit.area.value === text", arg=whole)
        await other.close()


HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.parametrize("returns", [True, False], ids=["and returns", "and is ended"])
async def test_a_window_that_is_hidden_leaves_what_it_typed_to_the_next(context: Any, site: str, returns: bool) -> None:
    """A phone ends hidden windows without a word. If it comes back after all, it says nothing that the other one says."""
    async with held(context, site) as (server, hold, tom, ann):
        await ann.keyboard.type("def")
        await ann.evaluate(HIDE, True)
        other = await context.new_page()
        await open_document(other, server, site, "ann")
        await other.wait_for_function(BEGINS, arg="lineabcdef 0")
        if returns:
            await ann.evaluate(HIDE, False)
            await ann.wait_for_function(BEGINS, arg="line 0")
        hold.let.set()
        whole = await tom.until(lambda text: text.startswith("lineabcdef 0"))
        assert len(whole) == len("abcdef") + sum(len(f"line {i}\n") for i in range(60))
        for page in (ann, other) if returns else (other,):
            await page.wait_for_function("text => kit.area.value === text", arg=whole)
        await other.close()


async def test_a_window_that_is_hidden_right_after_the_last_key_says_it(context: Any, site: str) -> None:
    """No frame is drawn in it, and the others do not wait until somebody looks at it again."""
    async with held(context, site) as (_, hold, tom, ann):
        await ann.keyboard.type("def")
        await ann.evaluate("window.requestAnimationFrame = () => 0")
        await ann.evaluate(HIDE, True)
        hold.let.set()
        await tom.until(lambda text: text.startswith("lineabcdef 0"))
        await ann.wait_for_function(f"{LEFT} === 0")
        await ann.evaluate(HIDE, False)


OTHER_LOG = """() => {
  for (const [key, text] of Object.entries(localStorage))
    if (key.includes("typed:")) localStorage[key] = JSON.stringify({ ...JSON.parse(text), log: "another" });
}"""


async def test_what_was_typed_into_a_log_that_is_gone_is_shown(context: Any, site: str) -> None:
    """It has no place any more, but it is not lost."""
    async with held(context, site) as (server, *_, ann):
        await ann.keyboard.type("def")
        await ann.reload()
        await ann.evaluate(OTHER_LOG)
        await open_document(ann, server, site, "ann")
        await ann.wait_for_function("kit.told.length === 1")
        assert await ann.evaluate("kit.told") == [["lost", "abcdef"]]


def _prompt(text: str) -> Any:
    return new_ref(Prompt(text=text))
