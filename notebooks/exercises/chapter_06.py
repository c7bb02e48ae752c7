"""The exercises of chapter 06, Reconnection."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from kit.lab.chaos import Fault
from kit.lab.check import Attempt, Exercise
from kit.lab.herd import herd, limit, of_backoff
from kit.lab.resume import check_resume, replay
from kit.lab.trial import SHUT, Client


class Dice(random.Random):
    """Chance that always throws the same number, in [0, 1)."""

    def __init__(self, thrown: float) -> None:
        super().__init__(0)
        self.thrown = thrown

    def random(self) -> float:
        return self.thrown


HIGH, LOW = 1 - 2**-53, 0.0


def check_backoff(backoff: Callable[..., Any], attempt: Attempt) -> None:
    attempt.step("the first delay is 0")
    first = backoff(rng=Dice(HIGH)).next()
    attempt.equal(0.0 if first == 0 else first, 0.0)  # the 0 of an int is as good
    attempt.step("the dice are `self.rng`: the same throws, the same delays")
    once, again = (_thrown(backoff(rng=Dice(HIGH)), 8) for _ in range(2))
    if once != again:
        attempt.fail("they are thrown with other dice than `self.rng`", expected=once, seen=again)
    attempt.step("the highest throws: 0.5 s, doubling up to 15 s")
    attempt.equal(_thrown(backoff(rng=Dice(HIGH)), 8), [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0])
    attempt.step("the lowest throws: all of a delay is by chance, so it may be 0 each time")
    attempt.equal(_thrown(backoff(rng=Dice(LOW)), 8), [0.0] * 8)
    attempt.step("throws in the middle: half of the cap; the limit is the cap's, so that delays spread at the limit, too")
    attempt.equal(_thrown(backoff(rng=Dice(0.5)), 8), [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 7.5, 7.5])
    attempt.step("another base, another limit")
    attempt.equal(_thrown(backoff(base=1.0, limit=3.0, rng=Dice(HIGH)), 5), [0.0, 1.0, 2.0, 3.0, 3.0])
    attempt.step("after a reset it begins anew")
    one = backoff(rng=Dice(HIGH))
    _thrown(one, 5)
    one.reset()
    attempt.equal(_thrown(one, 3), [0.0, 0.5, 1.0])
    attempt.step("an outage of a week, 50,000 tries")
    if max(_thrown(backoff(rng=random.Random(6)), 50_000)) > 15.0:
        attempt.fail("a delay was longer than the limit")
    attempt.step("2,000 clients lose their host for 20 s")
    back = herd(of_backoff(backoff))
    if back.peak > 1.25 * limit(back.median):
        attempt.fail(f"{back.peak} came back in the same 100 ms; chance alone needs no more than about {limit(back.median)}")


def _thrown(backoff: Any, tries: int) -> list[float]:
    """The next delays, to the microsecond."""
    return [round(backoff.next(), 6) for _ in range(tries)]


def check_decide(decide: Callable[..., Any], attempt: Attempt) -> None:
    at = {"after": "3-9", "log": "Kq3xAb7Z"}

    def expect(step: str, place: dict[str, str], do: str, frame: dict[str, Any], begin: dict[str, str] = at) -> None:
        given = dict(begin)
        attempt.step(step, given=f"decide({given}, {frame})")
        attempt.equal(decide(given, frame), (place, do))
        if given != begin:
            attempt.fail("it changed the `place` that it was given: give a new dict, and leave that one alone", expected=begin, seen=given)

    hello = {"type": "hello", "session": "s", "log": "Kq3xAb7Z", "after": "3-9", "head": "4-2", "status": "fresh"}
    expect("the first hello of all", {"after": "0-0", "log": "Kq3xAb7Z"}, "skip", hello | {"after": "0-0"}, {})
    expect("a hello that resumes", at, "skip", hello | {"status": "resumed"})
    expect(
        "a hello that says gap: the gap itself follows, with both halves of the place",
        at,
        "skip",
        hello | {"status": "gap", "log": "other"},
    )
    new = {"after": "0-0", "log": "other"}
    expect("a gap", new, "start over", {"type": "gap", "reason": "lost", **new})
    content = {"type": "content", "turn": "3-0/agent", "n": 10, "text": "x"}
    expect("the next entry", at | {"after": "3-10"}, "draw", content | {"id": "3-10"})
    expect("the same entry again", at, "skip", content | {"id": "3-9"})
    expect("one from long ago, with a longer number", at, "skip", content | {"id": "2-100"})
    expect("a hole", at, "dial again", content | {"id": "3-11"})
    expect("a word, after the last thing said", at | {"after": "4-0"}, "draw", {"type": "stop", "id": "4-0", "prev": "3-9"})
    expect("a word, with something said between", at, "dial again", {"type": "stop", "id": "4-0", "prev": "3-12"})
    expect("the first entry of an epoch, its word missing", at, "dial again", content | {"id": "4-1"})
    expect("the entry after a word", at | {"after": "12-1"}, "draw", content | {"id": "12-1"}, at | {"after": "12-0"})
    expect("a receipt, whose id is a word's and no entry", at, "skip", {"type": "receipt", "ref": "r", "status": "applied", "id": "4-0"})
    for type in ("beat", "typing", "error"):
        expect(f"a frame beside the log: {type}", at, "skip", {"type": type})


STORIES = {
    "the line is cut in mid-answer": [Fault(4, "cut", "line")],
    "the page is reloaded in mid-answer": [Fault(4, "reload", "client")],
    "a word is sent, and does not arrive": [Fault(1, "vanish", "line")],
    "a word is said, and its receipt is lost": [Fault(4, "receipt", "client")],
    "half-open: nothing comes any more, and nobody says so": [Fault(4, "vanish", "line")],
    "for a while the host accepts and closes": [Fault(4, "shut", "line", SHUT)],
    "cut, and the instance keeps the old connection": [Fault(4, "linger", "line")],
    "the store is emptied, and later the line is cut": [Fault(4, "flush", "store"), Fault(8, "cut", "line")],
    "the store is emptied while the client is away; the new log has as many entries": [Fault(4, "flush", "store", value=SHUT)],
    "the instance leaves, and another goes on": [Fault(4, "leave", "one", seconds=1.0)],
}


def check_my_client(client: Client, attempt: Attempt) -> None:
    for step, faults in STORIES.items():
        attempt.step(step)
        _survives(attempt, replay(client, *faults))
    attempt.step("faults by chance, up to three in a story")
    _survives(attempt, check_resume(client, examples=3, seconds=2.0))


def _survives(attempt: Attempt, verdict: Any) -> None:
    if not verdict.passed:
        told = dict(verdict.rows)
        faults = ", ".join(["my_client", *map(repr, verdict.trial.happened)])
        why = f"{told['promise']} is not kept: replay({faults}) draws how"
        attempt.fail(why, expected=_Plain(told["expected"]), seen=_Plain(told["seen"]))


class _Plain(str):
    """A sentence, shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


EXERCISES = {
    "6.1": Exercise(
        "Backoff",
        check_backoff,
        (
            "Which cap belongs to the first try, the second, the third? Count the tries; the delay is thrown anew each time.",
            "`self.base * 2 ** (self.tries - 1)` is the cap, `min` of it and the limit; and 2**1024 is more than a float holds.",
        ),
    ),
    "6.2": Exercise(
        "decide",
        check_decide,
        (
            "First sort out what is no entry, by its type. Then compare ids as two numbers, not as text.",
            "`tuple(map(int, id.split('-')))` compares rightly. `e-0` must follow its `prev`, any other `e-n` follows `e-(n-1)`.",
        ),
    ),
    "6.3": Exercise(
        "my_client",
        check_my_client,
        (
            "`match frame['type']`: hello, receipt, gap, everything with an id. Only the last two are given; `continue` with the others.",
            "hello: `log`, if it is fresh, then the words. gap: `after` and `log`. An entry: `after`, and a reset. All before the yield.",
        ),
        seconds=30.0,
    ),
}
