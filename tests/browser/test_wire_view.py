"""The wire view in Chromium: one selection in lanes, table and bytes; filters, keys, pause; smooth with 10,000 records.

The page's side runs as anywidget runs it; between it and the widget stands the test instead of Jupyter.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from kit.lab.thread import loop
from kit.lab.trace import Closed, Command, Frame, Handshake, Record, Trace, TurnChange
from kit.widgets.twin import fields
from kit.widgets.wire import WireView
from tests.browser.looks import LOOKS, assert_accessible, assert_readable, listen, put_on, spoken, tab_through

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOAD = """async ([esm, css]) => {
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
    // What the kernel sends comes as text and bytes: JSON, as in Jupyter, and base64, which is this test's own.
    const parsed = (text) => {
        const { raw, ...rest } = JSON.parse(text);
        const [all, bytes] = [atob(raw), new Uint8Array((raw.length / 4) * 3)];
        for (let i = 0; i < all.length; i++) bytes[i] = all.charCodeAt(i);
        return [rest, new DataView(bytes.buffer)];
    };
    const heard = new Set();
    const module = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
    let widget = module.default();
    window.wire = {
        heard,
        parsed,
        restart() { widget = module.default(); },
        begin([state, raw]) {
            wire.model = {
                get: (name) => (name === "shown" ? state.shown : { ...state, raw }),
                send: (message) => window.toKernel(message),
                on: (_, f) => heard.add(f),
                off: (_, f) => heard.delete(f),
            };
            wire.end = widget.initialize({ model: wire.model });
        },
        show() { return widget.render({ model: wire.model, el: document.body }); },
        hear(text) {
            const [message, raw] = parsed(text);
            heard.forEach((f) => f(message, [raw]));
        },
    };
}"""
LONG_TASKS = """() => {
    window.long = [];
    const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((entry) => entry.duration)));
    observer.observe({ type: "longtask" });
    window.longest = () => Math.max(0, ...long.splice(0), ...observer.takeRecords().map((entry) => entry.duration));
}"""
LONGEST = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(longest()))))"
MANY = 10_000
Mount = Callable[..., Awaitable[Page]]
ROWS = ".kit-wire tbody tr[data-n]"
TEXT = ".kit-wire tbody tr[data-n] td:last-child"


def frame(time: float, direction: Any, body: dict[str, Any] | bytes, opcode: Opcode = Opcode.TEXT, wire: int = 1) -> Frame:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Frame(time, wire, direction, WebSocketFrame(opcode, payload).serialize(mask=direction == "up"))


def packet(n: int, text: str = "") -> Frame:
    return frame(2 + n / 100, "down", {"type": "content", "id": f"1-{n}", "text": text or f"token {n}"})


STORY: list[Record] = [
    Handshake(0.0, 1, "GET /s/demo HTTP/1.1\r\nHost: lab", 101),
    Command(0.001, "XRANGE", "{0}:demo:log"),
    frame(0.002, "down", {"type": "hello", "session": "demo"}),
    frame(1.2, "up", {"type": "prompt", "ref": "r" * 16, "text": "What should I wear in Oslo? " * 6}),
    TurnChange(1.21, "1-0/demo", "called"),
    frame(1.22, "down", {"type": "thought", "id": "1-1", "text": "The forecast first."}),
    frame(1.23, "down", {"type": "content", "id": "1-2", "text": "A windproof shell."}),
    TurnChange(1.24, "1-0/demo", "returned"),
    frame(1.3, "up", b"beat", Opcode.PING),
    Closed(1.4, 1, 1006),
]


ON_WIRE = ["handshake", "hello", "prompt", "thought", "content", "ping", "closed"]


class WiredView(WireView):
    """A view whose comm ends in a page, where `deliver` hands it on."""

    def __init__(self, trace: Trace, to_page: Callable[[dict[str, Any]], None]) -> None:
        self._to_page = to_page
        super().__init__(trace)

    def send(self, content: dict[str, Any], buffers: Any = None) -> None:
        self._to_page({**content, "raw": base64.b64encode(buffers[0]).decode()})

    def hear(self, message: Any) -> None:
        self._handle_custom_msg(message, [])


class Wired:
    """A trace, its view, and the way between them and a page. `lose`: messages that shall not arrive."""

    def __init__(self) -> None:
        here = asyncio.get_running_loop()
        self.trace = Trace(clock=lambda: 0.0, keep=MANY)
        self.to_page: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.view = WiredView(self.trace, lambda message: here.call_soon_threadsafe(self.to_page.put_nowait, message) and None)
        self.heard: list[dict[str, Any]] = []
        self.delivered = self.lose = 0
        self.lost = asyncio.Event()

    async def record(self, *records: Record) -> None:
        """On the kit's loop, as an instance does."""

        async def add() -> None:
            for record in records:
                self.trace.add(record)

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(add(), loop()))

    def hear(self, message: dict[str, Any]) -> None:
        self.heard.append(message)
        self.view.hear(message)

    def state(self) -> str:
        state = self.view.get_state("recorded")["recorded"]
        return json.dumps({**state, "shown": self.view.shown, "raw": base64.b64encode(state["raw"]).decode()})

    async def deliver(self, page: Page) -> None:
        while True:
            message = await self.to_page.get()
            if self.lose:
                self.lose -= 1
                self.lost.set()
            else:
                await page.evaluate("(message) => wire.hear(message)", json.dumps(message))
                self.delivered += 1


