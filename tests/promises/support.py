"""Support: what the tests of P1-P8 share: instances with a short lease, clients that remember, a store line that loses replies.

Here is also the `Judge`: the protocol once more, written from its page and not from kit/projection.py. It folds a finished log, so that the
tests can hold the kit's receipts, ordinals and ends against a second opinion.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Literal, TypeVar, cast

from redis.exceptions import ConnectionError as StoreConnectionError

from kit.client import Backoff, connect
from kit.ending import end
from kit.held import Told
from kit.history import Agent, History
from kit.lab.chaos import Witness
from kit.lab.instances import Node, instances
from kit.lab.processes import Process
from kit.packets import (
    START,
    Action,
    Answer,
    AnyPacket,
    Ask,
    Claim,
    Content,
    Edit,
    End,
    Entry,
    EntryId,
    Gap,
    Packet,
    Prompt,
    Receipt,
    Result,
    Stop,
    Takeover,
    Thought,
    ToolResult,
    Word,
    decode_entry,
)
from kit.service import Service
from kit.store import Store, open_store
from kit.transcript import Transcript

LEASE = 0.3
"""Seconds; long enough for two busy cores, short enough to wait for."""

T = TypeVar("T")


# ---- agents ----


async def endless(history: History) -> AsyncIterator[AnyPacket]:
    """Counts without end, from where it stopped, as fast as it is let."""
    i = history.pieces
    while True:
        i += 1
        yield Content(f"{i} ")
        await asyncio.sleep(0)


def counting(n: int, pace: float = 500.0) -> Agent:
    """Says `1 2 ... n `, a piece a number, `pace` a second; goes on where the history ends."""

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        for i in range(history.pieces + 1, n + 1):
            await asyncio.sleep(1 / pace)
            yield Content(f"{i} ")

    return agent


counter = counting(300, pace=150)
"""For processes: `--agent tests.promises.support:counter`."""


def count(n: int) -> str:
    return "".join(f"{i} " for i in range(1, n + 1))


# ---- instances ----


def nodes(store: str, agents: Agent | Mapping[str, Agent], count: int = 2, **options: Any) -> AbstractAsyncContextManager[list[Node]]:
    """So many instances over one store, with a short lease."""
    return instances(agents, count, store=store, **{"lease": LEASE, **options})


class Losses:
    """A store line on which commits get lost: before they are carried out, after it (the reply), or they are carried out late."""

    def __init__(self, store: Store, rng: random.Random, share: float = 0.3) -> None:
        self.rng, self.share = rng, share
        self.count = {"before": 0, "after": 0, "late": 0}
        self._late: set[asyncio.Task[Any]] = set()
        self._send = store.commits.send
        store.commits.send = self._lossy  # type: ignore[method-assign]
        self._close = store.close
        store.close = self._closing  # type: ignore[method-assign]

    def _lossy(self, commands: Sequence[Sequence[Any]], told: Told) -> None:
        if self.rng.random() >= self.share:
            self._send(commands, told)
            return
        fate = self.rng.choice(list(self.count))
        self.count[fate] += 1
        lost = StoreConnectionError(f"the test lost a reply ({fate})")
        if fate == "after":
            self._send(commands, lambda _: told(lost))
            return
        if fate == "late":
            self._late.add(asyncio.create_task(self._send_late(commands)))
        asyncio.get_running_loop().call_soon(told, lost)

    async def _closing(self) -> None:
        """What would come later than the end of its line never comes: it would open a connection that nobody closes."""
        await end(self._late)
        await self._close()

    async def _send_late(self, commands: Sequence[Sequence[Any]]) -> None:
        await asyncio.sleep(self.rng.uniform(0, 0.01))
        answered = asyncio.Event()
        self._send(commands, lambda _: answered.set())  # whatever it is: its line went with the instance, or a later word refuses it
        await answered.wait()

    async def settled(self) -> None:
        """All that was to come late has come."""
        await asyncio.gather(*self._late)


# ---- clients ----


class Watcher(Witness):
    """A client and all that it has seen."""

    @property
    def gaps(self) -> list[Gap]:
        return [entry for entry in self.seen if isinstance(entry, Gap)]

    def text(self, turn: str | None = None) -> str:
        return said(self.log, turn)

    async def ended(self, turn: str) -> End:
        found: End = await self.first(lambda e: isinstance(e, End) and e.turn == turn)
        return found

    async def reached(self, id: EntryId) -> None:
        """Wait until it has seen the entry with this id."""
        await self.first(lambda e: EntryId.parse(e.id) == id)

    async def pieces(self, turn: str, n: int) -> None:
        """Wait until so many pieces of a turn have come."""
        await self.first(lambda e: isinstance(e, Packet) and e.turn == turn and e.n + e.k > n)

    async def first(self, wanted: Callable[[Entry], bool]) -> Any:
        """The first of its log that is wanted, as soon as it is there. Each is looked at once: logs are long, and tests wait much."""
        looked = 0

        def look(watcher: Watcher) -> Entry | None:
            nonlocal looked
            new, looked = watcher.seen[max(looked, watcher.begin) :], len(watcher.seen)
            return next(filter(wanted, cast("list[Entry]", new)), None)

        return await self.until(look)


@asynccontextmanager
async def watch(
    server: Service | str, session: str, name: str = "ann", *, token: str | None = None, **options: Any
) -> AsyncIterator[Watcher]:
    """A client that reads all the time; it comes back at once, as the tests are in a hurry."""
    url = server if isinstance(server, str) else server.url
    token = token or (server.token(name) if isinstance(server, Service) else "")
    backoff = Backoff(base=0.01, limit=0.1, rng=random.Random(7))
    async with connect(url, session=session, token=token, backoff=backoff, proxy=None, **options) as one:
        watcher = Watcher(one)
        task = asyncio.create_task(watcher.read())
        try:
            yield watcher
        finally:
            task.cancel()
            await asyncio.wait({task})


async def freeze_past_its_lease(one: Node | Process, turn: str, ann: Watcher, bob: Watcher) -> None:
    """It speaks, freezes until another has taken the turn over, and wakes up in the middle of what it was about to say."""
    await bob.pieces(turn, 10)
    one.freeze()
    await bob.until(lambda w: any(isinstance(e, Takeover) for e in w.log))
    one.thaw()
    await asyncio.gather(ann.ended(turn), bob.ended(turn))


@asynccontextmanager
async def watchers(servers: list[Service], session: str) -> AsyncIterator[list[Watcher]]:
    """A client on each of the instances."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(watch(server, session, f"user{i}")) for i, server in enumerate(servers)]


