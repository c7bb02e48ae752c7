"""session.js by itself, in Chromium: time, chance and the network are the test's, so that every case happens exactly once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from playwright.async_api import Page

from kit.client import Backoff
from kit.packets import Answer, Claim, Edit, Prompt, Result, Stop, Typing
from kit.said import decode_said

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETUP = """
const { connect } = await import("/kit/widgets/session.js");
const { World, entries, handed } = await import("/tests/browser/fakes.js");
const world = new World();
"""


async def run(page: Page, script: str) -> Any:
    """Run a script with a fake world; what it returns."""
    return await page.evaluate(f"async () => {{ {SETUP} {script} }}")


# ---- exactly once ----


async def test_it_hands_on_each_entry_once_and_drops_what_it_had(blank: Page) -> None:
    """A server that repeats the log after a reconnect doubles nothing."""
    seen = await run(
        blank,
        """
        const session = connect(world.options()), seen = handed(session);
        await world.pass(0);
        world.socket.hello();
        world.socket.say(...entries(2));
        world.socket.end();
        await world.pass(0);
        const asked = new URL(world.socket.url).search;
        world.socket.hello({ after: "1-2", status: "resumed" });
        world.socket.say(...entries(4));
        return [asked, seen, session.state.words];
        """,
    )
    assert seen == ["?after=1-2&log=log1", ["clear all", "1-0", "1-1", "1-2", "1-3", "1-4"], "resumed after 1-2"]


async def test_a_broken_chain_is_dialled_anew_with_the_cursor(blank: Page) -> None:
    """An entry that is not the successor is not handed on: `e-n` follows `e-(n-1)` and `e-0` follows its `prev`."""
    asked = await run(
        blank,
        """
        const session = connect(world.options()), seen = handed(session);
        await world.pass(0);
        world.socket.hello();
        world.socket.say(...entries(1), entries(3)[3]);
        await world.pass(0);
        const first = [world.sockets.length, world.socket.url, world.sockets[0].closed];
        world.socket.hello({ after: "1-1", status: "resumed" });
        world.socket.say({ type: "stop", id: "2-0", prev: "1-2", from: "ann", ref: "r2" });
        await world.pass(1000);
        return [...first, world.sockets.length, seen];
        """,
    )
    assert asked == [2, "ws://fake/s/demo?after=1-1&log=log1", True, 3, ["clear all", "1-0", "1-1"]]


async def test_a_gap_starts_over(blank: Page) -> None:
    """What was drawn is forgotten, and the words say why; at a hello as in the midst of a connection."""
    assert await run(
        blank,
        """
        const session = connect(world.options()), seen = handed(session);
        await world.pass(0);
        world.socket.hello({ after: "4-2", head: "5-0", status: "gap", reason: "trimmed" });
        const at_hello = session.state.words;
        world.socket.say({ type: "prompt", id: "5-0", prev: "4-2", from: "ann", ref: "r", text: "hi" });
        world.socket.say({ type: "gap", log: "log2", after: "0-0", reason: "lost" });
        world.socket.say(...entries(0));
        return [at_hello, session.state.words, session.log, session.head, seen];
        """,
    ) == [
        "gap: trimmed; shown from after 4-2",
        "gap: lost; shown from after 0-0",
        "log2",
        "0-0",  # the hello knew the head of the other log; by it, an action here would be taken for one of long ago
        ["clear trimmed", "5-0", "clear lost", "1-0"],
    ]


async def test_a_reloaded_page_reads_everything_and_one_that_kept_its_entries_the_rest(blank: Page) -> None:
    """The cursor is kept for pages that say `resume`; an empty page asks for the whole log."""
    assert await run(
        blank,
        """
        const first = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        world.socket.say(...entries(3));
        first.close();
        connect(world.options()), connect(world.options({ resume: true }));
        await world.pass(0);
        return world.sockets.slice(1).map((socket) => new URL(socket.url).search);
        """,
    ) == ["", "?after=1-3&log=log1"]


# ---- backoff ----


class Half(random.Random):
    """Chance that throws the middle, as the fakes' does."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


async def test_the_first_try_is_at_once_and_the_rest_with_full_jitter(blank: Page) -> None:
    """Random times min(15 s, 0.5 s x 2^n), as kit/client.py has it."""
    delays = await run(
        blank,
        """
        world.meet = (socket) => socket.end();
        connect(world.options());
        await world.pass(200_000);
        return world.sockets.slice(1).map((socket, i) => socket.at - world.sockets[i].at);
        """,
    )
    assert delays[:10] == [0, 250, 500, 1000, 2000, 4000, 7500, 7500, 7500, 7500]
    backoff = Backoff(rng=Half())
    assert delays[:10] == [1000 * backoff.next() for _ in range(10)]


