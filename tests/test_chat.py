"""`python -m kit chat`: what is drawn, what a line means, what survives a restart; in the process, as a script, and at a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import signal
import sys
import termios
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest

from kit.__main__ import main
from kit.agents import model
from kit.agents.scripted import scripted
from kit.agents.tape import Tape
from kit.chat import _typed, chat
from kit.chat.person import Person
from kit.chat.place import Place, load, save, state_folder
from kit.chat.terminal import ACTION, PLAIN, THOUGHT, Terminal, wants_colour
from kit.client import Session, connect
from kit.ending import end
from kit.history import Agent, History
from kit.packets import Action, AnyPacket, Ask, Content, End, Entry, Gap, Hello, Prompt, Receipt, Takeover, Thought, ToolResult
from kit.server import Server, serve
from kit.text import inert
from tests.promises.support import read_log
from tests.support import visit

ROOT = Path(__file__).parent.parent
ANSWER: Sequence[AnyPacket] = [
    Thought("Let me see."),
    Action(call="w1", name="get_weather", arguments={"city": "Oslo"}, on="server"),
    ToolResult(call="w1", value={"celsius": 4}),
    Content("It is "),
    Content("4 degrees."),
]


class Screen(io.StringIO):
    """What was drawn, and a way to wait for a piece of it."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = asyncio.Event()

    def write(self, text: str) -> int:
        self.moved.set()
        return super().write(text)

    async def shows(self, piece: str) -> None:
        async with asyncio.timeout(10):
            while piece not in self.getvalue():
                self.moved.clear()
                await self.moved.wait()


def drawn(*entries: Entry | Gap, colour: bool = False) -> str:
    """The entries on a screen."""
    out = io.StringIO()
    terminal = Terminal(out, io.StringIO(), colour=colour)
    for entry in entries:
        terminal.draw(entry)
    return out.getvalue()


# ---- what is drawn ----


def test_the_three_kinds_differ_in_colour_and_in_word() -> None:
    """Thought grey, action highlighted, content as it is; without colours the words still tell them apart."""
    thought, action, content = (
        Thought(text="Hm.", from_="agent", turn="1-0/agent"),
        Action(call="c", name="look", arguments={"at": [1]}, on="server", from_="agent"),
        Content(text="Hello.", from_="agent", turn="1-0/agent"),
    )
    plain = drawn(thought, action, content)
    assert plain == "· thought agent: Hm.\n▶ action agent: look(at=[1]) on server\n• content agent: Hello."
    coloured = drawn(thought, action, content, colour=True)
    assert f"{THOUGHT}· thought agent: Hm.{PLAIN}" in coloured
    assert f"{ACTION}▶ action" in coloured
    assert coloured.endswith("• content agent: Hello.")
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_pieces_of_a_text_go_on_in_its_line_and_another_kind_or_turn_begins_a_new_one() -> None:
    """Tokens of one turn make a paragraph; two agents that speak at once are told apart."""
    one, other = (lambda text: Content(text=text, from_="a", turn="1-0/a")), (lambda text: Content(text=text, from_="b", turn="1-0/b"))
    assert drawn(one("It "), one("is\n"), one("\nso.\n"), other("No."), one("Yes.")) == (
        "• content a: It is\n  \n  so.\n  \n• content b: No.\n• content a: Yes."
    )


