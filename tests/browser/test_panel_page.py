"""The panel in a plain page, in Chromium, against a server: what a person sees, types and keeps over cuts and reloads."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Page

from kit.packets import (
    Action,
    Answer,
    AnyPacket,
    Ask,
    Beat,
    CloseCode,
    Content,
    End,
    Prompt,
    Result,
    Stop,
    Thought,
    ToolResult,
    Typing,
    Write,
)
from tests.browser.conftest import OpenPage
from tests.browser.fake_server import FakeServer
from tests.browser.looks import LOOKS, assert_accessible, assert_readable, listen, put_on, spoken

pytestmark = pytest.mark.asyncio(loop_scope="session")

Scheme = Literal["light", "dark"]


def ref() -> str:
    return secrets.token_hex(12)


async def asks(server: FakeServer, session: str, text: str = "Go on") -> None:
    """Somebody else asks, so that a turn is open."""
    await server.hear(session, Prompt(text=text, ref=ref()), by="bob")


async def seen(page: Page, kind: str) -> list[str]:
    """The bodies of all items of a kind, in order."""
    return await page.locator(f".kit-{kind} > .kit-body").all_inner_texts()


async def until(page: Page, expression: str, arg: Any = None) -> None:
    await page.wait_for_function(expression, arg=arg)


SHOWS = "text => document.querySelector('.kit-log').innerText.includes(text)"


async def a_bit_of_everything(server: FakeServer, session: str) -> None:
    """A conversation with every kind of entry, its turn still open."""
    await asks(server, session, "Is it cold in Oslo?")
    await server.say(session, Content("It is. Shall I say how "))
    await server.hear(session, Stop(ref=ref()))
    await asks(server, session, "What should I wear in Oslo today? I go by bicycle.")
    await server.say(session, Thought("Wind and rain matter more than "), Thought("the temperature, so I look up both."))
    await server.say(
        session,
        Action(call="c1", name="weather", arguments={"city": "Oslo", "days": 1}, on="server"),
        ToolResult(call="c1", value={"temperature": 4, "wind": "9 m/s", "rain": "light"}),
        Content("It is 4 \u00b0C with light rain and a stiff wind. Take:\n1. a windproof shell, "),
        Content("not a heavy coat;\n2. thin gloves."),
        Action(call="c2", name="route", arguments={"to": "work"}, on="server"),
        ToolResult(call="c2", error="the map does not answer"),
        Action(call="c3", name="order_gloves", arguments={"size": "M", "price": 29.5}, on="approve"),
        Ask(call="c4", text="Which way do you take?", choices=["Along the river", "Through the town"]),
    )


# ---- what is drawn ----


async def test_thought_action_and_content_stand_in_order(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """The three kinds interleaved; a run of tokens is one item, and what came of an action stands with it."""
    page = await open_panel()
    await asks(server, session, "How warm is it in Oslo?")
    said: list[AnyPacket] = [
        Thought("I look "), Thought("it up."), Action(call="c", name="weather", arguments={"city": "Oslo"}, on="server"),
        ToolResult(call="c", value={"temperature": 4}), Content("It is "), Content("4 degrees."), Thought("Done?"), End(reason="done"),
    ]  # fmt: skip
    await server.say(session, *said)
    await until(page, SHOWS, "end: done")
    items = page.locator(".kit-item")
    words = [await items.nth(i).locator(".kit-head .kit-word").first.inner_text() for i in range(await items.count())]
    assert words == ["prompt", "thought", "action", "content", "thought", "end: done"]
    assert await seen(page, "thought") == ["I look it up.", "Done?"]
    assert await seen(page, "content") == ["It is 4 degrees."]
    action = (await seen(page, "action"))[0]
    assert 'weather(city="Oslo")' in action
    assert '{"temperature":4}' in action
    ids = await page.locator(".kit-head .kit-id").all_inner_texts()
    assert ids == ["1-0", "1-1 \u2026 1-2", "1-3", "1-5 \u2026 1-6", "1-7", "1-8"]


async def test_what_an_agent_says_is_text(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """Markup is inert, escapes are gone even when a packet's edge cuts them, and bidi overrides are marked."""
    page = await open_panel()
    evil = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><a href="javascript:window.pwned=1">x</a>'
    await asks(server, session, evil)
    await server.say(session, Content(f"{evil}\x1b[31mred\x1b"))
    await until(page, SHOWS, "red")  # drawn, with the beginning of an escape held back
    await server.say(
        session,
        Content("[0m plain \x1b]8;;http://evil\x1b\\link\x1b]8;;\x07 \u202etxt.exe\u202c \x07"),
        Action(call="c", name=evil, arguments={evil: evil}, on="approve"), Ask(call="d", text=evil, choices=[evil]),
        ToolResult(call="c", error=evil), End(reason="failed", text=evil),
    )  # fmt: skip
    await until(page, SHOWS, "end: failed")
    assert await page.evaluate("window.pwned") is None
    assert await page.locator(".kit a, .kit img, .kit script").count() == 0
    assert await seen(page, "content") == [f"{evil}red plain link \u27e8U+202E\u27e9txt.exe\u27e8U+202C\u27e9 \u2407"]
    assert await page.locator(".kit-content .kit-text").first.evaluate("e => getComputedStyle(e).unicodeBidi") == "plaintext"
    assert evil in await page.locator(".kit-note").inner_text()


