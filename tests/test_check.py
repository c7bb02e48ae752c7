"""Exercises: a check answers whatever a learner wrote, says in which step it differs, and raises only in tests of the chapters."""

from __future__ import annotations

import asyncio
import gc
import json
import linecache
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kit.lab import check, hint, solution
from kit.lab.check import NotYet, Outcome
from kit.lab.thread import raise_in

CHECK: Any = sys.modules["kit.lab.check"]  # the name `kit.lab.check` is the function's
CHAPTER = """
from kit.lab.check import Attempt, Exercise


def check_double(double, attempt):
    attempt.step("a number")
    attempt.equal(double(2), 4)
    attempt.step("bytes")
    attempt.equal(double(b"ab"), b"abab")
    attempt.step("a list", given="double([1, 2])")
    attempt.equal(double([1, 2]), [1, 2, 1, 2])


async def check_soon(soon, attempt):
    attempt.step("a number, awaited")
    attempt.equal(await soon(2), 4)


def check_lab(it, attempt):
    attempt.step("in the lab")
    attempt.lab.session("demo")


def check_broken(it, attempt):
    raise attempt


EXERCISES = {
    "97.1": Exercise("double", check_double, hints=("What is twice a list?", "Use `*`."), seconds=0.2),
    "97.2": Exercise("soon", check_soon, hints=("", ""), seconds=0.2),
    "97.3": Exercise("in_lab", check_lab, hints=("", "")),
}
"""
NOTEBOOK = """{"cells": [
 {"cell_type": "code", "source": ["x = 1"]},
 {"cell_type": "code", "source": ["# exercise 97.1\\n", "def double(x):\\n", "    # solution: twice as much\\n", "    return 2 * x"]}
]}"""


@pytest.fixture(autouse=True)
def _chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of notebooks, as a kernel finds itself in one."""
    for name, text in (("exercises/chapter_97.py", CHAPTER), ("solutions/97_try.ipynb", NOTEBOOK)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KIT_STRICT", raising=False)
    monkeypatch.setattr(CHECK, "_given", Counter())


def rows(outcome: Outcome) -> dict[str, str]:
    return dict(outcome.rows)


def double(x: Any) -> Any:
    return 2 * x


# ---- what it says ----


def test_the_right_answer_passes() -> None:
    """In one line."""
    assert repr(check("97.1", double)) == "✓ passed: 97.1 double (3 steps)"


def test_the_name_is_looked_up_in_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the last run cell left there."""
    assert rows(check("97.1")) == {
        "why": "there is no `double` yet: run its cell",
        "next": 'run its cell, then check again; or ask lab.hint("97.1")',
    }
    monkeypatch.setattr(sys.modules["__main__"], "double", double, raising=False)
    assert check("97.1").passed


def test_a_difference_names_step_place_and_both_values() -> None:
    """As text."""
    said = repr(check("97.1", lambda x: x + x[:1] + b"-" if isinstance(x, bytes) else 2 * x))
    assert said.splitlines() == [
        "✗ not yet: 97.1 double",
        "  step      2: bytes",
        "  why       they differ from byte 4 on: 00101101 instead of 01100010",
        "  expected  b'abab'",
        "  seen      b'aba-'",
        '  next      change it, run its cell, then check again; or ask lab.hint("97.1")',
    ]


def test_the_call_is_told_so_that_it_can_be_repeated() -> None:
    """Of the step that differs, and where the code raises in it; a step that says none has none."""

    def raising(x: Any) -> Any:
        return 2 * x if not isinstance(x, list) else x.nothing

    for wrong in (lambda x: x if isinstance(x, list) else 2 * x, raising):
        assert rows(check("97.1", wrong))["given"] == "double([1, 2])"
    assert "given" not in rows(check("97.1", lambda x: 0))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda x: None, "it gave None, where an int is expected: a function gives what it `return`s"),
        (lambda x: float(2 * x), "it gave a float, where an int is expected"),
        (lambda x: (2 * x)[:3] if isinstance(x, bytes) else 2 * x, "they differ from byte 4 on; 3 bytes instead of 4"),
        (lambda x: [1, 2, 2, 1] if isinstance(x, list) else 2 * x, "they differ from item 3 on"),
        (lambda x: [1, [2]] if isinstance(x, list) else 2 * x, "item 2 is a list, where an int is expected"),
        (
            lambda x: 4 if x == 2 else None,
            "it gave None, where a bytes object is expected: here it meets no `return`, or one of None",
        ),
    ],
)
def test_the_sentence_fits_the_difference(wrong: Callable[[Any], Any], why: str) -> None:
    """A kind, a length, a place."""
    assert rows(check("97.1", wrong))["why"] == why


def test_as_html_it_is_marked_by_glyph_and_word_and_escaped() -> None:
    """Not by colour alone; and what a learner's text holds is text."""
    html = check("97.1", lambda x: "<script>")._repr_html_()
    assert html.startswith("<p><strong>✗ not yet: 97.1 double</strong></p><table>")
    assert "&lt;script&gt;" in html
    assert "<script>" not in html