@pytest_asyncio.fixture(loop_scope="session")
async def wired() -> AsyncIterator[Wired]:
    wired = Wired()
    yield wired
    wired.view.close()


@pytest_asyncio.fixture(loop_scope="session")
async def mount(context: BrowserContext, site: str, wired: Wired) -> AsyncIterator[Mount]:
    """`await mount(*records)`: a page that shows a view of what was recorded."""
    page = await context.new_page()
    await page.expose_function("toKernel", wired.hear)
    await page.goto(f"{site}/tests/browser/blank.html")
    await page.evaluate(LOAD, [wired.view.get_state("_esm")["_esm"], wired.view.get_state("_css")["_css"]])
    delivering = asyncio.create_task(wired.deliver(page))

    async def mount(*records: Record) -> Page:
        await wired.record(*records)
        await page.evaluate("(state) => { wire.begin(wire.parsed(state)); window.unmount = wire.show(); }", wired.state())
        await expect(page.locator(".kit-state")).not_to_be_empty()
        return page

    yield mount
    delivering.cancel()
    await page.close()


async def column(page: Page, name: str) -> list[str]:
    """The cells of a column, of the rows in the page, once what is due is drawn."""
    await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    at = await page.evaluate(
        "(name) => [...document.querySelectorAll('.kit-wire thead th')].findIndex((th) => th.textContent === name)", name
    )
    return await page.locator(f"{ROWS} > :nth-child({at + 1})").all_inner_texts()


async def selects(page: Page, n: str) -> None:
    """Wait until this record and no other is the selected one."""
    await expect(page.locator(f"{ROWS}[aria-selected=true] th")).to_have_text([n])


# ---- what is shown ----


async def test_a_row_for_each_record(mount: Mount) -> None:
    """Direction, kind, id, size and time, and an arrow between the right lanes."""
    page = await mount(*STORY)
    assert await column(page, "kind") == [
        "handshake",
        "XRANGE",
        "hello",
        "prompt",
        "called",
        "thought",
        "content",
        "returned",
        "ping",
        "closed",
    ]
    assert await column(page, "id") == ["101", "", "", "", "1-0/demo", "1-1", "1-2", "1-0/demo", "", "1006"]
    assert (await column(page, "time (s)"))[:4] == ["0.000", "0.001", "0.002", "1.200"]
    sizes = [str(len(r.raw)) if isinstance(r, Frame) else "" for r in STORY]
    assert await column(page, "bytes") == sizes
    arrows = await page.locator(f"{ROWS} svg.kit-lanes").evaluate_all("(drawn) => drawn.map((svg) => svg.getAttribute('aria-label'))")
    assert arrows[:6] == [
        "client to instance",
        "instance to store",
        "instance to client",
        "client to instance, after a pause",
        "instance to agent",
        "instance to client",
    ]


async def test_lanes_meet_their_names(mount: Mount) -> None:
    """An arrow ends under the name of the lane where it goes, at any width."""
    page = await mount(*STORY)
    for width in (1200, 700, 400):
        await page.set_viewport_size({"width": width, "height": 700})
        middle = "(e) => { const box = e.getBoundingClientRect(); return box.x + box.width / 2; }"
        agent = await page.locator(".kit-wire thead span", has_text="agent").evaluate(middle)
        line = await page.locator(f"{ROWS}[data-n='4'] .kit-life").last.evaluate(middle)
        assert abs(agent - line) < 1


