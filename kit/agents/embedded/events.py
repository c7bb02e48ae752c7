"""Events: a reply as the two dialects of the API stream it, Chat Completions and Responses.

The events are made one by one while the caller sets the pace: `token` marks those that take time. The shapes are those of the types
in the `openai` package, and the tests hold them against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

from kit.agents.embedded.replies import Call, Conversation, Reply, tokens
from kit.agents.embedded.requests import Json, ResponsesRequest


class Event(NamedTuple):
    """One event of a stream, and whether it carries a token of the reply."""

    data: Json
    token: bool = False


def limited(reply: Reply, limit: int | None) -> tuple[Reply, bool]:
    """The reply in at most so many tokens, and whether that cut it short. A call that does not fit is left out whole."""
    if limit is None or _size(reply) <= limit:
        return reply, False
    thought = reply.thought[:limit]
    content = reply.content[: limit - len(thought)]
    return replace(reply, thought=thought, content=content, calls=()), True


def _size(reply: Reply) -> int:
    return len(reply.thought) + len(reply.content) + sum(len(_pieces(c.arguments)) for c in reply.calls)


def _pieces(arguments: str) -> list[str]:
    """JSON text in at least two pieces, as models stream it."""
    pieces = re.findall(r".{1,6}", arguments, re.DOTALL)
    return pieces if len(pieces) > 1 else [arguments[:1], arguments[1:]]


def _prompt_size(conversation: Conversation) -> int:
    """Tokens of the prompt, a word each."""
    said = [getattr(item, "text", "") or getattr(item, "arguments", "") for item in conversation.items]
    return sum(len(tokens(text)) for text in (conversation.instructions, *said))


def _finish(reply: Reply, cut: bool) -> str:
    return "length" if cut else "tool_calls" if reply.calls else "stop"


def _chat_usage(conversation: Conversation, reply: Reply) -> Json:
    asked, said = _prompt_size(conversation), _size(reply)
    details = {"completion_tokens_details": {"reasoning_tokens": len(reply.thought)}}
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said, **details}


def chat_completion(head: Json, conversation: Conversation, reply: Reply, cut: bool) -> Json:
    """The body of an answer that is not streamed. `head` holds id, created and model."""
    message: Json = {"role": "assistant", "content": "".join(reply.content) or None, "refusal": None}
    if reply.thought:
        message["reasoning_content"] = "".join(reply.thought)
    if reply.calls:
        message["tool_calls"] = [_chat_call(c, c.arguments) for c in reply.calls]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply, cut)}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _chat_usage(conversation, reply)}


def chat_events(head: Json, conversation: Conversation, reply: Reply, cut: bool, usage: bool) -> Iterator[Event]:
    """The chunks of a streamed answer, without the `[DONE]` that ends it."""
    extra: Json = {"usage": None} if usage else {}

    def chunk(delta: Json, token: bool = False, finish: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Event({**head, "object": "chat.completion.chunk", "choices": [choice], **extra}, token)

    yield chunk({"role": "assistant", "content": ""})
    for token in reply.thought:
        yield chunk({"reasoning_content": token}, True)
    for token in reply.content:
        yield chunk({"content": token}, True)
    for i, call in enumerate(reply.calls):
        yield chunk({"tool_calls": [{"index": i, **_chat_call(call, "")}]})
        for piece in _pieces(call.arguments):
            yield chunk({"tool_calls": [{"index": i, "function": {"arguments": piece}}]}, True)
    yield chunk({}, finish=_finish(reply, cut))
    if usage:
        yield Event({**head, "object": "chat.completion.chunk", "choices": [], "usage": _chat_usage(conversation, reply)})


def _chat_call(call: Call, arguments: str) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def response_head(id: str, created: float, request: ResponsesRequest, tools: Any) -> Json:
    """A response before anything is said."""
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": bool(request.background),
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": {},
        "model": request.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": request.previous_response_id,
        "store": request.store is not False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": tools or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }


def response_events(head: Json, conversation: Conversation, reply: Reply, cut: bool) -> Iterator[Event]:
    """The events of a response, numbered from 0 without a gap."""
    number = count()
    output: list[Json] = []

    def event(type: str, token: bool = False, **fields: Any) -> Event:
        return Event({"type": type, "sequence_number": next(number), **fields}, token)

    def item(parts: Iterator[Event], begun: Json, done: Json) -> Iterator[Event]:
        yield event("response.output_item.added", output_index=len(output), item=begun)
        for part in parts:
            yield event(part.data["type"], part.token, item_id=begun["id"], output_index=len(output), **_without_type(part.data))
        output.append(done)
        yield event("response.output_item.done", output_index=len(output) - 1, item=done)

    yield event("response.created", response=head)
    yield event("response.in_progress", response=head)
    for begun, done, parts in _items(head["id"].removeprefix("resp_"), reply, cut):
        yield from item(parts, begun, done)
    ended = {**head, "output": output, "usage": _usage(conversation, reply), "completed_at": None if cut else head["created_at"]}
    if cut:
        ended |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        yield event("response.incomplete", response=ended)
    else:
        yield event("response.completed", response={**ended, "status": "completed"})


def _items(run: str, reply: Reply, cut: bool) -> Iterator[tuple[Json, Json, Iterator[Event]]]:
    """The output items: as they begin, as they end, and the events in between."""
    ends = "incomplete" if cut else "completed"
    if reply.thought:
        head = {"id": f"rs_{run}", "type": "reasoning"}
        part = {"type": "summary_text", "text": "".join(reply.thought)}
        yield {**head, "summary": []}, {**head, "summary": [part]}, _thought(reply.thought)
    if reply.content:
        head = {"id": f"msg_{run}", "type": "message", "role": "assistant"}
        done = {**head, "status": ends, "content": [_part(reply.content)]}
        yield {**head, "status": "in_progress", "content": []}, done, _said(reply.content)
    for i, call in enumerate(reply.calls):
        head = {"id": f"fc_{run}_{i}", "type": "function_call", "call_id": call.id, "name": call.name}
        done = {**head, "status": "completed", "arguments": call.arguments}
        yield {**head, "status": "in_progress", "arguments": ""}, done, _called(call)


def _thought(pieces: tuple[str, ...]) -> Iterator[Event]:
    text = "".join(pieces)
    yield _inner("reasoning_summary_part.added", summary_index=0, part={"type": "summary_text", "text": ""})
    for piece in pieces:
        yield _inner("reasoning_summary_text.delta", True, summary_index=0, delta=piece)
    yield _inner("reasoning_summary_text.done", summary_index=0, text=text)
    yield _inner("reasoning_summary_part.done", summary_index=0, part={"type": "summary_text", "text": text})


def _said(pieces: tuple[str, ...]) -> Iterator[Event]:
    yield _inner("content_part.added", content_index=0, part=_part(()))
    for piece in pieces:
        yield _inner("output_text.delta", True, content_index=0, delta=piece, logprobs=[])
    yield _inner("output_text.done", content_index=0, text="".join(pieces), logprobs=[])
    yield _inner("content_part.done", content_index=0, part=_part(pieces))


def _called(call: Call) -> Iterator[Event]:
    for piece in _pieces(call.arguments):
        yield _inner("function_call_arguments.delta", True, delta=piece)
    yield _inner("function_call_arguments.done", arguments=call.arguments)


def _part(pieces: tuple[str, ...]) -> Json:
    return {"type": "output_text", "text": "".join(pieces), "annotations": [], "logprobs": []}


def _inner(type: str, token: bool = False, **fields: Any) -> Event:
    return Event({"type": f"response.{type}", **fields}, token)


def _without_type(data: Json) -> Json:
    return {name: value for name, value in data.items() if name != "type"}


def _usage(conversation: Conversation, reply: Reply) -> Json:
    asked, said = _prompt_size(conversation), _size(reply)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": len(reply.thought)},
        "total_tokens": asked + said,
    }
