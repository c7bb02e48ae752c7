"""Responses: the dialect of OpenAI's Responses API, as requests and events.

Events are told apart by `type` alone: the openai package builds an event of an unknown type as the first class of its union.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from kit.agents.conversation import Call, Event, Failed, Function, Item, Message, Wanted
from kit.packets import At, Content, Thought

TRY_AGAIN = {"server_error", "rate_limit_exceeded"}
"""The codes of a failed response that pass by themselves."""


def request(items: Sequence[Item], functions: Sequence[Function], instructions: str) -> dict[str, Any]:
    """The arguments of `client.responses.create` for a conversation."""
    tools = [
        # Strict schemas have no optional parameters, and strict is what this API takes where nothing is said.
        {"type": "function", "name": f.name, "description": f.description, "parameters": f.parameters, "strict": False}
        for f in functions
    ]
    return {"instructions": instructions, "input": [part for item in items for part in _input(item)]} | ({"tools": tools} if tools else {})


def _input(item: Item) -> list[dict[str, Any]]:
    match item:
        case Message(role, text):
            return [{"role": role, "content": text}]
        case Call(call, name, arguments, output):
            return [
                {"type": "function_call", "call_id": call, "name": name, "arguments": arguments},
                {"type": "function_call_output", "call_id": call, "output": output},
            ]


async def read(events: AsyncIterator[Any], response: str = "") -> AsyncGenerator[Event, None]:
    """The events of a run of the model; `response` is its id where the stream begins in the middle.

    Raises Failed if the run did. A stream that ends without a last event (it was cut, or the response was cancelled: there is no
    event for that) yields no `calls`.
    """
    async for event in events:
        if event.type == "response.created":
            response = event.response.id
        at = At(response=response, sequence=event.sequence_number)
        match event.type:
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                yield Event(at, Thought(event.delta))
            case "response.reasoning_summary_part.added" if event.summary_index:
                yield Event(at, Thought("\n\n"))
            case "response.output_text.delta" | "response.refusal.delta":
                yield Event(at, Content(event.delta))
            case "response.completed":
                yield Event(at, calls=_calls(event.response))
                return
            case "response.incomplete":
                reason = event.response.incomplete_details.reason if event.response.incomplete_details else "it gives no reason"
                raise Failed(f"The model stopped before its answer was complete ({reason}).", again=False)
            case "response.failed":
                error = event.response.error
                again = error is None or error.code in TRY_AGAIN
                raise Failed(f"The model failed: {error.message if error else 'no reason given'}", again=again, gone=True)
            case "error":
                raise Failed(f"The model failed: {event.message}", again=event.code is None or event.code in TRY_AGAIN)
            case _:
                yield Event(at)


def _calls(response: Any) -> tuple[Wanted, ...]:
    return tuple(Wanted(item.call_id, item.name, item.arguments) for item in response.output if item.type == "function_call")