async def test_the_table_is_a_table(mount: Mount) -> None:
    """A caption, column and row heads, the number of all rows and the place of each: what a screen reader goes by."""
    page = await mount(*STORY)
    table = page.get_by_role("grid", name="What passed between client, instance, store, agent")
    await expect(table).to_have_attribute("aria-rowcount", str(len(STORY) + 1))
    assert (
        await table.evaluate("(t) => t.tagName + [...t.tHead.rows[0].cells].every((th) => th.tagName === 'TH' && th.scope === 'col')")
        == "TABLEtrue"
    )
    assert await page.locator(f"{ROWS} > th[scope=row]").count() == len(STORY)
    assert await page.locator(ROWS).last.get_attribute("aria-rowindex") == str(len(STORY) + 1)


async def test_what_agents_and_clients_say_is_text(mount: Mount) -> None:
    """Markup stays text, and escapes and bidi overrides are marks, in the table, the filter and the detail."""
    nasty = "<img src=x onerror=alert(1)>\u202eolleh\x1b[31m"
    page = await mount(
        frame(0, "down", {"type": nasty, "id": nasty, "text": nasty}), frame(0.1, "up", nasty.encode()), Command(0.2, nasty, nasty)
    )
    for n in range(3):
        await page.locator(ROWS).nth(n).click()
        assert "\u202e" not in await page.locator(".kit").inner_text()
        await expect(page.locator(".kit-says")).to_contain_text("<img src=x onerror=alert(1)>")
    assert await page.locator(".kit img").count() == 0


# ---- the bytes ----


async def test_a_selected_frame_is_taken_apart(mount: Mount) -> None:
    """Every part of a masked frame with a 16-bit length, by its name, with its bits; and all bytes as sent."""
    page = await mount(*STORY)
    await page.locator(f"{ROWS}[data-n='3']").click()
    raw = STORY[3].raw  # type: ignore[attr-defined]  # a Frame
    parts = await page.locator(".kit-box > div").evaluate_all(
        "(divs) => divs.map((d) => [...d.querySelectorAll('dt, code, span')].map((e) => e.textContent))"
    )
    assert parts == [[f.name, f.bits, f.means] for f in fields(raw)]
    assert [part[0] for part in parts] == [
        "FIN",
        "RSV1-3",
        "opcode",
        "MASK",
        "payload length",
        "extended payload length",
        "masking key",
        "payload",
    ]
    ranges = await page.locator(".kit-box").evaluate_all("(boxes) => boxes.map((box) => box.dataset.range)")
    assert ranges == ["byte 0", "byte 1", "bytes 2\u20133", "bytes 4\u20137", f"bytes 8\u2013{len(raw) - 1}"]
    dumped = await page.locator(".kit-dump > [data-part]").all_inner_texts()
    assert bytes.fromhex("".join(dumped)) == raw
    assert '{"type":' in (await page.locator(".kit-dump").inner_text()).splitlines()[0]  # masked on the wire, and unmasked beside it


async def test_parts_keep_their_form_where_jupyterlab_floats_them(mount: Mount) -> None:
    """Its style for what notebooks show lays a name and its text side by side; here the bits stand under the name."""
    page = await mount(*STORY)
    await page.add_style_tag(
        content="dl.kit-box { width: 100%; } body dt { float: left; width: 20%; } body dd { float: left; width: 80%; }"
    )
    await page.locator(f"{ROWS}[data-n='3']").click()
    rects = "(divs) => divs.map((d) => [...d.children].map((e) => e.getBoundingClientRect().toJSON()))"
    parts = await page.locator(".kit-box > div").evaluate_all(rects)
    assert all(name["bottom"] <= bits["top"] and name["left"] == bits["left"] for name, bits in parts)
    assert len(parts) == 8
    tops = await page.locator(".kit-box").evaluate_all("(boxes) => boxes.map((box) => box.getBoundingClientRect().top)")
    assert tops[0] == tops[1]


async def test_the_chosen_kind_can_be_read(mount: Mount) -> None:
    """The select is as wide as its widest choice wants to be."""
    page = await mount(*STORY)
    select = page.locator(".kit-tools > select")
    is_wide = await select.evaluate("(select) => select.offsetWidth")
    wants = await select.evaluate("(select) => { select.style = 'max-width: none; flex: none'; return select.offsetWidth; }")
    assert is_wide == wants


