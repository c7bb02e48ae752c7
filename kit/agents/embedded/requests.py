"""Requests: a conversation as the two dialects of the API write it, Chat Completions and Responses; and how a request is refused.

The types hold the fields that the script uses; others (temperature, token limits, built-in tools, images) are ignored. Whatever does
not fit is refused by a 400 that names the field. Source: platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import Struct

from kit.agents.conversation import Call, Item, Message, Wanted

Json = dict[str, Any]


@dataclass(eq=False)  # an exception is itself, and hashable
class Refuse(Exception):
    """A request is answered by an error, in the shape of OpenAI's."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Json:
        kind = "requests" if self.status == 429 else "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def rate_limited(retry_after: float = 1.0) -> Refuse:
    """Too many requests; come back after so many seconds."""
    return Refuse(429, "Rate limit reached.", "rate_limit_exceeded", headers={"retry-after": f"{retry_after:g}"})


class Part(Struct):
    text: str = ""


Text = str | list[Part] | None


class Property(Struct):
    type: Any = None
    enum: list[str | int | float | bool | None] = []


class Schema(Struct):
    """The JSON schema of a tool's arguments."""

    properties: dict[str, Property] = {}
    required: list[str] = []


class Function(Struct):
    """A function that is offered or was called: Responses names it at once, Chat Completions one level below."""

    id: str = ""
    name: str = ""
    parameters: Schema | None = None
    arguments: str = ""
    function: Function | None = None


class Entry(Struct):
    """An item of a Responses `input`, or one of a Chat Completions `messages`: the last two fields are the latter's."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant", "tool"] = "user"
    content: Text = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: Text = None
    tool_calls: list[Function] | None = None
    tool_call_id: str = ""


class Request(Struct):
    """The body of POST /responses or /chat/completions. The whole conversation is sent each time, never `previous_response_id`."""

    model: str
    input: str | list[Entry] = []
    messages: list[Entry] = []
    tools: list[Function] | None = None
    stream: bool | None = None
    background: bool | None = None
    previous_response_id: None = None

    def offered(self) -> dict[str, Schema]:
        functions = [tool.function or tool for tool in self.tools or ()]
        return {function.name: function.parameters or Schema() for function in functions if function.name}

    def items(self) -> list[Item]:
        """What was said, and each call with its output: the real API refuses one without the other, too. Raises Refuse."""
        items: list[Item] = []
        wanted: dict[str, Wanted] = {}
        if not self.messages and not self.input:
            raise Refuse(400, "Nothing was said: neither input nor messages.")
        for entry in self.messages or ([Entry(content=self.input)] if isinstance(self.input, str) else self.input):
            match entry:
                case Entry(type="function_call"):
                    wanted[entry.call_id] = Wanted(entry.call_id, entry.name, entry.arguments)
                case Entry(type="function_call_output", call_id=id, output=output) | Entry(role="tool", tool_call_id=id, content=output):
                    if id not in wanted:
                        raise Refuse(400, f"No tool call found for the output with call id {id}.")
                    items.append(Call(*wanted.pop(id), _text(output)))
                case Entry(type="message", role="user" | "assistant" as role):
                    items.append(Message(role, _text(entry.content)))
            for call in entry.tool_calls or ():
                function = call.function or call
                wanted[call.id] = Wanted(call.id, function.name, function.arguments)
        if wanted:
            raise Refuse(400, f"No tool output found for the call {next(iter(wanted))}.")
        return items


def parse(body: bytes) -> tuple[Json, Request]:
    """The body as JSON and as a request. Raises Refuse."""
    try:
        value = msgspec.json.decode(body, type=dict[str, Any])
        return value, msgspec.convert(value, Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Either "Expected `str`, got `int` - at `$.model`" or "Object missing required field `model`".
        at = re.search(r"(?:at `\$\.?|field `)([^`]*)`$", str(error))
        raise Refuse(400, f"The JSON body of your request is wrong: {error}", "invalid_value", at and at[1]) from None


def _text(content: Text) -> str:
    return "".join(part.text for part in content) if isinstance(content, list) else content or ""
