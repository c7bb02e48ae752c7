"""Events: a reply as the two dialects of the API write it, Chat Completions and Responses.

The shapes are those of the types in the `openai` package, and the tests hold them against it.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, NamedTuple

import msgspec

from kit.agents.embedded.intents import Reply
from kit.agents.embedded.replies import tokens
from kit.agents.embedded.requests import Json


class Event(NamedTuple):
    """One event of a stream; `token` marks those that carry a token, which take time to make: `wait` seconds, or what the pace says."""

    data: Json
    token: bool = False
    wait: float | None = None

    def encode(self) -> bytes:
        """As a server-sent event (HTML Living Standard, section 9.2)."""
        name = f"event: {self.data['type']}\n".encode() if "type" in self.data else b""
        return name + b"data: " + msgspec.json.encode(self.data) + b"\n\n"


def chat_answer(model: str, reply: Reply) -> tuple[Json, list[Event]]:
    """The answer in one piece, and the chunks of a streamed one without the `[DONE]` that ends it."""
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
    finish = "tool_calls" if reply.calls else "stop"

    def chunk(token: bool, finish: str | None = None, **delta: Any) -> Event:
        return Event({**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}, token)

    chunks = [chunk(False, role="assistant", content="")]
    chunks += [chunk(True, reasoning_content=token) for token in tokens(reply.thought)]
    chunks += [chunk(True, content=token) for token in tokens(reply.content)]
    calls = [{"id": c.call, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in reply.calls]
    for i, call in enumerate(reply.calls):
        chunks.append(chunk(False, tool_calls=[{**calls[i], "index": i, "function": {"name": call.name, "arguments": ""}}]))
        chunks += [chunk(True, tool_calls=[{"index": i, "function": {"arguments": piece}}]) for piece in tokens(call.arguments)]
    message = {"role": "assistant", "content": reply.content, "reasoning_content": reply.thought} | ({"tool_calls": calls} if calls else {})
    whole = {**head, "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    return whole, [*chunks, chunk(False, finish)]


def response_head(model: str, background: bool) -> Json:
    """A response before anything is said."""
    head = {"id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": time.time(), "model": model, "background": background}
    return {**head, "status": "in_progress", "error": None, "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}


def response_events(head: Json, reply: Reply) -> list[Event]:
    """The events of a response, numbered from 0 without a gap; the last one holds the whole response."""
    run = head["id"].removeprefix("resp_")
    writer = _Writer()
    writer.add("created", response=head)
    writer.add("in_progress", response=head)
    if reply.thought:
        item: Json = {"id": f"rs_{run}", "type": "reasoning", "summary": [{"type": "summary_text", "text": reply.thought}]}
        writer.text(item, "summary", "reasoning_summary_part", "reasoning_summary_text", {})
    if reply.content:
        part = {"type": "output_text", "text": reply.content, "annotations": [], "logprobs": []}
        item = {"id": f"msg_{run}", "type": "message", "role": "assistant", "content": [part]}
        writer.text(item, "content", "content_part", "output_text", {"logprobs": []})
    for i, call in enumerate(reply.calls):
        item = {"id": f"fc_{run}_{i}", "type": "function_call", "call_id": call.call, "name": call.name, "arguments": call.arguments}
        writer.call(item)
    writer.add("completed", response={**head, "output": writer.output, "status": "completed"})
    return writer.events


class _Writer:
    """The events of one response, and its items of output."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.output: list[Json] = []

    def add(self, type: str, token: bool = False, **fields: Any) -> None:
        self.events.append(Event({"type": f"response.{type}", "sequence_number": len(self.events), **fields}, token))

    def text(self, item: Json, key: str, part_event: str, event: str, extra: Json) -> None:
        """An item whose text is its one part, under `key`."""
        (part,) = item[key]
        at = self._begin(item | {key: []}) | {f"{key}_index": 0}
        self.add(f"{part_event}.added", **at, part=part | {"text": ""})
        for token in tokens(part["text"]):
            self.add(f"{event}.delta", True, **at, delta=token, **extra)
        self.add(f"{event}.done", **at, text=part["text"], **extra)
        self.add(f"{part_event}.done", **at, part=part)
        self._end(item)

    def call(self, item: Json) -> None:
        at = self._begin(item | {"arguments": ""})
        for piece in tokens(item["arguments"]):
            self.add("function_call_arguments.delta", True, **at, delta=piece)
        self.add("function_call_arguments.done", **at, arguments=item["arguments"])
        self._end(item)

    def _begin(self, item: Json) -> Json:
        self.add("output_item.added", output_index=len(self.output), item=item | {"status": "in_progress"})
        return {"item_id": item["id"], "output_index": len(self.output)}

    def _end(self, item: Json) -> None:
        self.output.append(item | {"status": "completed"})
        self.add("output_item.done", output_index=len(self.output) - 1, item=self.output[-1])
