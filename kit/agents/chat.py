"""Chat Completions: the dialect that nearly every other model server speaks, as requests and events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from kit.agents.conversation import Call, Event, Failed, Function, Item, Message, Wanted
from kit.packets import At, Content, Thought


def request(items: Sequence[Item], functions: Sequence[Function], instructions: str) -> dict[str, Any]:
    """The arguments of `client.chat.completions.create` for a conversation."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}]
    for item in items:
        match item:
            case Message(role, text):
                messages.append({"role": role, "content": text})
            case Call():
                _add_call(messages, item)
    tools = [{"type": "function", "function": f._asdict()} for f in functions]
    return {"messages": messages} | ({"tools": tools} if tools else {})


def _add_call(messages: list[dict[str, Any]], item: Call) -> None:
    """What the assistant said before a call and the call itself are one message in this dialect."""
    if messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1]["tool_calls"] = [{"id": item.call, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}]
    messages.append({"role": "tool", "tool_call_id": item.call, "content": item.output})


async def read(chunks: AsyncIterator[Any]) -> AsyncGenerator[Event, None]:
    """The events of a run of the model. Raises Failed where the server stopped it; a stream that was cut yields no `calls`.

    The id and name of a call come in its first delta, its arguments in pieces; `index` says which call a delta belongs to.
    """
    wanted: dict[int, Wanted] = {}
    finished = ""
    at = At(response="")
    async for chunk in chunks:
        at = At(response=chunk.id or "")
        for choice in chunk.choices[:1]:  # the last chunk may hold only the usage
            delta = choice.delta
            if thought := getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None):
                yield Event(at, Thought(thought))
            if text := delta.content or delta.refusal:
                yield Event(at, Content(text))
            for part in delta.tool_calls or ():
                _assemble(wanted, part)
            finished = choice.finish_reason or finished
        yield Event(at)
    if finished in ("length", "content_filter"):
        raise Failed(f"The model stopped before its answer was complete ({finished}).", again=False)
    if finished:
        yield Event(at, calls=tuple(wanted[index] for index in sorted(wanted)))


def _assemble(wanted: dict[int, Wanted], part: Any) -> None:
    call, name, arguments = wanted.get(part.index, Wanted("", "", ""))
    function = part.function
    wanted[part.index] = Wanted(
        part.id or call,
        (function and function.name) or name,
        arguments + ((function and function.arguments) or ""),
    )