def test_an_async_answer_is_awaited() -> None:
    """On a loop of the check's own."""

    async def soon(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    assert check("97.2", soon).passed


# ---- whatever a learner does ----


class Nasty:
    """A value that cannot even be looked at."""

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError("no")

    __hash__ = None  # type: ignore[assignment]  # nor hashed

    def __repr__(self) -> str:
        raise ZeroDivisionError("no")


def raises(error: BaseException) -> Callable[[Any], Any]:
    def it(x: Any) -> Any:
        raise error

    return it


async def forgotten(x: Any) -> Any:
    return 2 * x


@pytest.mark.parametrize(
    ("nonsense", "why"),
    [
        (None, "it raised TypeError: 'NoneType' object is not callable"),
        (raises(ValueError("two is too much")), "it raised ValueError: two is too much"),
        (raises(KeyboardInterrupt()), "it raised KeyboardInterrupt: "),
        (raises(SystemExit(3)), "it raised SystemExit: 3"),
        (lambda x: Nasty(), "it gave a Nasty, where an int is expected"),
        (forgotten, "it gave something that is still to be awaited: an `await` is missing, or an `async` is too much"),
    ],
)
def test_nonsense_is_a_failed_step(nonsense: Any, why: str) -> None:
    """Never an exception in the learner's cell."""
    said = check("97.1", nonsense)
    assert rows(said)["why"] == why
    assert rows(said)["step"] == "1: a number"
    assert repr(said)


def test_bytes_that_are_no_text_are_shown_in_hex_and_not_for_pages() -> None:
    """A frame's header is what counts; the other 64 KiB are left out."""
    assert rows(check("97.1", lambda x: b"\x81" * 100_000))["seen"] == "81 " * 23 + "81…"


def in_a_library(x: Any) -> Any:
    return json.loads(x)


def test_an_exception_names_its_line() -> None:
    """The last one of the learner's own cell; none in a library, and none of the check, where the learner has written neither."""
    assert rows(check("97.1", raises(ValueError())))["at"].endswith(" of it: raise error")
    assert rows(check("97.1", in_a_library))["at"].endswith(" of in_a_library: return json.loads(x)")
    assert "at" not in rows(check("97.1", lambda: 4))
    assert "at" not in rows(check("97.1", 7))


def cells(monkeypatch: pytest.MonkeyPatch, *sources: str) -> None:
    """A notebook's cells, run as IPython runs them: each is kept, one that raises too."""
    main = ModuleType("__main__")
    main.__dict__["In"] = [""]
    for n, source in enumerate(sources):
        main.__dict__["In"].append(source)
        linecache.cache[f"cell {n}"] = (len(source), None, source.splitlines(keepends=True), f"cell {n}")
        with suppress(SyntaxError, NameError):
            exec(compile(source, f"cell {n}", "exec"), main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)


RIGHT = "# exercise 97.1\ndef double(x):\n    return 2 * x\n"
BROKEN = "# exercise 97.1\ndef double(x):\n    return 2 * (x\n"
STALE = "its cell ended in an error, which stands below it; `double` is still the one from before"


@pytest.mark.parametrize(
    ("sources", "why"),
    [
        ([], "there is no `double` yet: run its cell"),
        ([BROKEN], "its cell ended in an error, which stands below it"),
        ([RIGHT, BROKEN], STALE),
        ([RIGHT, RIGHT.replace("(x)", "(x=y)")], STALE),
        ([RIGHT, BROKEN, RIGHT], None),
        ([RIGHT, BROKEN, RIGHT.partition("\n")[2]], None),  # in a cell without a head
        ([RIGHT + "y", "from functools import partial\ndouble = partial(double)"], None),
    ],
)
def test_a_cell_that_ended_in_an_error_has_made_nothing(monkeypatch: pytest.MonkeyPatch, sources: list[str], why: str | None) -> None:
    """What an earlier run of it made does not pass in its place."""
    cells(monkeypatch, *sources)
    said = check("97.1")
    assert rows(said).get("why") == why
    assert said.passed is (why is None)


def spin(x: Any) -> Any:
    while True:
        pass


def greedy(x: Any) -> Any:
    try:
        spin(x)
    except Exception:  # noqa: BLE001  # as learners write it
        spin(x)


async def never(x: Any) -> Any:
    await asyncio.Event().wait()


async def stubborn(x: Any) -> Any:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def spin_async(x: Any) -> Any:
    spin(x)


def deaf(x: Any) -> Any:
    over = time.monotonic() + 1.0
    while time.monotonic() < over:
        try:
            while time.monotonic() < over:
                pass
        except BaseException:  # noqa: BLE001  # as learners write it, too
            continue


@pytest.mark.parametrize(
    ("number", "endless", "line"),
    [
        ("97.1", spin, "spin"),
        ("97.1", greedy, "spin"),
        ("97.1", deaf, "deaf"),
        ("97.2", never, None),
        ("97.2", stubborn, None),
        ("97.2", spin_async, "spin"),
    ],
)
def test_what_never_ends_is_ended(number: str, endless: Any, line: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """No thread of it goes on, and nothing is said of what was cut off; the line that went round is named, whether it obeys or not."""
    said = check(number, endless)
    assert (f" of {line}: " in rows(said)["at"]) if line else ("at" not in rows(said))
    assert rows(said)["why"] == "no end after 0.2 s: a loop that never ends, or a wait for what never comes"
    left = [thread for thread in threading.enumerate() if thread.name.startswith("check ")]
    for thread in left:
        thread.join(1.0)
    assert not any(thread.is_alive() for thread in left)
    gc.collect()
    assert caplog.text == ""


def test_ended_while_it_waits_for_what_refuses_it_leaves_no_loop_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the check's patience may end in that moment."""
    monkeypatch.setattr(CHECK, "_PARTING", 0.3)
    loops: list[asyncio.AbstractEventLoop] = []

    async def stays(x: Any) -> None:
        loops.append(asyncio.get_running_loop())
        await stubborn(x)

    def wait() -> None:
        with suppress(CHECK._Endless):
            CHECK._await(stays(2), 0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.2)
    raise_in(thread, CHECK._Endless)
    thread.join()
    assert loops[0].is_closed()
    gc.collect()


@pytest.mark.parametrize("number", ["97.9", "42.1", "x", "", 97.7, None])
def test_a_wrong_number_is_answered(number: Any) -> None:
    """With what there is, as far as that is known."""
    said = check(number, double)
    assert not said.passed
    assert "there is no exercise" in rows(said)["why"]
    assert hint(number).startswith("there is no exercise")
    assert solution(number).startswith("there is no exercise")


def test_a_number_may_be_a_number() -> None:
    """Quotes are easily forgotten."""
    assert check(97.1, double).passed  # type: ignore[arg-type]  # that is the point


def test_without_a_lab_a_check_says_so() -> None:
    """Rather than fail with what it needs."""
    assert rows(check("97.3", 1))["why"].startswith("no lab is open")


# ---- strict, hints, solutions ----


def test_in_tests_of_chapters_a_failed_check_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that it says; one that passes does not."""
    monkeypatch.setenv("KIT_STRICT", "1")
    with pytest.raises(NotYet, match=r"step +1: a number\n(.*\n)*  seen +None"):
        check("97.1", lambda x: None)
    with pytest.raises(NotYet, match="there is no exercise"):
        check("97.7", double)
    assert check("97.1", double).passed


def test_the_second_hint_is_the_plainer_one() -> None:
    """And stays. A notebook draws it as Markdown, so that a narrow page breaks it between words."""
    first, second, third = (hint("97.1") for _ in range(3))
    assert repr(first) == 'What is twice a list?\n  (For a plainer one: lab.hint("97.1") again.)'
    assert repr(second) == repr(third) == 'Use `*`.\n  (All of it: lab.solution("97.1").)'
    assert second._repr_markdown_() == repr(second)


def test_the_solution_is_shown_as_text() -> None:
    """Out of the notebook in which it was run."""
    source = "def double(x):\n    # solution: twice as much\n    return 2 * x"
    assert repr(solution("97.1")) == source
    assert solution("97.1")._repr_markdown_() == f"```python\n{source}\n```"


def test_in_the_folder_of_solutions_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solution's notebook runs there."""
    monkeypatch.chdir("solutions")
    assert check("97.1", double).passed
    assert "2 * x" in solution("97.1")


def ended(before: set[threading.Thread]) -> None:
    """No thread but those goes on; one that was just let go may need a moment for its last step."""
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(5.0)
    assert not any(thread.is_alive() for thread in left)


def test_a_loop_that_catches_everything_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    """It is told more than once."""
    before = set(threading.enumerate())

    def stubborn(x: int) -> int:
        for _ in range(3):
            try:
                while True:
                    pass
            except BaseException:  # noqa: BLE001  # that is what is meant
                pass
        return x

    assert rows(check("97.1", stubborn))["why"].startswith("no end after 0.2 s")
    ended(before)


def test_an_interrupt_ends_the_loop_that_was_tried() -> None:
    """Left alone, it would take its share of the interpreter until the kernel is restarted."""
    before, begun = set(threading.enumerate()), threading.Event()

    def endless(x: int) -> int:
        begun.set()
        while True:
            pass

    def press() -> None:
        begun.wait()
        signal.raise_signal(signal.SIGINT)

    finger = threading.Timer(0.0, press)
    before_us = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    try:
        finger.start()
        with pytest.raises(KeyboardInterrupt):
            check("97.1", endless)
        finger.join()
    finally:
        signal.signal(signal.SIGINT, before_us)
    ended(before)
