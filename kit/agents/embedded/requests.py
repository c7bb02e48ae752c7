"""Requests: a conversation as the two dialects of the API write it, Chat Completions and Responses.

A body is checked against the types below; BadRequest names the field that is wrong. What the script has no use for (temperature,
images, built-in tools) is ignored. Source: platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from kit.agents.embedded.intents import Tool
from kit.agents.embedded.replies import Assistant, Call, Conversation, Item, Output, User

Limit = Annotated[int, Meta(ge=1)]
Json = dict[str, Any]
T = TypeVar("T", bound=Struct)


class BadRequest(Exception):
    """A body that is not what the API takes; `param` is the path of the field."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class Part(Struct):
    type: str
    text: str = ""


Text = str | list[Part]


class Function(Struct):
    name: Annotated[str, Meta(min_length=1)]
    parameters: Json | None = None


class Called(Struct):
    name: str
    arguments: str


class ToolCall(Struct):
    id: str
    function: Called


class SystemMessage(Struct, tag_field="role", tag="system"):
    content: Text


class DeveloperMessage(SystemMessage, tag_field="role", tag="developer"):
    pass


class UserMessage(Struct, tag_field="role", tag="user"):
    content: Text


class AssistantMessage(Struct, tag_field="role", tag="assistant"):
    content: Text | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None


class ToolMessage(Struct, tag_field="role", tag="tool"):
    tool_call_id: str
    content: Text


class ChatTool(Struct):
    type: str
    function: Function | None = None


class StreamOptions(Struct):
    include_usage: bool | None = None


class ChatRequest(Struct):
    """The body of POST /chat/completions."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage], Meta(min_length=1)]
    tools: list[ChatTool] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def conversation(self) -> Conversation:
        items: list[Item] = []
        instructions = []
        for message in self.messages:
            match message:
                case SystemMessage(content=content):
                    instructions.append(_text(content))
                case UserMessage(content=content):
                    items.append(User(_text(content)))
                case AssistantMessage(content=content, tool_calls=calls, reasoning_content=thought):
                    items.append(Assistant(_text(content or ""), thought or ""))
                    items += [Call(c.id, c.function.name, c.function.arguments) for c in calls or ()]
                case ToolMessage(tool_call_id=call, content=content):
                    items.append(Output(call, _text(content)))
        functions = [t.function for t in self.tools or () if t.function]
        return _conversation("\n".join(instructions), items, functions, "messages")


class Message(Struct, tag_field="type", tag="message"):
    role: Literal["user", "assistant", "system", "developer"]
    content: Text


class FunctionCall(Struct, tag_field="type", tag="function_call"):
    call_id: str
    name: str
    arguments: str


class FunctionCallOutput(Struct, tag_field="type", tag="function_call_output"):
    call_id: str
    output: Text


class Reasoning(Struct, tag_field="type", tag="reasoning"):
    summary: list[Part] = []


class ResponsesTool(Struct):
    type: str
    name: str | None = None
    parameters: Json | None = None


class ResponsesRequest(Struct):
    """The body of POST /responses; `input` as a list of items, plain text already made into one."""

    model: Annotated[str, Meta(min_length=1)]
    input: list[Message | FunctionCall | FunctionCallOutput | Reasoning]
    instructions: str | None = None
    tools: list[ResponsesTool] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    max_output_tokens: Limit | None = None

    def conversation(self) -> Conversation:
        items: list[Item] = []
        instructions = [self.instructions or ""]
        for item in self.input:
            match item:
                case Message(role="user", content=content):
                    items.append(User(_text(content)))
                case Message(role="assistant", content=content):
                    items.append(Assistant(_text(content)))
                case Message(content=content):
                    instructions.append(_text(content))
                case Reasoning(summary=summary):
                    items.append(Assistant("", _text(summary)))
                case FunctionCall(call_id=call, name=name, arguments=arguments):
                    items.append(Call(call, name, arguments))
                case FunctionCallOutput(call_id=call, output=output):
                    items.append(Output(call, _text(output)))
        functions = [Function(t.name, t.parameters) for t in self.tools or () if t.type == "function" and t.name]
        return _conversation("\n".join(filter(None, instructions)), items, functions, "input")


def as_items(input: Any) -> Any:
    """The `input` of a Responses request as a list of items: plain text is a user's message, and a message may leave out its type."""
    if isinstance(input, str):
        return [{"type": "message", "role": "user", "content": input}]
    if isinstance(input, list):
        return [{"type": "message", **item} if isinstance(item, dict) and "role" in item else item for item in input]
    return input


def parse(body: Any, kind: type[T]) -> T:
    """The body as a request; raises BadRequest."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        path = found[1] if (found := re.search(r"`\$\.?(.*?)`$", str(error))) else ""
        missing = found[1] if (found := re.search(r"required field `(.*?)`", str(error))) else ""
        raise BadRequest(str(error), ".".join(filter(None, (path, missing))) or None) from None


def _text(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


class _Schema(Struct):
    properties: dict[str, Json] = {}
    required: list[str] = []


def _conversation(instructions: str, items: Sequence[Item], functions: Sequence[Function], param: str) -> Conversation:
    """Neighbouring half-said pieces joined, every output behind its call and every call answered, as the real API demands it."""
    merged: list[Item] = []
    called: set[str] = set()
    open_calls: dict[str, None] = {}
    for item in items:
        match item, merged[-1] if merged else None:
            case Assistant(text="", thought=""), _:
                continue
            case Assistant(text=text, thought=thought), Assistant(text=before, thought=thought_before):
                merged[-1] = Assistant(before + text, thought_before + thought)
                continue
            case Call(id=id), _:
                called.add(id)
                open_calls[id] = None
            case Output(call=id), _ if id not in called:
                raise BadRequest(f"No tool call found for the output with call id {id}.", param)
            case Output(call=id), _:
                open_calls.pop(id, None)
        merged.append(item)
    if open_calls:
        raise BadRequest(f"No tool output found for the call {next(iter(open_calls))}.", param)
    for i, function in enumerate(functions):
        try:
            msgspec.convert(function.parameters or {}, _Schema)
        except msgspec.ValidationError as error:
            raise BadRequest(f"Invalid schema for function '{function.name}': {error}", f"tools[{i}].parameters") from None
    return Conversation(instructions, tuple(merged), tuple(Tool(f.name, f.parameters or {}) for f in functions))
