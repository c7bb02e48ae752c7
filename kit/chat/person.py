"""Person: somebody at a terminal in a session: lines become words while entries are drawn.

At a terminal every line is said at once. A script's lines (stdin is a pipe or a file) take turns instead: one is said when what the ones
before it began has ended, or waits for somebody; so `printf 'weather?\\nOslo\\n'` asks, and then answers the question back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from kit.chat.place import Place
from kit.chat.terminal import Terminal, line_of
from kit.client import BadWord, Session
from kit.packets import Action, Answer, Edit, EntryId, Prompt, Said, Stop

USAGE = "type a prompt; /stop, /edit TEXT, /quit; a space before a slash makes it a prompt; Ctrl-C stops, and again leaves"


class _Left(Exception):
    """The person leaves."""


class Person:
    """Somebody in one session, going on at `place`. `patient`: lines take turns."""

    def __init__(self, terminal: Terminal, place: Place | None = None, *, patient: bool = True) -> None:
        self.terminal, self.place, self.patient = terminal, place or Place(), patient
        self.session: Session
        self._read = asyncio.Event()
        self._leaving = asyncio.Event()
        self._stopping: list[str] = []  # the turns that were open at the last Ctrl-C
        self._tasks: asyncio.TaskGroup

    async def run(self, session: Session, lines: AsyncIterator[str], keep: Callable[[Place], None]) -> None:
        """Talk until the lines have ended and what they began, or the person leaves; `keep` is given each place.

        Raises a group of what ended it otherwise: NotLetIn, BrokenPipeError where nobody reads on, what `keep` raises.
        """
        self.session = session
        session.on_state = self.terminal.note
        for call in self.place.waiting.values():
            self.terminal.note(f"still open: {line_of(call)}")
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for work in (self._follow(), self._hear(lines), self._keep(keep)):
                    self._tasks.create_task(work)
                await self._leaving.wait()
                raise _Left
        except* _Left:
            pass
        keep(self.place)

    async def _follow(self) -> None:
        async for entry in self.session:
            self.terminal.draw(entry)
            self.place.learn(entry)
            self.place.log, self.place.after = self.session.log, self.session.after
            self._read.set()

    async def _keep(self, keep: Callable[[Place], None]) -> None:
        """Keep the place whenever all that has come is drawn: once for a burst, not for each token."""
        while True:
            await self._read.wait()
            self._read.clear()
            keep(self.place)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until what has been read fulfils a condition."""
        while not condition():
            self._read.clear()
            await self._read.wait()

    async def _quiet(self) -> None:
        """Wait until every turn has ended, or waits for somebody."""
        await self._until(lambda: {*self.place.turns} <= {call.turn for call in self.place.waiting.values()})

    async def _hear(self, lines: AsyncIterator[str]) -> None:
        async for line in lines:
            self.terminal.interrupted()
            if self.patient and not line.startswith("/"):
                await self._quiet()
            await self.line(line)
        await self._quiet()
        if self.place.turns:
            self.terminal.note("the turn waits for an answer, and there are no more lines: come back to this session to give it")
        self._leaving.set()

    async def line(self, line: str) -> None:
        """Do what a line means: a command, the answer to the oldest open question, or a prompt."""
        match line.rstrip().partition(" "):
            case "/quit", _, "":
                self._leaving.set()
            case "/stop", _, "":
                await self._say(Stop())
            case "/edit", _, text if text and self.place.turns:
                await self._say(Edit(turn=self.place.turns[-1], text=text.strip()))
            case command, _, _ if command.startswith("/"):
                self.terminal.note(f"{command} means nothing now: {USAGE}")
            case _ if text := line.strip():
                asked = (call for call, of in self.place.waiting.items() if not (isinstance(of, Action) and of.on == "client"))
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
        log, said = self.session.log, EntryId.parse(receipt.id or "0-0")
        await self._until(lambda: self.session.log != log or EntryId.parse(self.place.after or "0-0") >= said)

    def interrupt(self) -> None:
        """Ctrl-C: stop what is open; with nothing open, or what was to be stopped still open, leave."""
        if not self.place.turns or self.place.turns == self._stopping:
            self._leaving.set()
        else:
            self._stopping = self.place.turns.copy()
            self.terminal.note("stopping; Ctrl-C again leaves")
            self._tasks.create_task(self._say(Stop()))
