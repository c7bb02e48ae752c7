"""Presence: who is in a room, told around its log by each instance for the people whom it serves.

Nothing of it is kept, and nobody is asked: an instance tells its own list when somebody comes or goes, again every few seconds, and at
once when another says that somebody is new there, who would else wait for it. A list that is not heard for 25 s is void: its instance is
gone. An orderly exit tells an empty one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress

import msgspec

from kit.feed import Feed
from kit.packets import Who, encode
from kit.store import StoreError
from kit.transcript import Transcript

EVERY = 10.0
"""Seconds between two tellings of a list that stays as it is."""
_read = msgspec.json.Decoder(Who)


class Presence:
    """What one instance tells of its people in `rooms` (names of sessions); `agents` answer there."""

    def __init__(self, transcript: Transcript, agents: Mapping[str, object], rooms: Iterable[str] = (), every: float = EVERY) -> None:
        self.rooms = set(rooms)
        self._transcript, self._agents, self._every = transcript, agents, every
        self._by = secrets.token_urlsafe(6)
        self._due: dict[Feed, bool] = {}
        self._changed = asyncio.Event()
        self._telling = asyncio.Lock()

    def tell(self, feed: Feed, *, fresh: bool = False) -> None:
        """Somebody came (`fresh`) or went: tell it soon."""
        if feed.log.session in self.rooms:
            self._due[feed] = self._due.get(feed, False) or fresh
            self._changed.set()

    def hear(self, feed: Feed, frame: bytes) -> None:
        """Another instance told something: who is new there hears of ours at once."""
        if frame.startswith(b'{"type":"who"') and (who := _read.decode(frame)).fresh and who.by != self._by and feed.viewers:
            self.tell(feed)

    async def run(self, feeds: Mapping[str, Feed]) -> None:
        """Tell what is due, and every few seconds the list of each room in which anybody is."""
        clock = asyncio.get_running_loop().time
        again = clock() + self._every
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(again):
                    await self._changed.wait()
            if clock() >= again:
                again += self._every
                for room in self.rooms & feeds.keys():
                    if feeds[room].viewers:
                        self.tell(feeds[room])
            await self.flush()

    async def flush(self) -> None:
        """Tell what is due; returns when it is told."""
        async with self._telling:
            self._changed.clear()
            while self._due:
                feed, fresh = self._due.popitem()
                names = sorted({viewer.name for viewer in feed.viewers})
                who = Who(names=names, agents=[*self._agents], by=self._by, fresh=fresh)
                with suppress(*StoreError):  # it is told again in a few seconds
                    await self._transcript.tell(feed.log, encode(who))