async def test_the_page_takes_frames_apart_as_python_does(blank: Page) -> None:
    """Two hundred random frames, each kind of length, masked and not."""
    chance = random.Random(6455)
    raws = []
    for size in [0, 1, 125, 126, 65_535, 65_536] + [chance.randrange(300) for _ in range(194)]:
        opcode = chance.choice([Opcode.CONT, Opcode.TEXT, Opcode.BINARY])
        raw = bytearray(WebSocketFrame(opcode, chance.randbytes(size), chance.random() < 0.5).serialize(mask=chance.random() < 0.5))
        raw[0] ^= chance.randrange(16) << 4 | chance.randrange(16) * (chance.random() < 0.2)  # extensions' bits, reserved opcodes
        raws.append(bytes(raw))
    theirs = await blank.evaluate(
        """async (frames) => {
            const { fields } = await import("/kit/widgets/wirebytes.js");
            return frames.map((hex) => fields(Uint8Array.from(hex.match(/../g), (byte) => parseInt(byte, 16))));
        }""",
        [raw.hex() for raw in raws],
    )
    assert theirs == [[list(field) for field in fields(raw)] for raw in raws]


async def test_what_is_no_frame_shows_its_text(mount: Mount) -> None:
    """The whole head of a handshake."""
    page = await mount(*STORY)
    await page.locator(f"{ROWS}[data-n='0']").click()
    await expect(page.locator(".kit-says")).to_have_text("GET /s/demo HTTP/1.1\nHost: lab")
    assert await page.locator(".kit-box").count() == 0


# ---- keys ----


async def test_arrow_keys_go_through_the_table(mount: Mount) -> None:
    """The table has the focus; the row is named as the active one, shown and taken apart."""
    page = await mount(*(packet(n) for n in range(1000)))
    await page.locator(".kit-wire").focus()
    for key, row in [
        ("ArrowDown", "0"),
        ("ArrowDown", "1"),
        ("ArrowUp", "0"),
        ("ArrowUp", "0"),
        ("End", "999"),
        ("ArrowDown", "999"),
        ("Home", "0"),
        ("PageDown", "12"),
    ]:
        await page.keyboard.press(key)
        await selects(page, row)
        active = await page.locator(".kit-wire").get_attribute("aria-activedescendant")
        assert await page.locator(f"#{active}").get_attribute("data-n") == row
        await expect(page.locator(f"{ROWS}[data-n='{row}']")).to_be_in_viewport(ratio=1)
        assert (await page.locator(".kit-detail b").inner_text()).split()[0] == row


async def test_slash_filters_and_escape_comes_back(mount: Mount) -> None:
    """And the row that was selected is found again where the filter let go."""
    page = await mount(*(packet(n) for n in range(1000)))
    await page.locator(f"{ROWS}[data-n='3']").click()
    await page.keyboard.press("/")
    await page.keyboard.type("token 77")
    assert await column(page, "id") == ["1-77", *(f"1-{n}" for n in range(770, 780))]
    await page.keyboard.press("Enter")
    await page.keyboard.press("ArrowDown")
    await selects(page, "77")
    await page.keyboard.press("/")
    await page.keyboard.press("Escape")
    await selects(page, "77")
    await expect(page.locator(f"{ROWS}[data-n='77']")).to_be_in_viewport(ratio=1)
    await page.keyboard.press("ArrowDown")
    await selects(page, "78")


async def test_keys_stay_in_the_view(mount: Mount) -> None:
    """Whatever takes the focus keeps JupyterLab's own shortcuts off: `dd` deletes no cell."""
    page = await mount(*STORY)
    await page.locator(f"{ROWS}[data-n='3']").click()
    focusable = page.locator(".kit :is(input, select, button, [tabindex])")
    assert await focusable.count() >= 6
    assert (
        await focusable.evaluate_all("(all) => all.filter((e) => !e.hasAttribute('data-lm-suppress-shortcuts')).map((e) => e.outerHTML)")
        == []
    )


# ---- filters and pause ----


