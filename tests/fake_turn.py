"""A fake turn: what the turn runner does with an agent, without a store: rounds, ids and ordinals, joined and split pieces, a crash."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, cast

from msgspec.structs import replace

from kit.history import Agent, History
from kit.packets import (
    Action,
    Answer,
    AnyPacket,
    AnyWord,
    Ask,
    Content,
    Document,
    Entry,
    Packet,
    Prompt,
    Result,
    Thought,
    ToolResult,
    Word,
    Write,
)

Reply = Callable[[Action | Ask], AnyWord]


class Killed(BaseException):
    """`kill -9`: nobody catches it, and nothing that a stop would do is done."""


class FakeTurn:
    """A log of one session, and agents that are called on it as the turn runner would.

    `joins` joins neighbouring pieces at random, as group commit does; texts over `limit` characters are split, as the log
    does with those over its size: only the last part has the provider's cursor.
    """

    def __init__(self, *entries: Entry, joins: random.Random | None = None, limit: int = 1000) -> None:
        self.entries: list[Entry] = list(entries)
        self.joins = joins
        self.limit = limit
        self.turn = ""

    def say(self, word: AnyWord) -> AnyWord:
        """A word, with the next epoch's id; a prompt becomes the current turn."""
        epoch = sum(isinstance(entry, Word) for entry in self.entries) + 1
        said = replace(word, id=f"{epoch}-0")
        self.entries.append(said)
        return said

    def prompt(self, text: str, agent: str = "agent") -> FakeTurn:
        self.turn = f"{self.say(Prompt(text=text, from_='ada')).id}/{agent}"
        return self

    @property
    def history(self) -> History:
        return History(tuple(self.entries), self.turn)

    def store(self, packet: AnyPacket) -> None:
        for piece in self.split(packet):
            last = self.entries[-1]
            if self.joins and self.joins.random() < 0.5 and type(last) is type(piece) and isinstance(last, Thought | Content):
                assert isinstance(piece, Thought | Content)
                self.entries[-1] = replace(last, text=last.text + piece.text, k=last.k + 1, at=piece.at)
            else:
                epoch = sum(isinstance(entry, Word) for entry in self.entries)
                said = replace(
                    piece, id=f"{epoch}-{len(self.entries)}", turn=self.turn, from_=self.history.agent, n=self.history.pieces + 1
                )
                self.entries.append(said)

    def split(self, packet: AnyPacket) -> Iterator[AnyPacket]:
        if isinstance(packet, Thought | Content) and len(packet.text) > self.limit:
            half = len(packet.text) // 2
            yield from self.split(replace(packet, text=packet.text[:half], at=None))
            yield from self.split(replace(packet, text=packet.text[half:]))
        else:
            yield packet

    async def round(self, agent: Agent, kill_after: int | None = None, *, lose_last: bool = False) -> int:
        """Call the agent once. Killed after so many packets, of which the last may be lost on its way to the log."""
        packets = cast("AsyncGenerator[AnyPacket, None]", agent(self.history))
        count = 0
        try:
            async for packet in packets:
                count += 1
                if count != kill_after or not lose_last:
                    self.store(packet)
                if count == kill_after:
                    await packets.athrow(Killed())
        finally:
            await packets.aclose()
        return count

    async def run(self, agent: Agent, reply: Reply | None = None, kill_after: int | None = None, *, lose_last: bool = False) -> int:
        """Rounds until nothing is open, or nobody replies; how many packets were said."""
        count = 0
        while True:
            left = None if kill_after is None else kill_after - count
            count += await self.round(agent, left, lose_last=lose_last)
            waiting = self.open()
            if reply is None or not waiting:
                return count
            self.say(reply(waiting[0]))

    def open(self) -> list[Action | Ask]:
        """What waits for a person or a client."""
        return [packet for packet in self.history.said if isinstance(packet, Action | Ask) and self.history.waits_for(packet)]

    def story(self) -> list[tuple[Any, ...]]:
        """What happened in the current turn, apart from how it was cut into packets."""
        story: list[tuple[Any, ...]] = []
        for packet in self.history.said:
            if isinstance(packet, Thought | Content):
                kind = type(packet).__name__
                if story and story[-1][0] == kind:
                    story[-1] = (kind, story[-1][1] + packet.text)
                else:
                    story.append((kind, packet.text))
            else:
                story.append(told(packet))
        return story


def told(packet: Packet) -> tuple[Any, ...]:
    match packet:
        case Action(call=call, name=name, arguments=arguments, on=on):
            return ("Action", call, name, tuple(arguments.items()), on)
        case ToolResult(call=call, value=value, error=error):
            return ("ToolResult", call, value, error)
        case Ask(call=call, text=text, choices=choices):
            return ("Ask", call, text, tuple(choices or ()))
        case Document(name=name, kind=kind):
            return ("Document", name, kind)
        case Write(name=name, text=text, over=over):
            return ("Write", name, text, over)
    raise AssertionError(packet)


def replies(answers: dict[str, Any]) -> Reply:
    """A person and a client who reply to an ask by its text, and to an action by its name."""

    def reply(to: Action | Ask) -> AnyWord:
        if isinstance(to, Ask):
            return Answer(call=to.call, text=answers[to.text])
        if to.on == "approve":
            return Answer(call=to.call, text=answers[to.name])
        return Result(call=to.call, value=answers[to.name])

    return reply
