"""Tap: a client that costs next to nothing, so that what is measured is the server: it counts the tokens in the bytes that come.

The same for every arm, whatever protocol the tokens come in (dialects.py): a token ends with `x;`, and nothing else does. It answers no
pings: no arm runs as long as any server's patience (20 s and more).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import NamedTuple

MARK = b"x;"
_STAMPED = re.compile(rb"(\d+)@([\d.]+)x;")


class Token(NamedTuple):
    """Its ordinal; when it was said, and when it came (seconds, CLOCK_MONOTONIC)."""

    n: int
    said: float
    came: float


class Tap(asyncio.Protocol):
    """One connection. `count`: the tokens that have come; `frames`: the messages that held them; `tokens`: those that bear a time.

    `frame`: bytes that stand once in each message; `cursor`: a whole message, with what names the place behind it (then in `after`).
    """

    def __init__(self, frame: bytes = MARK, cursor: re.Pattern[bytes] | None = None, stamped: bool = False) -> None:
        self.count = self.frames = 0
        self.tokens: list[Token] = []
        self.after: str | None = None
        self.chars = 0
        """Characters in `tokens`, and before them."""
        self.name = ""
        """What the server calls this client, where that is needed to come back."""
        self.lost = False
        self.transport: asyncio.Transport
        self._frame, self._cursor, self._stamped = frame, cursor, stamped
        self._head: bytes | None = b""  # what came before anybody counts; None: it counts
        self._rest = b""
        self._awaited: tuple[Callable[[], bool], asyncio.Future[None]] | None = None

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
        else:
            self._take(data)
        self._look()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._look()

    # ---- what a client does ----

    async def expect(self, pattern: bytes, *, keep: bool = False) -> re.Match[bytes]:
        """The next of what answers, before the tokens; what stands before it is passed over, unless `keep`."""
        found: list[re.Match[bytes]] = []

        def seen() -> bool:
            match = re.search(pattern, self._head or b"", re.DOTALL)
            found.extend([match] if match else [])
            return bool(match)

        await self._until(seen)
        if not keep:
            self._head = (self._head or b"")[found[0].end() :]
        return found[0]

    def listen(self) -> None:
        """From here on tokens come."""
        head, self._head = self._head or b"", None
        self._take(head)

    async def reach(self, count: int) -> None:
        """Wait until so many tokens have come. Raises ConnectionResetError where the connection ends before."""
        await self._until(lambda: self.count >= count)

    async def _until(self, true: Callable[[], bool]) -> None:
        if not true():
            self._awaited = true, asyncio.get_running_loop().create_future()
            self._look()
            await self._awaited[1]

    def _look(self) -> None:
        if self._awaited is None or (waiting := self._awaited[1]).done():
            return
        if self._awaited[0]():
            waiting.set_result(None)
        elif self.lost:
            waiting.set_exception(ConnectionResetError(f"the server closed the connection: {(self._head or b'')[-400:]!r}"))

    # ---- what comes ----

    def _take(self, data: bytes) -> None:
        if self._stamped:
            self._read(data)
            return
        rest, data = self._rest, self._rest + data
        self.count += data.count(MARK) - rest.count(MARK)
        self.frames += data.count(self._frame) - rest.count(self._frame)
        self._rest = data[-max(len(self._frame), len(MARK)) + 1 :]

    def _read(self, data: bytes) -> None:
        data, came = self._rest + data, time.monotonic()
        messages = list((self._cursor or _STAMPED).finditer(data))
        if not messages:
            self._rest = data
            return
        last = messages[-1]
        for match in _STAMPED.finditer(data, 0, last.end()):
            self.tokens.append(Token(int(match[1]), float(match[2]), came))
            self.chars += len(match[0])
        self.count = len(self.tokens)
        self.after = last[1].decode() if last[1] else None
        self._rest = data[last.end() :]
