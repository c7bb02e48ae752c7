"""Succession: does an agent go on where it was cut, whichever piece was its last?

An agent keeps nothing: when its instance is gone, another one calls it again, with what it has said in the history. `check_agent` lets it
answer a prompt whole, twice, then stops it in the middle; then once for each piece (of a long answer: for some of them) the instance goes
(cut.py). What stands in the log in the end must be what stood there when nothing happened: texts, calls of tools, questions, documents, the
end. So the agent must say the same each time: give a model a seed.

All of these are played beside each other, in one process: an agent that does keep something meets itself. One that is only silent then,
as on a busy machine, is tried once more, alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from kit.history import Agent
from kit.lab.check import Outcome
from kit.lab.cut import CutAnswer, Reply, Silent, Step, shown, steps
from kit.lab.finish import is_strict
from kit.lab.resume import NotKept, on_a_thread
from kit.lab.story import Broken
from kit.lab.table import shorten
from kit.lab.trial import STUCK
from kit.packets import Action, Ask

CUTS, BESIDE = 24, 8
"""Of a longer answer so many pieces are tried, the first and the last among them; and so many at the same time."""
REMEDY = "begin by looking at history.said (or history.pieces): what stands there is said; go on behind it"


def check_agent(agent: Agent, *prompts: str, reply: Reply | None = None, seconds: float = 10.0) -> Outcome:
    """Cut an agent after each piece of its answers to `prompts`, and say whether it goes on there; the first cut where it does not is told.

    `reply`: what the person answers when it asks; without it the first choice, else yes. An answer may take `seconds`. Never raises,
    but under KIT_STRICT=1 NotKept.
    """
    heart = _Heart()
    outcome: list[Outcome] = []

    def play() -> None:
        outcome.append(asyncio.run(_check(agent, prompts or ("hello",), reply or _reply, seconds, heart)))

    on_a_thread(play, heart.stands_still)
    if not outcome:  # what was to interrupt the agent came a moment late
        outcome.append(
            Outcome(False, "the agent keeps the loop for itself", (("next", "await something: `asyncio.sleep`, not `time.sleep`"),))
        )
    if is_strict() and not outcome[0].passed:
        raise NotKept(repr(outcome[0]))
    return outcome[0]


async def _check(agent: Agent, prompts: Sequence[str], reply: Reply, seconds: float, heart: _Heart) -> Outcome:
    name = getattr(agent, "__name__", "agent")  # a partial has none
    beating = asyncio.create_task(heart.beat())
    pieces = tried = 0
    try:
        for prompt in prompts:
            whole, cuts = await _prompt(agent, prompt, reply, seconds)
            pieces, tried = pieces + whole, tried + cuts
    except _Fails as fails:
        return Outcome(False, f"{name} {fails}", tuple(fails.rows))
    finally:
        beating.cancel()
    which = "each of its" if tried == pieces else f"{tried} of its"
    return Outcome(True, f"{name} goes on after {which} {pieces} piece{'' if pieces == 1 else 's'}")


async def _prompt(agent: Agent, prompt: str, reply: Reply, seconds: float) -> tuple[int, int]:
    """Try one prompt; gives how many pieces its answer has, and after how many of them it was cut. Raises _Fails."""
    about = [("prompt", shorten(prompt))]
    try:
        whole, again = [await CutAnswer(agent, prompt, reply).run(seconds) for _ in range(2)]
        wanted = steps(whole.said)
        if steps(again.said) != wanted:
            rows = [*about, ("first", shown(wanted)), ("then", shown(steps(again.said)))]
            raise _Fails("says something else each time", [*rows, ("next", "keep nothing between two calls; give a model a seed")])
        await CutAnswer(agent, prompt, reply, stop=True).run(seconds)
    except Broken as broken:
        raise _Fails("fails, and nobody cut it", [*about, *broken.rows]) from None
    last, few = whole.pieces - 1, min(CUTS, whole.pieces)
    cuts = [1 + i * last // max(1, few - 1) for i in range(few)]
    for beside in (cuts[i : i + BESIDE] for i in range(0, few, BESIDE)):
        came = await asyncio.gather(*(_came(CutAnswer(agent, prompt, reply, cut), seconds) for cut in beside))
        for cut, first in zip(beside, came, strict=True):
            ended = await _came(CutAnswer(agent, prompt, reply, cut), seconds) if isinstance(first, Silent) else first
            _compare(ended, wanted, [*about, ("cut", f"after piece {cut} of {whole.pieces}")])
    return whole.pieces, few


async def _came(answer: CutAnswer, seconds: float) -> CutAnswer | Exception:
    """The answer, or what came of it instead."""
    try:
        return await answer.run(seconds)
    except Exception as error:  # noqa: BLE001  # it is looked at by whoever asked
        return error


def _compare(ended: CutAnswer | Exception, wanted: list[Step], rows: list[tuple[str, str]]) -> None:
    """Raises _Fails where an answer that was cut is not what is wanted."""
    match ended:
        case Broken():
            raise _Fails("does not go on", [*rows, *ended.rows, ("next", REMEDY)])
        case OSError():
            raise _Fails("could not be tried", [*rows, ("why", f"its instance did not come back: {ended}"), ("next", "check it again")])
        case Exception():
            raise ended
    if (told := steps(ended.said)) != wanted:
        raise _Fails("does not go on", [*rows, *_differs(wanted, told), ("next", REMEDY)])


class _Fails(Exception):
    """What an agent does wrong, in words, and the rows that show it."""

    def __init__(self, what: str, rows: list[tuple[str, str]]) -> None:
        super().__init__(what)
        self.rows = rows


def _differs(wanted: list[Step], told: list[Step]) -> Iterator[tuple[str, str]]:
    """The promise, why, and both from the first step on in which they differ."""
    at = next((i for i, (a, b) in enumerate(zip(wanted, told, strict=False)) if a != b), min(len(wanted), len(told)))
    calls = [sum(step.what == "action" for step in each) for each in (wanted, told)]
    size = [sum(len(step.text) for step in each) for each in (wanted, told)]
    yield "promise", "P6 survives"
    if calls[1] > calls[0]:
        yield "why", "a tool was called again under another id: an action in history.said is the call, and its id the idempotency key"
    elif size[1] > size[0]:
        yield "why", "what stood in the log already was said again"
    elif size[1] < size[0]:
        yield "why", "something was left out"
    yield "expected", shown(wanted[at:])
    yield "seen", shown(told[at:])


def _reply(asked: Ask | Action) -> str:
    return asked.choices[0] if isinstance(asked, Ask) and asked.choices else "yes"


class _Heart:
    """Beats while the loop runs; seen from another thread, an agent that keeps the loop for itself is one that stops it."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    async def beat(self) -> None:
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(STUCK / 10)

    def stands_still(self) -> bool:
        if still := time.monotonic() - self._last > STUCK:
            self._last = time.monotonic()  # what was stuck is told; the next one has its own time
        return still
