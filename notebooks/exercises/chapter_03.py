"""The exercises of chapter 03, The stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kit.lab.check import Attempt, Exercise


def check_reduce(reduce: Callable[..., Any], attempt: Attempt) -> None:
    attempt.step("reduce((), 'thought', 'Let'): the first piece of a thought")
    attempt.equal(reduce((), "thought", "Let"), (("thought", "Let"),))
    attempt.step("reduce((('thought', 'Let'),), 'thought', ' me'): a second piece of it")
    attempt.equal(reduce((("thought", "Let"),), "thought", " me"), (("thought", "Let me"),))
    attempt.step("reduce((('thought', 'Let me'),), 'content', 'In'): content after a thought")
    attempt.equal(reduce((("thought", "Let me"),), "content", "In"), (("thought", "Let me"), ("content", "In")))
    attempt.step("an action between two halves of a sentence")
    blocks: Any = (("content", "In "),)
    for kind, text in (("action", ""), ("content", "Oslo")):
        blocks = reduce(blocks, kind, text)
    attempt.equal(blocks, (("content", "In "), ("action", ""), ("content", "Oslo")))
    attempt.step("two actions, one after the other: two blocks")
    attempt.equal(reduce((("action", ""),), "action", ""), (("action", ""), ("action", "")))
    attempt.step("a whole answer, the demo agent's, piece by piece")
    said = [
        ("thought", "A"),
        ("thought", "B"),
        ("content", "C"),
        ("action", ""),
        ("result", ""),
        ("thought", "D"),
        ("content", "E"),
        ("end", ""),
    ]
    blocks = ()
    for kind, text in said:
        blocks = reduce(blocks, kind, text)
    together = (("thought", "AB"), ("content", "C"), ("action", ""), ("result", ""), ("thought", "D"), ("content", "E"), ("end", ""))
    attempt.equal(blocks, together)


def check_join(join: Callable[..., Any], attempt: Attempt) -> None:
    attempt.step("join([], 10): nothing to join")
    attempt.equal(join([], 10), [])
    attempt.step("join([('content', 'ab'), ('content', 'c')], 10): two pieces of the same kind")
    attempt.equal(join([("content", "ab"), ("content", "c")], 10), [("content", "abc", 2)])
    attempt.step("pieces of different kinds")
    pieces = [("thought", "a"), ("content", "b"), ("content", "c"), ("thought", "d")]
    attempt.equal(join(pieces, 10), [("thought", "a", 1), ("content", "bc", 2), ("thought", "d", 1)])
    attempt.step("'abc', 'de' and 'f' with a limit of 5: up to the limit, and no further")
    attempt.equal(join([("content", "abc"), ("content", "de"), ("content", "f")], 5), [("content", "abcde", 2), ("content", "f", 1)])
    attempt.step("a piece that is longer than the limit by itself goes alone, whole")
    attempt.equal(
        join([("content", "a"), ("content", "bcdefgh"), ("content", "i")], 3),
        [("content", "a", 1), ("content", "bcdefgh", 1), ("content", "i", 1)],
    )
    attempt.step("the list that was given is as it was")
    given = [("content", "a"), ("content", "b")]
    join(given, 10)
    attempt.equal(given, [("content", "a"), ("content", "b")])


EXERCISES = {
    "3.1": Exercise(
        "reduce",
        check_reduce,
        (
            "Only two things can happen: the last block grows, or a block is added. When does it grow?",
            "It grows where `kind` is thought or content and the last block has it too: `(*blocks[:-1], (kind, blocks[-1][1] + text))`.",
        ),
    ),
    "3.2": Exercise(
        "join",
        check_join,
        (
            "Walk over the pieces and look at the last one that you put out: may it take this piece too?",
            "It may where the kinds are equal and `len(last) + len(text) <= limit`. Then its count goes up by one.",
        ),
    ),
}