async def test_a_server_that_accepts_and_closes_causes_no_storm(blank: Page) -> None:
    """A handshake, even with a hello, is no sign of life that would reset the delay."""
    dialled = await run(
        blank,
        """
        world.meet = (socket) => { socket.hello(); socket.end(); };
        connect(world.options());
        await world.pass(60_000);
        return world.sockets.length;
        """,
    )
    assert dialled <= 15


async def test_a_gap_at_every_hello_causes_no_storm(blank: Page) -> None:
    """The same entries again are no progress."""
    dialled = await run(
        blank,
        """
        world.meet = (socket) => { socket.hello({ status: "gap", reason: "lost" }); socket.say(...entries(1)); socket.end(); };
        connect(world.options());
        await world.pass(60_000);
        return world.sockets.length;
        """,
    )
    assert dialled <= 15


@pytest.mark.parametrize(
    ("life", "delay"),
    [("world.socket.say(...entries(0));", 0), ("await world.pass(5000);", 0), ("await world.pass(4000);", 2000)],
    ids=["an entry", "five seconds", "four seconds"],
)
async def test_the_first_entry_or_five_seconds_of_calm_reset_the_delay(blank: Page, life: str, delay: int) -> None:
    """A handshake does not, nor do four seconds."""
    waited = await run(
        blank,
        f"""
            connect(world.options());
            for (let i = 0; i < 5; i++) {{ await world.pass(i && 4000); if (i < 4) world.socket.end(); }}
            world.socket.hello();
            {life}
            const lost = world.now, before = world.sockets.length;
            world.socket.end();
            await world.pass(60_000);
            return world.sockets[before].at - lost;
        """,
    )
    assert waited == delay


async def test_silence_is_a_lost_connection(blank: Page) -> None:
    """Without a frame for 25 s the page dials anew; any frame, such as a beat, counts."""
    assert await run(
        blank,
        """
        connect(world.options());
        await world.pass(0);
        world.socket.hello();
        await world.pass(20_000);
        world.socket.say({ type: "beat" });
        await world.pass(24_000);
        const before = world.sockets.length;
        await world.pass(2_000);
        return [before, world.sockets.length, world.sockets[1].at, world.sockets[0].closed];
        """,
    ) == [1, 2, 45_000, True]


async def test_a_page_that_is_looked_at_again_does_not_wait(blank: Page) -> None:
    """The network came back: the delay is not sat out."""
    assert (
        await run(
            blank,
            """
        world.meet = (socket) => socket.end();
        connect(world.options());
        await world.pass(20_000);
        const before = world.sockets.length;
        world.meet = () => {};
        dispatchEvent(new Event("online"));
        await world.pass(0);
        return world.sockets.length - before;
        """,
        )
        == 1
    )


# ---- close codes and tickets ----


async def test_the_delay_of_a_restart_is_honoured(blank: Page) -> None:
    """1012 with a reason: that many ms, and the words say so."""
    assert await run(
        blank,
        """
        const session = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        world.socket.end(1012, "1200");
        const words = session.state.words;
        await world.pass(1199);
        const before = world.sockets.length;
        await world.pass(1);
        return [words, before, world.sockets.length];
        """,
    ) == ["the instance restarts: reconnecting in 1.2 s", 1, 2]


async def test_a_delay_that_is_named_is_bounded(blank: Page) -> None:
    """An hour is a minute; less than a slot, or no number, is this page's own delay, which grows: no server is dialled without end."""
    assert await run(
        blank,
        """
        const waited = [];
        for (const reason of ["3600000", "99", "0", "1200 ms", "-5", "9".repeat(120)]) {
          world.meet = (socket) => { socket.hello(); socket.end(1012, reason); };
          const from = world.sockets.length;
          const session = connect(world.options());
          await world.pass(100_000);
          session.close();
          waited.push(world.sockets[from + 1].at - world.sockets[from].at, world.sockets.length - from);
        }
        return waited;
        """,
    ) == [60_000, 2, *[0, 19] * 5]


