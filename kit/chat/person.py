"""Person: somebody at a terminal in a session: lines become words while packets stream.

At a terminal every line is said at once. A script's lines (stdin is a pipe or a file) take turns instead: one is said when what the ones
before it began has ended, or waits for an answer; so `printf 'weather?\\nOslo\\n'` asks, and then answers the question back.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import msgspec

from kit.chat.place import Place
from kit.chat.terminal import Terminal, Theme
from kit.client import BadWord, NotLetIn, Session
from kit.packets import (
    START,
    Action,
    Answer,
    Ask,
    Claim,
    Edit,
    End,
    Entry,
    EntryId,
    Gap,
    Prompt,
    Result,
    Said,
    Stop,
    ToolResult,
    encode,
)
from kit.said import MAX_WORD

AGAIN = 2.0
"""Seconds within which a second Ctrl-C leaves."""
USAGE = "type a prompt; /stop, /edit TEXT, /quit; // begins a prompt with a slash; Ctrl-C stops, and again leaves"
_BESIDE = {"hello", "beat", "typing", "error"}


class _Left(Exception):
    """The person leaves."""


class _Came(msgspec.Struct):
    type: str
    head: str = "0-0"


class _Themed(msgspec.Struct, forbid_unknown_fields=True):
    theme: Theme


_came = msgspec.json.Decoder(_Came)


class Person:
    """Somebody in one session. `patient`: lines take turns; `frames`: frames are printed as they come, and not drawn."""

    def __init__(
        self, terminal: Terminal, *, frames: bool = False, patient: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.terminal, self.frames, self.patient, self.clock = terminal, frames, patient, clock
        self.session: Session
        self.failure: NotLetIn | None = None
        self.turns: dict[str, None] = {}
        self.last = ""
        """The turn that was opened last."""
        self.waiting: dict[str, Ask | Action] = {}
        """The calls that wait for a person or a client, oldest first."""
        self._offered: set[str] = set()  # actions that this terminal has seen while they were open
        self._running: set[str] = set()
        self._mine: set[str] = set()
        self._head = START
        self._said = START
        self._unanswered = 0
        self._news = asyncio.Event()
        self._leaving = asyncio.Event()
        self._interrupted = -AGAIN
        self._tasks: asyncio.TaskGroup

    async def run(self, session: Session, lines: AsyncIterator[str], keep: Callable[[Place], None]) -> None:
        """Talk until the lines have ended and what they began, or the person leaves. Raises NotLetIn."""
        self.session = session
        session.on_state = self.terminal.note
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for work in (self._follow(), self._hear(lines), self._keep(keep)):
                    self._tasks.create_task(work)
                await self._leaving.wait()
                raise _Left
        except* _Left:
            pass
        self.terminal.typed(newline=True)
        if self.failure:
            raise self.failure
        if place := self.place():
            keep(place)

    def place(self) -> Place | None:
        """Where they stand; None before its first entry."""
        if self.session.after is None or self.session.log is None:
            return None
        asks = [call for call in self.waiting.values() if isinstance(call, Ask)]
        return Place(log=self.session.log, after=self.session.after, turns=list(self.turns), asks=asks)

    def remember(self, place: Place) -> None:
        """Go on where they left."""
        self.turns = dict.fromkeys(place.turns)
        self.last = place.turns[-1] if place.turns else ""
        for ask in place.asks:
            self.waiting[ask.call] = ask
            self.terminal.note("still open:")
            self.terminal.draw(ask)

    # ---- down ----

    def came(self, frame: str) -> None:
        """A frame as it came from the socket, before the client has read it."""
        known = _came.decode(frame)
        if known.type == "hello":
            self._head = EntryId.parse(known.head)
        if self.frames and known.type not in _BESIDE:
            self.terminal.frame(frame)

    async def _follow(self) -> None:
        try:
            async for entry in self.session:
                if not self.frames:
                    self.terminal.draw(entry)
                self._learn(entry)
                if EntryId.parse(self.session.after or "0-0") >= self._head:  # before that, its result may be on its way
                    self._offer()
                self._news.set()
                if self.terminal.gone:
                    self._leaving.set()
        except NotLetIn as refused:
            self.failure = refused
            self._leaving.set()

    def _learn(self, entry: Entry | Gap) -> None:
        """What the entry opens or closes."""
        match entry:
            case Gap():
                self.turns, self.waiting, self._said, self.last = {}, {}, START, ""
            case Prompt():
                self._opened(f"{entry.id}/{entry.to}")
            case Edit():
                self._opened(f"{entry.id}/{entry.turn.partition('/')[2]}")
            case Ask(call=call):
                self.waiting[call] = entry
            case Action(call=call, on="approve"):
                question = f"run {entry.name}({msgspec.json.encode(entry.arguments).decode()})?"
                self.waiting[call] = Ask(call=call, turn=entry.turn, text=question, choices=["yes", "no"])
            case Action(call=call, on="client"):
                self.waiting[call] = entry
            case Answer(call=call) | Result(call=call) | ToolResult(call=call):
                self.waiting.pop(call, None)
            case Claim(call=call):
                self._offered.add(call)
            case End(turn=turn):
                self.turns.pop(turn, None)
                self.waiting = {call: of for call, of in self.waiting.items() if of.turn != turn}
            case _:
                pass

    def _opened(self, turn: str) -> None:
        self.turns[turn] = None
        self.last = turn

    async def _keep(self, keep: Callable[[Place], None]) -> None:
        """Keep the place whenever all that has come is drawn: once for a burst, not for each token."""
        while True:
            await self._news.wait()
            self._news.clear()
            if place := self.place():
                keep(place)

    # ---- actions ----

    def _offer(self) -> None:
        """Run the open actions that a terminal can run; say of the others that it can't."""
        for call, action in self.waiting.items():
            if isinstance(action, Action) and call not in self._offered:
                self._offered.add(call)
                if action.name == "set_theme":
                    self._running.add(call)
                    self._tasks.create_task(self._set_theme(action))
                else:
                    self.terminal.note(f"{action.name} runs on a client, and this terminal can't run it: another client may, or /stop")

    async def _set_theme(self, action: Action) -> None:
        """Claim it, then switch to the colours for a light or a dark background."""
        with suppress(NotLetIn):
            if (await self.session.claim(action.call)).status == "applied":
                try:
                    self.terminal.theme = msgspec.convert(action.arguments, _Themed).theme
                    await self.session.result(action.call, None)
                except msgspec.ValidationError as error:
                    await self.session.result(action.call, error=str(error))
        self._running.discard(action.call)
        self._news.set()

    # ---- up ----

    async def _hear(self, lines: AsyncIterator[str]) -> None:
        async for line in lines:
            self.terminal.typed(newline=self.patient)
            if self.patient and not re.match(r"\s*/(?!/)", line):
                await self._quiet()
            self.line(line)
        await self._quiet()
        if self.turns.keys() & self._own():
            self.terminal.note("the turn waits for an answer, and there are no more lines: come back to this session to give it")
        self._leaving.set()

    async def _quiet(self) -> None:
        """Wait until all that was said here is read and has ended, or waits for somebody."""
        while self._unanswered or EntryId.parse(self.session.after or "0-0") < self._said or self._own() - self._stuck():
            self._news.clear()
            await self._news.wait()

    def _own(self) -> set[str]:
        return {turn for turn in self.turns if turn.partition("/")[0] in self._mine}

    def _stuck(self) -> set[str]:
        return {
            of.turn for call, of in self.waiting.items() if call not in self._running and (isinstance(of, Ask) or call in self._offered)
        }

    def line(self, line: str) -> None:
        """Say what a line means: a command, the answer to the oldest open question, or a prompt."""
        command, _, rest = line.strip().partition(" ")
        match command, rest.strip():
            case "", _:
                pass
            case "/quit", "":
                self._leaving.set()
            case "/stop", "":
                self.say(Stop())
            case "/edit", text if text and self.last:
                self.say(Edit(turn=self.last, text=text))
            case "/edit", text if text:
                self.terminal.note("there is no turn to edit")
            case _ if re.match("/(?!/)", line.strip()):
                self.terminal.note(f"{command} means nothing here: {USAGE}")
            case _:
                self._text(re.sub("^//", "/", line.strip()))

    def _text(self, text: str) -> None:
        ask = next((of for of in self.waiting.values() if isinstance(of, Ask)), None)
        if ask is None:
            self.say(Prompt(text=text))
            return
        del self.waiting[ask.call]
        self._mine.add(ask.turn.partition("/")[0])
        choices = ask.choices or []
        if text not in choices and text.isdecimal() and 0 < int(text) <= len(choices):
            text = choices[int(text) - 1]
        self.say(Answer(call=ask.call, text=text))

    def say(self, word: Said) -> None:
        """Say a word, now or at the next connection; what is not simply applied is told."""
        if len(encode(word)) > MAX_WORD - 64:  # its ref comes to it
            self.terminal.note(f"too long: a word holds at most {MAX_WORD} bytes; this one was not sent")
            return
        self._unanswered += 1
        self._tasks.create_task(self._deliver(word))

    async def _deliver(self, word: Said) -> None:
        try:
            receipt = await self.session.say(word)
        except BadWord as bad:
            self.terminal.note(f"not understood: {bad}")
        except NotLetIn:
            pass  # _follow says it
        else:
            if receipt.id:
                self._said = max(self._said, EntryId.parse(receipt.id))
                self._mine.add(receipt.id)
            if receipt.status == "refused":
                self.terminal.note(f"refused: {receipt.reason}")
            elif "too_late" in (receipt.status, receipt.was):
                self.terminal.note("too late: nothing was left to " + type(word).__name__.lower())
        finally:
            self._unanswered -= 1
            self._news.set()

    def interrupt(self) -> None:
        """Ctrl-C: stop what is open; the second time, or with nothing open, leave."""
        now = self.clock()
        if now - self._interrupted < AGAIN or not (self.turns or self._unanswered):
            self._leaving.set()
        else:
            self._interrupted = now
            self.terminal.note("stopping; Ctrl-C again leaves")
            self.say(Stop())
