"""The agent checker: who goes on where it was cut passes; who does not is told after which piece, and what it did instead."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from kit.agents import model
from kit.agents.demo import default_agent
from kit.agents.scripted import scripted
from kit.history import Agent, History
from kit.lab.check import Outcome
from kit.lab.instances import Node
from kit.lab.resume import NotKept
from kit.lab.succession import check_agent
from kit.packets import Action, AnyPacket, Ask, Content, Document, Thought, ToolResult, Write

WORDS = "one two three four five"


def counts(bug: str = "") -> Agent:
    """An agent that thinks, looks something up and counts, as a learner writes it; or with one bug planted."""
    names = itertools.count(1)
    place: dict[str, int] = {}

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        call = f"look {next(names)}" if bug == "names the call anew" else "look"
        script: list[AnyPacket] = [
            Thought("Hm."),
            Action(call=call, name="look", arguments={}, on="server"),
            ToolResult(call=call, value=5),
            *map(Content, WORDS.split()),
        ]
        done = history.pieces
        match bug:
            case "begins again":
                done = 0
            case "counts packets":
                done = max(0, done - 1)
            case "leaves one out":
                done += bool(done)
            case "names the call anew" if len(history.said) in (1, 2):
                done = 1  # its action may stand there, but it does not look
            case "remembers":
                done = place.get(history.turn, 0)
            case "raises" if done == 4:
                raise LookupError("where was I?")
            case "falls silent" if done == 4:
                await asyncio.Event().wait()
        for said in script[done:]:
            await asyncio.sleep(0.001)
            place[history.turn] = place.get(history.turn, 0) + 1
            yield said

    return agent


async def asks(history: History, looks_back: bool = False) -> AsyncIterator[AnyPacket]:
    """It asks, has something approved, and something run by the page; writes a document; and then says what came of it.

    `looks_back`: it takes the history for one that grows while it speaks.
    """
    said = history.pieces
    steps: list[AnyPacket] = [
        Ask(call="size", text="Which size?", choices=["small", "large"]),
        Action(call="pay", name="pay", arguments={}, on="approve"),
        Action(call="theme", name="set_theme", arguments={}, on="client"),
        Document(name="a.py", kind="python"),
        Write(name="a.py", text="x = "),
        Write(name="a.py", text="1\n"),
    ]
    for place, step in enumerate(steps):
        if place == said:
            yield step
            said += 1
        if history.waits_for(step):
            return
    if (history.pieces if looks_back else said) == len(steps):
        answer = history.answer("size")
        yield Content(f"A {answer.text if answer else 'surprising'} one.")


@pytest.mark.parametrize("good", [counts(), scripted([Thought("Hm."), *map(Content, WORDS)])], ids=["a learner's", "scripted"])
def test_an_agent_that_goes_on_passes(good: Agent) -> None:
    """After each piece."""
    outcome = check_agent(good)
    assert outcome.passed, outcome
    assert "after each of its" in outcome.title


def test_one_that_waits_for_a_person_is_answered() -> None:
    """By `reply`; without it (below) a question gets its first choice, all else a yes."""
    seen: list[str] = []

    def reply(asked: Ask | Action) -> str:
        seen.append(asked.call)
        return "large" if isinstance(asked, Ask) else "yes"

    outcome = check_agent(asks, reply=reply)
    assert outcome.passed, outcome
    assert {*seen} == {"size", "pay", "theme"}


async def test_the_demo_on_a_model_passes() -> None:
    """A tool and a provider that keeps the answer: also where there are more pieces than are tried."""
    async with model.serve(pace=None) as embedded:
        agent = default_agent(embedded.url)
        outcome: Outcome = await asyncio.to_thread(check_agent, agent, "What is the weather in Oslo?", seconds=30)
    assert outcome.passed, outcome
    assert "24 of its" in outcome.title


def test_one_that_is_right_only_after_a_cut_is_found_out() -> None:
    """What it says in one go is what counts, and a cut at the right place makes it say more."""
    outcome = check_agent(partial(asks, looks_back=True))
    assert not outcome.passed
    assert dict(outcome.rows)["cut"] == "after piece 6 of 6"
    assert 'content "A small one."' in repr(outcome)


@pytest.mark.parametrize(
    ("bug", "told", "cut"),
    [
        ("begins again", "was said again", 1),
        ("counts packets", "was said again", 1),
        ("leaves one out", "was left out", 1),
        ("names the call anew", "called again under another id", 2),
        ("raises", "LookupError: where was I? (line", 4),
        ("falls silent", "an end within", 4),
    ],
)
def test_a_broken_agent_is_told_its_first_cut(bug: str, told: str, cut: int) -> None:
    """And what it did then. Only who falls silent is waited for as long as an answer may take."""
    outcome = check_agent(counts(bug), seconds=3.0 if bug == "falls silent" else 30.0)
    rows = dict(outcome.rows)
    assert not outcome.passed
    assert outcome.title == "agent does not go on"
    assert rows["promise"] == "P6 survives"
    assert rows["cut"] == f"after piece {cut} of 8"
    assert told in repr(outcome)


def test_one_that_is_slow_beside_the_others_is_tried_alone() -> None:
    """As on a busy machine: eight are cut at the same time, and what one answer may take is for one. The lock is the CPU."""
    alone = asyncio.Lock()

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        if history.pieces:
            async with alone:
                await asyncio.sleep(0.6)
        for i in range(history.pieces, 8):
            yield Content(f"{i} ")

    outcome = check_agent(agent, seconds=3.0)
    assert outcome.passed, outcome


def test_an_instance_that_does_not_come_back_is_no_fault_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as on a machine where its port was taken meanwhile: the outcome says so."""
    start, starts = Node.start, itertools.count()

    async def starting(node: Node) -> None:
        if next(starts) > 3:  # those of two whole answers, one that is stopped, and the first to be cut
            raise OSError("the test has taken its port")
        await start(node)

    monkeypatch.setattr(Node, "start", starting)
    outcome = check_agent(scripted([Content("one ")]), seconds=3.0)
    assert (outcome.passed, outcome.title) == (False, "agent could not be tried")
    assert "did not come back: the test has taken its port" in repr(outcome)