def test_a_text_begins_its_line_again_after_something_else_was_written_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A note, or what was typed; else the text would go on in the middle of nothing."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    terminal = Terminal(screen, screen)
    for text in ("It ", "is "):
        terminal.draw(Content(text=text, turn="1-0/a"))
    terminal.note("reconnecting")
    terminal.draw(Content(text="so.", turn="1-0/a"))
    assert screen.getvalue() == "• content It is \n-- reconnecting\n• content so."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", "<U+001B>[2J<U+001B>]0;owned<U+0007>"),
        ("a\rb\x08c\x7f", "a<U+000D>b<U+0008>c<U+007F>"),
        ("\x9b31m\x9d", "<U+009B>31m<U+009D>"),
        ("abc\u202edcba\u2066x\u200f", "abc<U+202E>dcba<U+2066>x<U+200F>"),
        ("a\u2028b\U000e0041", "a<U+2028>b<U+E0041>"),
        ("tab\tÅ 日本 🎉 👩\u200d🔬\xa0!", "tab\tÅ 日本 🎉 👩\u200d🔬\xa0!"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    """Escapes, control characters, what reorders and what hides; ordinary text is left alone."""
    assert inert(text, keep="\t\n") == shown


def test_no_field_of_any_entry_reaches_the_terminal_raw() -> None:
    """Whoever wrote it: names, ids, arguments, errors, choices."""
    evil = "\x1b[31m\u202e\x9b"
    entries: list[Entry] = [
        Prompt(id="1-0", from_=evil, text=evil, to=evil),
        Thought(text=evil, from_=evil, turn=evil),
        Content(text=evil, from_=evil, turn=evil),
        Action(call=evil, name=evil, arguments={evil: evil}, on="client", from_=evil),
        ToolResult(call=evil, error=evil),
        ToolResult(call="other", value=evil),
        Ask(call=evil, text=evil, choices=[evil], from_=evil),
        End(turn=evil, reason="failed", text=evil),
    ]
    screen = drawn(*entries)
    assert screen.count("<U+202E>") >= 15
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", screen)


def test_no_text_can_pose_as_a_line_of_the_transcript() -> None:
    """A second line is indented, of a name too."""
    screen = drawn(Content(text="Hi\n■ end 1-0/agent: done\n▶ action rm()", from_="x\n■ end", turn="1-0/agent"))
    assert screen == "• content x\n  ■ end: Hi\n  ■ end 1-0/agent: done\n  ▶ action rm()"


def test_colour_is_for_terminals_whose_owner_has_not_declined_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR counts when it is not empty; a pipe and a dumb terminal get none."""
    tty = io.StringIO()
    monkeypatch.setattr(tty, "isatty", lambda: True)
    assert wants_colour(tty, {"TERM": "xterm"})
    assert wants_colour(tty, {"NO_COLOR": ""})
    assert not wants_colour(tty, {"NO_COLOR": "1"})
    assert not wants_colour(tty, {"TERM": "dumb"})
    assert not wants_colour(io.StringIO(), {"TERM": "xterm"})


@pytest.mark.parametrize("reason", ["trimmed", "lost", "other log", "future"])
def test_a_gap_is_told_in_words(reason: Any) -> None:
    """Each reason has its sentence."""
    assert re.fullmatch(f"! gap {reason}: .{{20,}}\n", drawn(Gap(log="l", after="0-0", reason=reason)))


# ---- what is kept ----


def test_a_place_is_found_again_by_its_session(tmp_path: Path) -> None:
    """Others stay."""
    file = tmp_path / "new" / "chat.json"
    assert load(file, "a") == Place()
    here = Place(log="l", after="3-17")
    save(file, "a", here)
    save(file, "b", Place(log="m", after="1-0"))
    assert load(file, "a") == here
    assert [path.name for path in file.parent.iterdir()] == ["chat.json"]  # no half-written file stays


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"a": {"log": 1}}', '{"a": {"log": "l", "after": "x"}}', "\udcff"])
async def test_a_file_that_is_something_else_is_told_and_left_alone(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence and status 1; no traceback, no cursor that the server would have to refuse, and nothing is dialled."""
    file = tmp_path / "chat.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert await chat("ws://127.0.0.1:1", "token", session="a", state=file, lines=_quit()) == 1
    assert re.search(r"-- what you have seen can't be kept \(.*chat\.json.*\): name another file with --state\n$", capsys.readouterr().err)
    assert file.read_bytes() == text.encode(errors="surrogateescape")


def test_what_is_no_regular_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    """`--state /dev/null`, as root, would otherwise put a file in the place of the device; a pipe stands in for it here."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="no regular file"):
        load(pipe, "a")
    with pytest.raises(OSError, match="no regular file"):
        save(pipe, "a", Place(log="l", after="1-0"))
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_after_a_gap_nothing_of_before_is_open() -> None:
    """The next line is a prompt, not the answer to a question of another log."""
    person = Person(Terminal(io.StringIO(), io.StringIO()))
    person._learn(Prompt(id="1-0", prev="0-0", text="x", to="agent"))
    assert [turn.id for turn in person.turns] == ["1-0/agent"]
    person._learn(Gap(log="m", after="0-0", reason="other log"))
    assert person.turns == []


def test_the_state_folder_is_the_platforms() -> None:
    """XDG_STATE_HOME, which never means the current folder; on Windows LOCALAPPDATA."""
    name = "tokens-on-the-wire"
    assert state_folder({"XDG_STATE_HOME": "/s"}, "linux") == Path("/s") / name
    assert state_folder({"XDG_STATE_HOME": "s"}, "linux") == Path.home() / ".local" / "state" / "s" / name
    assert state_folder({}, "darwin") == Path.home() / ".local" / "state" / name
    assert state_folder({"LOCALAPPDATA": "/l"}, "win32") == Path("/l") / name


# ---- what a line means ----


class Room:
    """A person in a session, whose lines are put into `lines`, and whose screen is watched."""

    def __init__(self, server: Server, person: Person, out: Screen, err: Screen) -> None:
        self.server, self.person, self.out, self.err = server, person, out, err
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.kept: list[Place] = []

    async def typed(self) -> AsyncIterator[str]:
        while (line := await self.lines.get()) is not None:
            yield line


@asynccontextmanager
async def sitting(agent: Agent, *, patient: bool = False) -> AsyncIterator[Room]:
    """A person who sits at a terminal; when the block is left, so does the person, if not before."""
    out, err = Screen(), Screen()
    person = Person(Terminal(out, err, colour=False), patient=patient)
    async with serve(agent) as server, connect(server.url, session="s", token=server.token("ann")) as session:
        room = Room(server, person, out, err)
        running = asyncio.create_task(person.run(session, room.typed(), room.kept.append))
        try:
            yield room
            room.lines.put_nowait("/quit")
            async with asyncio.timeout(10):
                await running
        finally:
            await end({running})


async def waiting(history: History) -> AsyncIterator[AnyPacket]:
    """An agent that begins, and goes on only when it is told to stop."""
    yield Content(f"{history.prompt.text}: never")
    await asyncio.Event().wait()


async def test_a_line_is_a_prompt_and_the_answer_is_drawn() -> None:
    """Prompt, thought, action, result, content, end, in the log's order."""
    async with sitting(scripted(ANSWER)) as room:
        room.lines.put_nowait("What is the weather in Oslo?")
        await room.out.shows("end 1-0/agent: done")
    assert room.out.getvalue() == (
        "› prompt 1-0 ann: What is the weather in Oslo?\n"
        "· thought agent: Let me see.\n"
        "▶ action agent: get_weather(city='Oslo') on server\n"
        '◀ result agent: w1: {"celsius": 4}\n'
        "• content agent: It is 4 degrees.\n"
        "■ end 1-0/agent: done\n"
    )


async def test_the_next_line_answers_a_question() -> None:
    """What may be chosen is shown."""
    async with sitting(scripted([Ask(call="c", text="Which city?", choices=["Oslo", "Bergen"]), Content("Thanks.")])) as room:
        room.lines.put_nowait("weather")
        await room.out.shows("? ask agent: Which city? (Oslo / Bergen)\n")
        room.lines.put_nowait("Oslo")
        await room.out.shows("end 1-0/agent: done")
    assert "› answer 2-0 ann: c: Oslo\n" in room.out.getvalue()


async def test_an_action_that_wants_approval_is_a_question_too() -> None:
    """Yes, or anything else."""
    script: list[AnyPacket] = [Action(call="c", name="pay", arguments={"eur": 5}, on="approve"), Content("Done.")]
    async with sitting(scripted(script)) as room:
        room.lines.put_nowait("buy it")
        await room.out.shows("pay(eur=5) once you answer yes")
        room.lines.put_nowait("yes")
        await room.out.shows("end 1-0/agent: done")
    assert "› answer 2-0 ann: c: yes\n" in room.out.getvalue()


async def test_stop_and_edit() -> None:
    """`/edit` replaces the turn that was opened last, `/stop` ends what is open; too late is said."""
    async with sitting(waiting) as room:
        room.lines.put_nowait("one")
        await room.out.shows("one: never")
        room.lines.put_nowait("/edit two words")
        await room.out.shows("two words: never")
        assert "■ end 1-0/agent: replaced" in room.out.getvalue()
        room.lines.put_nowait("/stop")
        await room.out.shows("■ end 2-0/agent: stopped")
        room.lines.put_nowait("/stop")
        await room.err.shows("too late: it had ended")


async def test_lines_that_mean_nothing_are_told_and_not_sent() -> None:
    """A command that is none, an edit of nothing, a text over the limit; a space before a slash makes a prompt."""
    async with sitting(scripted([Content("ok")])) as room:
        for line, says in (
            ("/stopp", "/stopp means nothing now"),
            ("/", "/ means nothing now"),
            ("/edit x", "/edit means nothing now"),
            ("é" * 40_000, "not understood: "),
            ("/edit", "/edit means nothing now"),
        ):
            room.lines.put_nowait(line)
            await room.err.shows(says)
        room.lines.put_nowait("  ")
        room.lines.put_nowait(" /etc is a path")
        await room.out.shows("end 1-0/agent: done")
    assert room.out.getvalue().startswith("› prompt 1-0 ann: /etc is a path\n")


async def test_ctrl_c_stops_what_is_open_and_then_leaves() -> None:
    """With nothing open it leaves at once; each turn can be stopped anew."""
    async with sitting(waiting) as room:
        for i in (1, 3):
            room.lines.put_nowait("go")
            await room.out.shows(f"prompt {i}-0")
            room.person.interrupt()
            assert not room.person._leaving.is_set()
            await room.out.shows(f"end {i}-0/agent: stopped")
        room.person.interrupt()
        assert room.person._leaving.is_set()


async def test_a_second_ctrl_c_leaves_though_the_turn_goes_on() -> None:
    """Nobody is held by a turn that does not end, or by a server that does not answer."""
    async with sitting(waiting) as room:
        room.lines.put_nowait("go")
        await room.out.shows("never")
        room.person.interrupt()
        room.person.interrupt()  # before anything can have come back
        assert room.person._leaving.is_set()


async def test_an_action_for_a_client_is_left_to_others() -> None:
    """A terminal has nothing that it could run; the person sees what the turn waits for, and the next line is no answer to it."""
    async with sitting(scripted([Action(call="c", name="open_door", arguments={}, on="client")])) as room:
        room.lines.put_nowait("open the door")
        await room.out.shows("open_door() on client")
        room.lines.put_nowait("and now?")
        await room.out.shows("› prompt 2-0 ann: and now?")
        room.lines.put_nowait("/stop")
        await room.out.shows("end 1-0/agent: stopped")
    assert "claim" not in room.out.getvalue()


async def test_a_script_waits_for_what_it_said_though_the_receipt_comes_first() -> None:
    """Its turn opens only when the word is read; until then nothing is open, and nothing has ended."""
    read = asyncio.Event()

    class Early:
        log, after = "l", "0-0"

        async def say(self, _: Prompt) -> Receipt:
            asyncio.get_running_loop().call_later(0.05, read.set)
            return Receipt(ref="r", status="applied", id="1-0")

        async def __aiter__(self) -> AsyncIterator[Entry]:
            await read.wait()
            for entry in (Prompt(id="1-0", text="go", to="a"), End(id="1-1", turn="1-0/a", n=1, reason="done")):
                self.after = entry.id
                yield entry

    async def lines() -> AsyncIterator[str]:
        yield "go"

    out = Screen()
    async with asyncio.timeout(10):
        await Person(Terminal(out, Screen())).run(cast("Session", Early()), lines(), lambda _: None)
    assert out.getvalue() == "› prompt 1-0 go\n■ end 1-0/a: done\n"


async def test_a_cut_is_told_in_words_and_nothing_is_drawn_twice() -> None:
    """Reconnecting, then resumed, on stderr; the text goes on."""
    async with sitting(scripted([Content(f"{i} ") for i in range(200)], pace=400)) as room:
        room.lines.put_nowait("count")
        await room.out.shows("20 21")
        await room.server.cut()
        await room.err.shows("-- resumed after 1-")
        await room.out.shows("end 1-0/agent: done")
    assert "reconnecting in" in room.err.getvalue()
    numbers = re.sub(r"• content agent: |\n", "", room.out.getvalue().split("\n", 1)[1].partition("■")[0])
    assert numbers.split() == [str(i) for i in range(200)]


async def test_the_lines_of_a_script_take_turns() -> None:
    """The second waits until what the first began has ended; so does leaving."""
    async with sitting(scripted([Ask(call="c", text="Which city?"), Content("Thanks.")]), patient=True) as room:
        for line in ("weather", "Oslo", "and again"):
            room.lines.put_nowait(line)
        room.lines.put_nowait(None)
        await room.err.shows("the turn waits for an answer, and there are no more lines")
    said = [line for line in room.out.getvalue().splitlines() if line[0] in "›■?" and "takeover" not in line]
    assert [line.split()[1] for line in said] == ["prompt", "ask", "answer", "end", "prompt", "ask"]
    ended, left = room.kept
    assert ended.after == left.after == ended.seen != left.seen, "what is open is drawn again another time"


# ---- the program ----


class Program:
    """`python -m kit chat`, as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def until(self, mark: str, line: str = "") -> None:
        """Give it that line, if any, and return when it has printed the mark."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line.encode())
        await self.process.stdout.readuntil(mark.encode())

    async def said(self, lines: str) -> tuple[str, str, int]:
        """What it prints on stdout and stderr when these lines are its stdin, and its exit status."""
        async with asyncio.timeout(30):
            out, err = await self.process.communicate(lines.encode())
        assert self.process.returncode is not None
        return out.decode(), err.decode(), self.process.returncode


@asynccontextmanager
async def program(
    *arguments: str, token: str | None = None, environment: Mapping[str, str] | None = None, **streams: Any
) -> AsyncIterator[Program]:
    """Start it; killed at the end where it still runs."""
    env = {key: value for key, value in os.environ.items() if key not in ("KIT_TOKEN", "NO_COLOR", "OPENAI_API_KEY", "OPENAI_BASE_URL")}
    env |= {"TERM": "xterm", "PYTHONPATH": str(ROOT)} | ({} if token is None else {"KIT_TOKEN": token}) | (environment or {})
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, **streams}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "kit", "chat", *arguments, env=env, cwd=ROOT, **pipes)
    try:
        yield Program(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _frames(server: Server, session: str) -> list[str]:
    """Every entry of a session exactly as the server sends it to a stranger's client."""
    async with visit(server, session) as visitor:
        (hello,) = visitor.seen
        assert isinstance(hello, Hello)
        frames: list[str] = []
        while not frames or json.loads(frames[-1])["id"] != hello.head:
            frames.append(str(await visitor.socket.recv()))
    return frames


async def test_json_prints_what_came_and_a_restart_goes_on_after_it(tmp_path: Path) -> None:
    """Frame for frame: entries and receipts; the second run repeats nothing and misses nothing."""
    state = tmp_path / "chat.json"
    async with serve(scripted([*ANSWER, Content("Åse \u202e \x1b[0m")])) as server:
        arguments = (server.url, "--session", "s", "--json", "--state", str(state))
        printed: list[str] = []
        for line in ("one\n", "two"):  # the last line of a file may lack its newline
            async with program(*arguments, token=server.token("ann")) as one:
                out, err, status = await one.said(line)
            assert status == 0, err
            printed += out.splitlines()
        frames = await _frames(server, "s")
    shown = [json.loads(line) for line in printed]
    assert [frame for frame in shown if frame["type"] != "receipt"] == [json.loads(frame) for frame in frames]
    receipts = [frame for frame in shown if frame["type"] == "receipt"]
    assert [(receipt["status"], receipt["id"]) for receipt in receipts] == [("applied", "1-0"), ("applied", "2-0")]
    assert load(state, "s").after == json.loads(frames[-1])["id"]


async def test_a_question_survives_a_restart(tmp_path: Path) -> None:
    """The program was closed on it; the next run shows it again, and its first line is the answer."""
    async with serve(scripted([Ask(call="c", text="Which city?"), Content("Thanks.")])) as server:
        arguments = (server.url, "--session", "s", "--state", str(tmp_path / "chat.json"))
        async with program(*arguments, token=server.token("ann")) as one:
            _, err, _ = await one.said("weather\n")
        assert "come back to this session" in err
        async with program(*arguments, token=server.token("ann")) as two:
            out, err, _ = await two.said("Oslo\n")
    assert out.startswith("› prompt 1-0 ann: weather\n? ask agent: Which city?\n› answer 2-0 ann: c: Oslo\n"), out
    assert out.rstrip().endswith("• content agent: Thanks.\n■ end 1-0/agent: done")


async def test_another_log_under_the_same_name_is_told(tmp_path: Path) -> None:
    """The instance was restarted with an empty store: a gap, with its reason, and all that there is."""
    state = tmp_path / "chat.json"
    save(state, "s", Place(log="gone", after="7-3"))
    async with (
        serve(scripted([Content("new")])) as server,
        program(server.url, "--session", "s", "--state", str(state), token=server.token("ann")) as one,
    ):
        out, err, _ = await one.said("hello\n")
    assert out.startswith("! gap other log: what was read before may be void")
    assert "• content agent: new" in out
    assert "-- gap: other log" in err


async def test_a_wrong_token_is_one_sentence_and_status_1() -> None:
    """It is not tried again and again."""
    async with serve(scripted([])) as server, program(server.url, token="nonsense") as one:
        out, err, status = await one.said("hello\n")
    assert (out, status) == ("", 1)
    assert "Traceback" not in err
    assert re.search(r"-- the server refused the connection \(401\): .*: give one with --token or KIT_TOKEN\n$", err)


@pytest.mark.parametrize("token", ["", "with a line\nbreak", "ünicode", "two words"])
async def test_a_token_that_no_header_can_carry_is_the_same(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is dialled with it."""
    assert await chat("ws://127.0.0.1:1", token, session="s", lines=_quit()) == 1
    assert capsys.readouterr().err == "-- that is no token: give one with --token or KIT_TOKEN\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://127.0.0.1:1"],
        ["ws://"],
        ["ws://h/s/x"],
        ["ws://127.0.0.1:1", "--session", "a b"],
        ["--agent", "no_module:x"],
        ["ws://127.0.0.1:1", "--tape", "nowhere/a.tape"],
        ["ws://127.0.0.1:1", "--play", "nowhere/a.tape"],
    ],
)
def test_a_command_line_that_cannot_be_meant_is_one_sentence_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, and nothing is dialled."""
    assert main(["chat", *arguments]) == 2
    assert re.fullmatch(r"python -m kit: .+\n", capsys.readouterr().err)


async def test_without_an_address_it_starts_an_instance_of_its_own(tmp_path: Path) -> None:
    """The demo on the embedded model; a log in memory leaves no cursor behind."""
    state = tmp_path / "chat.json"
    async with program("--state", str(state), "--pace", "0") as one:
        out, err, status = await one.said("count to 5\n")
    assert status == 0, err
    assert "• content agent: 1 2 3 4 5\n■ end 1-0/agent: done" in out
    assert "\x1b" not in out
    assert not state.exists()


# ---- tapes ----


def said_by_the_model(out: str) -> list[str]:
    """Thoughts, calls, results and content, as they were drawn."""
    return [line for line in out.splitlines() if line[0] in "·▶◀•"]


@pytest.mark.parametrize("named", [False, True], ids=["embedded", "named by the environment"])
async def test_what_is_kept_on_a_tape_is_said_again_without_a_key(tmp_path: Path, named: bool) -> None:
    """In either dialect, to other prompts, in the tape's own time, in which each answer takes two seconds: by the script's, none."""
    tape = tmp_path / "a.tape"
    async with model.serve(pace=None) as provider:
        environment = {"OPENAI_BASE_URL": provider.url} if named else {}
        async with program("--tape", str(tape), "--pace", "0", environment=environment) as one:
            told, err, status = await one.said("weather in Oslo\ncount to 5\ncount to 5\n")
        assert status == 0, err
        assert bool(provider.tokens_made) is named
    assert "▶ action agent: get_weather(city='Oslo') on server" in told
    nobody = {"OPENAI_API_KEY": "no usable key", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    tape.write_text(re.sub(r'"at":[\d.]+', '"at":2.0', tape.read_text()))
    begin = time.monotonic()
    async with program("--play", str(tape), environment=nobody) as two:
        again, err, status = await two.said("?\n??\n???\n")
    assert status == 0, err
    assert time.monotonic() - begin > 6.0
    assert said_by_the_model(again) == said_by_the_model(told)


async def test_a_tape_is_played_at_a_pace_that_is_given(tmp_path: Path) -> None:
    """And not in its own time, which is hours here."""
    tape = tmp_path / "a.tape"
    async with program("--tape", str(tape), "--pace", "0") as one:
        told, _, _ = await one.said("count to 5\n")
    tape.write_text(re.sub(r'"at":[\d.]+', '"at":7200.0', tape.read_text()))
    async with program("--play", str(tape), "--pace", "0") as two:
        again, _, _ = await two.said("?\n")
    assert said_by_the_model(again) == said_by_the_model(told)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)], ids=str)
