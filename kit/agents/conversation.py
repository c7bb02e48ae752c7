"""Conversation: a history as a model's server wants to read it, and what such a server says back, in either dialect.

The history is the log of a session; a model wants turns one after the other, each with its prompt first, its own words as the
assistant's and everybody else's as a user's. Thoughts are not sent back. A call and its output stand together, as if the model had
called one function at a time: every server understands that, and nothing depends on where one model run ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET

from kit.agents.writing import asked
from kit.history import Copy, History
from kit.packets import Action, Answer, AnyPacket, Ask, At, Content, Edit, End, EntryId, Packet, Prompt, Result, Stop, Thought, ToolResult

NO_RESULT = "error: the turn ended before there was a result"
"""The output of a call that never got one: servers refuse a call without an output."""


class Message(NamedTuple):
    """What somebody said."""

    role: Literal["user", "assistant"]
    text: str


class Call(NamedTuple):
    """A call of a function, and what came of it."""

    call: str
    name: str
    arguments: str  # JSON
    output: str


Item = Message | Call


class Function(NamedTuple):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class Wanted(NamedTuple):
    """A call as the model wrote it: `arguments` may be no JSON at all."""

    call: str
    name: str
    arguments: str


class Event(NamedTuple):
    """One event of a model run: perhaps a piece of text; at the run's end, and only there, its `calls` (perhaps none).

    `at` with a sequence number is a cursor at which the provider would go on; without one there is nothing to go on with.
    """

    at: At
    piece: Thought | Content | None = None
    calls: tuple[Wanted, ...] | None = None


class Failed(Exception):
    """A run of the model failed; `str(error)` is a sentence for the person.

    `again` says whether it may be tried once more, and `gone` that the response itself is no more: then only asking anew can help.
    """

    def __init__(self, text: str, *, again: bool, gone: bool = False) -> None:
        super().__init__(text)
        self.again = again
        self.gone = gone


def conversation(history: History, *, documents: bool = False) -> list[Item]:
    """The turns up to the one that is to be answered, in the order in which they were asked for.

    What other agents said, and what was asked of them, is a user's message that names the speaker. With `documents`, the first message
    is what stands in them.
    """
    said = _by_turn(history)
    outputs = _outputs(history)
    items: list[Item] = [_shown(history.documents)] if documents and history.documents else []
    people = {entry.from_ for entry in history if isinstance(entry, Prompt | Edit)}
    for opening in _openings(history):
        turns = said.get(opening.id, {})
        others = [item for agent, packets in turns.items() if agent != history.agent for item in _quoted(agent, packets)]
        current = opening.id == history.prompt.id
        if current:  # what others have answered to the same prompt is known to whoever speaks after them
            items += others
        items.append(Message("user", _addressed(opening, history.agent, name_speaker=len(people) > 1)))
        items += _own(turns.get(history.agent, ()), outputs)
        if not current:
            items += others
    return items


def _shown(documents: Mapping[str, Copy]) -> Message:
    """First, as the conversation may end in a half-said answer; a model goes on only behind its own words."""
    texts = [f"[document {name}]\n{document.text}\n[end of {name}]" for name, document in sorted(documents.items())]
    return Message("user", "\n\n".join(["The documents of this session, as they stand now:", *texts]))


def output(value: Any, error: str | msgspec.UnsetType) -> str:
    """What a model reads of a result: text as it is, anything else as JSON, an error marked as one."""
    if error is not UNSET:
        return f"error: {error}"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _by_turn(history: History) -> dict[str, dict[str, list[AnyPacket]]]:
    """What was said, by the id of the prompt, then by agent."""
    said: dict[str, dict[str, list[AnyPacket]]] = {}
    for entry in history:
        if isinstance(entry, Packet):
            opening, _, agent = entry.turn.partition("/")
            said.setdefault(opening, {}).setdefault(agent, []).append(entry)
    return said


def _openings(history: History) -> Iterator[Prompt | Edit]:
    """The words that opened turns, as they are answered, up to the current one: later ones wait for turns of their own.

    An edit is answered in the place of the turn that it replaced, and so before a prompt that waited behind that one.
    """
    places: dict[str, tuple[EntryId, ...]] = {}  # of turns that no word has ended
    words: list[tuple[tuple[EntryId, ...], Prompt | Edit]] = []
    for entry in history:
        match entry:
            case Prompt():
                place: tuple[EntryId, ...] = (EntryId.parse(entry.id),)
                places.update({f"{entry.id}/{agent}": place for agent in (entry.to or history.agent).split(",")})
                words.append((place, entry))
            case Edit(turn=turn):
                place = (*places.pop(turn, ()), EntryId.parse(entry.id))
                places[f"{entry.id}/{turn.partition('/')[2]}"] = place
                words.append((place, entry))
            case Stop(turn=turn):
                places = {other: place for other, place in places.items() if turn not in (None, other)}
            case End(turn=turn):
                places.pop(turn, None)
    for _, word in sorted(words, key=itemgetter(0)):
        yield word
        if word.id == history.prompt.id:
            return


def _addressed(opening: Prompt | Edit, me: str, *, name_speaker: bool) -> str:
    to = opening.turn.partition("/")[2] if isinstance(opening, Edit) else opening.to or me
    if me not in to.split(","):
        return f"{opening.from_ or 'user'} to {to}: {opening.text}"
    return f"{opening.from_}: {opening.text}" if name_speaker and opening.from_ else opening.text


def _quoted(agent: str, packets: list[AnyPacket]) -> Iterator[Message]:
    if text := "".join(packet.text for packet in packets if isinstance(packet, Content)):
        yield Message("user", f"{agent}: {text}")


def _own(packets: list[AnyPacket] | tuple[()], outputs: dict[str, str]) -> Iterator[Item]:
    text = ""
    for packet in packets:
        if isinstance(packet, Action | Ask) and text:
            yield Message("assistant", text)
            text = ""
        match packet:
            case Content():
                text += packet.text
            case Action():
                yield Call(packet.call, packet.name, msgspec.json.encode(asked(packet)).decode(), outputs.get(packet.call, NO_RESULT))
            case Ask():
                arguments = {"text": packet.text} | ({"choices": packet.choices} if packet.choices is not None else {})
                yield Call(packet.call, "ask", msgspec.json.encode(arguments).decode(), outputs.get(packet.call, NO_RESULT))
    if text:
        yield Message("assistant", text)


def _outputs(history: History) -> dict[str, str]:
    """The first result of each call: an action's result, or the answer to an ask."""
    asks = {entry.call for entry in history if isinstance(entry, Ask)}
    outputs: dict[str, str] = {}
    for entry in history:
        match entry:
            case Result() | ToolResult():
                outputs.setdefault(entry.call, output(entry.value, entry.error))
            case Answer() if entry.call in asks:  # other answers are approvals: the action's own result follows
                outputs.setdefault(entry.call, entry.text)
    return outputs
