"""History: what an agent is given: the session so far, seen from one turn.

An agent keeps nothing. It is called with the history and says packets; it is called again, with a longer history, when an answer
or a result arrived, or when another instance takes its turn over. So it begins by looking at what it has said already.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, overload

import msgspec

from kit.packets import Action, Answer, AnyPacket, Ask, Content, Edit, Entry, Over, Packet, Prompt, Result, Thought, ToolResult, Write


class Copy(NamedTuple):
    """A document's text as it stood at the entry `id` of its log."""

    name: str
    text: str
    id: str

    def change(self, old: str, new: str) -> Write:
        """What to say so that `new` stands where `old` stood here, whatever people have typed meanwhile; raises ValueError."""
        return Write(name=self.name, text=new, over=Over(base=self.id, at=self.text.index(old), delete=len(old)))


@dataclass(frozen=True)
class History(Sequence[Entry]):
    """The entries of a log in order, and the `turn` (`<id of its word>/<agent>`) that is to be answered.

    `documents`: those that were opened in the session, by name, as they stood when the agent was called.
    """

    entries: tuple[Entry, ...]
    turn: str
    documents: Mapping[str, Copy] = field(default_factory=dict)
    look: Callable[[History], Awaitable[History]] | None = field(default=None, repr=False, compare=False)
    """How the turn that is running reads its documents again."""

    async def now(self) -> History:
        """The same with the documents as they stand now, with all that the agent has said up to here."""
        return await self.look(self) if self.look else self

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        return self.entries[index]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def agent(self) -> str:
        """The name of the agent whose turn it is."""
        return self.turn.partition("/")[2]

    @property
    def prompt(self) -> Prompt | Edit:
        """The word that opened this turn."""
        opening = self.turn.partition("/")[0]
        return next(e for e in self.entries if e.id == opening and isinstance(e, Prompt | Edit))

    @property
    def said(self) -> tuple[AnyPacket, ...]:
        """What was said in this turn so far, in order."""
        return tuple(e for e in self.entries if isinstance(e, Packet) and e.turn == self.turn)

    @property
    def pieces(self) -> int:
        """How many pieces of this turn stand in the log (joined packets count for all their pieces)."""
        return sum(p.k for p in self.said)

    def answer(self, call: str) -> Answer | None:
        """The first answer to an ask, or to an action that waits for approval."""
        return next((e for e in self.entries if isinstance(e, Answer) and e.call == call), None)

    def result(self, call: str) -> Result | ToolResult | None:
        """The first result of an action, wherever it ran."""
        return next((e for e in self.entries if isinstance(e, Result | ToolResult) and e.call == call), None)

    def waits_for(self, packet: AnyPacket) -> bool:
        """Whether it is a question, or an action to be approved or run by a client, that nobody has answered, approved or run."""
        match packet:
            case Ask(call=call) | Action(call=call, on="approve"):
                return self.answer(call) is None
            case Action(call=call, on="client"):
                return self.result(call) is None
            case _:
                return False


def gathered(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries of a log, a turn's text in as few packets as if it had all been said at once.

    An instance holds the history of each turn that it runs, for as long as that runs: one packet a token would be a hundred times the text.
    """
    for is_text, neighbours in groupby(entries, _text):
        run = list(neighbours)
        yield from [_as_one(run)] if is_text else run


def _text(entry: Entry) -> tuple[object, ...]:
    """What text must have in common to be one; a provider's cursor is not lost to a piece that has none."""
    return (type(entry), entry.turn, entry.at is None) if isinstance(entry, (Thought, Content)) else ()


def _as_one(run: Sequence[Entry]) -> Entry:
    pieces = [piece for piece in run if isinstance(piece, (Thought, Content))]
    text = "".join([piece.text for piece in pieces])
    return msgspec.structs.replace(pieces[-1], text=text, n=pieces[0].n, k=sum(piece.k for piece in pieces))


HAND_OVER = "hand over"
"""The message of a cancellation that only moves a turn: another instance goes on, so what runs at the provider is left running."""


class AgentError(Exception):
    """An agent cannot go on. `str(error)` is one sentence for the person who asked; the turn ends `failed` with it."""


Agent = Callable[[History], AsyncIterator[AnyPacket | Prompt]]
"""`async def agent(history): yield Content("hello")`: state in, packets out; a `Prompt` among them asks another agent.

It is called anew where another instance goes on, and then says what comes behind the `history.pieces` that stand there.
"""
