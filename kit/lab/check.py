"""Check: exercises: what a learner wrote is tried out at once, in this process, and told in which step it differs.

An exercise is graded on what it does and on the trace, never on its text. Whatever the learner's code does (it raises, it never ends, it
gives nonsense), the check answers; only under KIT_STRICT=1, in the tests of the chapters, it raises.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import linecache
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from html import escape
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn

from kit.lab.finish import is_strict
from kit.lab.start import Lab
from kit.lab.table import as_html, as_text, shorten
from kit.lab.thread import raise_in
from kit.lab.where import at_work, where

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_MISSING = object()
_PARTING = 0.05
"""Seconds that something has to obey, once it was told to end."""
_ASKED = 20
"""Times that it is told."""
_SHORT = 20
"""Characters of a text that is read at a glance."""
_given: Counter[str] = Counter()


class NotYet(Exception):
    """A check failed where none may (KIT_STRICT=1)."""


class _Endless(BaseException):
    """It takes too long. Not an Exception: a learner's `except Exception` must not keep it."""


class _Differs(Exception):
    """A step has another outcome than it should."""


@dataclass(frozen=True)
class Exercise:
    """`check(it, attempt)`, maybe async, tries out what the notebook has under `name`, for `seconds` at most. The second hint is plain."""

    name: str
    check: Callable[[Any, Attempt], Any]
    hints: tuple[str, str]
    seconds: float = 2.0


@dataclass
class Attempt:
    """One run of a check: `step` says what is tried next, `equal` and `fail` what came of it."""

    steps: list[str] = field(default_factory=list)
    given: str = ""
    rows: list[tuple[str, str]] = field(default_factory=list)

    @property
    def lab(self) -> Lab:
        """The lab that runs."""
        return Lab.current or self.fail('no lab is open: run the notebook from its first cell, `lab.start("...")`')

    def step(self, what: str, given: str = "") -> None:
        """What is tried from here on, in the learner's words: it heads what is told when it fails. `given`: the call, to be repeated."""
        self.steps.append(what)
        self.given = given

    def equal(self, seen: object, expected: object) -> None:
        """The step passes where both are equal, and of the same kind."""
        if inspect.iscoroutine(seen):
            seen.close()
            self.fail("it gave something that is still to be awaited: an `await` is missing, or an `async` is too much", expected=expected)
        if type(seen) is not type(expected) or seen != expected:
            why = _difference(seen, expected)
            if seen is None and len(self.steps) > 1:  # it returned something before
                why = f"it gave None, where {_kind(expected)} is expected: here it meets no `return`, or one of None"
            self.fail(why, seen=seen, expected=expected)

    def fail(self, why: str = "", *, seen: object = _MISSING, expected: object = _MISSING) -> NoReturn:
        """The step fails; `why` is one sentence."""
        told = (("why", why), ("expected", _show(expected)), ("seen", _show(seen)))
        self.rows = [(name, text) for name, text in told if text]
        raise _Differs


@dataclass(frozen=True)
class Outcome:
    """What a check says."""

    passed: bool
    title: str
    rows: tuple[tuple[str, str], ...] = ()

    @property
    def verdict(self) -> str:
        return f"{'✓ passed' if self.passed else '✗ not yet'}: {self.title}"

    def __repr__(self) -> str:
        return "\n".join([self.verdict, *(f"  {line}" for line in as_text(self.rows).splitlines())])

    def _repr_html_(self) -> str:
        return f"<p><strong>{escape(self.verdict)}</strong></p>{as_html(self.rows) if self.rows else ''}"


class Text(str):
    """A text for reading: Markdown where that is drawn."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return str(self)


class Source(Text):
    """Python, for reading."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"


def check(number: str, it: object = _MISSING) -> Outcome:
    """Try the exercise out on what the notebook has under its name (or on `it`), and say whether it passes and where it does not."""
    number = str(number)  # 2.1 is as clear as "2.1"
    try:
        exercise = _exercise(number)
        if it is _MISSING:
            it = vars(sys.modules["__main__"]).get(exercise.name, _MISSING)
        outcome = _tried(number, exercise, it)
    except LookupError as error:
        outcome = Outcome(False, number, (("why", str(error.args[0])),))
    if is_strict() and not outcome.passed:
        raise NotYet(repr(outcome))
    return outcome


