"""View: a session as a notebook shows it: one line for each thing said, as text and as a table that needs no style."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from html import escape
from typing import NamedTuple

from kit.fork import fork
from kit.instance import Instance
from kit.lab.table import as_html, as_text
from kit.lab.thread import run
from kit.packets import Answer, Content, Entry, EntryId, Packet, Prompt, Receipt, Said, Thought, new_ref
from kit.projection import Projection
from kit.text import text_of


class Line(NamedTuple):
    """One thing said. `last` is another id where neighbouring pieces of text are shown as one."""

    id: str
    last: str
    who: str
    what: str
    text: str

    @property
    def ids(self) -> str:
        return self.id if self.last == self.id else f"{self.id} … {self.last}"


def lines(entries: Iterable[Entry]) -> Iterator[Line]:
    """The entries as lines; the pieces of one thought or one text that follow each other are one line."""
    kept: Line | None = None
    for entry in entries:
        line = Line(entry.id, entry.id, entry.from_, str(entry.__struct_config__.tag), text_of(entry))
        if kept and isinstance(entry, Thought | Content) and (kept.who, kept.what) == (line.who, line.what):
            kept = kept._replace(last=line.id, text=kept.text + line.text)
            continue
        if kept:
            yield kept
        kept = line
    if kept:
        yield kept


class Transcript(tuple[Entry, ...]):
    """Entries of a session, shown as what was said."""

    __slots__ = ()

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Ids, who, what and the text, of each line."""
        return [(line.ids, line.who, line.what, line.text) for line in lines(self)]

    def __repr__(self) -> str:
        return as_text(self.rows()) or "(nothing said yet)"

    def _repr_html_(self) -> str:
        return as_html(self.rows(), ("id", "who", "what", "text"))


class SessionView:
    """A session as cells use it: each method waits, and the kernel's interrupt button ends the wait."""

    def __init__(self, name: str, instance: Instance) -> None:
        self.name = name
        self._instance = instance

    @property
    def transcript(self) -> Transcript:
        """All that the log holds now."""
        return run(self._read())

    def at(self, id: str) -> Transcript:
        """What had been said when this id was the last: time travel."""
        return Transcript(entry for entry in self.transcript if EntryId.parse(entry.id) <= EntryId.parse(id))

    def fork(self, id: str, name: str) -> SessionView:
        """Another session that begins with what was said up to an id, as in `fork("3-4", "what-if")`; what is said there, stays there."""
        return run(self._fork(EntryId.parse(id), name))

    def prompt(self, text: str, to: str | None = None) -> Transcript:
        """Ask, wait until the turn has ended or waits for you, and give what was said in it."""
        return run(self._asked(Prompt(text=text, to=to)))

    def answer(self, call: str, text: str) -> Transcript:
        """Answer an `ask` (or approve an action), and wait as `prompt` does."""
        return run(self._asked(Answer(call=call, text=text)))

    def say(self, word: Said) -> Receipt:
        """Say any word, and give its receipt at once."""
        return run(self._say(word))

    async def _say(self, word: Said) -> Receipt:
        return await self._instance.say(self.name, new_ref(word), "you")

    def wait(self, asked: Receipt) -> Transcript:
        """Wait for the end of the turn that a prompt opened, by its receipt, as `prompt` does."""
        return run(self._ended(asked, ""))

    def silence(self) -> Transcript:
        """Wait until nobody speaks, each turn having ended or waiting for a person, and give all that was said."""
        return run(self._silence())

    async def _silence(self) -> Transcript:
        feed = await self._instance.ears.open(self.name)
        while _speaking(await feed.projection()):  # noqa: ASYNC110  # as in `_ended`
            await asyncio.sleep(0.02)
        return await self._read()

    async def _asked(self, word: Prompt | Answer) -> Transcript:
        return await self._ended(await self._say(word), word.call if isinstance(word, Answer) else "")

    async def _ended(self, receipt: Receipt, call: str) -> Transcript:
        if receipt.status == "refused":
            raise ValueError(receipt.reason)
        feed = await self._instance.ears.open(self.name)
        now = await feed.projection()
        turn = now.calls[call].turn if call else next(id for id in (*now.turns, *now.ended) if id.startswith(f"{receipt.id}/"))
        while turn in _speaking(await feed.projection()):  # noqa: ASYNC110  # a feed wakes runs and viewers: no event for us
            await asyncio.sleep(0.02)
        entries = await self._read()
        return Transcript(e for e in entries if e.id == receipt.id or (isinstance(e, Packet) and e.turn == turn))

    async def _fork(self, at: EntryId, name: str) -> SessionView:
        transcript = self._instance.transcript
        await fork(transcript, (await transcript.open(self.name)).log, at, name)
        return SessionView(name, self._instance)

    async def _read(self) -> Transcript:
        transcript = self._instance.transcript
        opened = await transcript.open(self.name)
        return Transcript(entry.entry() for entry in await transcript.read_to(opened.log, opened.head))

    def __repr__(self) -> str:
        return f"session {self.name}\n{self.transcript!r}"

    def _repr_html_(self) -> str:
        return f"<p>Session <code>{escape(self.name)}</code></p>{self.transcript._repr_html_()}"


def _speaking(now: Projection) -> set[str]:
    """The turns that have not ended, and wait for nobody."""
    return {turn.id for turn in now.turns.values() if not now.waits(turn)}
