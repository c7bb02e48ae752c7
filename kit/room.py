"""Room: several agents in one session, which address each other and cannot run away.

An agent speaks when something is addressed to it, and is silent otherwise. A line of its answer that begins with `@name` addresses
another agent (or several, `@coder,tester`); once the answer is whole, what stands there is said to that agent, as a prompt that names
the turn it comes out of. So the other's turn begins with a word like anybody's: it is stopped, edited, taken over and resumed like
any other, and nobody answers the same word twice, for a turn is `<id of its word>/<agent>`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import cast

from kit.history import Agent, History
from kit.packets import Action, AnyPacket, Ask, Content, Edit, Prompt, Thought, ToolResult

_MENTION = re.compile(r"^@([\w-]+(?:,[\w-]+)*)[:,]?[ \t]+", re.MULTILINE)


def room(agents: Mapping[str, Agent], *, rounds: int = 8) -> dict[str, Agent]:
    """The agents as members of a room, for `serve`; the first one hears what people address to nobody.

    `rounds`: how often agents may ask each other before a person has to speak again. Those that speak at the same moment do not see
    each other's question yet: there may be one more for each of them, and then there is silence.
    """
    return {name: _member(name, agent, set(agents) - {name}, rounds) for name, agent in agents.items()}


def addressed(text: str, names: set[str]) -> dict[str, str]:
    """What a text says to whom: by name, what stands behind each `@name` up to the next one.

    >>> addressed("A plan.\\n@coder write it\\n@tester run it", {"coder", "tester"})
    {'coder': 'write it', 'tester': 'run it'}
    """
    said: dict[str, str] = {}
    _, *parts = _MENTION.split(text)  # what stands before the first name, then by turns: names, and what is said to them
    for mentioned, what in zip(parts[::2], map(str.strip, parts[1::2]), strict=True):
        for name in names & set(mentioned.split(",")) if what else ():
            said[name] = f"{said[name]}\n{what}" if name in said else what
    return said


def _member(name: str, agent: Agent, others: set[str], rounds: int) -> Agent:
    async def member(history: History) -> AsyncIterator[AnyPacket | Prompt]:
        said = list(history.said)
        async with aclosing(cast("AsyncGenerator[AnyPacket]", agent(history))) as packets:
            async for packet in packets:
                said.append(packet)
                yield packet
        if any(map(history.waits_for, said)):  # it will be called again
            return
        questions = addressed(_text(said), others)
        if questions and _asked(history) >= rounds:
            yield Thought(f"(Not passed on to {', '.join(questions)}: agents have asked each other {rounds} times; a person speaks next.)")
            return
        for other, text in questions.items():
            yield Prompt(text=text, to=other)

    member.__name__ = name
    return member


def _text(said: Sequence[AnyPacket]) -> str:
    """What a turn says; what follows a call begins a line."""
    text = ""
    for packet in said:
        if isinstance(packet, Content):
            text += packet.text
        elif isinstance(packet, Action | Ask | ToolResult) and not text.endswith("\n"):
            text += "\n"
    return text


def _asked(history: History) -> int:
    """How often agents have asked each other since a person last spoke."""
    count = 0
    for entry in history:
        if isinstance(entry, Edit) or (isinstance(entry, Prompt) and entry.re is None):
            count = 0
        elif isinstance(entry, Prompt):
            count += 1
    return count
