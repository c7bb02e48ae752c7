"""Answer: what an agent on a model does in one round.

One rule carries everything: **what comes next is read off the history.** The agent says a packet, adds it to the history it was given,
and looks again; so an instance that takes a turn over, a cut connection, and the round after an answer all take the same way:

1. A response at the provider of which the end was not told: attach again, after the last event that was told.
2. Else an action that can run: run it, say its result. (No tool runs while a response is attached.)
3. Else an open ask or action: return; the turn waits for a person.
4. Else ask the model. A conversation that ends in a half-said answer is continued: where the provider keeps no cursor, the model goes
   on from its own words. What it calls is said only at the run's end.

Tools run one after the other, so that a crash repeats at most the one whose result was not stored, with the same call id.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol, Self

from msgspec.structs import replace

from kit.agents.conversation import Event, Failed, Function, Item, Wanted, conversation
from kit.agents.standing import due, left_of, rounds, thoughts
from kit.agents.tools import Tools
from kit.agents.writing import planned, write_document, written
from kit.history import HAND_OVER, AgentError, History
from kit.packets import Action, AnyPacket, Ask, At, Content, Prompt, Thought, ToolResult

BASE, LONGEST = 0.25, 8.0
"""Seconds that a run of the model which failed is waited for, at most, the second time, and ever."""


class Model(Protocol):
    """A model that can be asked, in whatever dialect. Entered for one round."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...

    def events(self, items: Sequence[Item], functions: Sequence[Function], cursor: At | None) -> AsyncGenerator[Event, None]:
        """The events of a new run, or of the response at `cursor` after it; the last one has `calls`. Raises Failed."""
        ...

    async def cancel(self) -> None:
        """Cancel the response that would go on without a reader."""
        ...


Connect = Callable[[], Model]


async def answer(connect: Connect, tools: Tools, max_rounds: int, tries: int, history: History) -> AsyncIterator[AnyPacket]:
    """One round of an agent. Raises AgentError. However it ends, it leaves no response running, unless it is handed over."""
    async with connect() as model:
        this = _Round(model, tools, max_rounds, tries, history)
        try:
            async with aclosing(this.packets()) as packets:
                async for packet in packets:
                    yield packet
        except (asyncio.CancelledError, GeneratorExit, Exception) as why:
            # Handed over: the next instance attaches to the response, if it can know of it.
            if why.args != (HAND_OVER,) or left_of(this.history).cursor is None:
                await model.cancel()
            raise


