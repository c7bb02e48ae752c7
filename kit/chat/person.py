"""Person: somebody at a terminal in a session: lines become words while entries are drawn.

At a terminal every line is said at once. A script's lines (stdin is a pipe or a file) take turns instead: one is said when what the ones
before it began has ended, or waits for somebody; so `printf 'weather?\\nOslo\\n'` asks, and then answers the question back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from kit.chat.place import Place
from kit.chat.terminal import Terminal
from kit.client import BadWord, Session
from kit.packets import Answer, Edit, End, Entry, EntryId, Gap, Prompt, Said, Stop, Word, stored
from kit.projection import Projection, Turn

USAGE = "type a prompt; /stop, /edit TEXT, /quit; a space before a slash makes it a prompt; Ctrl-C stops, and again leaves"


class _Left(Exception):
    """The person leaves."""


class Person:
    """Somebody in one session, which has been `seen` up to an id. `patient`: lines take turns."""

    def __init__(self, terminal: Terminal, seen: str = "0-0", *, patient: bool = True) -> None:
        self.terminal, self.seen, self.patient = terminal, seen, patient
        self.session: Session
        self._projection = Projection()
        self._before: dict[EntryId, str] = {}
        """What was said last before each word."""
        self._read = asyncio.Event()
        self._leaving = asyncio.Event()
        self._stopping: list[str] = []  # the turns that were open at the last Ctrl-C
        self._tasks: asyncio.TaskGroup

    async def run(self, session: Session, lines: AsyncIterator[str], keep: Callable[[Place], None]) -> None:
        """Talk until the lines have ended and what they began, or the person leaves; `keep` is given a place whenever a turn has ended.

        Raises a group of what ended it otherwise: NotLetIn, BrokenPipeError where nobody reads on, what `keep` raises.
        """
        self.session = session
        session.on_state = self.terminal.note
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for work in (self._follow(keep), self._hear(lines)):
                    self._tasks.create_task(work)
                await self._leaving.wait()
                raise _Left
        except* _Left:
            pass
        keep(self.place)

    @property
    def turns(self) -> list[Turn]:
        """Those that have not ended, in the order in which they were opened."""
        return list(self._projection.turns.values())

    @property
    def place(self) -> Place:
        """Where to go on another time: what is open then is drawn again from its prompt on, and with it the question that waits."""
        seen = self.session.after or "0-0"
        first = min((turn.place for turn in self.turns), default=None)
        return Place(self.session.log, seen if first is None else self._before[first], seen)

    async def _follow(self, keep: Callable[[Place], None]) -> None:
        async for entry in self.session:
            self.terminal.draw(entry)
            self._learn(entry)
            if isinstance(entry, End):
                keep(self.place)
            self._read.set()

    def _learn(self, entry: Entry | Gap) -> None:
        if isinstance(entry, Gap):
            self._projection = Projection()
            return
        id = EntryId.parse(entry.id)
        if isinstance(entry, Word):
            self._before[id] = entry.prev
        self._projection.fold(id, stored(entry))

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until what has been read fulfils a condition."""
        while not condition():
            self._read.clear()
            await self._read.wait()

    async def _until_read(self, id: str) -> None:
        log = self.session.log
        await self._until(lambda: self.session.log != log or EntryId.parse(self.session.after or "0-0") >= EntryId.parse(id))

    async def _quiet(self) -> None:
        """Wait until every turn has ended, or waits for somebody."""
        await self._until(lambda: all(map(self._projection.waits, self.turns)))

    async def _hear(self, lines: AsyncIterator[str]) -> None:
        await self._until_read(self.seen)
        async for line in lines:
            self.terminal.interrupted()
            if self.patient and not line.startswith("/"):
                await self._quiet()
            await self.line(line)
        await self._quiet()
        if self.turns:
            self.terminal.note("the turn waits for an answer, and there are no more lines: come back to this session to give it")
        self._leaving.set()

    async def line(self, line: str) -> None:
        """Do what a line means: a command, the answer to the oldest open question, or a prompt."""
        match line.rstrip().partition(" "):
            case "/quit", _, "":
                self._leaving.set()
            case "/stop", _, "":
                await self._say(Stop())
            case "/edit", _, text if text and self.turns:
                await self._say(Edit(turn=self.turns[-1].id, text=text.strip()))
            case command, _, _ if command.startswith("/"):
                self.terminal.note(f"{command} means nothing now: {USAGE}")
            case _ if text := line.strip():
                open_turns = {turn.id for turn in self.turns}
                asked = (
                    id for id, c in self._projection.calls.items() if c.kind in ("ask", "approve") and not c.done and c.turn in open_turns
                )
                call = next(asked, None)
                await self._say(Prompt(text=text) if call is None else Answer(call=call, text=text))

    async def _say(self, word: Said) -> None:
        """Say a word, now or at the next connection, and wait until it has been read here as well."""
        try:
            receipt = await self.session.say(word)
        except BadWord as bad:
            self.terminal.note(f"not understood: {bad}")
            return
        self.terminal.draw(receipt)
        await self._until_read(receipt.id or "0-0")

    def interrupt(self) -> None:
        """Ctrl-C: stop what is open; with nothing open, or what was to be stopped still open, leave."""
        turns = [turn.id for turn in self.turns]
        if not turns or turns == self._stopping:
            self._leaving.set()
        else:
            self._stopping = turns
            self.terminal.note("stopping; Ctrl-C again leaves")
            self._tasks.create_task(self._say(Stop()))