async def test_kinds_and_directions_filter(mount: Mount) -> None:
    """Those that occurred, and together with the text."""
    page = await mount(*STORY)
    chosen = page.get_by_label("Filter by kind")
    await chosen.select_option("thought")
    assert await column(page, "id") == ["1-1"]
    await expect(page.locator(".kit-state")).to_have_text("1 of 10 records")
    await chosen.select_option("\u2191\u2193 on the wire")
    assert await column(page, "kind") == ON_WIRE
    await chosen.select_option("\u2191 up")
    assert await column(page, "kind") == ["prompt", "ping"]
    await page.get_by_label("Filter by text").fill("OSLO")
    assert await column(page, "kind") == ["prompt"]
    await chosen.select_option("every kind")
    await page.get_by_label("Filter by text").fill("")
    assert len(await column(page, "kind")) == len(STORY)


async def test_a_view_may_begin_with_what_went_over_a_wire(mount: Mount, wired: Wired) -> None:
    """Without the store's commands and the agent; they are one choice away."""
    wired.view.shown = "wire"
    page = await mount(*STORY)
    assert await column(page, "kind") == ON_WIRE
    await expect(page.locator(".kit-state")).to_have_text(f"{len(ON_WIRE)} of {len(STORY)} records")
    await page.get_by_label("Filter by kind").select_option("every kind")
    assert len(await column(page, "kind")) == len(STORY)


async def test_paused_what_comes_waits(mount: Mount, wired: Wired) -> None:
    """Nothing moves under the reader; how many wait is told, and all are there afterwards."""
    page = await mount(*STORY)
    await page.locator(".kit-wire").press("p")
    await wired.record(*(packet(n) for n in range(5)))
    await expect(page.locator(".kit-state")).to_have_text("10 records, paused: 5 more")
    assert len(await column(page, "kind")) == 10
    await page.get_by_role("button", name="Go on").click()
    assert len(await column(page, "kind")) == 15
    await expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "false")


# ---- live ----


async def test_what_is_recorded_later_comes_by_itself(mount: Mount, wired: Wired) -> None:
    """In batches, each record once, and a table that stands at its end stays there."""
    page = await mount()
    for n in range(300):
        await wired.record(packet(n))
    await expect(page.locator(".kit-state")).to_have_text("300 records")
    await expect(page.locator(TEXT).last).to_contain_text("token 299")
    await expect(page.locator(ROWS).last).to_be_in_viewport()
    assert wired.delivered < 100
    await page.locator(".kit-records").evaluate("(e) => { e.scrollTop = 0; }")
    await page.wait_for_function("document.querySelector('.kit-wire tbody tr[data-n]').dataset.n === '0'")
    await wired.record(packet(300))
    await expect(page.locator(".kit-state")).to_have_text("301 records")
    assert (await column(page, "#"))[0] == "0"


async def test_a_batch_that_was_lost_is_asked_for(mount: Mount, wired: Wired) -> None:
    """jupyter_server drops messages under load: what comes next shows the hole."""
    page = await mount(*STORY)
    wired.lose = 1
    await wired.record(packet(0), packet(1))
    await wired.lost.wait()
    await wired.record(packet(2))
    await expect(page.locator(".kit-state")).to_have_text("13 records")
    assert (await column(page, "id"))[-3:] == ["1-0", "1-1", "1-2"]


async def test_every_view_of_a_widget_shows_the_same_and_the_last_says_goodbye(mount: Mount, wired: Wired) -> None:
    """JupyterLab may draw an output twice, or again; without any the kernel need not send."""
    page = await mount(*STORY)
    await page.evaluate("() => { window.second = wire.show(); }")
    await expect(page.locator(".kit-state").nth(1)).to_have_text("10 records")
    await page.evaluate("() => { second(); unmount(); wire.end(); }")
    assert [message["kit"] for message in wired.heard] == ["since", "rest"]
    assert await page.evaluate("[document.body.childElementCount, wire.heard.size]") == [0, 0]


# ---- 10,000 ----


async def test_ten_thousand_records_stay_smooth(mount: Mount, wired: Wired) -> None:
    """No task over 100 ms: not while they are drawn first, scrolled, searched, stepped through, nor while more come in.

    A task is as long as the machine lets it be: where others use its cores, each step's best of a few runs counts.
    """
    page = await mount()
    await page.evaluate("() => unmount()")
    await page.evaluate(LONG_TASKS)
    runs: list[list[float]] = []
    longest = 1000.0
    while longest > 100 and len(runs) < 20:
        runs.append([step async for step in _use(page, wired)])
        longest = max(map(min, zip(*runs, strict=True)))
    print(f"longest task: {longest:.0f} ms")
    assert longest <= 100, runs