def test_one_that_remembers_is_found_out() -> None:
    """What is kept in the process goes with the process: another call of the same agent shows it."""
    outcome = check_agent(counts("remembers"))
    assert not outcome.passed
    assert "says something else each time" in outcome.title


async def is_deaf(history: History) -> AsyncIterator[AnyPacket]:
    """It takes a stop for one more error."""
    for i in range(history.pieces, 8):
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            await asyncio.sleep(1.5)
        yield Content(f"{i} ")


async def blocks(history: History) -> AsyncIterator[AnyPacket]:
    while True:
        pass
    yield


async def returns(history: History) -> str:
    return "hello"


async def says_text(history: History) -> AsyncIterator[str]:
    yield "hello"


ATTEMPTS: list[tuple[Any, str]] = [
    (is_deaf, "P5 stop"),
    (blocks, "keeps the loop for itself"),
    (returns, "an agent is an async generator"),
    (says_text, "is no packet"),
    (None, "TypeError"),
]


@pytest.mark.parametrize(("bad", "told"), ATTEMPTS, ids=["deaf", "blocks", "returns", "says text", "None"])
def test_whatever_it_is_the_checker_answers(bad: Any, told: str) -> None:
    """In a cell there is never a traceback."""
    outcome = check_agent(bad, seconds=20)
    print(outcome)
    assert not outcome.passed
    assert told in repr(outcome)


def test_under_kit_strict_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests of the chapters."""
    monkeypatch.setenv("KIT_STRICT", "1")
    with pytest.raises(NotKept, match="P6 survives"):
        check_agent(counts("begins again"))
