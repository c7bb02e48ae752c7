"""Instance: what one process adds to the store: its ears, its turns, and an eye on turns that nobody runs.

Connections come and go without it noticing; other instances come and go without anybody noticing. All it keeps could be read again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal

import msgspec

from kit.document import is_document
from kit.ears import Ears
from kit.ending import end, finish
from kit.feed import Feed
from kit.history import Agent
from kit.log import Gone, Spoken
from kit.packets import Answer, Edit, EntryId, Patch, Prompt, Receipt, Result, Said, Stop
from kit.presence import EVERY, Presence
from kit.projection import Projection, Turn
from kit.scribe import Scribe
from kit.store import StoreError
from kit.transcript import Transcript
from kit.turn import Run

log = logging.getLogger("kit.instance")
AT_A_TIME = 8
"""So many turns that nobody runs are taken up at a time: one by one, each would wait for all that the store does for those before."""

Overlap = Literal["queue", "interrupt", "reject"]
"""What becomes of a person's prompt to an agent that speaks: it waits, it stops that turn, or it is refused."""


class Instance:
    """One instance over one store. `agents` by name, the first is the sessions' default; `keep`: entries that a log may hold, and what it
    has beyond them from its oldest open turn on, as nobody's question is forgotten.

    `rooms`: the sessions whose people are told of each other, every `presence` seconds; `patience`, `grace` and `join` are those of Run.
    """

    def __init__(
        self,
        transcript: Transcript,
        agents: Mapping[str, Agent],
        *,
        keep: int = 20_000,
        overlap: Overlap = "queue",
        rooms: Collection[str] = (),
        presence: float = EVERY,
        patience: float = 300.0,
        grace: float = 1.0,
        join: bool = True,
        rng: random.Random | None = None,
    ) -> None:
        if not agents:
            raise ValueError("an instance needs at least one agent: pass agents={'agent': my_agent}")
        for name in agents:
            if name in ("", "all") or "," in name:
                raise ValueError(f"{name!r} can't be an agent's name: it is not empty, holds no comma, and 'all' means every agent")
        if isinstance(rooms, str):
            raise TypeError(f"rooms are a list of sessions: pass rooms=[{rooms!r}]")
        self.transcript = transcript
        self.agents = dict(agents)
        self.default = next(iter(self.agents))
        self.keep = keep
        self.overlap = overlap
        self.presence = Presence(transcript, self.agents, rooms, presence)
        self._rng = rng or random.Random()
        self.ears = Ears(transcript, woken=self._wake, around=self.presence.hear, rng=self._rng)
        self._begin_run = partial(Run, patience=patience, grace=grace, join=join, rng=self._rng)
        self._runs: dict[Run, asyncio.Task[None]] = {}
        self._words: set[asyncio.Task[Receipt]] = set()
        self._tasks: asyncio.TaskGroup
        self._look = [asyncio.Event() for _ in range(transcript.shards)]
        self._leaving = False
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Instance]:
        """Listen, renew and look for orphans while the block runs; at its end the turns are handed over."""
        await self.transcript.agree()
        await self.transcript.prepare()
        fault: Exception | None = None
        async with asyncio.TaskGroup() as self._tasks:
            shards = range(self.transcript.shards)
            service = [self._tasks.create_task(self.presence.run(self.ears.feeds))]
            service += [self._tasks.create_task(work(s)) for s in shards for work in (self.ears.listen, self._renew, self._adopt)]
            try:
                yield self
                await self.hand_over()
                await self.presence.flush()
            except Exception as error:  # noqa: BLE001  # the block's own: raised below as it is, not in a group as if a task here had failed
                fault = error
            finally:
                self._over = True  # a library may swallow a cancellation: then they end by themselves
                self.ears.end()
                await finish(self._end(service))
        if fault:
            raise fault

    async def _end(self, service: Sequence[asyncio.Task[None]]) -> None:
        """End all, and what they began meanwhile. To its end: a task that is asked only once may go on for ever."""
        while tasks := [task for task in (*service, *self._words, *self._runs.values()) if not task.done()]:
            await end(tasks)

    # ---- words ----

    async def say(self, session: str, word: Said, name: str, heard: int | None = None, *, refused: str | None = None) -> Receipt:
        """Say a word for somebody, and tell what became of it. With `heard`, an agent says it: raises Unheard after a later word.

        `refused`: why it is not to be said, if it has not been said before.

        It is said to its end though the caller is cancelled: the turn that it opens would else wait until its lease has run out.
        """
        task = asyncio.create_task(self._say_until_told(session, msgspec.structs.replace(word, from_=name), heard, refused))
        self._words.add(task)
        task.add_done_callback(self._told_what_became)
        return await asyncio.shield(task)

    def _told_what_became(self, task: asyncio.Task[Receipt]) -> None:
        self._words.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, as its caller may be gone

    async def _say_until_told(self, session: str, word: Said, heard: int | None, refused: str | None) -> Receipt:
        async with self.ears.holding(session) as feed:
            while True:
                try:
                    return await self._say(feed, word, heard, refused)
                except Gone:
                    await self.ears.reopen(session)

    async def _say(self, feed: Feed, word: Said, heard: int | None, refused: str | None = None) -> Receipt:
        if isinstance(word, Prompt):
            named = self.agents if word.to == "all" else dict.fromkeys((word.to or self.default).split(","))  # each once
            word = msgspec.structs.replace(word, to=",".join(named))
        if isinstance(word, Patch):
            await self._hear_up_to(feed, word.base)
        elif not isinstance(word, Prompt) or self.overlap != "queue":  # it is about something that another instance may have just said
            await feed.catch_up()
        projection = await feed.projection()
        if reason := refused or self._refusal(feed.log.session, projection, word):
            if before := await self.transcript.find(feed.log, word):  # what it was about has been trimmed away since
                if feed.cursor < before.id:
                    await feed.catch_up()
                return _duplicate(word, before, await feed.projection())
            return Receipt(ref=word.ref, status="refused", reason=reason)
        if isinstance(word, Prompt) and self.overlap == "interrupt":
            await self._interrupt(feed, projection, word)
        current, by = feed.log, secrets.token_urlsafe(9)
        spoken = await self.transcript.say(
            current, word, agents=_opens(word, projection), wakes=_wakes(word, projection), by=by, heard=heard
        )
        if spoken.entry and feed.log is current:
            feed.accept([spoken.entry], own=True)
        if feed.cursor < spoken.id:
            await feed.catch_up()
        projection = await feed.projection()  # another one, where the feed has met a hole
        if feed.log is not current:  # replaced meanwhile, perhaps without the word: say it again to find out
            raise Gone(current.session)
        if spoken.known:
            return _duplicate(word, spoken, projection)
        late = spoken.id in projection.late
        if not isinstance(word, Prompt | Patch):  # their refs are kept as long as they are
            await self.transcript.settle(current, word, spoken, "too_late" if late else "applied")
        for turn in spoken.leased:
            await self._run_or_release(feed, projection, turn, by, first=turn.startswith(f"{spoken.id}/"))
        if len(projection.sizes) > 1.1 * self.keep and not is_document(current.session):  # so many words, and no end of a turn that trims
            with suppress(*StoreError):
                await self._trim(feed)
        return Receipt(ref=word.ref, status="too_late" if late else "applied", id=str(spoken.id))

    async def _hear_up_to(self, feed: Feed, id: str) -> None:
        """Another instance may have shown its author more than was heard here."""
        with suppress(ValueError):
            if feed.cursor < EntryId.parse(id):
                await feed.catch_up()

    def _refusal(self, session: str, projection: Projection, word: Said) -> str | None:
        if is_document(session) != isinstance(word, Patch):
            return "a document, `<session>--<name>`, takes patches and nothing else; patches go there, and other words into its session"
        if isinstance(word, Prompt) and (unknown := [name for name in word.addressed if name not in self.agents]):
            return f"there is no agent {unknown[0]!r:.60} here: address `all`, or some of {','.join(self.agents)}"
        if self.overlap == "reject" and (speaking := _in_the_way(projection, word)):
            return f"{speaking[0].agent} is speaking: wait for its end, or stop {speaking[0].id} first"
        return projection.refusal(word)

    async def _interrupt(self, feed: Feed, projection: Projection, word: Prompt) -> None:
        """Stop the turns that a prompt would have to wait for, unless it is only repeated."""
        speaking = _in_the_way(projection, word)
        if speaking and not await self.transcript.find(feed.log, word):
            for turn in speaking:
                await self._say(feed, Stop(turn=turn.id, from_=word.from_, ref=f"{word.ref} {turn.id}"), None)

    async def _run_or_release(self, feed: Feed, projection: Projection, turn: str, by: str, *, first: bool) -> None:
        """Run a turn whose lease came with a word; give the lease back where there is nothing to run, or not here."""
        known = projection.turns.get(turn)
        if known is None:
            await self.transcript.release(feed.log, turn, by)
        elif known.agent not in self.agents:
            await self.transcript.release(feed.log, turn, by, open=True)
        else:
            self._start(feed, turn, by, first=first)

    # ---- turns ----

    def _start(self, feed: Feed, turn: str, by: str, *, first: bool) -> None:
        agent = turn.partition("/")[2]

        async def ask(word: Prompt, heard: int) -> Receipt:
            return await self.say(feed.log.session, word, agent, heard)

        scribe = Scribe(feed.log.session, self.ears)
        run = self._begin_run(feed, turn, self.agents[agent], by=by, ask=ask, scribe=scribe)
        if self._leaving:
            run.leave()
        feed.turns.add(run)
        self._runs[run] = self._tasks.create_task(self._run(run, first), name=f"turn {turn}")

    async def _run(self, run: Run, first: bool) -> None:
        try:
            await self._run_until_over(run, first)
            await self.ears.follow_again(run.feed)
        finally:
            del self._runs[run]
            self.ears.close(run.log.session)

    async def _run_until_over(self, run: Run, first: bool) -> None:
        try:
            async with run.scribe:
                await run.run(first=first)
            await self._trim(run.feed)
        except Gone:
            log.info("session %s, turn %s: its log was replaced; where the new one holds it, it goes on there", run.log.session, run.turn)
            with suppress(*StoreError):
                await self.ears.reopen(run.log.session)
            self._wake(run.log.shard)
        except Exception:  # one turn must not take the instance with it; it goes on when its lease has run out
            log.exception("session %s, turn %s: the run broke", run.log.session, run.turn)
        finally:
            run.feed.leave(run)

    async def _trim(self, feed: Feed) -> None:
        """Keep the log bounded: whole epochs go, from the front, never past a turn that is open."""
        projection = await feed.projection()
        if before := projection.surplus(self.keep):
            await self.transcript.trim(feed.log, before)
            projection.forget(before)

    async def hand_over(self) -> None:
        """Give every turn to the other instances, at once."""
        self._leaving = True  # and what begins from now on leaves at once
        for run in self._runs:
            run.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                if self._words:  # each may begin one more
                    await asyncio.wait(self._words)
                if self._runs:
                    await asyncio.wait(self._runs.values())

    # ---- leases ----

    async def _renew(self, shard: int) -> None:
        """Each shard for itself: where the server of one does not answer, the turns of the others stay here."""
        while not self._over:
            await asyncio.sleep(self.transcript.lease / 3)
            if held := [run for run in self._runs if run.log.shard == shard]:
                with suppress(*StoreError):  # the next round tries again; a lease lost is a turn taken over, not a turn lost
                    await self._renew_leases(held)

    async def _renew_leases(self, held: Sequence[Run]) -> None:
        heads = await self.transcript.renew([(run.log, run.turn, run.by) for run in held])
        for run, head in zip(held, heads, strict=True):
            if run.feed.log is run.log and run.feed.epoch < head.epoch:  # a word of which nothing was told: the store keeps few such notes
                await run.feed.catch_up()

    def _wake(self, shard: int) -> None:
        self._look[shard].set()

    async def _adopt(self, shard: int) -> None:
        """Look for turns that are open and unleased: each quarter lease, when a lease is due to end, and when woken."""
        look = self._look[shard]
        while not self._leaving and not self._over:
            wait = self.transcript.lease / 4
            with suppress(*StoreError):
                wait = min(wait, await self._take_orphans(shard))
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await look.wait()
            look.clear()

    async def _take_orphans(self, shard: int) -> float:
        """Take up what nobody runs; gives the seconds until the next of the other leases ends."""
        known = [(s, t) for s, t in await self.transcript.open_turns(shard) if t.partition("/")[2] in self.agents]
        own = {(run.log.session, run.turn) for run in self._runs}
        others = [turn for turn in known if turn not in own]
        left = await self.transcript.time_left(others)
        free = [turn for turn, seconds in zip(others, left, strict=True) if seconds < 0]
        self._rng.shuffle(free)  # the other instances look at the same moment
        for some in (free[i : i + AT_A_TIME] for i in range(0, len(free), AT_A_TIME)):
            if self._leaving:
                break
            async with asyncio.TaskGroup() as taking:
                for session, turn in some:
                    taking.create_task(self._take_up(session, turn))
        return min((seconds + 0.002 for seconds in left if seconds >= 0), default=self.transcript.lease)

    async def _take_up(self, session: str, turn: str) -> None:
        with suppress(*StoreError):  # the others may be kept elsewhere; it is looked at again
            async with self.ears.holding(session) as feed:
                current, by = feed.log, secrets.token_urlsafe(9)
                if await self.transcript.take(current, turn, by) and feed.log is current:
                    self._start(feed, turn, by, first=False)