class _Round:
    def __init__(self, model: Model, tools: Tools, max_rounds: int, tries: int, history: History) -> None:
        self.model = model
        self.tools = tools
        self.max_rounds = max_rounds
        self.tries = tries
        self.history = history
        self.cursor, self.since, self.calls = left_of(history)
        self.echo = Echo("")
        self.called = False
        self.rng = random.Random()
        self.shown = False  # whether the model was shown the documents of this history; a response that another instance began was not

    async def packets(self) -> AsyncGenerator[AnyPacket, None]:
        failures = cuts = 0
        while True:
            if not self.cursor:
                if action := due(self.history):
                    for packet in await self._act(action):
                        yield self._said(packet)
                    continue
                if any(map(self.history.waits_for, self.history.said)):
                    return
            try:
                async with aclosing(self._run()) as run:
                    async for packet in run:
                        failures = 0 if isinstance(packet, Content) else failures
                        yield self._said(packet)
            except Failed as failure:
                failures, cuts = failures + 1, cuts + 1
                # In all, too: a server that never ends an answer would be asked, and paid, for ever.
                if not failure.again or failures >= self.tries or cuts >= 10 * self.tries:
                    raise AgentError(str(failure)) from failure
                if failure.gone:
                    self.cursor = None
                await asyncio.sleep(self._pause(max(failures - 1, cuts - 4)))
            else:
                if not self.called:
                    return

    def _pause(self, again: int) -> float:
        """Seconds, with full jitter: none at first, as a cut may hit anybody; then more and more: what passes takes its time."""
        return self.rng.uniform(0, min(LONGEST, BASE * 2**again)) if again > 0 else 0.0

    async def _run(self) -> AsyncGenerator[AnyPacket, None]:
        """One run of the model, or the rest of it; `called` says at its end whether it called anything."""
        if self.cursor is None:
            self.since, self.calls, self.echo = 0, 0, Echo(thoughts(self.history))
            if self.tools.documents:
                self.history, self.shown = await self.history.now(), True
        items = conversation(self.history, documents=self.tools.documents)
        async with aclosing(self.model.events(items, self.tools.functions, self.cursor)) as events:
            async for event in events:
                before, self.cursor = self.cursor, event.at if event.at.sequence is not None else None
                if event.piece and (text := self._new(event.piece)):
                    yield replace(event.piece, text=text, at=self.cursor)
                if event.calls is not None:
                    for packet in self._calls(event.calls, At(event.at.response), before):
                        yield packet

    def _new(self, piece: Thought | Content) -> str:
        """The part of a piece that was not told before."""
        text = piece.text.encode(errors="replace").decode()  # half of a surrogate pair is no text
        told = min(self.since, len(text))
        self.since -= told
        return self.echo.new(text[told:]) if isinstance(piece, Thought) else text[told:]

    def _calls(self, calls: Sequence[Wanted], end: At, before: At | None) -> list[Action | Ask]:
        """The calls of a run as packets, without those that were told before; the last one says by its `at` that it is the last."""
        if calls and rounds(self.history) >= self.max_rounds:
            raise AgentError(f"The model called tools {self.max_rounds} times and has not answered.")
        self.called, self.cursor = bool(calls), None
        used = {entry.call for entry in self.history if isinstance(entry, Action | Ask)}
        packets = []
        for wanted in calls[self.calls :]:
            packet = self.tools.packet(wanted, used, among=self.history.turn if _others(self.history) else "")
            if isinstance(packet, Action) and self._writes(packet):
                packet = planned(packet, self.history.documents.get(str(packet.arguments.get("name"))), shown=self.shown)
            packets.append(replace(packet, at=before))
            used.add(packets[-1].call)
        self.calls = 0
        return [*packets[:-1], *(replace(packet, at=end) for packet in packets[-1:])]

    async def _act(self, action: Action) -> list[AnyPacket]:
        answer = self.history.answer(action.call)
        if action.on == "approve" and answer and answer.text.strip().lower() != "yes":
            return [ToolResult(call=action.call, error=f"declined by the person: {answer.text}")]
        if self._writes(action):
            return list(written(action, self.history))
        await self.history.now()  # the action stands in the log: else a stop or a takeover would not know that it was run
        return [await self.tools.run(action)]

    def _writes(self, action: Action) -> bool:
        return self.tools.documents and action.name == write_document.__name__

    def _said(self, packet: AnyPacket) -> AnyPacket:
        said = replace(packet, from_=self.history.agent, turn=self.history.turn)
        self.history = dataclasses.replace(self.history, entries=(*self.history.entries, said))
        return packet


def _others(history: History) -> bool:
    """Whether other agents have been asked: the models of two that read the same may call by the same ids."""
    asked = {agent for entry in history if isinstance(entry, Prompt) and entry.to for agent in entry.addressed}
    return not asked <= {history.agent}


class Echo:
    """What a model that is asked anew thinks a second time: told once, it is left out as long as the words are the same."""

    def __init__(self, told: str) -> None:
        self.told = told
        self.heard = 0

    def new(self, text: str) -> str:
        expected = self.told[self.heard : self.heard + len(text)]
        if text.startswith(expected):
            self.heard += len(expected)
            return text[len(expected) :]
        again, self.heard = self.told[: self.heard] + text, len(self.told)
        return f"\n\n{again}"
