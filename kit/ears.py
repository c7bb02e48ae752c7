"""Ears: the sessions that somebody here listens to, and one blocking read for all of them.

A session's feed is opened for whoever needs it first and closed when nobody does. The shared read follows the logs in which others speak,
and the few streams that a shard has beside them: its bell (begin again, there is one more log), `wake` (look for turns that nobody runs)
and `around` (frames that stand in no log, and which words were said).
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from kit.feed import Feed
from kit.log import Stored
from kit.packets import START, EntryId
from kit.store import BLOCK, StoreError
from kit.transcript import Transcript

log = logging.getLogger("kit.ears")

MANY, REST, REST_IN_PROCESS = 64, 20e-6, 80e-6
"""From so many sessions on, and for so many seconds for each, the shared read rests after it has brought something.

To ask a server for a thousand streams takes 10 ms of this loop; to ask fakeredis, which works in it, 40. What another instance says is
heard that much later; but an agent that has not heard it is refused by the store at once, and then it reads.
"""


class Ears:
    """One instance's feeds, by session.

    `woken`: called with a shard where turns may have nobody who runs them; `around`: with a feed and a frame that stands in no log, before
    its viewers have it.
    """

    def __init__(
        self, transcript: Transcript, *, woken: Callable[[int], None], around: Callable[[Feed, bytes], None], rng: random.Random
    ) -> None:
        self.feeds: dict[str, Feed] = {}
        self._transcript, self._woken, self._around, self._rng = transcript, woken, around, rng
        self._opening: dict[str, asyncio.Lock] = {}
        self._bell = secrets.token_urlsafe(9)
        self._over = False

    # ---- sessions ----

    async def open(self, session: str) -> Feed:
        """The feed of a session; whoever needs it longer than this step joins its `viewers` or `turns`, or is `holding` it."""
        async with (opening := self._opening.setdefault(session, asyncio.Lock())):
            if self._opening.get(session) is not opening:  # the last one left while we waited, and it went with the feed
                return await self.open(session)
            if not (feed := self.feeds.get(session)):
                feed = self.feeds[session] = Feed(self._transcript, await self._transcript.open(session))
                try:
                    await self._ring(feed.log.shard)
                except BaseException:  # nobody follows it
                    del self.feeds[session]
                    raise
            return feed

    @asynccontextmanager
    async def holding(self, session: str) -> AsyncIterator[Feed]:
        """The feed of a session, which stays open inside the block though nobody listens by it yet."""
        feed = await self.open(session)
        feed.held += 1
        try:
            yield feed
        finally:
            feed.held -= 1
            self.close(session)

    async def reopen(self, session: str) -> None:
        """The session may have another log now: look, and move there."""
        if feed := self.feeds.get(session):
            opened = await self._transcript.open(session)
            if opened.log.name != feed.log.name:
                log.warning("session %s: its log was replaced", session)
                feed.move(opened)
                await self._ring(feed.log.shard)

    def close(self, session: str) -> None:
        """Where nobody here needs the feed."""
        feed = self.feeds.get(session)
        if feed and not feed.viewers and not feed.turns and not feed.held and not self._opening[session].locked():
            del self.feeds[session], self._opening[session]

    async def follow_again(self, feed: Feed) -> None:
        """A turn that ended here may have been the reason to leave the log out of the shared read that is under way."""
        if (feed.viewers or feed.turns) and not feed.followed and not feed.quiet:
            with suppress(*StoreError):  # then that read has failed, too
                await self._ring(feed.log.shard)

    # ---- the shared read ----

    def end(self) -> None:
        """No read begins any more: a library may swallow the cancellation of one that is under way."""
        self._over = True

    async def listen(self, shard: int) -> None:
        """Follow a shard until cancelled: one command for the logs in which others speak, and for its own few streams."""
        own: dict[str, EntryId] = {}
        delay, run = 0.01, ""
        while not self._over:
            try:
                if not own:
                    own = await self._own_streams(shard)
                if run != self._transcript.run_id(shard):  # not only after an error of this read: another may have met it first
                    run = await self._after_restart(shard)
                feeds = self._to_follow(shard)
                found = await self._transcript.follow({**own, **_cursors(feeds)}, block=BLOCK, heard=partial(_cursors, feeds))
                delay = 0.01
                for stream, entries in found.items():
                    if stream in feeds and feeds[stream].log.stream == stream:
                        feeds[stream].accept(entries)
                for stream in own.keys() & found.keys():  # after the logs: of what stands there, nothing more is to be done
                    await self._told(shard, stream, found[stream])
                    own[stream] = found[stream][-1].id  # not before: what could not be done is told again
                if len(feeds) >= MANY:
                    await asyncio.sleep((REST_IN_PROCESS if self._transcript.store.in_process else REST) * len(feeds))
            except StoreError as error:
                log.warning("waiting for the store: %s", error)
                with suppress(*StoreError):
                    await self._transcript.store.look()
                await asyncio.sleep(self._rng.uniform(0, delay))
                delay = min(2 * delay, 1.0)

    def _to_follow(self, shard: int) -> dict[str, Feed]:
        """The logs that the next shared read brings, by stream: once each, from where it was opened; then those in which others speak."""
        feeds = [feed for feed in self.feeds.values() if feed.log.shard == shard]
        for feed in feeds:
            feed.followed = feed.followed is None or not feed.alone
        return {feed.log.stream: feed for feed in feeds if feed.followed}

    async def _own_streams(self, shard: int) -> dict[str, EntryId]:
        wake, around = self._transcript.wake_key(shard), self._transcript.around_key(shard)
        return {self._bell_key(shard): START, wake: await self._transcript.last(wake), around: await self._transcript.last(around)}

    async def _told(self, shard: int, stream: str, entries: Sequence[Stored]) -> None:
        if stream == self._transcript.wake_key(shard):
            for session in {entry.body.decode().partition("}:")[2] for entry in entries}:
                await self.reopen(session)
            self._woken(shard)
        elif stream == self._transcript.around_key(shard):
            for entry in entries:
                whose, _, told = entry.body.partition(b" ")
                if feed := self.feeds.get(whose.decode()):
                    await self._told_around(feed, told)

    async def _told_around(self, feed: Feed, told: bytes) -> None:
        """A frame that is in no log, or the id of a word."""
        if told.startswith(b"{"):
            self._around(feed, told)
            for viewer in feed.viewers:
                viewer.beside(told)
        elif feed.cursor < EntryId.given(told):
            await feed.catch_up()

    async def _after_restart(self, shard: int) -> str:
        """A restarted store may have lost the tail of its logs: every session is opened again, and moves to a new log."""
        run = self._transcript.run_id(shard)
        for session in [s for s, f in self.feeds.items() if f.log.shard == shard and f.log.run != run]:
            await self.reopen(session)
        return run

    async def _ring(self, shard: int) -> None:
        """Let the shared read begin again, with one more log to follow."""
        await self._transcript.ring(self._bell_key(shard))

    def _bell_key(self, shard: int) -> str:
        return f"{{{shard}}}:bell:{self._bell}"


def _cursors(feeds: Mapping[str, Feed]) -> dict[str, EntryId]:
    """Where each stream has been heard up to by now."""
    return {stream: feed.cursor for stream, feed in feeds.items()}
