"""The final project's page: what it shows first fails as it says, and what its advice leads to passes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from kit.history import History
from kit.lab.check import NOTEBOOKS, Outcome
from kit.lab.start import Lab
from kit.lab.succession import check_agent
from kit.packets import Action, AnyPacket, Ask, Content, Thought, ToolResult

BLOCKS = re.findall(r"```python\n(.*?)```", (NOTEBOOKS / "PROJECT.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture
def cell() -> Iterator[dict[str, Any]]:
    """The names of a notebook; what was started there ends."""
    yield {}
    if Lab.current:
        Lab.current.close()


def run(cell: dict[str, Any], block: str) -> Outcome:
    """Run a block as a cell, and give its last line's value."""
    *lines, last = block.strip().splitlines()
    exec("\n".join(lines), cell)
    outcome: Outcome = eval(last, cell)
    return outcome


async def guide(history: History) -> AsyncIterator[AnyPacket]:
    """A plan made of the history alone, less what is said; a call is named after its turn; it returns where it waits."""
    at = history.prompt.id
    ask, look = f"weather {at}", f"map {at}"
    answer = history.answer(ask)
    dry = answer is not None and answer.text == "rain"
    plan: list[AnyPacket] = [Thought("A walk, "), Thought("then. "), Ask(call=ask, text="How is the weather?")]
    plan += [Action(call=look, name="look", arguments={"dry": dry}, on="server"), ToolResult(call=look, value="found")]
    plan += map(Content, ("the museum, ", "the library, ", "a café.") if dry else ("the harbour, ", "the old town, ", "the castle."))
    for place, packet in enumerate(plan):
        if place >= history.pieces:
            yield packet
        if history.waits_for(packet):
            return


def test_the_first_agent_fails_as_the_page_says(cell: dict[str, Any]) -> None:
    """After piece 1 the thought stands there twice."""
    outcome = run(cell, BLOCKS[0])
    assert not outcome.passed
    rows = dict(outcome.rows)
    assert rows["cut"] == "after piece 1 of 4"
    assert "A walk, then. A walk, then. " in rows["seen"]


def test_an_agent_with_the_three_habits_passes_the_last_check(cell: dict[str, Any]) -> None:
    """As the page writes it, with another answer too."""
    from kit import lab

    cell |= {"lab": lab, "guide": guide}
    outcome = run(cell, BLOCKS[1])
    assert outcome.passed, outcome
    assert check_agent(guide, "Where shall I go?", reply=lambda asked: "sun").passed
