"""Chaos: faults that fall at the same places of a story each time it is told.

A place is counted in entries of the session's log that a witness has seen, a client that nothing happens to; seconds would be other places
on another machine. What the faults bring about within milliseconds is the machine's own again: so a test, or a notebook, asserts
what must be true of every such story.

    stage = {"line": wire, "one": one, "store": store}            # line.py, instances.py or processes.py, served.py
    schedule = Schedule.draw(7, 4, 80, {"line": LINE, "one": INSTANCE})
    async with witness(other.url, "demo", token) as seen:
        await play(schedule, seen, stage)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, TypeVar, cast

from msgspec import Struct

from kit.client import Backoff, Session, connect
from kit.ending import end
from kit.packets import Entry, Gap

T = TypeVar("T")
LINE = ("cut", "vanish", "linger", "shut", "stall", "delay", "jitter", "rate")
INSTANCE = ("freeze", "stop", "leave")
PROCESS = ("freeze", "kill", "leave")
STORE = ("flush", "pause", "trim")
CLIENT = ("receipt", "reload")
"""What a person does, and what befalls a client itself: see trial.py."""
ENDED_BY = {"vanish": "appear", "stall": "flow", "freeze": "thaw", "stop": "start", "kill": "start", "leave": "start", "pause": "resume"}
"""How a fault that lasts is ended."""
KNOBS = {"delay": (0.01, 0.1), "jitter": (0.01, 0.05), "rate": (2_000.0, 20_000.0)}
"""What is set and not called, and from which values it is drawn: seconds, and bytes per second."""
_KNOWN = {*LINE, *INSTANCE, *PROCESS, *STORE, *CLIENT, *ENDED_BY.values(), "restart"}


class Fault(Struct, frozen=True):
    """After so many entries, `what` happens to the one that stands at `where` of the stage; `seconds` later it is over (0: it stays)."""

    after: int
    what: str
    where: str
    value: float | str | None = None
    """What is set (`delay`, `jitter`, `rate`), or passed on (how many to `shut`, the session to `trim`)."""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.what not in _KNOWN:
            raise ValueError(f"{self.what!r} is no fault: it is one of {', '.join(sorted(_KNOWN))}")

    def __repr__(self) -> str:
        more = f", value={self.value!r}" * (self.value is not None) + f", seconds={self.seconds!r}" * bool(self.seconds)
        return f"Fault({self.after}, {self.what!r}, {self.where!r}{more})"


class Schedule(Struct, frozen=True):
    """Faults in the order in which they fall. Printed, it is the code that makes it again."""

    faults: tuple[Fault, ...] = ()

    @classmethod
    def draw(cls, seed: int, count: int, within: int, stage: Mapping[str, Sequence[str]]) -> Schedule:
        """So many faults within so many entries. `stage`: what may happen at each place, such as `{"line": LINE, "one": INSTANCE}`."""
        rng = random.Random(seed)
        places = sorted(rng.randrange(1, within) for _ in range(count))
        return cls(tuple(_drawn(rng, after, stage) for after in places))

    def __repr__(self) -> str:
        lines = "".join(f"    {fault!r},\n" for fault in self.faults)
        return f"Schedule((\n{lines}))" if lines else "Schedule()"


def _drawn(rng: random.Random, after: int, stage: Mapping[str, Sequence[str]]) -> Fault:
    where = rng.choice(list(stage))
    what = rng.choice(stage[where])
    value = round(rng.uniform(*KNOBS[what]), 3) if what in KNOBS else None
    lasts = what in ENDED_BY or what in KNOBS
    return Fault(after, what, where, value, round(rng.uniform(0.05, 0.5), 2) if lasts else 0.0)


class Witness:
    """A client to whom nothing happens, and all that it has `seen`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.seen: list[Entry | Gap] = []
        self.count = 0
        """How many of them are entries."""
        self.begin = 0
        """Where in `seen` its log begins: behind the last gap."""
        self._news = asyncio.Condition()

    @property
    def log(self) -> list[Entry]:
        """What it has seen since the last gap."""
        return cast("list[Entry]", self.seen[self.begin :])

    @property
    def port(self) -> int:
        """The local port of its connection, 0 while it has none."""
        socket = self.session._socket
        return int(socket.local_address[1]) if socket else 0

    async def read(self) -> None:
        async for entry in self.session:
            async with self._news:
                self.seen.append(entry)
                if isinstance(entry, Gap):
                    self.begin = len(self.seen)
                else:
                    self.count += 1
                self._news.notify_all()

    async def until(self, found: Callable[[Any], T | None]) -> T:
        """Wait until `found(witness)` gives something true, and give it."""
        async with self._news:
            while not (what := found(self)):
                await self._news.wait()
            return what

    async def counted(self, entries: int) -> None:
        """Wait until it has seen so many."""
        await self.until(lambda w: w.count >= entries)


@asynccontextmanager
async def witness(url: str, session: str, token: str, **options: Any) -> AsyncIterator[Witness]:
    """A client of its own, which reads all the time while the block runs. Dial it where no fault of the schedule falls."""
    backoff = Backoff(base=0.01, limit=0.1)
    async with connect(url, session=session, token=token, **{"backoff": backoff, **options}) as one:
        seen, greeted = Witness(one), asyncio.Event()
        one.on_state = lambda _: greeted.set()
        task = asyncio.create_task(seen.read())
        try:
            await greeted.wait()
            yield seen
        finally:
            await end({task})


async def play(schedule: Schedule, seen: Witness, stage: Mapping[str, Any], happened: Callable[[Fault], object] = lambda _: None) -> None:
    """Let each fault happen in its place; return when the last is over. Cancelled, it ends those that last.

    `happened` is told of each, and of what ends it.
    """
    async with asyncio.TaskGroup() as lasting:
        for fault in schedule.faults:
            await seen.counted(fault.after)
            over = await happen(fault, stage)
            happened(fault)
            if fault.seconds and over:
                lasting.create_task(_end_later(fault.seconds, over, stage, happened))


async def happen(fault: Fault, stage: Mapping[str, Any]) -> Fault | None:
    """Let it happen at once. Gives the fault that undoes it, where there is one."""
    on = stage[fault.where]
    if fault.what in KNOBS:
        setattr(on, fault.what, fault.value)
        return Fault(fault.after, fault.what, fault.where, None if fault.what == "rate" else 0.0)
    if isawaitable(done := strike(on, fault)):
        await done
    return Fault(fault.after, ENDED_BY[fault.what], fault.where) if fault.what in ENDED_BY else None


def strike(on: Any, fault: Fault) -> Any:
    """Call it by its name; gives what is to be awaited, if anything."""
    return getattr(on, fault.what)(*([] if fault.value is None else [fault.value]))


async def _end_later(seconds: float, over: Fault, stage: Mapping[str, Any], happened: Callable[[Fault], object]) -> None:
    try:
        await asyncio.sleep(seconds)
    finally:
        await happen(over, stage)
        happened(over)
