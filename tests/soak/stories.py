"""Stories: generated schedules of faults on a real store, each judged from its log and from what its clients saw.

A world is three instances over one store: a safe one, for the witness, and two to which things happen. It is used for one story after the
other, each in a session of its own; several worlds at once keep a machine busy while leases run out.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from kit.client import Backoff, connect
from kit.ending import end
from kit.history import History
from kit.lab import served
from kit.lab.chaos import INSTANCE, Schedule, Witness, play, witness
from kit.lab.framed import line_to
from kit.lab.instances import Serve, instances
from kit.lab.processes import Process, processes
from kit.packets import AnyPacket, Content, Entry, EntryId, Gap, Prompt, Receipt
from kit.server import serve
from tests.promises.support import Judge, count, said

SAYS = 12
"""Pieces in an answer."""
LEASE = 0.2
PATIENT = 60.0
"""Seconds in which a story comes to its end, also on a busy machine; one takes half a second."""
_LINE = {"line": ("cut", "vanish", "linger", "shut"), "quality": ("stall", "delay", "jitter", "rate")}
FAULTS: Mapping[str, Sequence[str]] = {**_LINE, "one": INSTANCE, "two": INSTANCE, "store": ("trim",)}
KILLS: Mapping[str, Sequence[str]] = {**_LINE, "one": ("kill",), "two": ("kill", "kill", "freeze", "leave")}


class Failed(AssertionError):
    """A story broke a promise; the text is all that is needed to tell it again."""


async def counter(history: History) -> AsyncIterator[AnyPacket]:
    """Says `1 2 ... `, a piece a number, a thousand a second; goes on where the history ends."""
    for i in range(history.pieces + 1, SAYS + 1):
        await asyncio.sleep(0.001)
        yield Content(f"{i} ")


class World:
    """Where stories take place."""

    def __init__(self, url: str, safe: str, stage: dict[str, Any], token: str, silence: float) -> None:
        self.url, self.safe, self.stage, self.token, self.silence = url, safe, stage, token, silence
        self.happened: Counter[str] = Counter()
        self.kills = 0
        """Of processes that were running."""

    async def tell(self, seed: int, faults: Mapping[str, Sequence[str]], most: int = 4) -> Schedule:
        """One story. Raises Failed."""
        rng = random.Random(seed)
        schedule = Schedule.draw(seed, rng.randint(1, most), 2 * SAYS, faults)
        session = f"story-{seed}"
        self.stage["store"] = _Store(self.url, session)
        seen: list[Witness] = []
        try:
            async with asyncio.timeout(PATIENT):
                await self._tell(schedule, session, seen)
        except (AssertionError, TimeoutError) as broken:
            views = "\n".join(
                f"{who}:\n" + "\n".join(f"  {entry}" for entry in w.seen) for who, w in zip(("witness", "client"), seen, strict=False)
            )
            why = f"no end after {PATIENT} s" if isinstance(broken, TimeoutError) else str(broken)
            raise Failed(f"seed {seed}: {why}\n{schedule!r}\n{views}") from broken
        self.happened.update(fault.what for fault in schedule.faults)
        return schedule

    async def _tell(self, schedule: Schedule, session: str, seen: list[Witness]) -> None:
        backoff = Backoff(base=0.01, limit=0.1, rng=random.Random(1))
        async with (
            witness(self.safe, session, self.token) as bob,
            connect(self.stage["line"].url, session=session, token=self.token, backoff=backoff, silence=self.silence) as own,
        ):
            ann = Witness(own)
            seen += [bob, ann]
            reading = asyncio.create_task(ann.read())
            playing = asyncio.create_task(play(schedule, bob, self.stage))
            try:
                receipts = [await own.prompt("go"), await own.prompt("and again")]
                while not playing.done():  # a fault waits for entries
                    if over(bob.log, str(receipts[-1].id)):
                        receipts.append(await own.prompt("more"))
                    await asyncio.wait({playing}, timeout=0.02)
                await playing
                receipts.append(await own.stop())
                last = str(receipts[-1].id)
                for person in seen:
                    await person.until(lambda w: over(w.log, last))
                log = bob.log  # somebody who was late may take a turn over that has ended: more may come while we look
                await ann.until(lambda w: any(entry.id == log[-1].id for entry in w.seen if not isinstance(entry, Gap)))
                judge(log, ann, receipts, trims=any(fault.what == "trim" for fault in schedule.faults))
            finally:
                await end({reading, playing})


def judge(log: list[Entry], ann: Witness, receipts: list[Receipt], *, trims: bool) -> None:
    """P1 to P7, from what a witness saw (the log) and what a client did to whom everything happened. Raises AssertionError."""
    verdict = Judge(log)
    gaps = [entry.reason for entry in ann.seen if isinstance(entry, Gap)]
    assert not gaps or (trims and set(gaps) == {"trimmed"}), f"gaps: {gaps}"
    view = [entry for entry in ann.log if EntryId.parse(entry.id) <= EntryId.parse(log[-1].id)]
    assert view == log[len(log) - len(view) :], "the client saw another log than the witness"
    assert gaps or len(view) == len(log), f"the client saw {len(view)} of {len(log)} entries"
    verdict.agrees(receipts, next(entry.from_ for entry in log))
    ends = [turn for turn, reason in verdict.ended.items() if reason == "done"]
    for turn in ends:
        assert said(log, turn) == count(SAYS), f"{turn} says {said(log, turn)!r}"
    assert not verdict.open, f"never ended: {verdict.open}"


def over(log: list[Entry], last: str) -> bool:
    """Whether the last word has been seen, and each turn has ended."""
    if not any(entry.id == last for entry in log):
        return False
    opened = {f"{e.id}/{e.to}" for e in log if isinstance(e, Prompt)}
    return opened <= {e.turn for e in log if type(e).__name__ == "End"}  # type: ignore[union-attr]


class _Store:
    """What a schedule may do to the log of its own session."""

    def __init__(self, url: str, session: str) -> None:
        self.url, self.session = url, session

    async def trim(self) -> None:
        await served.trim(self.url, self.session, keep=SAYS)


@asynccontextmanager
async def world(url: str, serve: Serve = serve) -> AsyncIterator[World]:
    """Three instances of this process."""
    async with (
        instances({"agent": counter}, 3, store=url, serve=serve, lease=LEASE, beat=0.1) as (safe, one, two),
        line_to((one, two)) as wire,
    ):
        yield World(url, safe.url, {"line": wire, "quality": wire, "one": one, "two": two}, safe.token("ann"), silence=2.0)


@asynccontextmanager
async def world_of_processes(url: str) -> AsyncIterator[World]:
    """Three processes: what is killed is killed with signal 9, and another one is started in its place."""
    async with AsyncExitStack() as stack:
        safe, one, two = await stack.enter_async_context(processes("tests.soak.stories:counter", 3, store=url, lease=LEASE))
        wire = await stack.enter_async_context(line_to((one, two)))
        stage: dict[str, Any] = {"line": wire, "quality": wire}
        place = World(url, safe.url, stage, safe.token, silence=25.0)
        stage |= {"one": _Counted(one, place), "two": _Counted(two, place)}
        yield place


class _Counted:
    """A process, while it runs: one that is just starting is neither killed nor asked to leave, as it has not begun to serve."""

    def __init__(self, process: Process, place: World) -> None:
        self._process, self._place = process, place

    def kill(self) -> None:
        if self._process.running:
            self._place.kills += 1
            self._process.kill()

    async def leave(self) -> None:
        if self._process.running:
            await self._process.leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)