def turn_of(receipt: Receipt, agent: str = "agent") -> str:
    assert "applied" in (receipt.status, receipt.was), receipt  # where its connection was lost meanwhile, it was said again
    return f"{receipt.id}/{agent}"


# ---- the log, and a second opinion on it ----


async def read_log(url: str, session: str, shards: int = 1) -> list[Entry]:
    """The session's log as it stands in the store."""
    async with open_store(url) as store:
        transcript = Transcript(store, shards=shards)
        opened = await transcript.open(session)
        entries, after = [], START
        while batch := await transcript.read(opened.log, after):
            entries += [decode_entry(stored.frame()) for stored in batch]
            after = batch[-1].id
        return entries


def said(entries: list[Entry], turn: str | None = None) -> str:
    return "".join(e.text for e in entries if isinstance(e, Content | Thought) and turn in (None, e.turn))


def ids(entries: list[Entry]) -> list[str]:
    return [entry.id for entry in entries]


class Judge:
    """The protocol's second opinion on a whole log: what each word came to, and that every turn is told once and in order."""

    def __init__(self, entries: list[Entry]) -> None:
        self.outcome: dict[str, Literal["applied", "too_late"]] = {}
        self.refs: dict[tuple[str, str], str] = {}
        self.open: dict[str, int] = {}
        """Open turns and the ordinal that each is to say next."""
        self.doomed: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.runner: dict[str, str | None] = {}
        self.calls: dict[str, tuple[str, str, str | None]] = {}
        """Open calls: turn, kind, who claimed it."""
        last = START
        for entry in entries:
            last = self._successor(entry, last)
            if isinstance(entry, Word):
                assert (entry.from_, entry.ref) not in self.refs, f"{entry} was said before, at {self.refs[entry.from_, entry.ref]}"
                self.refs[entry.from_, entry.ref] = entry.id
                self.outcome[entry.id] = "applied" if self._word(entry) else "too_late"
            else:
                self._packet(entry)

    def _successor(self, entry: Entry, last: EntryId) -> EntryId:
        id = EntryId.parse(entry.id)
        if isinstance(entry, Word):
            assert (id.epoch, id.n, entry.prev) == (last.epoch + 1, 0, str(last)), f"{entry} stands after {last}"
        else:
            assert id == (last.epoch, last.n + 1), f"{entry} stands after {last}"
        return id

    def _word(self, word: Word) -> bool:
        match word:
            case Prompt(to=to):
                self.open.update({f"{word.id}/{agent}": 1 for agent in str(to).split(",")})
            case Stop(turn=turn):
                hit = [t for t in self.open if t not in self.doomed and turn in (None, t)]
                self.doomed.update(dict.fromkeys(hit, "stopped"))
                return bool(hit)
            case Edit(turn=turn):
                if turn not in self.open or turn in self.doomed:
                    return False
                self.doomed[turn] = "replaced"
                self.open[f"{word.id}/{turn.split('/')[1]}"] = 1
            case Answer(call=call) | Result(call=call):
                return self._waits(call) and self.calls.pop(call) is not None
            case Claim(call=call):
                if not self._waits(call) or self.calls[call][2] is not None:
                    return False
                self.calls[call] = (*self.calls[call][:2], word.from_)
            case Takeover(turn=turn, by=by):
                self.runner[turn] = by
        return True

    def _waits(self, call: str) -> bool:
        return call in self.calls and self.calls[call][0] in self.open and self.calls[call][0] not in self.doomed

    def _packet(self, packet: AnyPacket) -> None:
        assert packet.turn in self.open, f"{packet} after its turn's end"
        assert packet.turn not in self.doomed or isinstance(packet, End), f"{packet} though its turn was {self.doomed[packet.turn]}"
        assert packet.n == self.open[packet.turn], f"{packet} should have the ordinal {self.open[packet.turn]}"
        assert self.runner.get(packet.turn, "") is not None, f"{packet} though its turn was given away"
        self.open[packet.turn] += packet.k
        match packet:
            case Ask(call=call):
                self.calls[call] = packet.turn, "ask", None
            case Action(call=call, on=on):
                self.calls[call] = packet.turn, on, None
            case ToolResult(call=call):
                self.calls.pop(call, None)
            case End(reason=reason):
                assert reason == "failed" or reason == self.doomed.get(packet.turn, "done"), packet
                self.ended[packet.turn] = reason
                del self.open[packet.turn]

    def agrees(self, receipts: list[Receipt], by: str) -> None:
        """Every receipt says what came of its word."""
        for receipt in receipts:
            if receipt.status == "refused":
                assert (by, receipt.ref) not in self.refs, f"{receipt}, but it stands in the log"
            else:
                assert self.refs[by, receipt.ref] == receipt.id, receipt
                was = receipt.was if receipt.status == "duplicate" else receipt.status
                assert was == self.outcome[str(receipt.id)], receipt