async def test_flooding_slows_down_and_says_so(blank: Page) -> None:
    """4408: a real delay, and fewer words under way at a time."""
    assert await run(
        blank,
        """
        const session = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        for (let i = 0; i < 40; i++) session.prompt(`${i}`);
        const before = world.socket.sent.length;
        world.socket.end(4408);
        const words = session.state.words;
        await world.pass(10_000);
        world.socket.hello();
        const after = world.socket.sent.length;
        world.socket.say({ type: "receipt", ref: world.socket.sent[0].ref, status: "applied", id: "1-0" });
        return [words, before, after, world.socket.sent.length, world.socket.sent.map((word) => word.text).slice(0, 3)];
        """,
    ) == ["told to slow down: reconnecting in 1.0 s", 32, 16, 17, ["0", "1", "2"]]


async def test_expired_credentials_are_replaced(blank: Page) -> None:
    """4401: the ticket in hand is as old as the credentials, so a new one is asked for."""
    assert await run(
        blank,
        """
        let asked = 0;
        connect(world.options({ ticket: "t0", getTicket: () => `fresh${++asked}` }));
        await world.pass(0);
        world.socket.hello({ ticket: "t1" });
        world.socket.end(4401);
        await world.pass(0);
        return [world.sockets.map((socket) => socket.protocols[1]), asked, world.storage.getItem("kit:demo:ticket")];
        """,
    ) == [["ticket.t0", "ticket.fresh1"], 1, None]


async def test_expiry_at_once_causes_no_storm(blank: Page) -> None:
    """Fresh tickets that expire at once are asked for at the backoff's pace."""
    assert await run(
        blank,
        """
        let asked = 0;
        world.meet = (socket) => { socket.hello(); socket.end(4401); };
        connect(world.options({ getTicket: () => `fresh${++asked}` }));
        await world.pass(60_000);
        return asked <= 15 && world.sockets.length <= 15;
        """,
    )


async def test_a_refused_ticket_is_tried_twice_and_then_replaced(blank: Page) -> None:
    """A refusal before 101 is only 1006 to a page: once may be a restart, twice a ticket that was spent."""
    assert await run(
        blank,
        """
        world.meet = (socket) => (socket.protocols[1] === "ticket.new" ? socket.hello({ ticket: "next" }) : socket.end());
        world.storage.setItem("kit:demo:ticket", "old");
        connect(world.options({ getTicket: () => "new" }));
        await world.pass(2_000);
        return [world.sockets.map((socket) => socket.protocols[1]), world.storage.getItem("kit:demo:ticket")];
        """,
    ) == [["ticket.old", "ticket.old", "ticket.new"], "next"]


async def test_a_busy_kernel_does_not_keep_the_page_from_trying(blank: Page) -> None:
    """While a ticket is on its way the old one is tried on, for the refusals may have been a server that was down."""
    assert (
        await run(
            blank,
            """
        connect(world.options({ ticket: "old", getTicket: () => new Promise(() => {}) }));
        world.meet = (socket) => { if (world.now < 5_000) socket.end(); else socket.hello(); };
        await world.pass(10_000);
        return world.socket.protocols[1];
        """,
        )
        == "ticket.old"
    )


async def test_ways_are_tried_in_order_and_the_kernel_last(blank: Page) -> None:
    """Without a ticket that is surely new the kernel's way is left out: behind a stale one the better way would be missed."""
    assert await run(
        blank,
        """
        const tried = [];
        const way = (name, works, kernel) => ({ name, kernel, open: (query, protocols) => {
          tried.push(`${name} ${protocols[1]}`);
          const socket = new (world.options().WebSocket)(`ws://${name}`, protocols);
          queueMicrotask(() => (works ? socket.hello() : socket.end()));
          return socket;
        } });
        world.storage.setItem("kit:demo:ticket", "old");
        const session = connect(world.options({ ways: [way("direct"), way("proxy"), way("kernel", true, true)], getTicket: () => "new" }));
        await world.pass(2_000);
        return [tried, session.state.words];
        """,
    ) == [
        [*["direct ticket.old", "proxy ticket.old"] * 2, "direct ticket.new", "proxy ticket.new", "kernel ticket.new"],
        "connected kernel",
    ]


async def test_a_way_that_worked_once_is_given_up(blank: Page) -> None:
    """It comes first on the next page; when it fails with a new ticket, the others have their turn."""
    assert await run(
        blank,
        """
        const way = (name, works) => ({ name, open: (query, protocols) => {
          const socket = new (world.options().WebSocket)(`ws://${name}`, protocols);
          queueMicrotask(() => (works ? socket.hello() : socket.end()));
          return socket;
        } });
        world.storage.setItem("kit:demo:ticket", "old");
        world.storage.setItem("kit:demo:way", "proxy");
        connect(world.options({ ways: [way("direct", true), way("proxy", false)], getTicket: () => "new" }));
        await world.pass(5_000);
        return [world.sockets.map((socket) => new URL(socket.url).host), world.storage.getItem("kit:demo:way")];
        """,
    ) == [["proxy", "proxy", "direct"], "direct"]