async def test_who_is_told_to_end_in_mid_answer_saves_the_tape(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """What was said up to there; Ctrl-C stops the answer first, and the second one leaves."""
    async with program("--tape", str(tmp_path / "a.tape")) as one:
        async with asyncio.timeout(30):
            await one.until(" 3 4 5 ", "count to 1000\n")
            one.process.send_signal(number)
            if number == signal.SIGINT:
                await one.until("end 1-0/agent: stopped")
                one.process.send_signal(number)
            assert await one.process.wait() == status
        assert one.process.stderr
        assert b"Traceback" not in await one.process.stderr.read()
    (run,) = Tape.load(tmp_path / "a.tape").runs
    assert (run.text[:10], run.ended) == ("1 2 3 4 5 ", "left")


async def test_who_is_told_to_end_hands_the_turn_over(real_store_url: str) -> None:
    """SIGTERM in mid-answer: the instance that is chat's own leaves as `serve` does."""
    async with program("--store", real_store_url) as one:
        async with asyncio.timeout(30):
            await one.until(" 3 4 5 ", "count to 1000\n")
            one.process.terminate()
            assert await one.process.wait() == 143
    last = (await read_log(real_store_url, "chat"))[-1]
    assert isinstance(last, Takeover)
    assert last.by is None


async def test_where_nothing_was_said_there_is_no_tape(tmp_path: Path) -> None:
    """One sentence, and the status that it would have been."""
    tape = tmp_path / "a.tape"
    async with program("--tape", str(tape)) as one:
        _, err, status = await one.said("")
    assert (status, err.count("the model has said nothing: nothing was saved to")) == (0, 1)
    assert not tape.exists()


async def test_a_tape_whose_folder_has_gone_meanwhile_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    async with program("--tape", str(folder / "a.tape"), "--pace", "0") as one:
        async with asyncio.timeout(30):
            await one.until("end 1-0/agent: done", "count to 5\n")
        folder.rmdir()
        _, err, status = await one.said("")
    assert status == 2
    assert re.search(r"\npython -m kit: --tape: .*/gone/a\.tape can't be written: No such file or directory\. Name another file.*\n$", err)
    assert "Traceback" not in err


async def test_a_reader_who_goes_ends_it_quietly(tmp_path: Path) -> None:
    """`... | head -1`: no traceback, no endless reconnecting."""
    async with (
        serve(scripted([Content("x ") for _ in range(10_000)], pace=1000)) as server,
        program(server.url, "--json", "--state", str(tmp_path / "chat.json"), token=server.token("ann")) as one,
    ):
        assert one.process.stdin
        assert one.process.stdout
        assert one.process.stderr
        one.process.stdin.write(b"go\n")
        await one.process.stdout.readline()
        one.process.stdout._transport.close()  # type: ignore[attr-defined]  # the only way to close a reader's pipe
        async with asyncio.timeout(10):
            err = (await one.process.stderr.read()).decode()
            await one.process.wait()
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


class Pty:
    """The person's end of a terminal."""

    def __init__(self) -> None:
        self.mine, self.its = pty.openpty()
        self.seen = ""
        self.moved = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.mine, self._read)

    def _read(self) -> None:
        try:
            self.seen += os.read(self.mine, 65536).decode(errors="replace")
        except OSError:  # the program has gone
            asyncio.get_running_loop().remove_reader(self.mine)
        self.moved.set()

    def types(self, keys: str) -> None:
        os.write(self.mine, keys.encode())

    async def shows(self, pattern: str) -> None:
        async with asyncio.timeout(15):
            while not re.search(pattern, self.seen, re.DOTALL):
                self.moved.clear()
                await self.moved.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.mine)
        os.close(self.mine)


