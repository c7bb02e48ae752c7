"""What a model is told of a session, in both dialects, and how its events are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from kit.agents import chat, responses
from kit.agents.conversation import NO_RESULT, Call, Event, Failed, Function, Item, Message, Wanted, conversation
from kit.history import History
from kit.packets import Action, Answer, Ask, At, Content, Edit, End, Entry, Prompt, Result, Stop, Takeover, Thought, ToolResult

ME, CRITIC = "writer", "critic"


def items(turn: str, *entries: Entry) -> list[Item]:
    return conversation(History(entries, turn))


def test_turns_stand_one_after_the_other() -> None:
    """A prompt that came while another was answered does not stand in the middle of the answer; a later one is not seen."""
    assert items(
        f"2-0/{ME}",
        Prompt(id="1-0", text="one"),
        Content("a ", id="1-1", turn=f"1-0/{ME}"),
        Prompt(id="2-0", text="two"),
        Content("b", id="2-1", turn=f"1-0/{ME}"),
        End(id="2-2", turn=f"1-0/{ME}", reason="done"),
        Prompt(id="3-0", text="three"),
        Thought("hm", id="3-1", turn=f"2-0/{ME}"),
        Content("c", id="3-2", turn=f"2-0/{ME}"),
    ) == [Message("user", "one"), Message("assistant", "a b"), Message("user", "two"), Message("assistant", "c")]


def test_a_turn_that_was_stopped_or_replaced_is_told_as_far_as_it_was_said() -> None:
    """The edit is the next thing the person said; a call that never got a result gets an output that says so."""
    assert items(
        f"3-0/{ME}",
        Prompt(id="1-0", text="one"),
        Content("half", id="1-1", turn=f"1-0/{ME}"),
        Action(id="1-2", turn=f"1-0/{ME}", call="c1", name="look", arguments={"at": 1}, on="server"),
        Stop(id="2-0"),
        End(id="2-1", turn=f"1-0/{ME}", reason="stopped"),
        Edit(id="3-0", turn=f"1-0/{ME}", text="two"),
    ) == [Message("user", "one"), Message("assistant", "half"), Call("c1", "look", '{"at":1}', NO_RESULT), Message("user", "two")]


def test_calls_are_told_with_what_came_of_them() -> None:
    """Text as it is, values as JSON, errors marked, the first result only; an approval is no result."""
    turn = f"1-0/{ME}"

    def action(call: str, on: Any = "server") -> Action:
        return Action(turn=turn, call=call, name="look", arguments={}, on=on)

    told = items(
        turn,
        Prompt(id="1-0", text="go"),
        *[action("text"), action("json"), action("error"), action("client", "client"), action("approve", "approve")],
        ToolResult(turn=turn, call="text", value="ä"),
        ToolResult(turn=turn, call="json", value={"a": [1]}),
        ToolResult(turn=turn, call="error", error="gone"),
        Result(id="2-0", call="client", value=None),
        Answer(id="3-0", call="approve", text="yes"),
        ToolResult(turn=turn, call="approve", value="done"),
        Ask(turn=turn, call="ask", text="Which?", choices=["a"]),
        Answer(id="4-0", call="ask", text="b"),
        Answer(id="5-0", call="ask", text="too late"),
        Takeover(id="6-0", turn=turn, by="x"),
        Content("so", turn=turn),
    )
    assert [item.output for item in told if isinstance(item, Call)] == ["ä", '{"a":[1]}', "error: gone", "null", "done", "b"]
    assert told[-2] == Call("ask", "ask", '{"text":"Which?","choices":["a"]}', "b")
    assert told[-1] == Message("assistant", "so")


def test_other_agents_are_heard_as_users_who_are_named() -> None:
    """In a room: who said what to whom; several people are named, too."""
    assert items(
        f"3-0/{ME}",
        Prompt(id="1-0", from_="ada", text="write"),
        Content("A poem.", turn=f"1-0/{ME}"),
        Prompt(id="2-0", from_="bob", text="judge", to=CRITIC),
        Thought("hm", turn=f"2-0/{CRITIC}"),
        Content("Too ", turn=f"2-0/{CRITIC}"),
        Content("short.", turn=f"2-0/{CRITIC}"),
        Prompt(id="3-0", from_="ada", text="again", to=ME),
        Content("I agree with myself.", turn=f"3-0/{CRITIC}"),
        Content("A long", turn=f"3-0/{ME}"),
    ) == [
        Message("user", "ada: write"),
        Message("assistant", "A poem."),
        Message("user", f"bob to {CRITIC}: judge"),
        Message("user", f"{CRITIC}: Too short."),
        Message("user", f"{CRITIC}: I agree with myself."),
        Message("user", "ada: again"),
        Message("assistant", "A long"),
    ]


def test_a_prompt_to_several_is_to_each_of_them() -> None:
    """As the log names them; whoever is not among them reads to whom it went."""
    asked = Prompt(id="1-0", text="judge", to=f"{CRITIC},{ME}", from_="ann")
    assert items(f"1-0/{ME}", asked) == items(f"1-0/{CRITIC}", asked) == [Message("user", "judge")]
    assert items("1-0/clerk", asked) == [Message("user", f"ann to {CRITIC},{ME}: judge")]


ITEMS: list[Item] = [Message("user", "go"), Message("assistant", "I look"), Call("c1", "look", "{}", "x"), Call("c2", "look", "{}", "y")]
ITEMS += [Message("assistant", "half")]
LOOK = Function("look", "Look.", {"type": "object"})


def test_a_conversation_in_chat_completions() -> None:
    """Text before a call and the call are one message; each output follows its own call."""
    call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    assert chat.request(ITEMS, [LOOK], "Be brief.") == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "I look", "tool_calls": [{"id": "c1", **call}]},
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c2", **call}]},
            {"role": "tool", "tool_call_id": "c2", "content": "y"},
            {"role": "assistant", "content": "half"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}],
    }


def test_a_conversation_in_responses() -> None:
    """A server that is offered no tools is not sent an empty list of them."""
    call = {"type": "function_call", "name": "look", "arguments": "{}"}
    assert responses.request(ITEMS, [], "Be brief.") == {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "I look"},
            {**call, "call_id": "c1"},
            {"type": "function_call_output", "call_id": "c1", "output": "x"},
            {**call, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c2", "output": "y"},
            {"role": "assistant", "content": "half"},
        ],
    }


async def stream(*events: Any) -> AsyncIterator[Any]:
    for event in events:
        yield event


def event(type: str, number: int | None, **fields: Any) -> SimpleNamespace:
    return SimpleNamespace(type=f"response.{type}", sequence_number=number, **fields)


def response(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(id="r1", **fields)


async def test_events_of_responses() -> None:
    """Parts of a summary are apart, a refusal is content, unknown events only move the cursor, which some servers do not have."""
    call = SimpleNamespace(type="function_call", call_id="c1", name="look", arguments="{}")
    source = stream(
        event("created", 0, response=response()),
        event("reasoning_summary_part.added", 1, summary_index=0),
        event("reasoning_summary_text.delta", 2, delta="A"),
        event("reasoning_summary_part.added", 3, summary_index=1),
        event("reasoning_text.delta", 4, delta="B"),
        event("of_the_future", 5),
        event("output_text.delta", None, delta="C"),
        event("refusal.delta", 7, delta="D"),
        event("completed", 8, response=response(output=[SimpleNamespace(type="message"), call])),
        event("output_text.delta", 9, delta="never read"),
    )
    assert [e async for e in responses.read(source)] == [
        Event(At("r1", 0)),
        Event(At("r1", 1)),
        Event(At("r1", 2), Thought("A")),
        Event(At("r1", 3), Thought("\n\n")),
        Event(At("r1", 4), Thought("B")),
        Event(At("r1", 5)),
        Event(At("r1", None), Content("C")),
        Event(At("r1", 7), Content("D")),
        Event(At("r1", 8), calls=(Wanted("c1", "look", "{}"),)),
    ]


@pytest.mark.parametrize(
    ("last", "sentence", "again", "gone"),
    [
        (
            event("incomplete", 1, response=response(incomplete_details=SimpleNamespace(reason="x"))),
            "before its answer was complete (x)",
            0,
            0,
        ),
        (event("incomplete", 1, response=response(incomplete_details=None)), "before its answer was complete (it gives no reason)", 0, 0),
        (event("failed", 1, response=response(error=SimpleNamespace(code="server_error", message="m"))), "The model failed: m", 1, 1),
        (event("failed", 1, response=response(error=SimpleNamespace(code="bio_policy", message="m"))), "The model failed: m", 0, 1),
        (event("failed", 1, response=response(error=None)), "The model failed: no reason given", 1, 1),
        (SimpleNamespace(type="error", sequence_number=1, code=None, message="m"), "The model failed: m", 1, 0),
    ],
)
async def test_a_run_that_fails_says_so(last: Any, sentence: str, again: int, gone: int) -> None:
    """And whether asking again can help."""
    with pytest.raises(Failed) as failed:
        _ = [e async for e in responses.read(stream(last), "r1")]
    assert sentence in str(failed.value)
    assert (failed.value.again, failed.value.gone) == (bool(again), bool(gone))


def chunk(finish: str | None = None, **delta: Any) -> SimpleNamespace:
    fields = {"content": None, "refusal": None, "tool_calls": None} | delta
    return SimpleNamespace(id="x", choices=[SimpleNamespace(delta=SimpleNamespace(**fields), finish_reason=finish)])


def part(index: int, id: str | None = None, name: str | None = None, arguments: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(index=index, id=id, function=SimpleNamespace(name=name, arguments=arguments))


async def test_chunks_of_chat_completions() -> None:
    """Two names for a thought, calls in pieces that interleave, and a last chunk with nothing but the usage."""
    source = stream(
        chunk(reasoning_content="A"),
        chunk(reasoning="B", content=""),
        chunk(content="C"),
        chunk(tool_calls=[part(1, "c2", "look", '{"a"'), part(0, "c1", "see", "")]),
        chunk(tool_calls=[part(0, None, None, "{}"), part(1, None, None, ":1}")]),
        chunk("tool_calls"),
        SimpleNamespace(id="x", choices=[]),
    )
    told = [e async for e in chat.read(source)]
    assert [e.piece for e in told if e.piece] == [Thought("A"), Thought("B"), Content("C")]
    assert told[-1] == Event(At("x"), calls=(Wanted("c1", "see", "{}"), Wanted("c2", "look", '{"a":1}')))
    assert sum(e.calls is not None for e in told) == 1


async def test_chunks_that_break_off_have_no_end() -> None:
    """Without a finish_reason nothing is final, least of all half a call."""
    told = [e async for e in chat.read(stream(chunk(content="C"), chunk(tool_calls=[part(0, "c1", "look", '{"a"')])))]
    assert all(e.calls is None for e in told)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_that_was_too_long_is_not_taken_for_a_whole_one(reason: str) -> None:
    with pytest.raises(Failed, match=f"before its answer was complete .{reason}."):
        _ = [e async for e in chat.read(stream(chunk(content="C"), chunk(reason)))]


def test_an_edit_is_answered_in_the_place_of_what_it_replaced() -> None:
    """A prompt that waited behind the edited turn comes after the edit and its answer, for both of them."""
    said: list[Entry] = [
        Prompt(id="1-0", text="one"),
        Content("a ", id="1-1", turn=f"1-0/{ME}"),
        Prompt(id="2-0", text="two"),
        Edit(id="3-0", text="one, in short", turn=f"1-0/{ME}"),
        End(id="3-1", turn=f"1-0/{ME}", reason="replaced"),
        Edit(id="4-0", text="one, shorter", turn=f"3-0/{ME}"),
        End(id="4-1", turn=f"3-0/{ME}", reason="replaced"),
    ]
    first = [Message("user", "one"), Message("assistant", "a "), Message("user", "one, in short"), Message("user", "one, shorter")]
    assert items(f"4-0/{ME}", *said) == first
    answered = [Content("A.", id="4-2", turn=f"4-0/{ME}"), End(id="4-3", turn=f"4-0/{ME}", reason="done")]
    assert items(f"2-0/{ME}", *said, *answered) == [*first, Message("assistant", "A."), Message("user", "two")]


def test_an_edit_that_came_too_late_stands_where_it_was_said() -> None:
    """It replaced nothing."""
    over = [Prompt(id="1-0", text="one"), Content("a", id="1-1", turn=f"1-0/{ME}"), End(id="1-2", turn=f"1-0/{ME}", reason="done")]
    told = items(
        f"4-0/{ME}", *over, Prompt(id="2-0", text="two"), Edit(id="3-0", text="late", turn=f"1-0/{ME}"), Prompt(id="4-0", text="three")
    )
    assert [item.text for item in told if isinstance(item, Message)] == ["one", "a", "two", "late", "three"]
