"""Connection: one client's socket: hello, the log after its cursor, then what comes; words in, receipts out.

It turns live in the same loop step in which its cursor equals the feed's, so nothing is lost and nothing twice. A reader that falls
behind leaves the fan-out with its cursor and reads the log at its own pace: its memory is one socket buffer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from itertools import accumulate
from typing import Literal, Protocol

import msgspec

from kit.auth import Door, Refused, Visit, opens
from kit.ending import end
from kit.feed import Feed
from kit.instance import Instance
from kit.log import Log, Opened, Stored
from kit.packets import START, Beat, CloseCode, EntryId, Error, Gap, Hello, Patch, Receipt, Renew, Said, Typing, Word, encode
from kit.said import BadFrame, decode_said
from kit.store import StoreError

log = logging.getLogger("kit.connection")
Reason = Literal["trimmed", "lost", "other log", "future"]
BEAT = 10.0
"""Seconds between two beats."""
BEHIND = 128 * 1024
"""Bytes in the socket's buffer from which on a reader is slow."""
HELD = 1024 * 1024
"""Bytes of a log that are held for a reader who may stop: he has a batch, and what the socket takes."""
STALLED = 80.0
"""Seconds after which a reader that takes nothing is dropped. The servers' pings can't tell: they, too, wait for the full buffer."""
CLOSING = 1.0
"""Seconds that a client has to answer a close: neither a flood nor a drain waits for it longer."""
FIRST, MOST = 16, 200
"""Entries of a visit's first read, and of any: each takes four times as many as the last, so that who comes back has the first soon."""
_BEAT = encode(Beat())


class Socket(Protocol):
    """What a connection needs of a WebSocket, whoever serves it."""

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """The messages, until the socket closes."""

    async def send(self, frame: bytes) -> None:
        """Send a text frame; waits while the buffer is full. Raises Closed."""

    def send_now(self, frames: Sequence[bytes]) -> int:
        """Send text frames without waiting; gives the bytes that are now `waiting`."""

    @property
    def waiting(self) -> int:
        """Bytes in the buffer, which the client has not taken yet."""

    async def close(self, code: int, reason: str = "") -> None:
        """Close it; where the client does not answer, be done with it after a moment."""

    def abort(self) -> None:
        """Drop it without a closing handshake."""


class Closed(Exception):
    """The socket is closed."""


class Flooding(Exception):
    """The client says more than anybody could read."""


