"""Voice: what the agent of one turn says, on its way into the log: joined, numbered, one append at a time (group commit).

What is said while an append is under way goes in the next: no delay, no timer. The agent's own task begins an append, and the next one
begins where the store's answer is read. The turn's task is woken for what has to wait: a refusal, a lost reply, entries of others that
are to be read first, a document to be written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kit.feed import Feed
from kit.packets import AnyPacket, Document, Write, stored
from kit.speech import joined, numbered

WRITTEN = (Document, Write)
BACKLOG = 1024
"""Pieces that an agent may be ahead of the store before it has to wait."""


class Landed(NamedTuple):
    """An append that was answered and that the turn has to see to: what it held, and what stands against it, if anything does."""

    packets: list[AnyPacket]
    error: Exception | None


class Voice:
    """One turn's packets. `free`: whether the turn may say something now; where it may not, or has to see to something, `wake` is called.

    `next`: the ordinal of the next piece; `last`: when the agent was last heard, or had to wait, by the monotonic clock.
    """

    def __init__(self, feed: Feed, turn: str, *, join: bool, free: Callable[[], bool], wake: Callable[[], None]) -> None:
        self.next = 1
        self.last = 0.0
        self.landed: Landed | None = None
        self.stands = asyncio.Event()
        """Set while all that was said is in the log, and more may be."""
        self.stands.set()
        self._feed, self._turn, self._join, self._free, self._wake = feed, turn, join, free, wake
        self._waiting: list[AnyPacket] = []
        self._under_way: list[AnyPacket] = []
        self._answered = asyncio.Event()
        self._room = asyncio.Event()
        self._hushed = False

    @property
    def agent(self) -> str:
        """Who speaks."""
        return self._turn.partition("/")[2]

    @property
    def busy(self) -> bool:
        """Whether an append is under way, or has landed and is to be seen to."""
        return bool(self._under_way)

    def say(self, pieces: Sequence[AnyPacket]) -> bool:
        """Have pieces of text and other packets appended; gives whether there is room for more."""
        self._waiting += pieces
        if not self._under_way:
            self.last = time.monotonic()
            self.stands.clear()
            self._go_on()
        return len(self._waiting) < BACKLOG

    async def room(self) -> None:
        """Wait while the store is far behind."""
        while len(self._waiting) >= BACKLOG:
            self._room.clear()
            await self._room.wait()

    def _go_on(self) -> None:
        """Append what waits, unless an append is under way."""
        if self._under_way or not self._waiting:
            return
        if self._hushed or not self._free():
            self._wake()
        else:
            self._under_way = self.take()
            try:
                self._feed.send([(stored(packet), packet.at) for packet in self._under_way], self._told)
            except Exception as error:  # noqa: BLE001  # nothing was sent; the turn's task raises it
                self._told(error)

    def _told(self, error: Exception | None) -> None:
        if error is None:
            self.count(self._under_way)
        if error or self._feed.behind or any(isinstance(packet, WRITTEN) for packet in self._under_way):
            self.landed = Landed(self._under_way, error)
            self._wake()
        else:
            self.settled()
        self._answered.set()

    def count(self, packets: Sequence[AnyPacket]) -> None:
        """These stand in the log."""
        self.next = packets[-1].n + packets[-1].k

    def settled(self) -> None:
        """The append that landed has been seen to."""
        self._under_way, self.landed = [], None
        self.last = time.monotonic()
        self._go_on()
        if not self._under_way and not self._waiting and not self._hushed:
            self.stands.set()

    async def answered(self) -> None:
        """Wait for what becomes of the append under way."""
        self._answered.clear()
        await self._answered.wait()

    def hush(self) -> None:
        """From now on nothing is appended here: the turn's task says what is left, if anything."""
        self._hushed = True

    def take(self) -> list[AnyPacket]:
        """What waits, as it goes into the log."""
        said, self._waiting = self._waiting, []
        self._room.set()
        return self.numbered(joined(said) if self._join else ((piece, 1) for piece in said))

    def numbered(self, said: Iterable[tuple[AnyPacket, int]]) -> list[AnyPacket]:
        """Packets, each with the number of pieces in it, as they come next."""
        return numbered(said, self.agent, self._turn, self.next)
