"""Turn: one agent's answer to one prompt: take it over, let the agent speak, hear the words, end it once.

The rules that hold here:

- Whoever runs a turn holds its lease, so that others leave it alone; but what makes it safe is the log: a run adds `takeover` first
  (unless the prompt's own script gave it the lease) and stops when it reads a later one.
- Every append is made in the epoch that was heard. Refused, the run reads the new words: addressed to it, it ends; otherwise the same
  packets go again, in the new epoch.
- After a reply was lost, a `takeover` of its own goes first: what is still in flight is then refused, and reading back is the truth.
- Stopping is cancellation of the task that iterates over the agent. Its message tells a stop from a hand-over.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import msgspec

from kit.feed import Feed
from kit.history import HAND_OVER, Agent, AgentError, History
from kit.log import Gone, Unheard
from kit.packets import START, AnyPacket, End, EntryId, Prompt, Receipt, Takeover, new_ref, stored
from kit.projection import Projection, Turn
from kit.scribe import Scribe
from kit.speech import NoPacket, pieces, question
from kit.store import StoreError
from kit.voice import WRITTEN, Landed, Voice

log = logging.getLogger("kit.turn")
T = TypeVar("T")
Ask = Callable[[Prompt, int], Awaitable[Receipt]]
"""Say an agent's prompt in the epoch that was heard; raises Unheard where a later word has been said."""


class Yielded(Exception):
    """Another run has the turn, or it has ended: say nothing more."""


class Ended(Exception):
    """A word ended the turn: say `end`, and nothing else."""


class Deaf(Exception):
    """The agent went on although it was cancelled."""


