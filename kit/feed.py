"""Feed: one instance's ear on one session: it follows the log, knows what it means, and lets viewers and turns hear.

Entries come by three ways: an own append that the store has just acknowledged, the instance's shared read, and a read that somebody
needed at once. All go through `accept`, which takes each id's successor and nothing else; so it does not matter which way is first.

Where all that speak in a log are run here, its packets are own appends. The shared read leaves it out, and the words that are said there
by other instances are told by the store in a few bytes, beside the logs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol

from kit.history import History, gathered
from kit.log import Log, Opened, Stored
from kit.packets import START, At, Entry, EntryId
from kit.projection import Projection
from kit.transcript import Transcript

AT_ONCE = 64 * 1024
"""Bytes that viewers get in one go; those that can't keep up are left after each."""


class Viewer(Protocol):
    """Who sees the entries as they come; `push` says False when it can't keep up and will read the log by itself."""

    @property
    def name(self) -> str: ...
    def push(self, frames: Sequence[bytes], id: EntryId) -> bool: ...
    def beside(self, frame: bytes) -> None: ...
    def nudge(self) -> None: ...


class Listener(Protocol):
    """A turn that hears what is not just text: words, ends, calls. `taken`: the takeover by which it is run here, if any."""

    turn: str
    taken: EntryId | None

    def hear(self) -> None: ...


