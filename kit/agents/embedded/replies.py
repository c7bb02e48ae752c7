"""Replies: what the scripted model says, a pure function of the conversation.

Nothing is remembered between requests and nothing is random: the same conversation has the same reply on every instance, down to
the ids of its tool calls. So a turn survives the death of the model that began it: a conversation that ends in a half-said answer is
given exactly the rest of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from kit.agents.conversation import Call, Item, Message
from kit.agents.embedded.intents import QUESTIONS, Reply, Turn, intended, otherwise
from kit.agents.embedded.requests import Schema

_READ = 4000  # characters of a prompt: some patterns take quadratic time in it
_SPEAKER = r"^[\w.@-]{1,64}: +"  # "ann: what is 2 + 2", where several people speak in one session


def reply(items: Sequence[Item], tools: Mapping[str, Schema]) -> Reply:
    """The reply to a conversation, or the rest of it where a part is said: once content has begun, the thought is over."""
    match items:
        case [*before, Message("assistant", said)]:
            whole = reply(before, tools)
            return Reply("", whole.content.removeprefix(said), whole.calls) if said else whole
    whole = _whole(items, tools)
    # The same call after a crash has the same id, which is its idempotency key; in a longer conversation it has another.
    ids = [hashlib.sha256(repr((i, *items)).encode()).hexdigest()[:24] for i in range(len(whole.calls))]
    return whole._replace(calls=[call._replace(call=f"call_{id}") for id, call in zip(ids, whole.calls, strict=True)])


def tokens(text: str) -> list[str]:
    """The text in pieces of at most a word, the space before it included: "1 2 3" is "1", " 2", " 3"."""
    return re.findall(r"\s*\S{1,12}|\s+", text)


def _whole(items: Sequence[Item], tools: Mapping[str, Schema]) -> Reply:
    """The last prompt decides; if it says nothing by itself, it may answer the question that the model asked before it."""
    at = max((i for i, item in enumerate(items) if isinstance(item, Message) and item.role == "user"), default=-1)
    *before, prompt = [re.sub(_SPEAKER, "", item.text[:_READ]) for item in items[: at + 1] if isinstance(item, Message)] or [""]
    ran = [item for item in items[at + 1 :] if isinstance(item, Call)]
    turn = Turn(prompt, tools, ran, " ".join(call.output for call in ran if call.name == "ask"))
    if said := intended(turn):
        return said
    if before[1:] and before[-1].startswith(QUESTIONS):
        return intended(Turn(before[-2], tools, ran, prompt)) or otherwise(turn)
    return otherwise(turn)