class Budget:
    """A token bucket: how much a client may say. A frame costs 1 and 1 for each 256 characters, what others hear of it 20 more;
    20,000 at once, 2,000 more each second.
    """

    __slots__ = ("clock", "left", "refill", "size", "then")

    def __init__(self, size: float = 20_000, refill: float = 2_000, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self.refill, self.clock = size, refill, clock
        self.left, self.then = size, clock()

    def spend(self, cost: float) -> None:
        """Raises Flooding where nothing is left."""
        now = self.clock()
        self.left = min(self.size, self.left + (now - self.then) * self.refill) - cost
        self.then = now
        if self.left < 0:
            raise Flooding


class Connection:
    """One visit, from hello to close. `lasts`: seconds until it is closed with 1012, come back at once."""

    def __init__(
        self,
        socket: Socket,
        visit: Visit,
        instance: Instance,
        door: Door,
        *,
        beat: float = BEAT,
        budget: Budget | None = None,
        lasts: float | None = None,
    ) -> None:
        self.socket, self.visit, self.instance, self.door = socket, visit, instance, door
        self.identity = visit.identity
        self.cursor = START
        self.feed: Feed
        self.log: Log
        self._beat = beat
        self._over = time.monotonic() + (math.inf if lasts is None else lasts)
        self._budget = budget or Budget()
        self._patches = Budget(size=30, refill=10)
        self._behind = asyncio.Event()
        self._at_once = FIRST
        self._due: asyncio.Handle
        self._closing: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        """Who it is."""
        return self.identity.name

    async def serve(self) -> None:
        """Talk until the socket closes."""
        try:
            self.feed = await self.instance.ears.open(self.visit.session)
            self.feed.viewers.add(self)
            try:
                await self._talk()
            finally:
                self.feed.viewers.discard(self)
                self.feed.live.discard(self)
                self.instance.presence.tell(self.feed)
                self.instance.ears.close(self.visit.session)
        except* Closed:
            pass
        except* StoreError as errors:
            log.warning("session %s: the store does not answer: %s", self.visit.session, errors.exceptions[0])
            # Everybody hears of it at the same time, and must not come back at the same time.
            await self.socket.close(CloseCode.RESTART, str(random.randint(1000, 2000)))

    async def _talk(self) -> None:
        await self._hello()
        async with asyncio.TaskGroup() as tasks:
            pump = tasks.create_task(self._pump())
            self._beat_later()
            self._due = asyncio.get_running_loop().call_soon(self._close_when_due)
            try:
                await self._listen()
            finally:
                self._next_beat.cancel()
                self._due.cancel()
                await end([pump, *self._closing])

    # ---- down ----

    def push(self, frames: Sequence[bytes], id: EntryId) -> bool:
        """The feed's next entries, up to `id`; False when the client is too slow for the fan-out."""
        self.cursor = id
        if self.socket.send_now(frames) > BEHIND:
            self._behind.set()
            return False
        return True

    def beside(self, frame: bytes) -> None:
        """Something that is not in the log, and not worth waiting for a slow reader."""
        if self in self.feed.live and self.socket.send_now([frame]) > BEHIND:
            self.feed.live.discard(self)  # at once: a hundred more may have come in the same piece
            self.nudge()

    def nudge(self) -> None:
        """Something is new: leave the fan-out and look."""
        self._behind.set()

    async def _hello(self) -> None:
        transcript = self.instance.transcript
        opened = await transcript.open(self.visit.session)
        if opened.log.name != self.feed.log.name:
            await self.instance.ears.reopen(self.visit.session)
        self.log = opened.log
        self.cursor, reason = await self._start(opened)
        ticket = None
        if self.visit.origin is not None:
            ticket = await self.door.ticket(self.identity, self.visit.session, self.visit.origin)
        status: Literal["fresh", "resumed", "gap"] = "gap" if reason else "resumed" if self.visit.after is not None else "fresh"
        after = str(self.cursor)
        hello = Hello(
            session=self.visit.session, log=self.log.name, after=after, head=str(opened.head), status=status, reason=reason, ticket=ticket
        )
        await self.socket.send(encode(hello))
        if reason:
            await self.socket.send(encode(Gap(log=self.log.name, after=after, reason=reason)))

    async def _start(self, opened: Opened) -> tuple[EntryId, Reason | None]:
        """Where this visit begins, with the reason where its own cursor can't be served."""
        cursor, reason = self._asked(opened)
        if reason is None:
            following = await self.instance.transcript.read(opened.log, cursor, 1)
            if (following[0].before if following else opened.head) == cursor:
                return cursor, None
        first = await self.instance.transcript.read(opened.log, START, 1)
        begin = first[0].before if first else opened.head
        return begin, reason or ("trimmed" if cursor < begin or cursor == START else "lost")

    def _asked(self, opened: Opened) -> tuple[EntryId, Reason | None]:
        if self.visit.after is None:
            return START, None
        try:
            cursor = EntryId.parse(self.visit.after)
        except ValueError:
            return START, "future" if re.fullmatch(r"\d+-\d+", self.visit.after) else "other log"
        if self.visit.log not in (None, opened.log.name):
            return cursor, "lost" if self.visit.log == opened.was else "other log"
        return cursor, "future" if cursor > opened.head else None

    async def _pump(self) -> None:
        """Read the log up to where the feed stands, turn live, and again whenever the client fell behind."""
        here = False
        while True:
            if self.log.name != self.feed.log.name:
                self.log = self.feed.log
                await self._gap("lost")
            elif self.cursor == self.feed.cursor:
                self._behind.clear()
                self.feed.live.add(self)
                if not here:  # not before: it would miss what the others answer
                    self.instance.presence.tell(self.feed, fresh=True)
                    here = True
                await self._behind.wait()
                self.feed.live.discard(self)
                await self.socket.send(_BEAT)  # waits for the buffer to drain; back in the fan-out before that, it would grow without end
            elif self.cursor > self.feed.cursor:
                await self.feed.catch_up()
                if self.log.name == self.feed.log.name and self.cursor > self.feed.cursor:
                    await self._gap("lost")
            else:
                await self._read_on()

    async def _read_on(self) -> None:
        entries = _begin(await self.instance.transcript.read(self.log, self.cursor, self._at_once))
        self._at_once = min(4 * self._at_once, MOST)
        if not entries or entries[0].before != self.cursor:
            await self._gap("trimmed" if entries else "lost")
            return
        for entry in entries:
            await self.socket.send(entry.frame())
            self.cursor = entry.id

    async def _gap(self, reason: Reason) -> None:
        empty_at = self.feed.cursor  # before it is read: what is said meanwhile is still to come
        first = await self.instance.transcript.read(self.log, START, 1)
        self.cursor = first[0].before if first else empty_at
        await self.socket.send(encode(Gap(log=self.log.name, after=str(self.cursor), reason=reason)))

    def _beat_later(self) -> None:
        """A timer, not a task: each idle connection has one."""
        self._next_beat = asyncio.get_running_loop().call_later(self._beat, self._beat_now)

    def _beat_now(self) -> None:
        if self.socket.waiting:  # it may have stopped, and nothing more be said that would show it: the pump's send finds out
            self.nudge()
        self.socket.send_now([_BEAT])  # also to a slow reader: before these bytes count, it has missed a ping
        self._beat_later()

    def _close_when_due(self) -> None:
        """Close when the connection's time is up, or the credentials run out and are not renewed. A timer, too, until then.

        By a close, not by a cancellation from outside: a library of the store that swallows one would keep the connection for ever.
        """
        good = self.identity.expires - self.door.clock()
        if (left := min(good, self._over - time.monotonic())) > 0:
            self._due = asyncio.get_running_loop().call_later(min(left, 3600.0), self._close_when_due)
        elif not self._closing:
            why = (CloseCode.RESTART, "0") if good > 0 else (CloseCode.EXPIRED, "the credentials have expired: come back with new ones")
            self._closing.append(asyncio.create_task(self.socket.close(*why)))

    # ---- up ----

    async def _listen(self) -> None:
        try:
            async for frame in self.socket:
                if self.door.clock() < self.identity.expires:  # else it is being closed, and the client goes on all the same
                    await self._hear(frame)
        except Flooding:
            await self.socket.close(CloseCode.FLOODING, "too many words: slow down")

    async def _hear(self, frame: str | bytes) -> None:
        self._budget.spend(1 + len(frame) // 256)  # reading a large frame takes as long as reading hundreds of small ones
        try:
            said = decode_said(frame)
        except BadFrame as bad:
            await self.socket.send(encode(bad.error))
            return
        match said:
            case Word():
                self._budget.spend(20)
                await self.socket.send(encode(await self._say(said)))
            case Renew(token=token):
                await self._renew(token)
            case Typing():
                self._budget.spend(20)
                await self.instance.transcript.tell(self.feed.log, encode(msgspec.structs.replace(said, from_=self.identity.name)))

    async def _say(self, word: Said) -> Receipt:
        refused = None
        if isinstance(word, Patch):
            try:
                self._patches.spend(1)
            except Flooding:
                refused = "at most ten patches a second: gather what is typed"
        return await self.instance.say(self.visit.session, word, self.identity.name, refused=refused)

    async def _renew(self, token: str) -> None:
        try:
            fresh = self.door.read_token(token)
            if fresh.name != self.identity.name or not opens(fresh.session, self.visit.session):
                raise Refused(HTTPStatus.UNAUTHORIZED, "the token is somebody else's")
        except Refused as refused:
            await self.socket.send(encode(Error(code="bad_token", text=str(refused), at="token")))
        else:
            self.identity = fresh
            self._due.cancel()
            self._close_when_due()


def _begin(entries: list[Stored]) -> list[Stored]:
    """As much as is kept for a reader that may stop: the rest is read again."""
    ends = enumerate(accumulate(len(entry.body) for entry in entries), 1)
    return entries[: next((count for count, size in ends if size >= HELD), len(entries))]
