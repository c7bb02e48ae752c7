"""Replies: what the scripted model says, a pure function of the conversation.

Nothing is remembered between requests and nothing is random: the same conversation has the same reply on every instance, down to
the ids of its tool calls. So a turn survives the death of the model that began it: a conversation that ends in a half-said answer is
given exactly the rest of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kit.agents.embedded.intents import INTENTS, QUESTIONS, Ran, Script, Tool, Turn, otherwise

NOT_MINE = "\n\n[What stands above is not how I would have put it. I begin again:]\n\n"
"""Said before the whole answer, where the half-said one is by another model."""
_READ = 4000
"""Characters of a prompt that are looked at: some intents take quadratic time in it."""
_SPEAKER = re.compile(r"^[\w.@-]{1,64}: +")
"""In front of a prompt where several people speak in one session: "ann: what is 2 + 2"."""


@dataclass(frozen=True)
class User:
    """What the person said."""

    text: str


@dataclass(frozen=True)
class Assistant:
    """What the model said and thought; at the end of a conversation: has said so far."""

    text: str
    thought: str = ""


@dataclass(frozen=True)
class Call:
    """A call of a tool; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Output:
    """What came of a call."""

    call: str
    text: str


Item = User | Assistant | Call | Output


@dataclass(frozen=True)
class Conversation:
    """All that a request says: instructions, items in order, and the tools on offer. Neighbouring Assistant items are one."""

    instructions: str
    items: tuple[Item, ...]
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What is said: the tokens of the thought, the tokens of the content, then the calls. Empty where all is said already."""

    thought: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()


def reply(conversation: Conversation) -> Reply:
    """The reply to a conversation, or the rest of it where a part is said."""
    *before, last = conversation.items or (User(""),)
    if not isinstance(last, Assistant):
        return _whole(conversation)
    return _rest(_whole(replace(conversation, items=tuple(before))), last)


def tokens(text: str) -> tuple[str, ...]:
    """The text in pieces of one word each, the space before it included: "1 2 3" is "1", " 2", " 3"."""
    return tuple(re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", text))


def _whole(conversation: Conversation) -> Reply:
    script = _script(conversation)
    seed = repr((conversation.instructions, conversation.items))
    calls = []
    for i, (name, arguments) in enumerate(script.calls):
        text = json.dumps(arguments, ensure_ascii=False)
        # The same call after a crash has the same id, which is its idempotency key; in a longer conversation it has another.
        digest = hashlib.sha256(repr((seed, i, name, text)).encode(errors="replace")).hexdigest()
        calls.append(Call(f"call_{digest[:24]}", name, text))
    return Reply(tokens(script.thought), tokens(script.content), tuple(calls))


def _script(conversation: Conversation) -> Script:
    """The last prompt decides; if it says nothing by itself, it may answer the question that the model asked before it."""
    items = conversation.items
    at = max((i for i, item in enumerate(items) if isinstance(item, User)), default=-1)
    prompt = _text(items[at : at + 1])[:_READ]
    ran = _ran(items[at + 1 :])
    answers = {str(r.arguments.get("text")): _plain(r.output) for r in ran if r.name == "ask"}
    turn = Turn(prompt, conversation.tools, ran, answers)
    if script := _intended(turn):
        return script
    spoken = _SPEAKER.sub("", prompt)
    if script := _intended(replace(turn, prompt=spoken)):
        return script
    asked = next((q for q in QUESTIONS if _text(items[max(at - 1, 0) : max(at, 0)]).startswith(q)), None)
    earlier = [item.text for item in items[: max(at, 0)] if isinstance(item, User)]
    if asked and earlier:
        turn = replace(turn, prompt=earlier[-1], answers={**answers, asked: spoken})
        return _intended(turn) or otherwise(turn)
    return otherwise(turn)


def _intended(turn: Turn) -> Script | None:
    return next((script for intent in INTENTS if (script := intent(turn))), None)


def _ran(items: Iterable[Item]) -> tuple[Ran, ...]:
    called: dict[str, Call] = {}
    ran = []
    for item in items:
        match item:
            case Call(id=id):
                called[id] = item
            case Output(call=id, text=text) if id in called:
                ran.append(Ran(called[id].name, _arguments(called[id].arguments), text))
    return tuple(ran)


def _rest(whole: Reply, said: Assistant) -> Reply:
    """`whole` without what is said of it. Where content has begun, the thought is over."""
    content, thought = "".join(whole.content), "".join(whole.thought)
    if said.text:
        return replace(whole, thought=(), content=_after(whole.content, content, said.text))
    if said.thought:
        # A thought by somebody else is over, too: nobody wants to read two.
        left = skip(whole.thought, len(said.thought)) if thought.startswith(said.thought) else ()
        return replace(whole, thought=left)
    return whole


def _after(pieces: tuple[str, ...], content: str, said: str) -> tuple[str, ...]:
    if content.startswith(said):
        return skip(pieces, len(said))
    # By another model, then. If the note that says so is itself half-said, go on inside it, so that this may be cut, too.
    begun = said.rfind(NOT_MINE)
    if begun >= 0 and content.startswith(said[begun + len(NOT_MINE) :]):
        return skip(pieces, len(said) - begun - len(NOT_MINE))
    noted = next((n for n in range(len(NOT_MINE) - 1, 0, -1) if said.endswith(NOT_MINE[:n])), 0)
    return (*skip(tokens(NOT_MINE), noted), *pieces)


def skip(pieces: tuple[str, ...], characters: int) -> tuple[str, ...]:
    """The pieces after so many characters; a cut inside one leaves its end."""
    for i, piece in enumerate(pieces):
        if characters < len(piece):
            return (piece[characters:], *pieces[i + 1 :])
        characters -= len(piece)
    return ()


def _text(items: Iterable[Item]) -> str:
    return next((item.text for item in items if isinstance(item, User | Assistant)), "")


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _plain(output: str) -> str:
    """The person's answer out of a tool's output, which may be JSON."""
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return output
    return value if isinstance(value, str) else output