async def _use(page: Page, wired: Wired) -> AsyncIterator[float]:
    """Show 10,000 records, go through them in every way, let 2,000 more come, and close; the longest task of each step in ms."""
    state, records = page.locator(".kit-state"), page.locator(".kit-records")
    await wired.record(*(packet(n) for n in range(MANY)))  # the trace keeps no more: what the run before left is gone
    await page.evaluate("(state) => { wire.end(); window.state = wire.parsed(state); }", wired.state())
    await page.evaluate("() => { longest(); setTimeout(() => { wire.restart(); wire.begin(state); window.unmount = wire.show(); }); }")
    await expect(state).to_have_text(f"{MANY} records")
    yield await page.evaluate("longest()")
    for part in range(48):
        await records.evaluate("(e, part) => { e.scrollTop = e.scrollHeight * part; }", part / 47)
        yield await page.evaluate(LONGEST)
    assert await page.locator(ROWS).count() < 60
    for letter in "token 99":
        await page.get_by_label("Filter by text").press_sequentially(letter)
        yield await page.evaluate(LONGEST)
    await expect(state).to_have_text(f"111 of {MANY} records")
    for key in ["Escape", "Home", "PageDown", "ArrowDown", "End"]:
        await page.keyboard.press(key)
        yield await page.evaluate(LONGEST)
    await selects(page, str(MANY - 1))
    await wired.record(*(packet(100_000) for _ in range(2_000)))
    await expect(state).to_have_text(f"{MANY + 2_000} records")
    yield await page.evaluate("() => { unmount(); return longest(); }")


async def test_a_page_keeps_no_more_than_it_can_hold(mount: Mount) -> None:
    """Of a run without an end the older half goes; what is shown keeps its numbers and its selection."""
    page = await mount(packet(0))
    await page.locator(ROWS).first.click()
    await page.evaluate(
        """() => {
            const rows = Array(2000).fill([3, 0, "store", "XADD", "", 0, "key"]);
            for (let mark = 1; mark < 42_000; mark += 2000) {
                wire.hear(JSON.stringify({ kit: "records", after: mark, first: mark, rows, raw: "" }));
            }
        }"""
    )
    await expect(page.locator(".kit-state")).to_have_text("22001 records")
    assert await column(page, "#") == [str(n) for n in range(20_000, 20_000 + len(await column(page, "#")))]
    await page.locator(".kit-wire").press("End")
    await selects(page, "42000")


# ---- how it looks ----


@pytest.mark.parametrize(("lab", "scheme", "width"), LOOKS)
async def test_it_reads_in_every_theme_and_width(
    mount: Mount, wired: Wired, tmp_path: Path, scheme: Any, lab: str | None, width: int
) -> None:
    """For those who see it, and those who don't. A screenshot of each is kept to be looked at."""
    page = await mount(*STORY)
    await put_on(page, lab, scheme, width)
    await page.locator(f"{ROWS}[data-n='3']").click()
    await page.screenshot(path=tmp_path / f"wire-{lab or 'page'}-{scheme}-{width}.png")
    await assert_readable(page, texts=60)
    await assert_accessible(page)


async def test_tab_goes_from_the_tools_to_the_record(mount: Mount) -> None:
    """The table is one stop, in which arrow keys go on; what they select comes after it."""
    page = await mount(*STORY)
    await page.locator(f"{ROWS}[data-n='3']").click()
    await page.evaluate("document.activeElement.blur()")
    await page.get_by_label("Filter by text").focus()
    names = await tab_through(page, 5)
    table = "What passed between client, instance, store, agent: a row for each record, the oldest first"
    assert names == ["Filter by kind", "Pause", table, "Bytes as sent; beside them the payload, unmasked", "Text"]


async def test_records_that_come_are_not_read_aloud(mount: Mount, wired: Wired) -> None:
    """The count goes on in silence; what a person did is told."""
    page = await mount(*STORY)
    await listen(page)
    for i in range(20):
        await wired.record(packet(i))
    await expect(page.locator(".kit-state")).to_have_text(f"{len(STORY) + 20} records")
    assert await spoken(page) == []
    await page.get_by_role("button", name="Pause").click()
    assert await spoken(page) == ["paused"]


async def test_every_direction_has_a_sign_of_its_own(mount: Mount) -> None:
    """Colour is never all that tells two apart."""
    page = await mount(*STORY)
    assert len({*await column(page, "direction")}) == 7
