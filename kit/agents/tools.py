"""Tools: plain async functions that a model may call.

    async def get_weather(city: str, days: int = 1) -> dict[str, float]:
        '''The weather in a city.'''

The JSON schema is made of the hints and the docstring, arguments are checked against the hints (`Annotated[int, Meta(ge=1)]` says
more), and whatever goes wrong becomes the action's error, which the model reads. A tool with a keyword `call` is given the call's id,
its idempotency key: after a crash before its result was stored it is run again, with the same id.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, NamedTuple, get_type_hints
from uuid import uuid4

import msgspec

from kit.agents.conversation import Function, Wanted
from kit.agents.writing import write_document
from kit.packets import MAX_BODY, Action, Ask, ToolResult

ToolFunction = Callable[..., Awaitable[Any]]
log = logging.getLogger(__name__)


class Tool(NamedTuple):
    """A function the model may call; `kind` is the struct that its arguments must fit."""

    about: Function
    on: Literal["server", "client", "approve"]
    kind: type[msgspec.Struct]
    function: ToolFunction
    takes_call: bool

    def takes(self, arguments: dict[str, Any]) -> bool:
        """Whether the arguments fit."""
        try:
            return bool(msgspec.convert(arguments, self.kind))
        except msgspec.ValidationError:
            return False


async def ask(text: str, choices: list[str] | None = None) -> None:
    """Ask the person a question, where something that only they know is missing. Offer `choices` if there are only a few answers."""


class Tools:
    """The tools of one agent: what the model is told of them, what a call of one becomes, and how it is run."""

    def __init__(
        self,
        tools: Iterable[ToolFunction],
        client_tools: Iterable[ToolFunction] = (),
        approve: Iterable[str] = (),
        *,
        documents: bool = False,
    ) -> None:
        must_approve = set(approve)
        here = (*tools, write_document) if documents else tools
        made = [tool_of(function, "approve" if function.__name__ in must_approve else "server") for function in here]
        made += [tool_of(function, "client") for function in (*client_tools, ask)]
        self.by_name = {tool.about.name: tool for tool in made}
        if len(self.by_name) < len(made):
            raise ValueError(f"two tools of one name: {', '.join(sorted(tool.about.name for tool in made))}")
        self.documents = documents
        if unknown := must_approve - {tool.about.name for tool in made if tool.on == "approve"}:
            raise ValueError(f"approve names no tool that runs on the server: {', '.join(sorted(unknown))}")

    @property
    def functions(self) -> list[Function]:
        return [tool.about for tool in self.by_name.values()]

    def packet(self, wanted: Wanted, used: set[str], among: str = "") -> Action | Ask:
        """What a call of the model becomes. A call that cannot run is an action on the server, whose result is the error.

        Its id is the provider's (with the turn that it is `among`, where others may be calling, too), or a new one where that is missing,
        overlong or among the `used`: some servers count from 0 in each answer, and one call id stands for one action.
        """
        call = f"{wanted.call}.{among}" if among and wanted.call else wanted.call
        call = call if 0 < len(call) <= 64 and call not in used else f"call_{uuid4().hex}"
        arguments = _arguments(wanted.arguments)
        tool = self.by_name.get(wanted.name)
        if tool is None or not tool.takes(arguments):
            return Action(call=call, name=wanted.name, arguments=arguments, on="server")
        if tool.function is ask:
            return Ask(call=call, **arguments)
        return Action(call=call, name=wanted.name, arguments=arguments, on=tool.on)

    async def run(self, action: Action) -> ToolResult:
        """Run an action; whatever goes wrong is the result's error, in words for the model."""
        tool = self.by_name.get(action.name)
        if tool is None:
            return ToolResult(call=action.call, error=f"there is no tool {action.name!r} here, only {', '.join(self.by_name) or 'none'}")
        try:
            arguments = msgspec.convert(action.arguments, tool.kind)
        except msgspec.ValidationError as error:
            return ToolResult(call=action.call, error=f"bad arguments: {error}")
        given = {name: getattr(arguments, name) for name in tool.kind.__struct_fields__}
        try:
            body = msgspec.json.encode(await tool.function(**given, **({"call": action.call} if tool.takes_call else {})))
        except Exception as error:  # the tool is somebody else's code: the model and the log are told, the turn goes on
            log.exception("the tool %s failed (call %s)", action.name, action.call)
            return ToolResult(call=action.call, error=f"{type(error).__name__}: {error}"[:2000])
        if len(body) > MAX_BODY - 1024:  # what the log fills in
            return ToolResult(call=action.call, error=f"the result has {len(body)} bytes, over {MAX_BODY - 1024}: ask for less")
        return ToolResult(call=action.call, value=msgspec.json.decode(body))


def tool_of(function: ToolFunction, on: Literal["server", "client", "approve"]) -> Tool:
    """The tool that an async function is. Raises TypeError where the function could not be called with JSON arguments."""
    name = function.__name__
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{name} is no `async def`: a tool that blocks would stop every stream of this instance")
    hints = get_type_hints(function, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    parameters = inspect.signature(function).parameters
    for parameter in parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}({parameter}): a tool takes parameters that can be given by name")
        if parameter.name == "call":
            continue
        if parameter.name not in hints:
            raise TypeError(f"{name}({parameter}): needs a type hint, which the model's schema is made of")
        default = () if parameter.default is parameter.empty else (parameter.default,)
        fields.append((parameter.name, hints[parameter.name], *default))
    kind = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    about = Function(name, inspect.getdoc(function) or name, _schema(kind))
    return Tool(about, on, kind, function, "call" in parameters)


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of a struct with the struct itself at the top, as servers want it, and what it refers to in $defs."""
    (top,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    schema: dict[str, Any] = components.pop(top["$ref"].rpartition("/")[2])
    del schema["title"]
    return schema | ({"$defs": components} if components else {})


def _arguments(text: str) -> dict[str, Any]:
    """Arguments as the model wrote them. What is no JSON object, or too large for the log, is kept under a name that no tool takes.

    So the tool refuses it, now and whenever the log is read again.
    """
    if len(text.encode(errors="replace")) > MAX_BODY // 2:
        return {"too_large": f"{text[:200]} ..."}
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {"not_a_json_object": text.encode(errors="replace").decode()}