async def test_at_a_terminal_ctrl_c_stops_the_turn_and_then_leaves(tmp_path: Path) -> None:
    """Colours, the prompt typed while nothing is drawn over it, the third letter of the alphabet with Ctrl held down."""
    screen = Pty()
    async with serve(scripted([Thought("Hm."), *(Content(f"{i} ") for i in range(100_000))], pace=200), lease=30.0) as server:
        arguments = (server.url, "--session", "s", "--state", str(tmp_path / "chat.json"))
        streams = {"stdin": screen.its, "stdout": screen.its, "stderr": screen.its, "preexec_fn": lambda: _control(screen.its)}
        async with program(*arguments, token=server.token("ann"), **streams) as one:
            os.close(screen.its)
            await screen.shows("connected")
            screen.types("count\n")
            await screen.shows("content agent: .*20 21")
            screen.types("\x03")
            await screen.shows("stopping; Ctrl-C again leaves.*end 1-0/agent: stopped")
            assert one.process.returncode is None
            screen.types("\x03")
            async with asyncio.timeout(10):
                assert await one.process.wait() == 0
    screen.close()
    assert f"{THOUGHT}· thought agent: Hm.{PLAIN}" in screen.seen
    assert str(load(tmp_path / "chat.json", "s").after).startswith("2-")


def _control(fd: int) -> None:
    """Make it the controlling terminal, so that its Ctrl-C becomes SIGINT."""
    os.setsid()
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


async def test_on_windows_ctrl_c_is_not_the_end_of_what_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it ends the read that is under way; so does the end of the file, which Ctrl-D is here."""
    monkeypatch.setattr("kit.chat.WINDOWS", True)
    mine, its = os.openpty()
    pressed = Event()
    lines = _typed(its, "utf-8", pressed)
    os.write(mine, b"one\n")
    assert await anext(lines) == "one\n"
    pressed.set()
    os.write(mine, b"\x04two\n")
    assert await anext(lines) == "two\n"
    os.write(mine, b"\x04")
    assert [line async for line in lines] == []
    os.close(mine)
    os.close(its)


async def test_chat_gives_ctrl_c_back_when_it_ends() -> None:
    """Whoever called it has the handler that was there before."""
    before = signal.getsignal(signal.SIGINT)
    async with serve(scripted([])) as server:
        assert await chat(server.url, server.token("ann"), session="s", lines=_quit()) == 0
    assert signal.getsignal(signal.SIGINT) is before


async def _quit() -> AsyncIterator[str]:
    yield "/quit"