def _in_the_way(projection: Projection, word: Said) -> list[Turn]:
    """The turns that a person's prompt would have to wait for; an agent's waits."""
    if not isinstance(word, Prompt) or word.re is not None:
        return []
    return [t for t in projection.turns.values() if t.agent in word.addressed and t.live and not projection.waits(t)]


def _opens(word: Said, projection: Projection) -> list[str]:
    """The agents of the turns that a word opens: an edit of a turn that is over opens none."""
    match word:
        case Prompt():
            return word.addressed
        case Edit(turn=turn) if turn in projection.turns:
            return [projection.turns[turn].agent]
        case _:
            return []


def _wakes(word: Said, projection: Projection) -> list[str]:
    """The turns that have something to do after a word: those that waited for it, or that it ends while nobody runs them.

    Among these are those that an earlier word was to end: it may have been said before it was known that nobody ran them.
    """
    match word:
        case Answer(call=call) | Result(call=call):
            return [projection.calls[call].turn]
        case Stop(turn=named) | Edit(turn=named):
            return [turn.id for turn in projection.turns.values() if named in (None, turn.id)]
        case _:
            return []


def _duplicate(word: Said, spoken: Spoken, projection: Projection) -> Receipt:
    if not spoken.same:
        return Receipt(ref=word.ref, status="refused", reason="this `ref` was used for another word: make a new one for each")
    late = spoken.outcome == "too_late" if spoken.outcome else spoken.id in projection.late
    return Receipt(ref=word.ref, status="duplicate", id=str(spoken.id), was="too_late" if late else "applied")
