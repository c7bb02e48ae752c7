"""Tools from plain functions: their schemas, what a call becomes, and how it fails."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from kit.agents.conversation import Wanted
from kit.agents.tools import Tools, tool_of
from kit.packets import Action, Ask, ToolResult


class Place(msgspec.Struct):
    name: str


async def book(place: Place, nights: Annotated[int, Meta(ge=1)] = 1, *, kind: Literal["tent", "bed"] = "bed", call: str) -> dict[str, Any]:
    """Book a place.

    Costs money.
    """
    return {"place": place.name, "nights": nights, "kind": kind, "call": call}


async def wink(eye: str) -> None:
    """Wink."""
    raise NotImplementedError


TOOLS = Tools([book], [wink])


def action(arguments: str, name: str = "book") -> Action:
    packet = TOOLS.packet(Wanted("c1", name, arguments), set())
    assert isinstance(packet, Action)
    return packet


def test_the_schema_is_made_of_the_hints_and_the_docstring() -> None:
    """Without the call id, which is not the model's to choose."""
    name, description, parameters = tool_of(book, "server").about
    assert (name, description) == ("book", "Book a place.\n\nCosts money.")
    assert parameters["type"] == "object"
    assert parameters["required"] == ["place"]
    assert set(parameters["properties"]) == {"place", "nights", "kind"}
    assert parameters["properties"]["nights"] == {"type": "integer", "minimum": 1, "default": 1}
    assert parameters["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert parameters["$defs"]["Place"]["properties"] == {"name": {"type": "string"}}
    assert parameters["additionalProperties"] is False


async def test_a_tool_runs_with_checked_arguments_and_its_call_id() -> None:
    asked = action('{"place": {"name": "hut"}, "nights": 2}')
    assert asked.on == "server"
    assert await TOOLS.run(asked) == ToolResult(call="c1", value={"place": "hut", "nights": 2, "kind": "bed", "call": "c1"})


BAD = ["", "{", "[]", "null", '{"place": 1}', '{"place": {"name": "hut"}, "nights": 0}', '{"place": {"name": "hut"}, "x": 1}']
BAD += ['{"place": {"name": "\\ud800"}}', '{"place": ' + "[" * 5000, '{"place": {"name": "hut"}, "call": "c9"}', '"' + "x" * 70_000 + '"']


@pytest.mark.parametrize("arguments", BAD, ids=range(len(BAD)))
async def test_bad_arguments_are_an_error_for_the_model(arguments: str) -> None:
    """Missing, mistyped, unknown, no JSON, too large: the tool does not run, on this instance or the next."""
    asked = action(arguments)
    assert asked.on == "server"
    assert len(msgspec.json.encode(asked)) < 60_000
    stored = msgspec.json.decode(msgspec.json.encode(asked), type=Action)
    result = await TOOLS.run(stored)
    assert isinstance(result.error, str)
    assert result.error.startswith("bad arguments: ")


async def unserializable() -> object:
    return object()


async def half_a_pair() -> str:
    return "\ud800"


async def huge() -> str:
    return "x" * 70_000


async def failing() -> str:
    raise LookupError("no such row")


@pytest.mark.parametrize(
    ("tool", "error"),
    [
        (unserializable, "TypeError: "),
        (half_a_pair, "UnicodeEncodeError: "),
        (huge, "the result has 70002 bytes, over 60416: ask for less"),
        (failing, "LookupError: no such row"),
    ],
)
async def test_whatever_goes_wrong_in_a_tool_is_an_error_for_the_model(tool: Any, error: str) -> None:
    """What no log can hold, too."""
    result = await Tools([tool]).run(Action(call="c1", name=tool.__name__, arguments={}, on="server"))
    assert isinstance(result.error, str)
    assert result.error.startswith(error)


async def test_a_tool_that_is_not_there_is_an_error_that_names_the_others() -> None:
    asked = action("{}", "fly")
    assert asked.on == "server"
    assert (await TOOLS.run(asked)).error == "there is no tool 'fly' here, only book, wink, ask"


def test_a_clients_tool_is_an_action_on_the_client() -> None:
    """A call that does not fit is answered here, without bothering the client."""
    assert action('{"eye": "left"}', "wink").on == "client"
    assert action('{"eye": 1}', "wink").on == "server"


def test_a_tool_that_wants_approval_waits_for_it() -> None:
    tools = Tools([failing], approve=["failing"])
    assert [tools.packet(Wanted("c1", "failing", a), set()).on for a in ("{}", "[]")] == ["approve", "server"]  # type: ignore[union-attr]  # actions


def test_an_ask_is_a_question() -> None:
    asked = TOOLS.packet(Wanted("c1", "ask", '{"text": "Which?", "choices": ["a", "b"]}'), set())
    assert asked == Ask(call="c1", text="Which?", choices=["a", "b"])
    assert TOOLS.packet(Wanted("c1", "ask", '{"text": "Why?"}'), set()) == Ask(call="c1", text="Why?")
    assert action('{"question": "Why?"}', "ask").on == "server"


@pytest.mark.parametrize("call", ["", "x" * 65, "used"])
def test_a_call_id_that_cannot_be_kept_is_replaced(call: str) -> None:
    """One call id stands for one action, and some providers count from 0 in each answer."""
    packets = [TOOLS.packet(Wanted(call, "fly", "{}"), {"used"}) for _ in range(2)]
    assert len({packet.call for packet in packets} - {call}) == 2
    assert TOOLS.packet(Wanted("new", "fly", "{}"), {"used"}).call == "new"


def blocking() -> None: ...
async def untyped(x) -> None: ...  # type: ignore[no-untyped-def]  # what is refused
async def variadic(*x: int) -> None: ...


@pytest.mark.parametrize("function", [blocking, untyped, variadic])
def test_what_cannot_be_a_tool_is_refused_at_once(function: Any) -> None:
    with pytest.raises(TypeError, match=function.__name__):
        Tools([function])


def test_names_must_be_clear() -> None:
    with pytest.raises(ValueError, match="two tools of one name"):
        Tools([book, book])
    with pytest.raises(ValueError, match="approve names no tool that runs on the server: nothing, wink"):
        Tools([book], [wink], ["wink", "nothing"])
