"""Story: what happened between a client, its line and the store, who broke which promise, told so that a person can follow it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

from kit.lab.drawing import label, svg
from kit.packets import START, Content, End, Entry, EntryId, Gap, Packet, Prompt, Stop, Word

LANES = ("client", "instance", "store")
Lane = Literal["client", "instance", "store"]
WIDE = 36
"""Characters between two lanes, in text."""
X: dict[Lane, int] = {"client": 60, "instance": 360, "store": 660}
HIGH = 24
"""Of the drawing: where the lanes are, and pixels for a step."""
CENTRED = " text-anchor='middle'"
TIP = (
    "<defs><marker id='tip' markerWidth='9' markerHeight='8' refX='9' refY='4' orient='auto'><path d='M0 0L9 4L0 8z' fill='#06c'/>"
    "</marker></defs>"
)


class Broken(Exception):
    """A promise was not kept: which one, what it wants, and what was seen."""

    def __init__(self, promise: str, expected: str, seen: str) -> None:
        super().__init__(f"{promise}: expected {expected}; seen {seen}")
        self.promise, self.expected, self.seen = promise, expected, seen

    @property
    def rows(self) -> list[tuple[str, str]]:
        return [("promise", self.promise), ("expected", self.expected), ("seen", self.seen)]


class Step(NamedTuple):
    """An arrow from lane to lane, or (both the same) something that happens there. Neighbouring steps of one `run` are told as one."""

    begin: Lane
    to: Lane
    text: str
    run: str = ""


# ---- judging ----


@dataclass
class View:
    """What a client gave, entry by entry: each must be the successor of the one before. `last` is where it stands."""

    last: EntryId = START
    entries: list[Entry] = field(default_factory=list)
    gaps: int = 0
    lost: int = 0
    """How often the store has lost something: so many gaps are honest."""

    def take(self, entry: Entry | Gap) -> None:
        """Raises Broken where it comes twice, too early, or starts over without a reason."""
        if isinstance(entry, Gap):
            self.gaps += 1
            if self.gaps > self.lost:
                raise Broken("P2 exactly once", f"what follows {self.last}", f"a gap ({entry.reason}), though nothing was lost")
            self.last, self.entries = EntryId.parse(entry.after), []
            return
        id = EntryId.parse(entry.id)
        before = EntryId.parse(entry.prev) if isinstance(entry, Word) else EntryId(id.epoch, id.n - 1)
        if before != self.last:
            promise = "P7 honest gap" if self.gaps < self.lost else "P2 exactly once"
            twice = id <= self.last and not self.gaps < self.lost
            raise Broken(promise, f"the successor of {self.last}" + (", or a gap" if promise[1] == "7" else ""), _seen(entry, twice))
        self.last = id
        self.entries.append(entry)


def judge(view: Sequence[Entry], log: Sequence[Entry], mine: Iterable[str], answer: str) -> None:
    """Hold what a client has seen against the log in the end. `mine`: the texts it was to say; `answer`: what a whole turn says.

    Raises Broken.
    """
    kept = list(log[len(log) - len(view) :]) if view else []
    for seen, stands in zip(view, kept, strict=True):
        if seen != stands:
            raise Broken("P1 order", f"{_said(stands)}, as all others see it", _said(seen))
    texts = [entry.text for entry in log if isinstance(entry, Prompt)]
    for text in mine:
        if texts.count(text) > 1:
            raise Broken("P4 receipts", f"“{text}” once in the log: a word that is repeated keeps its `ref`", f"{texts.count(text)} times")
    stopped: dict[str, str] = {}
    for entry in log:
        if isinstance(entry, Stop):
            stopped |= {f"{p.id}/{p.to}": entry.id for p in log if isinstance(p, Prompt) and EntryId.parse(p.id) < EntryId.parse(entry.id)}
        elif isinstance(entry, Packet) and entry.turn in stopped and not isinstance(entry, End):
            raise Broken("P5 stop", f"only the end of {entry.turn} after {stopped[entry.turn]}", _seen(entry))
    for turn in [e.turn for e in log if isinstance(e, End) and e.reason == "done"]:
        said = "".join(e.text for e in log if isinstance(e, Content) and e.turn == turn)
        if said != answer:
            raise Broken("P6 survives", f"{turn} says {answer!r}, each number once", repr(said))


def _seen(entry: Entry, twice: bool = False) -> str:
    return f"{entry.id} ({type(entry).__name__.lower()}){' again' if twice else ''}"


def _said(entry: Entry) -> str:
    text = getattr(entry, "text", None)
    return _seen(entry) + (f" “{text.strip()}”" if text else "")


# ---- telling ----


class Story(list[Step]):
    """The steps of a story in their order."""

    def tell(self, begin: Lane, to: Lane, text: str, run: str = "") -> None:
        self.append(Step(begin, to, text, run))

    def told(self) -> list[Step]:
        """With the steps of each run as one, from its first to its last; runs beside each other are pulled apart."""
        told: list[Step] = []
        for runs, beside in groupby(self, lambda step: bool(step.run)):
            steps = list(beside)
            if runs:
                steps.sort(key=lambda step: step.run, reverse=True)
            for _, same in groupby(steps, lambda step: step.run or id(step)):
                first, *more = same
                told.append(first._replace(text=f"{first.text} ... {more[-1].text}") if more else first)
        return told

    def __str__(self) -> str:
        lines = ["".join(f"{lane:<{WIDE + 1}}" for lane in LANES).rstrip()]
        for step in self.told():
            a, b = sorted((LANES.index(step.begin), LANES.index(step.to)))
            cells = [" " * WIDE] * 2
            if a == b:
                line = f"{'│' + ' ' * WIDE}" * a + f"╳ {step.text}"
            else:
                right = step.begin == LANES[a]
                text = f" {step.text[: WIDE - 5]} "
                cells[a] = f"{text:─^{WIDE - 1}}▶" if right else f"◀{text:─^{WIDE - 1}}"
                line = f"│{cells[0]}│{cells[1]}│"
            lines.append(line.rstrip())
        return "\n".join(lines)

    def _repr_svg_(self) -> str:
        """A sequence diagram."""
        steps = self.told()
        bottom = 40 + HIGH * len(steps)
        lanes = [f"{label(x, 18, lane, CENTRED)}<path d='M{x} 26V{bottom}' stroke='#999'/>" for lane, x in X.items()]
        arrows = [_arrow(step, 46 + HIGH * i) for i, step in enumerate(steps)]
        return svg(X["store"] + 320, bottom + 10, str(self), [TIP, *lanes, *arrows])


def _arrow(step: Step, y: int) -> str:
    begin, to = X[step.begin], X[step.to]
    if begin == to:
        return label(begin - 5, y + 4, f"✕ {step.text}", " fill='#b00020'")
    arrow = f"<path d='M{begin} {y}H{to}' stroke='#06c' marker-end='url(#tip)'/>"
    return arrow + label((begin + to) // 2, y - 4, step.text, CENTRED)
