"""Resume checker: does a client lose nothing, double nothing and say nothing twice, whatever its line and its server do to it?

A client under test is an async generator:

    async def my_client(url, token, shelf):
        '''Give every entry and every gap of the session, in order, each once, for as long as somebody asks for more.'''

- `url`: `ws://127.0.0.1:PORT/s/NAME`; it adds `?after=<id>&log=<log>` by itself. `token` goes into `Authorization: Bearer`, the
  subprotocol is `kit.v1`.
- It yields what stands in the log and each `gap`, as the frame's JSON decoded (a dict). Whatever else comes it keeps to itself.
- `shelf`: a dict that survives a reload, as `localStorage` does: what JSON can hold. It is empty in the beginning, but for
  `shelf["words"]`: what the person says, `{ref: {"type": "prompt", "text": ..., "ref": ref}}`. At every hello the client sends all of
  them; it removes one when its `receipt` comes. A reload throws the generator away where it stands (at its `yield`, too: what is to be
  remembered of an entry must be on the shelf before the entry is given), and calls the function again with what is on the shelf.

`check_resume(my_client)` plays stories with it: hypothesis draws faults, shrinks what fails to the shortest story, and that story is
told as a drawing of client, instance and store. Time is not waited for (hurry.py), so a client may be as patient as it should be.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import Any

from kit.lab.chaos import CLIENT, INSTANCE, Fault
from kit.lab.finish import is_strict
from kit.lab.table import as_html, as_text
from kit.lab.thread import raise_in
from kit.lab.trial import SHUT, Blocks, Client, Trial

PLACES = [("line", what) for what in ("cut", "linger", "vanish", "shut")]
PLACES += [("client", what) for what in CLIENT] + [("one", what) for what in INSTANCE] + [("store", what) for what in ("flush", "trim")]
_WITH: dict[str, dict[str, Any]] = {
    "shut": {"value": SHUT},
    "trim": {"value": "s"},
    "stop": {"seconds": 1.0},
    "leave": {"seconds": 1.0},
    "freeze": {"seconds": 20.0},
}


class Verdict:
    """What the checker says: how many stories a client survived, or the shortest one that it did not.

    `seed`: None where one story was played, by its faults.
    """

    def __init__(self, stories: int, seed: int | None, trial: Trial | None) -> None:
        self.stories, self.seed = stories, seed
        self.trial = trial
        self.passed = trial is None

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What was promised, expected and seen, and the faults of the shortest story, as they are written in a test."""
        if not self.trial or not (broken := self.trial.broken):
            return []
        faults = ", ".join(map(repr, self.trial.happened)) or "none at all"
        return [*broken.rows, ("faults", faults)]

    def __repr__(self) -> str:
        if not self.trial:
            told = "this story" if self.seed is None else f"{self.stories} stories (seed {self.seed})"
            return f"✓ kept its promises in {told}"
        head = "✗ a promise was broken in this story"
        if self.seed is not None:
            head = f"✗ a promise was broken; this is the shortest story in which it is (of {self.stories}, seed {self.seed})"
        return f"{head}\n\n{as_text(self.rows)}\n\n{self.trial.story}"

    def _repr_html_(self) -> str:
        head = f"<p><strong>{escape(repr(self).partition(chr(10))[0])}</strong></p>"
        return head + as_html(self.rows) + self.trial.story._repr_svg_() if self.trial else head


class NotKept(AssertionError):
    """A client broke a promise; the text is its shortest story."""


PARTING = 50
"""How often stories are told to end, 0.1 s apart, when who waited for them was interrupted."""


class _Enough(BaseException):
    """So many stories were played. Not an Exception: hypothesis would take that for a failure, and try to make it smaller."""


def check_resume(client: Client, *, examples: int = 80, seed: int = 4, seconds: float = 10.0) -> Verdict:
    """Play stories with a client until one fails, and shrink that one: `examples` in all, for about `seconds` at most.

    Never raises, but under KIT_STRICT=1 NotKept. The same seed draws the same stories.
    """
    trials: list[Trial] = []
    on_a_thread(_search(client, trials, examples, seed, seconds), lambda: bool(trials) and trials[-1].stuck)
    failed = [trial for trial in trials if trial.broken]
    verdict = Verdict(len(trials), seed, min(failed, key=lambda trial: (len(trial.happened), len(trial.story)), default=None))
    if is_strict() and not verdict.passed:
        raise NotKept(repr(verdict))
    return verdict


def replay(client: Client, *faults: Fault) -> Verdict:
    """One story again, by its faults."""
    trial = Trial(client, faults)
    on_a_thread(trial.play, lambda: trial.stuck)
    return Verdict(1, None, trial if trial.broken else None)


def _search(client: Client, trials: list[Trial], examples: int, seed: int, seconds: float) -> Callable[[], None]:
    """What plays the stories, one after the other, and adds them to `trials`: at least one, however busy the machine is."""
    import hypothesis as h  # a quarter of a second that only who asks for it pays
    from hypothesis import strategies as st

    told: dict[tuple[Fault, ...], Trial] = {}
    until = time.monotonic() + seconds
    fault = st.builds(
        lambda after, place: Fault(after, place[1], place[0], **_WITH.get(place[1], {})), st.integers(0, 16), st.sampled_from(PLACES)
    )
    schedules = st.lists(fault, max_size=3).map(lambda faults: tuple(sorted(faults, key=lambda fault: fault.after)))

    def fails(schedule: tuple[Fault, ...]) -> bool:
        if schedule not in told:
            if trials and (len(trials) == examples or time.monotonic() > until):
                raise _Enough
            told[schedule] = Trial(client, schedule)
            trials.append(told[schedule])
            told[schedule].play()
        return told[schedule].broken is not None

    phases = (h.Phase.generate, h.Phase.shrink)  # `explain` would trace every line of every story: five times slower
    quick = h.settings(max_examples=examples, phases=phases, deadline=None, database=None, suppress_health_check=list(h.HealthCheck))

    def search() -> None:
        with suppress(h.errors.NoSuchExample, _Enough):
            h.find(schedules, fails, settings=quick, random=random.Random(seed))

    return search


def on_a_thread(work: Callable[[], None], stuck: Callable[[], bool]) -> None:
    """A cell has a loop of its own in its thread; and what the instances warn of is the story's, not the cell's.

    Where somebody's code keeps that thread's loop for itself (`stuck`), Blocks is raised in it.
    """
    over = threading.Event()  # CPython takes a thread for ended whose `join` is interrupted

    def play() -> None:
        try:
            work()
        finally:
            over.set()

    thread = threading.Thread(target=play, name="check", daemon=True)
    quiet, loud = logging.NullHandler(), logging.getLogger("kit")
    loud.addHandler(quiet)  # else Python prints warnings where nobody has asked for them
    try:
        thread.start()
        while not over.wait(0.5):
            if stuck():
                raise_in(thread, Blocks)
    finally:
        for _ in range(PARTING):  # nobody else would end the thread; a callback may swallow what is raised in it
            if not over.is_set():
                raise_in(thread, Blocks)
                over.wait(0.1)
        loud.removeHandler(quiet)