async def test_a_long_text_keeps_its_lines(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """It is drawn in several blocks, cut at line breaks; none is lost and none added."""
    page = await open_panel()
    await asks(server, session)
    text = "".join(f"line {i}" + (", " if i % 3 == 0 else "\n\n" if i % 7 == 0 else "\n") for i in range(1, 800)) + "end"
    for start in range(0, len(text), 37):
        await server.say(session, Content(text[start : start + 37]))
    await until(page, SHOWS, "end")
    blocks = page.locator(".kit-content .kit-block")
    assert await blocks.count() > 5
    assert "\n".join([await blocks.nth(i).evaluate("e => e.textContent") for i in range(await blocks.count())]) == text


async def test_a_program_that_is_to_be_approved_can_be_read(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """An argument of several lines stands there as it is, and not as one line of escapes; what hides in it is marked all the same."""
    page = await open_panel()
    await asks(server, session)
    program = 'def f():\n    return "a"  # \u202e\n'
    await server.say(session, Action(call="c", name="run", arguments={"main.py": program, "n": "1"}, on="approve"))
    await until(page, SHOWS, "run(")
    assert await page.locator(".kit-call").inner_text() == 'run(main.py=\ndef f():\n    return "a"  # \u27e8U+202E\u27e9\n, n="1")'


# ---- what a person does ----


async def test_a_session_by_keyboard_alone(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """Ask, answer, approve, edit and stop without a pointer."""
    page = await open_panel()
    press, write = page.keyboard.press, page.keyboard.type
    await page.locator(".kit textarea").focus()
    await write("One")
    await press("Shift+Enter")
    await write("two")
    await press("Enter")
    log = await server.wait_for(session, lambda log: len(log.entries) == 1)
    assert isinstance(log.entries[0], Prompt)
    assert log.entries[0].text == "One\ntwo"
    ask = Ask(call="a", text="Which?", choices=["left", "right"])
    await server.say(session, ask, Action(call="b", name="buy", arguments={}, on="approve"))
    await until(page, SHOWS, "buy()")
    for _ in range(6):  # from the prompt box back over Decline, Approve, Answer and its input to the second choice
        await press("Shift+Tab")
        if await page.evaluate("document.activeElement.textContent") == "right":
            break
    await press("Enter")
    await server.wait_for(session, lambda log: log.last.epoch == 2)
    await page.get_by_role("button", name="Approve").focus()
    await press("Space")
    log = await server.wait_for(session, lambda log: log.last.epoch == 3)
    assert [(e.call, e.text) for e in log.entries if isinstance(e, Answer)] == [("a", "right"), ("b", "yes")]
    await until(page, "document.querySelectorAll('.kit-choices, .kit-answer').length === 0")
    await page.get_by_role("button", name="Edit").focus()
    await press("Enter")
    assert await page.locator(".kit textarea").input_value() == "One\ntwo"
    await press("Control+A")
    await write("Three")
    await press("Enter")
    await until(page, SHOWS, "end: replaced")
    await page.get_by_role("button", name="Stop").focus()
    await press("Enter")
    await until(page, SHOWS, "end: stopped")
    assert await page.get_by_role("button", name="Stop").is_disabled()


async def test_an_action_for_the_page_is_claimed_and_run_by_one(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """Two pages see it; one runs it, both show the result. What a page does not know it leaves alone."""
    pages = [await open_panel(), await open_panel()]
    await asks(server, session)
    calls = [Action(call=name, name=name, arguments={"theme": "dark"}, on="client") for name in ("set_theme", "unknown")]
    await server.say(session, *calls)
    log = await server.wait_for(session, lambda log: any(isinstance(e, Result) for e in log.entries))
    for page in pages:
        await until(page, SHOWS, '{"theme":"dark"}')
    results = [e for e in log.entries if isinstance(e, Result)]
    assert [(r.call, r.value) for r in results] == [("set_theme", {"theme": "dark"})]
    themes = [await page.locator(".kit").get_attribute("data-theme") for page in pages]
    assert sorted(themes, key=str) == [None, "dark"] or themes == ["dark", None]
    page = pages[themes.index("dark")]
    await page.reload()
    await until(page, SHOWS, '{"theme":"dark"}')
    assert await page.locator(".kit").get_attribute("data-theme") == "dark"


async def test_a_page_can_register_actions(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """What the function returns is the result, and what it throws the error, in words."""
    page = await open_panel()
    await page.evaluate("""() => {
        const { functions } = document.querySelector(".kit").kit.actions;
        functions.set("double", ({ x }) => 2 * x);
        functions.set("fail", async () => { throw new Error("no such thing"); });
    }""")
    await asks(server, session)
    await server.say(session, *[Action(call=name, name=name, arguments={"x": 21}, on="client") for name in ("double", "fail")])
    log = await server.wait_for(session, lambda log: sum(isinstance(e, Result) for e in log.entries) == 2)
    results = {e.call: e for e in log.entries if isinstance(e, Result)}
    assert results["double"].value == 42
    assert results["fail"].error == "no such thing"


async def test_a_claimed_action_survives_a_reload(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """The page claimed it and was reloaded before its result: the same tab runs it again, and another does not."""
    page, other = await open_panel(), await open_panel()
    register = "f => document.querySelector('.kit').kit.actions.functions.set('slow', f ? () => 'done' : () => new Promise(() => {}))"
    await page.evaluate(register, False)
    await asks(server, session)
    await server.say(session, Action(call="c", name="slow", arguments={}, on="client"))
    await server.wait_for(session, lambda log: log.last.epoch == 2)
    await page.reload()
    for tab in (other, page):
        await tab.wait_for_selector(".kit-action")
        await tab.evaluate(register, True)
        await tab.evaluate("document.querySelector('.kit').kit.actions.look()")
    log = await server.wait_for(session, lambda log: isinstance(log.entries[-1], Result))
    assert [(e.call, e.value) for e in log.entries if isinstance(e, Result)] == [("c", "done")]
    assert server.log(session).last.epoch == 3


async def test_typing_is_told_to_the_others(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """Once as it begins, around the log."""
    page, other = await open_panel(), await open_panel()
    await page.locator(".kit textarea").press_sequentially("abc")
    await until(other, "document.querySelector('.kit-note').textContent === 'ann is typing'")
    assert server.log(session).entries == []


async def test_a_prompt_that_is_refused_comes_back(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """With the reason, which stays, whoever types or stops typing; what was typed meanwhile is not written over."""
    page = await open_panel()
    box = page.locator(".kit textarea")
    text = "x" * 70_000
    await box.fill(text)
    await box.press("Enter")
    await until(page, "document.querySelector('.kit-note').textContent.startsWith('Refused: a word has at most')")
    assert await box.input_value() == text
    await server.beside(session, Typing(on=False, from_="ann"))
    await server.beside(session, Beat())
    await asks(server, session)  # what came before it has been heard
    await until(page, SHOWS, "Go on")
    await box.fill("shorter")
    await box.press("Enter")
    await until(page, SHOWS, "shorter")
    assert await box.input_value() == ""


async def test_the_key_that_ends_a_composition_sends_nothing(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """WebKit tells of it when the composition is over: then only its code (229) says what it was."""
    page = await open_panel()
    await page.locator(".kit textarea").fill("\u3053\u3093\u306b\u3061\u306f")
    key = "new KeyboardEvent('keydown', { key: 'Enter', keyCode: code, bubbles: true })"
    press = f"code => document.querySelector('.kit textarea').dispatchEvent({key})"
    await page.evaluate(press, 229)
    assert await page.locator(".kit textarea").input_value() != ""
    await page.evaluate(press, 13)
    assert await page.locator(".kit textarea").input_value() == ""


async def test_a_document_whose_beginning_is_not_kept_has_its_box(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """Or was never said: an agent may write without opening one."""
    await asks(server, session)
    await server.say(session, Write(name="notes", text="x"))
    page = await open_panel()
    await page.wait_for_selector(".kit-sheet textarea[aria-label='Document notes']")


# ---- cuts and reloads ----


async def test_exactly_once_over_cuts_and_reloads(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """300 tokens, cut at random points with and without a close frame, and two reloads: all there, once, in order."""
    page = await open_panel()
    await asks(server, session)
    chance = random.Random(7)
    for i in range(1, 301):
        await server.say(session, Content(f"{i} "))
        if chance.random() < 0.05:
            before = len(server.visits)
            await server.cut(session, code=chance.choice([None, CloseCode.GOING_AWAY, CloseCode.RESTART]))
            if chance.random() < 0.7:  # else the agent goes on while nobody is there
                await server.wait_for_visits(before + 1)
        if i in (110, 220):
            await page.reload()
    await server.say(session, End(reason="done"))
    await until(page, SHOWS, "end: done")
    assert "".join(await seen(page, "content")).split() == [str(i) for i in range(1, 301)]
    assert len([v for v in server.visits if v.after]) >= 5


async def test_a_word_whose_receipt_is_lost_is_applied_once(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """The connection dies between the word and its receipt: it is repeated, and the log holds it once."""
    page = await open_panel()
    server.drop_receipts = 2
    await page.locator(".kit textarea").fill("Only once")
    await page.keyboard.press("Enter")
    await until(page, "document.querySelector('.kit').kit.session.unsettled === 0")
    assert len(server.visits) == 3
    assert [e.text for e in server.log(session).entries if isinstance(e, Prompt)] == ["Only once"]
    assert await seen(page, "prompt") == ["Only once"]


async def test_a_word_said_without_a_connection_survives_a_reload(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """It is kept, the note says so, and the reloaded page sends it."""
    page = await open_panel()
    server.refuse_next = 1_000
    await server.cut(session)
    await until(page, "document.querySelector('.kit-state').textContent.startsWith('reconnecting in')")
    await page.locator(".kit textarea").fill("Still here")
    await page.keyboard.press("Enter")
    assert "Kept" in await page.locator(".kit-note").inner_text()
    await page.reload()
    server.refuse_next = 0
    await until(page, SHOWS, "Still here")
    assert len(server.log(session).entries) == 1


async def test_a_trimmed_log_is_told_and_drawn_anew(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """What is gone is not shown as if it were there; the state says gap and from where."""
    page = await open_panel()
    await asks(server, session, "first")
    await server.say(session, Content("one"), End(reason="done"))
    await until(page, SHOWS, "end: done")
    server.refuse_next = 1_000
    await server.cut(session)
    await asks(server, session, "second")
    await server.say(session, End(reason="done"))
    await asks(server, session, "third")
    server.trim(session, "3-0")
    server.refuse_next = 0
    await until(page, SHOWS, "third")
    assert await seen(page, "prompt") == ["third"]
    assert await page.locator(".kit-state").inner_text() == "gap: trimmed; shown from after 2-1"


async def test_an_expired_ticket_is_replaced(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """4401 asks for a new one; so do tickets that are all worth nothing."""
    page = await open_panel()
    for code in (CloseCode.EXPIRED, None):
        server.spend_tickets()
        before = len(server.visits)
        await server.cut(session, code)
        await server.wait_for_visits(before + 1)
        await until(page, "document.querySelector('.kit-state').dataset.phase === 'open'")


async def test_two_pages_share_a_session_over_reloads(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """They share one storage, so both may spend the same ticket; the one that is refused gets another."""
    pages = [await open_panel(), await open_panel()]
    await asks(server, session)
    await asyncio.gather(*[page.reload() for page in pages])
    await server.say(session, Content("for both"))
    for page in pages:
        await until(page, SHOWS, "for both")
        assert await seen(page, "content") == ["for both"]


async def test_unmounting_leaves_nothing(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """The clean-up that `mount` returns closes the socket and empties the host."""
    page = await open_panel()
    await page.evaluate("window.unmount()")
    assert await page.locator("#host > *").count() == 0
    await asyncio.wait_for(server.visits[0].socket.wait_closed(), 5)


# ---- speed and looks ----


@pytest.mark.parametrize(("lab", "scheme", "width"), LOOKS)
async def test_it_can_be_read(
    server: FakeServer, session: str, open_panel: OpenPage, tmp_path: Path, lab: str | None, scheme: Scheme, width: int
) -> None:
    """On a plain page and with JupyterLab's themes, whatever the system prefers. A screenshot of each is kept to be looked at."""
    page = await open_panel()
    await put_on(page, lab, scheme, width)
    await a_bit_of_everything(server, session)
    await until(page, SHOWS, "Which way")
    await page.evaluate("document.querySelector('.kit-scroll').style.height = '640px'")
    await page.screenshot(path=tmp_path / f"panel-{lab or 'page'}-{scheme}-{width}.png")
    await assert_readable(page, texts=30)
    await assert_accessible(page)


async def test_an_answer_is_not_read_aloud_token_by_token(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """Whoever listens goes to the transcript; told are the end, and what becomes of the connection."""
    page = await open_panel()
    await asks(server, session)
    await until(page, SHOWS, "Go on")
    await listen(page)
    for i in range(200):
        await server.say(session, Content(f"{i} "))
    await until(page, SHOWS, " 199")
    assert await spoken(page) == []
    await server.say(session, End(reason="done"))
    await until(page, SHOWS, "end: done")
    assert await spoken(page) == ["scripted is done"]


async def test_every_state_has_a_sign_of_its_own(open_panel: OpenPage) -> None:
    """Colour is never all that tells two apart."""
    page = await open_panel()
    signs = await page.evaluate("""() => ["connecting", "open", "gap", "waiting", "closed"].map((phase) => {
        document.querySelector(".kit-state").dataset.phase = phase;
        return getComputedStyle(document.querySelector(".kit-state"), "::before").content;
    })""")
    assert len({*signs}) == 5


async def test_keys_stay_in_the_panel(server: FakeServer, session: str, open_panel: OpenPage) -> None:
    """JupyterLab takes keys before the page does, unless the focused element itself says no: `dd` on a button deletes the cell."""
    page = await open_panel()
    await a_bit_of_everything(server, session)
    await until(page, SHOWS, "Which way")
    assert await page.locator(".kit :is(button, input, textarea, select, [tabindex])").count() == 12
    assert await page.locator(".kit :is(button, input, textarea, select, [tabindex]):not([data-lm-suppress-shortcuts])").count() == 0


@pytest.mark.parametrize("lines", ["one line", "many lines"])
async def test_two_thousand_tokens_at_a_thousand_a_second(server: FakeServer, session: str, open_panel: OpenPage, lines: str) -> None:
    """All are drawn, once; how late the last one is and the longest task of the page are printed."""
    page = await open_panel()
    await asks(server, session)
    await page.evaluate("""() => {
        window.tasks = [];
        new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: "longtask" });
        const log = document.querySelector(".kit-log");
        window.visible = new Promise((done) => {
            const text = () => log.querySelector(".kit-content")?.lastElementChild.lastElementChild.textContent ?? "";
            const look = () => (text().endsWith("2000 ") ? done(Date.now()) : requestAnimationFrame(look));
            look();
        });
    }""")
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for i in range(1, 2001):
        await asyncio.sleep(max(0.0, begin + i / 1000 - loop.time()))
        await server.say(session, Content(f"{i}\n" if lines == "many lines" and i % 12 == 0 else f"{i} "))
    last_sent = time.time() * 1000  # the browser's Date.now() reads the same clock
    took = loop.time() - begin
    lag = await page.evaluate("window.visible") - last_sent
    tasks = await page.evaluate("window.tasks")
    print(f"\n2,000 tokens in {took:.2f} s ({lines}): last sent to last visible {lag:.0f} ms, longest task {max(tasks, default=0):.0f} ms")
    assert "".join(await seen(page, "content")).split() == [str(i) for i in range(1, 2001)]
