"""The scripted agent: a list of packets, said once, whatever happens to the instances."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from kit.agents.scripted import scripted
from kit.packets import MAX_BODY, Action, AnyPacket, Ask, Content, Thought, ToolResult
from tests.fake_turn import FakeTurn, Killed, replies

SCRIPT: Sequence[AnyPacket] = [
    Thought("Let me "),
    Thought("see."),
    Action(call="c1", name="look", arguments={"at": "it"}, on="server"),
    ToolResult(call="c1", value="a cat"),
    Content("A cat. "),
    Ask(call="c2", text="Feed it?", choices=["yes", "no"]),
    Action(call="c3", name="feed", arguments={}, on="client"),
    Action(call="c4", name="stroke", arguments={}, on="approve"),
    ToolResult(call="c4", value="purr"),
    Content("It "),
    Content("purrs."),
]
PERSON = replies({"Feed it?": "yes", "feed": "fed", "stroke": "yes"})


async def test_it_says_its_script() -> None:
    """All packets, in order; it stops for a person three times."""
    turn = FakeTurn().prompt("hello")
    assert [await turn.round(scripted(SCRIPT))] == [6]
    assert [packet.call for packet in turn.open()] == ["c2"]
    assert await turn.round(scripted(SCRIPT)) == 0, "called again without an answer, it says nothing"
    await turn.run(scripted(SCRIPT), PERSON)
    assert [(type(p).__name__, p.n) for p in turn.history.said] == [(type(p).__name__, n) for n, p in enumerate(SCRIPT, 1)]


@pytest.mark.parametrize("kill_after", range(1, len(SCRIPT) + 1))
async def test_killed_after_any_packet_it_goes_on_at_the_next(kill_after: int) -> None:
    """Its place is the number of pieces in the log, joined or not."""
    turn = FakeTurn(joins=random.Random(kill_after)).prompt("hello")
    with pytest.raises(Killed):
        await turn.run(scripted(SCRIPT), PERSON, kill_after)
    await turn.run(scripted(SCRIPT), PERSON)
    whole = FakeTurn().prompt("hello")
    await whole.run(scripted(SCRIPT), PERSON)
    assert turn.story() == whole.story()
    assert turn.history.pieces == len(SCRIPT)


async def test_a_text_that_is_split_by_the_log_is_split_before_it_is_counted() -> None:
    """Otherwise the pieces in the log would be more than those of the script, and the end would never be said."""
    script = [Content("x" * 3 * MAX_BODY), Content("the end")]
    turn = FakeTurn().prompt("hello")
    turn.limit = 10 * MAX_BODY
    with pytest.raises(Killed):
        await turn.run(scripted(script), None, 2)
    await turn.run(scripted(script))
    assert turn.history.pieces > 3
    assert turn.story() == [("Content", "x" * 3 * MAX_BODY + "the end")]


async def test_a_script_may_depend_on_the_prompt() -> None:
    """A function from the prompt's text."""
    turn = FakeTurn().prompt("shout")
    await turn.run(scripted(lambda text: [Content(text.upper())]))
    assert turn.story() == [("Content", "SHOUT")]


async def test_a_second_turn_has_call_ids_of_its_own() -> None:
    """Call ids are unique in a session: the answer to the first turn's ask must not answer the second's."""
    turn = FakeTurn().prompt("hello")
    await turn.run(scripted(SCRIPT), PERSON)
    turn.prompt("again")
    await turn.round(scripted(SCRIPT))
    assert [packet.call for packet in turn.open()] == [f"c2.{turn.history.prompt.id}"]
    await turn.run(scripted(SCRIPT), PERSON)
    assert turn.history.pieces == len(SCRIPT)


async def test_the_pace_is_kept_against_the_clock() -> None:
    """The k-th piece is due k intervals after the start: what the others took does not add up."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    await FakeTurn().prompt("hello").run(scripted([Content("a"), Content("b"), Content("c")], pace=0.001, sleep=sleep))
    assert [round(delay / 1000) for delay in delays] == [1, 2, 3]


@pytest.mark.parametrize("pace", [None, float("inf")])
async def test_without_a_pace_it_does_not_sleep(pace: float | None) -> None:
    async def sleep(seconds: float) -> None:
        raise AssertionError(seconds)

    await FakeTurn().prompt("hello").run(scripted([Content("a")], pace=pace, sleep=sleep))