class Feed:
    """The log of a session as far as this instance has heard it (`cursor`)."""

    def __init__(self, transcript: Transcript, opened: Opened) -> None:
        self.transcript = transcript
        self.log = opened.log
        self.cursor = opened.head
        self.live: set[Viewer] = set()
        self.viewers: set[Viewer] = set()
        self.turns: set[Listener] = set()
        self.held = 0
        """How many are about to do something with it."""
        self.followed: bool | None = None
        """Whether the shared read that is under way brings this log, too; None before the first that does."""
        self._ahead = opened.head
        """The last own entry that stands in the log, though something before it may not have been heard."""
        self._projection: Projection | None = None
        self._read: tuple[Log, tuple[Entry, ...]] | None = None
        """What a turn has read of a log: those that run at the same time have it in common."""

    @property
    def epoch(self) -> int:
        """The last word that was heard here."""
        return self.cursor.epoch

    @property
    def alone(self) -> bool:
        """Whether all that speak are run here: then only words are said elsewhere, and of those the store tells."""
        here = {(run.turn, run.taken) for run in self.turns}
        if not here or self._projection is None or self.own_unheard:
            return False
        return here.issuperset((turn.id, turn.taken) for turn in self._projection.turns.values())

    @property
    def quiet(self) -> bool:
        """Whether nobody speaks, here or elsewhere, before somebody has said a word."""
        return self._projection is not None and not self._projection.turns

    def accept(self, entries: Sequence[Stored], *, own: bool = False) -> None:
        """Take in entries in log order. Own ones (just acknowledged) wait for the shared read when something lies between."""
        frames, size = list[bytes](), 0
        for entry in entries:
            if entry.id <= self.cursor:
                continue
            if entry.before != self.cursor:
                if own:
                    break
                self._forget()  # trimmed or lost in between: each viewer finds out, and is told, by reading
                frames.clear()
            self._take(entry)
            if self.live:
                frames.append(frame := entry.frame())
                size += len(frame)
                if size > AT_ONCE:
                    self._show(frames)
                    frames, size = [], 0
        self._show(frames)

    def _take(self, entry: Stored) -> None:
        self.cursor = entry.id
        if self._projection is not None and self._projection.fold(entry.id, entry.body):
            for turn in list(self.turns):
                turn.hear()

    def _show(self, frames: Sequence[bytes]) -> None:
        """Let the viewers see what has come up to `cursor`, and leave those that can't keep up."""
        if frames:
            self.live.difference_update([viewer for viewer in self.live if not viewer.push(frames, self.cursor)])

    def _forget(self) -> None:
        """What was heard no longer says how things stand: a turn may have ended in what was not."""
        self._projection = None
        for viewer in self.live:
            viewer.nudge()
        self.live.clear()
        for turn in list(self.turns):
            turn.hear()

    async def catch_up(self) -> None:
        """Hear all that the log holds now."""
        log = None
        while log is not self.log:
            log = self.log
            async for entries in self.transcript.batches(log, self.cursor):
                if self.log is not log:  # they are of the log before, and its ids mean nothing in this one
                    break
                self.accept(entries)

    async def projection(self) -> Projection:
        """What the log means up to `cursor`; read once, then kept up, as long as there is no hole in what is heard."""
        while self._projection is None:
            log, fresh = self.log, Projection()
            while self.log is log and fresh.head < self.cursor:
                entries = [entry for entry in await self.transcript.read(log, fresh.head) if entry.id <= self.cursor]
                for entry in entries:
                    fresh.fold(entry.id, entry.body)
                if not entries:
                    break
            # Since the last read nothing else ran, so `fresh` stands where `cursor` stands. But somebody else may have read it at the same
            # time; only the first is kept up, so all must have that one.
            if self.log is log and self._projection is None:
                self._projection = fresh
        return self._projection

    def is_current(self, projection: Projection) -> bool:
        """Whether that is still kept up."""
        return projection is self._projection

    async def append(self, bodies: Sequence[tuple[bytes, At | None]]) -> None:
        """Add packets in the epoch heard here, and let them be heard; raises Unheard, Gone or the store's error."""
        log = self.log
        self._stands(log, await self.transcript.append(log, self.epoch, bodies))
        if self.behind:
            await self.catch_up()

    def send(self, bodies: Sequence[tuple[bytes, At | None]], told: Callable[[Exception | None], None]) -> None:
        """The same, without waiting: `told` is called when all who listen have heard, with what `append` raises, or None.

        Then it may be `behind`.
        """
        log = self.log

        def answered(entries: list[Stored] | Exception) -> None:
            if isinstance(entries, Exception):
                told(entries)
                return
            try:
                self._stands(log, entries)
            except Exception as error:  # noqa: BLE001  # whoever asked is told, and nobody else
                told(error)
            else:
                told(None)

        self.transcript.send(log, self.epoch, bodies, answered)

    def _stands(self, log: Log, entries: Sequence[Stored]) -> None:
        """Own entries stand in the log."""
        if self.log is log:
            self._ahead = max(self._ahead, entries[-1].id)
            self.accept(entries, own=True)

    @property
    def own_unheard(self) -> bool:
        """Whether own entries stand in the log behind something of others that has not been heard here."""
        return self.cursor < self._ahead

    @property
    def behind(self) -> bool:
        """Whether that is so, and nobody will bring it."""
        return self.own_unheard and not self.followed

    async def history(self, turn: str) -> tuple[History, EntryId]:
        """The log as the agent of a turn gets it, and the id up to which it was read."""
        log = self.log
        entries = list(await self._known(log))
        head = EntryId.parse(entries[-1].id) if entries else START
        async for batch in self.transcript.batches(log, head, 2000):
            entries.extend(gathered(stored.entry() for stored in batch))
            head = batch[-1].id
        history = History(tuple(entries), turn)
        if self.turns:
            self._read = log, history.entries
        return history, head

    async def _known(self, log: Log) -> Sequence[Entry]:
        """Of what was read before, that which the store still has."""
        if self._read is None or self._read[0] is not log:
            return ()
        entries = self._read[1]
        first = await self.transcript.read(log, START, 1)
        return entries[bisect_left(entries, first[0].id, key=lambda entry: EntryId.parse(entry.id)) :] if first else ()

    def leave(self, turn: Listener) -> None:
        """A turn hears no more. With the last one goes what they had read."""
        self.turns.discard(turn)
        if not self.turns:
            self._read = None

    def move(self, opened: Opened) -> None:
        """The session has another log now: everybody starts over."""
        self.log, self.cursor, self._ahead, self.followed = opened.log, opened.head, opened.head, None
        self._forget()
        for viewer in self.viewers:
            viewer.nudge()