class Run:
    """One instance's run of one turn, under the lease `by`.

    `ask`: how its prompts to other agents are said; `scribe`: how what it writes gets into documents; `patience`: seconds without a packet
    until the agent has failed; `grace`: seconds it has to obey a stop; `join`: whether neighbouring pieces of text that wait for the same
    commit become one packet.
    """

    def __init__(
        self,
        feed: Feed,
        turn: str,
        agent: Agent,
        *,
        by: str,
        ask: Ask,
        scribe: Scribe,
        patience: float,
        grace: float,
        join: bool,
        rng: random.Random,
    ) -> None:
        self.feed, self.turn, self.agent, self.by, self.ask, self.scribe = feed, turn, agent, by, ask, scribe
        self.patience, self.grace = patience, grace
        self.log = feed.log
        self._rng = rng
        self.taken: EntryId | None = None
        self.voice = Voice(feed, turn, join=join, free=self._may_speak, wake=self.hear)
        self._prompt: Prompt | None = None
        self._passed_on = asyncio.Event()
        self._wake = asyncio.Event()
        self._leaving = False

    async def run(self, *, first: bool) -> None:
        """Run the turn until it ends, waits for a person, or is another's. `first`: the prompt's own script gave the lease.

        Raises Gone where its log was replaced.
        """
        try:
            await self._look_up()
            if first or await self._patiently(self._take_over) is not None:
                await self._await_my_turn()
                if end := await self._speak():
                    await self._end(end)
        except Yielded:
            await self._patiently(lambda: self._release(open=True))

    def hear(self) -> None:
        """Something was said, or became of what was said, that may matter: look at it."""
        self._wake.set()

    def leave(self) -> None:
        """Hand the turn over to another instance: an orderly exit."""
        self._leaving = True
        self._wake.set()

    # ---- whose turn it is ----

    def _check(self, *, ending: bool = False) -> Turn:
        """The turn as the log knows it; raises Yielded where it is not this run's, Ended where a word ended it."""
        if self.feed.log is not self.log:
            raise Gone(self.log.session)
        turn = self._known.turns.get(self.turn) if self.feed.is_current(self._known) else None
        if turn is None or turn.taken != self.taken:
            raise Yielded
        if turn.fate != "open" and not ending:
            raise Ended
        return turn

    def _may_speak(self) -> bool:
        try:
            self._check()
        except (Yielded, Ended, Gone):
            return False
        return not self._leaving

    async def _look_up(self) -> Projection:
        self._known = await self._patiently(self.feed.projection)
        return self._known

    async def _take_over(self) -> History | None:
        """Say `takeover`, then count what the turn has said; gives the log up to there, or None (and says no word) where it has ended."""
        await self._patiently(self.feed.catch_up)
        while not (await self._look_up()).knows(self.turn):
            # The list of open turns may still name one of the log before; and one with the same id may be opened in this log right now.
            if await self._patiently(lambda: self._release(open=False, heard=self.feed.epoch)):
                return None
            await self._patiently(self.feed.catch_up)
        if self.turn in self._known.ended:
            await self._release(open=False)
            return None
        word = new_ref(Takeover(turn=self.turn, by=self.by, from_=self.by))
        spoken = await self._patiently(lambda: self.feed.transcript.say(self.log, word))
        await self._patiently(self.feed.catch_up)
        history, _ = await self._patiently(lambda: self.feed.history(self.turn))
        self.taken, self.voice.next = spoken.id, 1 + history.pieces
        await self._patiently(lambda: self.scribe.bring(history.said))
        return history

    async def _take_back(self) -> None:
        """Say `takeover` after a lost reply; raises Yielded where another run had the turn meanwhile.

        What that one said, this run's agent has not heard: it would go on from where it stood itself. So neither of them does.
        """
        before = self.taken or START
        for entry in await self._patiently(self._take_over) or ():
            if isinstance(entry, Takeover) and entry.turn == self.turn and entry.by != self.by and EntryId.parse(entry.id) > before:
                raise Yielded

    async def _await_my_turn(self) -> None:
        """Wait in the agent's queue."""
        while not self._known.is_next(turn := self._check(ending=True)) and turn.live:
            if self._leaving:
                await self._give_away()
            await self._awake()

    async def _release(self, *, open: bool, heard: int | None = None) -> bool:
        return await self.feed.transcript.release(self.log, self.turn, self.by, open=open, heard=heard)

    async def _give_away(self) -> None:
        word = new_ref(Takeover(turn=self.turn, by=None, from_=self.by))
        try:
            await self.feed.transcript.give(self.log, word, self.turn, self.by)
        except StoreError as error:
            log.warning("turn %s: could not be handed over (%s); it goes on when its lease has run out", self.turn, error)
        raise Yielded

    # ---- rounds ----

    async def _speak(self) -> End | None:
        """Let the agent speak until it is done, with how the turn ends; None where it waits for a person."""
        try:
            while (again := await self._round()) is True:
                pass
            return None if again is None else End(reason="done")
        except Ended:
            return End(reason="stopped")
        except Deaf:
            log.error("turn %s: the agent went on %s s after it was cancelled; it is cut off", self.turn, self.grace)
            return End(reason="failed", text="The agent did not stop when it was told to, so it was cut off.")
        except AgentError as error:
            log.warning("turn %s failed: %s", self.turn, error, exc_info=log.isEnabledFor(logging.DEBUG))
            return End(reason="failed", text=str(error))
        except NoPacket as error:
            log.error("turn %s failed: %s", self.turn, error)
            return End(reason="failed", text="The agent said something that is no packet, so it was cut off; the server's log says what.")
        except (Yielded, Gone):
            raise
        except Exception as error:  # an agent is anybody's code: whatever it raises ends its turn and nothing else
            log.exception("turn %s failed", self.turn)
            return End(reason="failed", text=f"The agent failed ({type(error).__name__}); the server's log says where.")

    async def _round(self) -> bool | None:
        """Call the agent once. True: call it again; False: it is done; None: it waits, and the turn is let go."""
        self._check()
        history, head = await self._patiently(lambda: self.feed.history(self.turn))
        history = replace(await self._patiently(partial(self.scribe.read, history)), look=self._look)
        self.voice.last = time.monotonic()
        speaker = asyncio.create_task(self._iterate(history), name=f"agent {self.turn}")
        speaker.add_done_callback(lambda _: self._wake.set())
        try:
            await self._attend(speaker)
        except BaseException as error:
            self.voice.hush()
            # An agent without patience left has failed: nobody goes on, so what runs at the provider ends as in a stop.
            await self._silence(speaker, "stop" if isinstance(error, Ended | AgentError) else HAND_OVER)
            raise
        if speaker.cancelled():
            raise AgentError("The agent was cancelled, though nobody stopped it.")
        speaker.result()
        if self.feed.own_unheard:  # a question of this turn may be among it
            await self._patiently(self.feed.catch_up)
        while (turn := self._check()).fed <= head and self._known.waits(turn):
            if await self._patiently(partial(self._release, open=False, heard=self.feed.epoch)):
                return None
            await self._patiently(self.feed.catch_up)
        return turn.fed > head

    async def _iterate(self, history: History) -> None:
        async with _closing(self.agent(history)) as packets:
            async for said in packets:
                if isinstance(said, Prompt):
                    await self._hold(question(said))
                    continue
                new = pieces(said, self._known, self.turn)
                if isinstance(said, WRITTEN):
                    await self._patiently(partial(self.scribe.check, said))
                if not self.voice.say(new):
                    await self.voice.room()

    async def _hold(self, prompt: Prompt) -> None:
        """Wait until a prompt to another agent has been said, after all that was said before it."""
        self._prompt = prompt
        self._passed_on.clear()
        self._wake.set()
        await self._passed_on.wait()

    async def _look(self, history: History) -> History:
        await self.voice.stands.wait()
        return await self._patiently(partial(self.scribe.read, history))

    async def _attend(self, speaker: asyncio.Task[None]) -> None:
        """See to what the agent's voice can't do by itself, until the agent is done and all that it said stands in the log."""
        while True:
            self._check()
            if self._leaving:
                self.voice.hush()
                with suppress(Deaf):  # its words no longer count
                    await self._silence(speaker, HAND_OVER)
                await self._settle_all()
                await self._commit(self.voice.take())
                await self._give_away()
            if self.voice.landed:
                await self._settle(self.voice.landed)
            elif self.voice.busy and (speaker.done() or self._prompt):
                await self.voice.answered()
            elif self._prompt is not None:
                await self._pass_on(self._prompt)
            elif speaker.done():
                return
            else:
                await self._awake_for_the_agent()

    async def _silence(self, speaker: asyncio.Task[None], message: str) -> None:
        """Cancel the agent and wait until its model call is closed; raises Deaf where it goes on."""
        speaker.cancel(message)
        _CANCELLED.add(speaker)
        speaker.add_done_callback(_forget)
        for _ in range(10):  # a process that was held up for longer than all of it has lost no more than a tenth
            if (await asyncio.wait({speaker}, timeout=self.grace / 10))[0]:
                break
        else:
            raise Deaf
        if not speaker.cancelled() and (error := speaker.exception()):
            log.warning("turn %s: the agent failed while it was stopped", self.turn, exc_info=error)

    # ---- what is said ----

    async def _settle_all(self) -> None:
        """Wait until no append is under way, and all that has landed is seen to."""
        while self.voice.busy:
            if self.voice.landed:
                with suppress(Ended):  # then what was refused goes no more
                    await self._settle(self.voice.landed)
            else:
                await self.voice.answered()

    async def _settle(self, landed: Landed) -> None:
        """See to an append until all that it held stands in the log."""
        try:
            await self._commit(await self._see_to(landed))
        except BaseException:
            self.voice.hush()  # before it goes on: this run may be none any more
            raise
        finally:
            self.voice.settled()

    async def _commit(self, packets: list[AnyPacket]) -> None:
        """Add the packets, in whatever epoch they are heard to belong; raises Ended, Yielded, Gone."""
        while packets:
            self._check()
            packets = await self._append(packets)

    async def _pass_on(self, prompt: Prompt) -> None:
        """Say a prompt to other agents: once, whoever runs the turn, and never past a word that this run has not heard."""
        digest = hashlib.sha256(prompt.text.encode()).hexdigest()[:16]  # said once, whoever runs the turn; and another text is another word
        word = msgspec.structs.replace(prompt, from_=self.voice.agent, re=self.turn, ref=f"{self.turn} to {prompt.to}: {digest}")

        async def ask() -> Receipt:
            self._check()  # before each try: the turn may have been stopped while the store was waited for
            return await self.ask(word, self.feed.epoch)

        try:
            receipt = await self._patiently(ask)
        except Unheard:
            await self._patiently(self.feed.catch_up)
            return
        if receipt.status == "refused":
            raise AgentError(f"The agent asked somebody who could not be asked: {receipt.reason}")
        self._prompt = None
        self.voice.last = time.monotonic()
        self._passed_on.set()

    async def _append(self, packets: list[AnyPacket]) -> list[AnyPacket]:
        """One try; gives back what has to go again."""
        error: Exception | None = None
        try:
            await self.feed.append([(stored(p), p.at) for p in packets])
            self.voice.count(packets)
        except (Unheard, *StoreError) as refused:
            error = refused
        return await self._see_to(Landed(packets, error))

    async def _see_to(self, landed: Landed) -> list[AnyPacket]:
        """What is to be done after an append; gives back what has to go again."""
        packets, error = landed
        if error is None:
            if self.feed.behind:
                await self._patiently(self.feed.catch_up)
            await self._patiently(lambda: self.scribe.bring(packets))
            return []
        if isinstance(error, Unheard):
            await self._patiently(self.feed.catch_up)
            return packets
        if isinstance(error, StoreError):
            log.warning("turn %s: no answer to an append: %s", self.turn, error)
            await self._take_back()
            return [p for p in packets if p.n >= self.voice.next]
        raise error

    async def _end(self, end: End) -> None:
        """Say the rest (unless a word ended the turn), then `end`, once, and let the turn go."""
        await self._settle_all()
        if end.reason == "failed" and self._check(ending=True).live:
            with suppress(Ended):
                await self._commit(self.voice.take())
        rest: list[AnyPacket] = [end]
        while rest:
            fate = self._check(ending=True).fate
            reason = end.reason if end.reason == "failed" or fate == "open" else fate
            rest = await self._append(self.voice.numbered([(msgspec.structs.replace(end, reason=reason), 1)]))
        await self._patiently(lambda: self._release(open=False))

    # ---- waiting ----

    async def _awake(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    async def _awake_for_the_agent(self) -> None:
        """Wait as long as the agent says something now and then: its text wakes nobody here. The store's time is not the agent's."""
        while (left := self.patience if self.voice.busy else self.voice.last + self.patience - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    return await self._awake()
        raise AgentError(f"The agent said nothing for {self.patience:g} s, so it was given up.")

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the store until it answers. Only for what may be asked twice: reads, and words, which carry their ref."""
        delay = 0.05
        while True:
            try:
                return await ask()
            except StoreError as error:
                log.warning("turn %s: waiting for the store: %s", self.turn, error)
                await asyncio.sleep(self._rng.uniform(0, delay))  # full jitter: a thousand turns wait for the same store
                delay = min(2 * delay, 2.0)


_CANCELLED: set[asyncio.Task[None]] = set()  # they may outlive their turn: asyncio keeps only weak references


def _forget(task: asyncio.Task[None]) -> None:
    _CANCELLED.discard(task)
    if not task.cancelled():
        task.exception()  # nobody waits for it any more; asked for, so that asyncio does not complain


def _closing(said: object) -> aclosing[AsyncGenerator[object]]:
    if not isinstance(said, AsyncGenerator):
        raise NoPacket(f"an agent is an async generator (`async def agent(history): yield Content(...)`); this one gave {said!r:.80}")
    return aclosing(said)