# ---- words ----


async def test_a_word_without_receipt_is_repeated_with_the_same_ref(blank: Page) -> None:
    """Over a reconnect and over a reload; its promise brings the receipt, and then it is not said again."""
    assert await run(
        blank,
        """
        const session = connect(world.options());
        const receipt = session.prompt("hello");
        await world.pass(0);
        world.socket.hello();
        world.socket.end();
        await world.pass(0);
        world.socket.hello();
        session.close();
        const reloaded = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        const [a, b, c] = world.sockets.map((socket) => socket.sent[0]);
        world.socket.say({ type: "receipt", ref: c.ref, status: "duplicate", id: "1-0", was: "applied" });
        reloaded.close();
        connect(world.options());
        await world.pass(0);
        world.socket.hello();
        return [a.text, a.ref.length, a.ref === b.ref && b.ref === c.ref, world.socket.sent];
        """,
    ) == ["hello", 24, True, []]


async def test_what_was_said_to_one_kernel_is_not_said_to_another(blank: Page) -> None:
    """Two notebooks share the browser's storage, and both call their session `demo`: only the log tells which one a word was meant for."""
    said = await run(
        blank,
        """
        const first = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        world.socket.end(); // its kernel is gone
        first.prompt("for the first");
        first.close();
        const told = [];
        for (const log of ["log2", "log1"]) {
          const session = connect(world.options());
          session.prompt("for whoever is here");
          await world.pass(0);
          world.socket.hello({ log });
          told.push(world.socket.sent.map((word) => word.text));
          for (const word of world.socket.sent) world.socket.say({ type: "receipt", ref: word.ref, status: "applied", id: "1-0" });
          session.close();
        }
        return told;
        """,
    )
    assert said == [["for whoever is here"], ["for the first", "for whoever is here"]]


async def test_each_word_has_the_fields_of_the_protocol(blank: Page) -> None:
    """What `kit.said` reads is what is written: no field too many."""
    sent = await run(
        blank,
        """
        const session = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        session.prompt("a"); session.prompt("a", "bob"); session.stop(); session.stop("1-0/a"); session.edit("1-0/a", "b");
        session.answer("c", "yes"); session.claim("c"); session.result("c", { value: 1 }); session.result("c", { error: "no" });
        session.typing(true); session.prompt("half \\ud83d pair");
        return world.socket.sent.map((word) => JSON.stringify(word));
        """,
    )
    said = [decode_said(frame) for frame in sent]
    kinds = [type(word) for word in said]
    assert kinds == [Prompt, Prompt, Stop, Stop, Edit, Answer, Claim, Result, Result, Typing, Prompt]
    assert isinstance(said[-1], Prompt)
    assert said[-1].text == "half \ufffd pair"


async def test_a_word_that_is_too_large_is_refused_here(blank: Page) -> None:
    """The server would answer with an `error`, which names no word, and the word would be repeated for ever."""
    assert await run(
        blank,
        """
        const session = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        const receipt = await session.prompt("x".repeat(60 * 1024));
        const alone = session.prompt("odd");
        world.socket.say({ type: "error", code: "bad_field", text: "no such thing", at: "text" });
        return [receipt.status, world.socket.sent.length, (await alone).reason, session.unsettled];
        """,
    ) == ["refused", 1, "no such thing", 0]


async def test_an_error_is_about_the_oldest_word_under_way(blank: Page) -> None:
    """It names none, and frames are answered in order; a word that nobody settles would be repeated for ever."""
    assert await run(
        blank,
        """
        const session = connect(world.options()), told = [];
        await world.pass(0);
        world.socket.hello();
        for (const text of ["odd", "even"]) session.prompt(text).then(({ status }) => told.push(`${text} ${status}`));
        world.socket.say({ type: "error", code: "bad_field", text: "no such thing", at: "text" });
        world.socket.say({ type: "receipt", ref: world.socket.sent[1].ref, status: "applied", id: "1-0" });
        await world.pass(0);
        return [told, session.unsettled];
        """,
    ) == [["odd refused", "even applied"], 0]


async def test_a_claim_of_an_earlier_page_is_not_repeated(blank: Page) -> None:
    """It may have been applied, and then the log says so; repeated beside a new claim, one would win for a page that is gone."""
    assert await run(
        blank,
        """
        const first = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        for (const word of [first.claim("c"), first.prompt("hi")]) word.catch(() => {});
        first.close();
        const second = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        return [world.socket.sent.map((word) => word.type), second.unsettled];
        """,
    ) == [["prompt"], 1]