def hint(number: str) -> Text:
    """A hint; called again, a plainer one."""
    number = str(number)
    try:
        exercise = _exercise(number)
    except LookupError as error:
        return Text(error.args[0])
    _given[number] += 1
    more = f'  (For a plainer one: lab.hint("{number}") again.)' if _given[number] == 1 else f'  (All of it: lab.solution("{number}").)'
    return Text(exercise.hints[min(_given[number], 2) - 1] + "\n" + more)


def solution(number: str) -> Text:
    """One way to solve the exercise, as text."""
    number = str(number)
    for path in _beside(f"solutions/{_chapter(number)}_*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            head, _, source = "".join(cell["source"]).partition("\n")
            if head.strip() == f"# exercise {number}":
                return Source(source)
    return Text(f"there is no exercise {number}")


# ---- where exercises stand ----


def _chapter(number: str) -> str:
    return f"{int(number.partition('.')[0]):02d}" if re.fullmatch(r"\d{1,2}\.\d{1,2}", number) else "none"


def _beside(pattern: str) -> Iterator[Path]:
    """Files of the notebooks: beside the one that runs (which may be a solution), else in the repository."""
    for folder in (Path.cwd(), Path.cwd().parent, NOTEBOOKS):
        yield from sorted(folder.glob(pattern))


def _exercise(number: str) -> Exercise:
    """Raises LookupError with a sentence."""
    path = next(_beside(f"exercises/chapter_{_chapter(number)}.py"), None)
    if path is None:
        raise LookupError(f"there is no exercise {number!r}: an exercise is named as in its cell's first line, such as '1.1'")
    chapter = exercises(path)
    if number not in chapter:
        raise LookupError(f"there is no exercise {number}: this chapter has {', '.join(chapter)}")
    return chapter[number]


def exercises(path: Path) -> dict[str, Exercise]:
    """The exercises of a chapter, by number; read anew each time, which takes no longer than a millisecond."""
    loader = SourceFileLoader(f"exercises.{path.stem}", str(path))
    module = importlib.util.module_from_spec(ModuleSpec(loader.name, loader, origin=str(path)))
    loader.exec_module(module)
    found: dict[str, Exercise] = module.EXERCISES
    return found


# ---- one attempt ----


def _tried(number: str, exercise: Exercise, it: object) -> Outcome:
    attempt, title = Attempt(), f"{number} {exercise.name}"
    why = _missing(number, exercise.name, it)
    if why:
        attempt.rows = [("why", why)]
    elif _run(exercise, it, attempt):
        count = len(attempt.steps)
        return Outcome(True, f"{title} ({count} step{'' if count == 1 else 's'})")
    steps = [("step", f"{len(attempt.steps)}: {attempt.steps[-1]}")] if attempt.steps else []
    steps += [("given", attempt.given)] if attempt.given else []
    change = "" if why.endswith("run its cell") else "change it, "
    return Outcome(False, title, (*steps, *attempt.rows, ("next", f'{change}run its cell, then check again; or ask lab.hint("{number}")')))


def _missing(number: str, name: str, it: object) -> str:
    """Why there is nothing to try: the exercise's cell did not run, or ended in an error: then what an earlier run made is still there."""
    cells = [cell.strip() for cell in vars(sys.modules["__main__"]).get("In", ())]  # as IPython keeps them, those with errors too
    ran = _last(cells, lambda cell: cell.startswith(f"# exercise {number}\n"))
    if it is _MISSING:
        return "its cell ended in an error, which stands below it" if ran >= 0 else f"there is no `{name}` yet: run its cell"
    code = getattr(it, "__code__", None)
    source = "".join(linecache.getlines(code.co_filename)).strip() if code else ""
    made = _last(cells, lambda cell: cell == source != "")
    return f"its cell ended in an error, which stands below it; `{name}` is still the one from before" if 0 <= made < ran else ""


def _last(cells: list[str], wanted: Callable[[str], bool]) -> int:
    """Where the last of them is that is wanted; -1: nowhere."""
    return max((i for i, cell in enumerate(cells) if wanted(cell)), default=-1)


def _run(exercise: Exercise, it: object, attempt: Attempt) -> bool:
    """Run the check on a thread and a loop of its own: a learner's endless loop stops neither the kit's nor the notebook's."""
    passed, at, over = list[bool](), "", threading.Event()

    def judge() -> None:
        try:
            passed.append(_judged(exercise, it, attempt))
        finally:
            over.set()

    thread = threading.Thread(target=judge, name=f"check {exercise.name}", daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that nobody awaited: the check says so, better
        try:
            thread.start()
            if not over.wait(exercise.seconds + 3 * _PARTING):  # a wait ends by itself, in `_await`
                at = at_work(it, thread)
        finally:  # also where the learner interrupts the check: a loop that stayed would slow down all that comes
            for _ in range(_ASKED):  # more than once: it may catch whatever is raised
                if over.is_set() or thread.ident is None:
                    break
                raise_in(thread, _Endless)
                over.wait(_PARTING)
    if at or not passed:
        attempt.rows = _endless(exercise) + _at(at)
    return passed == [True]


def _judged(exercise: Exercise, it: object, attempt: Attempt) -> bool:
    try:
        waited = exercise.check(it, attempt)
        if inspect.iscoroutine(waited):
            _await(waited, exercise.seconds)
        return True
    except _Differs:
        pass
    except _Endless:
        attempt.rows = _endless(exercise)
    except BaseException as error:  # noqa: BLE001  # a learner's code may raise anything, KeyboardInterrupt too
        attempt.rows = [("why", f"it raised {type(error).__name__}: {error}"), *_at(where(it, error))]
    return False


def _at(place: str) -> list[tuple[str, str]]:
    return [("at", place)] if place else []


def _await(waited: Coroutine[Any, Any, Any], seconds: float) -> None:
    """Like asyncio.run, but it does not wait for a task that refuses to be cancelled."""
    own = asyncio.new_event_loop()
    own.set_exception_handler(lambda *_: None)  # of such a task asyncio complains when it is destroyed
    task = own.create_task(waited)
    try:
        own.run_until_complete(asyncio.wait({task}, timeout=seconds))
        if not task.done():
            raise _Endless
        task.result()
    finally:
        try:
            if left := asyncio.all_tasks(own):
                for each in left:
                    each.cancel()
                own.run_until_complete(asyncio.wait(left, timeout=_PARTING))
        finally:
            own.close()


def _endless(exercise: Exercise) -> list[tuple[str, str]]:
    return [("why", f"no end after {exercise.seconds:g} s: a loop that never ends, or a wait for what never comes")]


def _show(value: object, limit: int = 160) -> str:
    """A value in one line, as Python writes it; bytes that are no text in hex, the first 24 of them."""
    if value is _MISSING:
        return ""
    try:
        match value:
            case bytes() | bytearray() if not (value.isascii() and value.decode().isprintable()):
                return shorten(value.hex(" "), 72)
        text = repr(value)
    except Exception as error:  # noqa: BLE001  # a learner's `__repr__`
        text = f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    return shorten(text, limit)


def _difference(seen: object, expected: object) -> str:
    """Where two values differ first, in words; of bytes the bits, too."""
    if seen is None:
        return f"it gave None, where {_kind(expected)} is expected: a function gives what it `return`s"
    if type(seen) is not type(expected):
        return f"it gave {_kind(seen)}, where {_kind(expected)} is expected"
    if isinstance(seen, str | bytes | list | tuple) and isinstance(expected, str | bytes | list | tuple):
        what = "character" if isinstance(seen, str) else "byte" if isinstance(seen, bytes) else "item"
        same = next((i for i, (a, b) in enumerate(zip(seen, expected, strict=False)) if a != b), min(len(seen), len(expected)))
        bits = (
            f": {seen[same]:08b} instead of {expected[same]:08b}"
            if isinstance(seen, bytes) and same < min(len(seen), len(expected))
            else ""
        )
        if what == "item" and same < min(len(seen), len(expected)) and type(seen[same]) is not type(expected[same]):
            return f"item {same + 1} is {_kind(seen[same])}, where {_kind(expected[same])} is expected"
        if what == "character" and same == 0 and max(len(seen), len(expected)) < _SHORT:
            return ""  # another word, which is seen at a glance
        lengths = f"; {len(seen)} {what}{'' if len(seen) == 1 else 's'} instead of {len(expected)}" if len(seen) != len(expected) else ""
        return f"they differ from {what} {same + 1} on{bits}{lengths}"
    return ""


def _kind(value: object) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}{' object' if name == 'bytes' else ''}"
