"""Heard: what an event of either dialect brings, as far as playing a tape needs it. The openai package's types say what else there is."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

TERMINAL = ("response.completed", "response.incomplete", "response.failed", "error")


class Heard(NamedTuple):
    """Text that was thought or said, a piece of arguments, what was called (index and name), the response's id, whether it is over."""

    thought: str = ""
    content: str = ""
    arguments: str = ""
    calls: tuple[tuple[int, str], ...] = ()
    response: str | None = None
    terminal: bool = False

    @property
    def token(self) -> bool:
        return bool(self.thought or self.content or self.arguments)


class Function(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class Part(Struct):
    index: int = 0
    function: Function = Function()


class Delta(Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Part] | None = None


class Choice(Struct):
    delta: Delta = Delta()
    finish_reason: str | None = None


class Chunk(Struct):
    choices: list[Choice]


class Item(Struct):
    type: str = ""
    name: str | None = None


class Response(Struct):
    id: str


class Event(Struct):
    type: str
    sequence_number: int | None = None
    delta: Any = None
    output_index: int = 0
    item: Item | None = None
    response: Response | None = None


def hear(dialect: Literal["responses", "chat"], data: dict[str, Any]) -> Heard:
    """Raises msgspec.ValidationError, which names the field, where the event is none of the dialect."""
    return _chunk(msgspec.convert(data, Chunk)) if dialect == "chat" else _event(msgspec.convert(data, Event))


def _chunk(chunk: Chunk) -> Heard:
    if not chunk.choices:  # such a chunk holds the count of tokens
        return Heard()
    delta = chunk.choices[0].delta
    parts = delta.tool_calls or []
    return Heard(
        delta.reasoning_content or delta.reasoning or "",
        delta.content or delta.refusal or "",
        "".join(part.function.arguments or "" for part in parts),
        tuple((part.index, part.function.name) for part in parts if part.function.name),
        terminal=chunk.choices[0].finish_reason is not None,
    )


def _event(event: Event) -> Heard:
    delta = event.delta if isinstance(event.delta, str) else ""
    match event.type:
        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
            return Heard(thought=delta)
        case "response.output_text.delta" | "response.refusal.delta":
            return Heard(content=delta)
        case "response.function_call_arguments.delta":
            return Heard(arguments=delta)
        case "response.output_item.done" if event.item and event.item.type == "function_call":
            return Heard(calls=((event.output_index, event.item.name or ""),))
        case type:
            return Heard(response=event.response.id if event.response else None, terminal=type in TERMINAL)
