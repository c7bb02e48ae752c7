"""Exercises of chapter 07: the bound of a room, two edits of one text, a fourth agent."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from kit.history import Copy, History
from kit.lab.check import Attempt, Exercise
from kit.packets import Answer, Content, Edit, Prompt, Stop
from kit.room import addressed

LONG = "x = " + 76 * "1"
FULL = LONG[:79]


def check_asked(asked: Callable[[list[Any]], int], attempt: Attempt) -> None:
    ann = Prompt(id="1-0", text="a plan", from_="ann", to="architect")
    one = Prompt(id="2-0", text="write it", from_="architect", to="coder", re="1-0/architect")
    two = Prompt(id="3-0", text="run it", from_="coder", to="tester", re="2-0/coder")
    said = Content("A list.", id="1-1", from_="architect", turn="1-0/architect")
    bob = Prompt(id="4-0", text="shorter", from_="bob", to="architect")
    cases: list[tuple[str, list[Any], int]] = [
        ("nobody has said anything", [], 0),
        ("a person asks, and an agent answers", [ann, said], 0),
        ("two agents ask", [ann, said, one, two], 2),
        ("one word to two agents is one question", [ann, msg(one, to="coder,tester")], 1),
        ("a person asks again: the count begins anew", [ann, one, two, bob, msg(one, id="5-0")], 1),
        ("a person edits: the count begins anew", [ann, one, two, Edit(id="4-0", turn="3-0/tester", text="no")], 0),
        ("a person's stop is no new work", [ann, one, two, Stop(id="4-0")], 2),
        ("a person's answer is no new work either", [ann, one, two, Answer(id="4-0", call="c", text="yes")], 2),
    ]
    for what, log, expected in cases:
        attempt.step(f"{what}: {_told(log)}" if log else what)
        attempt.equal(asked(list(log)), expected)


def _told(log: list[Any]) -> str:
    """A log in short: `Prompt from ann, Prompt from coder with re, Stop`."""
    return ", ".join(
        type(entry).__name__ + (f" from {entry.from_}{' with re' if entry.re else ''}" if isinstance(entry, Prompt) else "")
        for entry in log
    )


def msg(prompt: Prompt, **fields: Any) -> Prompt:
    """The prompt with other fields."""
    return Prompt(**{"id": prompt.id, "text": prompt.text, "from_": prompt.from_, "to": prompt.to, "re": prompt.re} | fields)


def check_merge(merge: Callable[[str, list[tuple[int, int, str]]], Any], attempt: Attempt) -> None:
    cases: list[tuple[str, str, list[tuple[int, int, str]], str]] = [
        ("nothing is edited", "abc", [], "abc"),
        ("one inserts", "abc", [(1, 0, "-")], "a-bc"),
        ("at the end", "abc", [(3, 0, "-")], "abc-"),
        ("into nothing", "", [(0, 0, "-")], "-"),
        ("one replaces", "abc", [(1, 1, "-")], "a-c"),
        ("two insert: the second one's place is a place of the base, too", "abc", [(0, 0, "1"), (2, 0, "2")], "1ab2c"),
        ("two insert at the same place: the first one stands first", "abc", [(1, 0, "1"), (1, 0, "2")], "a12bc"),
        ("two delete the same: it is gone once", "abcd", [(1, 2, ""), (1, 2, "")], "ad"),
        ("what they delete overlaps", "abcdef", [(1, 3, ""), (2, 3, "")], "af"),
        ("one types into what the other deletes: the typing stays", "abcdef", [(1, 4, ""), (3, 0, "hello")], "ahellof"),
        ("one deletes what the other typed into: the typing stays", "abcdef", [(3, 0, "hello"), (1, 4, "")], "ahellof"),
        ("a place further on comes first", "abc", [(2, 1, "2"), (0, 1, "1")], "1b2"),
    ]
    for what, base, edits, expected in cases:
        attempt.step(f"{what}: merge({base!r}, {edits})")
        attempt.equal(merge(base, list(edits)), expected)
    attempt.step("edits of different places: their order is all one")
    edits = [(0, 1, "A"), (2, 0, "-"), (4, 2, ""), (7, 0, "!")]
    for order in itertools.permutations(edits):
        attempt.steps[-1] = f"edits of different places: their order is all one: merge('abcdefg', {[*order]})"
        attempt.equal(merge("abcdefg", list(order)), "Ab-cdg!")


Critic = Callable[[History], AsyncGenerator[Any, None]]


async def check_critic(critic: Critic, attempt: Attempt) -> None:
    attempt.step("a line is too long: the coder is told which")
    said = await says(critic, attempt, {"slug.py": f"a = 1\n\n{LONG}\n"})
    _asks(attempt, said, {"coder": "too long: line 3 of slug.py"})
    attempt.step("two lines of one document, and two documents in order of their names")
    said = await says(critic, attempt, {"b.py": f"{LONG}\n{FULL}\n{LONG}1", "a.py": LONG})
    _asks(attempt, said, {"coder": "too long: line 1 of a.py\ntoo long: line 1, line 3 of b.py"})
    for what, texts in (
        ("79 characters are not too many", {"slug.py": FULL}),
        ("a document that is no Python is not its business", {"plan.mmd": LONG}),
        ("there is no document at all", {}),
    ):
        attempt.step(f"{what}: it says something, and nobody is asked")
        said = await says(critic, attempt, texts)
        if not said.strip():
            attempt.fail("it said nothing: whoever asked does not know whether it has looked", seen=said)
        _asks(attempt, said, {})
    attempt.step("another instance takes over after it has spoken: it is not said twice")
    attempt.equal(await says(critic, attempt, {"slug.py": LONG}, "@coder too long: line 1 of slug.py"), "")
    attempt.step("the same, but it was asked before, in another turn: now it speaks")
    once = await says(critic, attempt, {"slug.py": LONG}, "Nothing is too long.", turn="1-0/critic")
    _asks(attempt, once, {"coder": "too long: line 1 of slug.py"})


def _asks(attempt: Attempt, said: str, expected: dict[str, str]) -> None:
    """What the room passes on of it; told with all that was said, as a name that does not count is in that only."""
    asked = addressed(said, {"architect", "coder", "tester"})
    if asked != expected:
        passed_on = "and of that `room` passes this on" if asked else "and in that `room` finds nobody who is asked"
        attempt.fail(f"it said {said!r}, {passed_on}" if said else "it said nothing", seen=asked, expected=expected)


async def says(critic: Critic, attempt: Attempt, texts: Mapping[str, str], *before: str, turn: str = "2-0/critic") -> str:
    """What it says when it is asked at 2-0, with these texts in the room, after it has said `before` in a turn."""
    asked = [Prompt(id=id, text="look at it", from_="ann", to="critic") for id in ("1-0", "2-0")]
    pieces = [Content(text, id=f"2-{n}", from_="critic", turn=turn, n=n) for n, text in enumerate(before, 1)]
    answer = critic(History((*asked, *pieces), "2-0/critic", {name: Copy(name, text, "1-0") for name, text in texts.items()}))
    if not inspect.isasyncgen(answer):
        _close(answer)
        attempt.fail("it is no agent: an agent is an `async def` with a `yield` in it")
    said: list[Any] = [packet async for packet in answer]
    if strange := [packet for packet in said if not isinstance(packet, Content)]:
        attempt.fail("it says `Content`, in which `room` looks for names", seen=strange[0])
    return "".join(packet.text for packet in said)


def _close(answer: object) -> None:
    if inspect.iscoroutine(answer):
        answer.close()


EXERCISES = {
    "7.1": Exercise(
        "asked",
        check_asked,
        hints=(
            "Go through the log from its beginning with a counter. Which entries add one to it, and which set it to nothing?",
            "A Prompt with `re` adds one. A Prompt without it, or an Edit, sets the count to 0. All else leaves it alone.",
        ),
    ),
    "7.2": Exercise(
        "merge",
        check_merge,
        hints=(
            "The places of the base are 0 to len(base), its end included. What comes to the text at each of them?",
            "At each place: every insert whose `at` it is, in order; then base[place], unless some at <= place < at + delete.",
        ),
    ),
    "7.3": Exercise(
        "critic",
        check_critic,
        hints=(
            "When is it called a second time, and what stands in `history.said` then? And what does it say where all is well?",
            "`enumerate(document.text.splitlines(), 1)` for each name that ends in .py. With `history.said`, there is nothing left to say.",
        ),
    ),
}
