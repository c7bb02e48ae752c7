"""Trace: one append-only record of what an instance does: handshakes and frames, store commands, and when agents are called.

Views, checks and notebooks read it; nothing is recorded anywhere else. It is attached from outside: a `websockets` connection that
tells what passes through it (`create_connection`), a store whose lines do, agents that do. Who does not ask for it does not pay.

A credential never gets in: it is replaced by as many `*` before it is recorded, in the bytes too (in one that is masked, under the mask).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from kit.history import Agent, History
from kit.lab.observe import ObservedConnection, masked
from kit.lab.records import Closed, Command, Frame, Handshake, Record, Records, TurnChange, What
from kit.server import BoundedConnection
from kit.store import Store

__all__ = ["Closed", "Command", "Frame", "Handshake", "Record", "Records", "Trace", "TurnChange"]

log = logging.getLogger("kit.lab.trace")


class Trace:
    """The record. `keep` records or `size` bytes of frames at most: the oldest go. Its methods may be called on any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, keep: int = 20_000, size: int = 32 << 20) -> None:
        self._clock, self._began = clock, clock()
        self._keep, self._size = keep, size
        self._records: deque[Record] = deque()
        self._held = self._count = self._wires = 0
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Record], object]] = []

    # ---- reading ----

    @property
    def records(self) -> Records:
        """All that is kept."""
        return self.since(0)

    def mark(self) -> int:
        """Now, for `since`."""
        return self._count

    def since(self, mark: int) -> Records:
        """What was recorded after a mark, as far as it is kept."""
        with self._lock:
            kept = list(self._records)
            return Records(kept[max(mark - (self._count - len(kept)), 0) :])

    def listen(self, callback: Callable[[Record], object]) -> Callable[[], None]:
        """Call `callback(record)` for each record to come, on the thread that records it; what is returned ends that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def __repr__(self) -> str:
        return repr(self.records)

    def _repr_html_(self) -> str:
        return self.records._repr_html_()

    # ---- recording ----

    def now(self) -> float:
        """Seconds since the trace began."""
        return self._clock() - self._began

    def add(self, record: Record) -> None:
        """Append a record, and tell who listens."""
        with self._lock:
            self._records.append(record)
            self._count += 1
            self._held += _size(record)
            while len(self._records) > self._keep or self._held > self._size:
                self._held -= _size(self._records.popleft())
        for callback in tuple(self._listeners):
            try:
                callback(record)
            except Exception:  # a view that fails must not take the connection with it that it looks at
                log.exception("a listener of the trace failed; it is told nothing more")
                self._listeners.remove(callback)

    @property
    def connection(self) -> type[BoundedConnection]:
        """For `websockets.serve(..., create_connection=trace.connection)`, and `kit.server.serve`: its connections are recorded."""

        class TracedConnection(ObservedConnection):
            trace = self

        return TracedConnection

    def new_wire(self) -> int:
        """The number of a new connection."""
        with self._lock:
            self._wires += 1
            return self._wires

    def watch(self, store: Store) -> Store:
        """Record what is asked of a store. Left out are the blocking reads, and the look for open turns that goes on all the time."""
        for server in store.servers:
            self._tell_commands(server.redis)
            server.redis.pipeline = self._piped(server.redis.pipeline)
            server.commits.send = self._sent(server.commits.send)  # type: ignore[method-assign]  # of this one store
        return store

    def _sent(self, send: Callable[..., None]) -> Callable[..., None]:
        def told(commands: Sequence[Sequence[Any]], then: Callable[[Any], None]) -> None:
            for command in commands:
                self._tell(command)
            send(commands, then)

        return told

    def _piped(self, pipeline: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: self._tell_commands(pipeline(*args, **options))

    def _tell_commands(self, line: Any) -> Any:
        ask = line.execute_command

        def execute_command(*command: Any, **options: Any) -> Any:
            self._tell(command)
            return ask(*command, **options)

        line.execute_command = execute_command
        return line

    def _tell(self, command: Sequence[Any]) -> None:
        name = str(command[0])
        if name not in ("SMEMBERS", "PTTL"):
            self.add(Command(self.now(), name, _key(command)))

    def observed(self, agent: Agent) -> Agent:
        """The same agent; each call of it, and how that ended, is recorded."""

        def called(history: History) -> Any:
            said: Any = agent(history)
            return self._told(said, history.turn) if isinstance(said, AsyncGenerator) else said  # what is no agent is the turn's affair

        return called

    async def _told(self, said: AsyncGenerator[Any], turn: str) -> AsyncGenerator[Any]:
        self.add(TurnChange(self.now(), turn, "called"))
        what: What = "failed"
        try:
            async with aclosing(said):
                async for packet in said:
                    yield packet
            what = "returned"
        except (asyncio.CancelledError, GeneratorExit):
            what = "cancelled"
            raise
        finally:
            self.add(TurnChange(self.now(), turn, what))


def _size(record: Record) -> int:
    return len(record.raw) if isinstance(record, Frame) else 0


def _key(command: Sequence[Any]) -> str:
    """The first key; a command of two words (SCRIPT LOAD, ...) has none."""
    at = 3 if command[0] in ("EVAL", "EVALSHA") else 1
    key = command[at] if len(command) > at and " " not in command[0] else ""
    return masked(key if isinstance(key, bytes) else str(key).encode()).decode("utf-8", "replace")