async def test_a_page_that_stays_open_has_a_ticket_that_is_good(blank: Page) -> None:
    """Each hello brings one for an hour. Later a page whose kernel is busy could not come back, so it takes a new one in time."""
    assert await run(
        blank,
        """
        const session = connect(world.options());
        await world.pass(0);
        world.socket.hello({ after: "0-0", head: "0-0" });
        world.socket.say(...entries(0));
        for (let i = 0; i < 50 * 6 - 1; i++) {
          await world.pass(10_000);
          world.socket.say({ type: "beat" });
        }
        const before = world.sockets.length;
        await world.pass(11_000);
        return [before, world.sockets.length, world.socket.url.includes("after=1-0")];
        """,
    ) == [1, 2, True]


# ---- what is folded ----


async def test_a_word_that_comes_too_late_opens_no_turn(blank: Page) -> None:
    """An edit of a turn that has ended, that was stopped, or that was edited already: there will be no `end`, and nothing to stop."""
    assert await run(
        blank,
        """
        const { Turns } = await import("/kit/widgets/turns.js");
        const told = [], turns = new Turns();
        const see = (frame) => { turns.see({ text: frame.id, ...frame }); told.push([...turns.open.keys()].join()); };
        see({ type: "prompt", id: "1-0", to: "a,b" });
        see({ type: "edit", id: "2-0", turn: "1-0/a" });
        see({ type: "edit", id: "3-0", turn: "1-0/a" });
        see({ type: "end", turn: "1-0/a" });
        see({ type: "stop", id: "4-0" });
        see({ type: "edit", id: "5-0", turn: "1-0/b" });
        for (const turn of ["1-0/b", "2-0/a"]) see({ type: "end", turn });
        see({ type: "edit", id: "6-0", turn: "2-0/a" });
        return told;
        """,
    ) == ["1-0/a,1-0/b", "1-0/a,1-0/b,2-0/a", "1-0/a,1-0/b,2-0/a", "1-0/b,2-0/a", "1-0/b,2-0/a", "1-0/b,2-0/a", "2-0/a", "", ""]


async def test_an_action_of_another_log_is_another_one(blank: Page) -> None:
    """An agent may name its calls alike in each: what was run for the log before does not count."""
    assert await run(
        blank,
        """
        const { Actions } = await import("/kit/widgets/actions.js");
        const { Turns } = await import("/kit/widgets/turns.js");
        const [turns, claimed] = [new Turns(), []];
        const session = { cursor: "1-1", head: "1-1", log: "" };
        session.claim = async () => { claimed.push(session.log); return { status: "too_late" }; };
        const actions = new Actions(session, turns, document.body, "s");
        for (const log of ["log1", "log1", "log2"]) {
          session.log = log;
          turns.clear();
          turns.see({ type: "action", call: "c", name: "set_theme", on: "client", turn: "1-0/a", arguments: {} });
          actions.look();
        }
        return claimed;
        """,
    ) == ["log1", "log2"]


async def test_a_page_without_storage_works(blank: Page) -> None:
    """Blocked storage throws when it is touched; the session goes on in memory."""
    assert await run(
        blank,
        """
        const session = connect(world.options({ storage: () => { throw new DOMException("blocked", "SecurityError"); } }));
        await world.pass(0);
        world.socket.hello();
        session.prompt("hello");
        world.socket.end();
        await world.pass(0);
        world.socket.hello();
        return world.sockets.map((socket) => socket.sent[0].text);
        """,
    ) == ["hello", "hello"]


async def test_an_old_word_of_a_closed_page_is_not_said(blank: Page) -> None:
    """A stop that was never received must not stop, an hour later, something else."""
    assert await run(
        blank,
        """
        const first = connect(world.options());
        first.stop();
        first.close();
        world.now += 3_600_000;
        connect(world.options());
        await world.pass(0);
        world.socket.hello();
        return [world.socket.sent, [...world.storage.map.keys()].filter((key) => key.includes("word"))];
        """,
    ) == [[], []]


async def test_a_closed_session_is_quiet(blank: Page) -> None:
    """No timer is left and nothing is dialled, whatever the browser tells."""
    assert await run(
        blank,
        """
        const session = connect(world.options());
        await world.pass(0);
        world.socket.hello();
        session.close();
        dispatchEvent(new Event("online"));
        await world.pass(100_000);
        return [world.sockets.length, world.timers.length, world.socket.closed, session.state.words];
        """,
    ) == [1, 0, True, "closed"]
