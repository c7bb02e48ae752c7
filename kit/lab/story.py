"""Story: what happened between a client, its line and the store, who broke which promise, told so that a person can follow it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Literal, NamedTuple

from kit.packets import START, Content, End, Entry, EntryId, Gap, Packet, Prompt, Stop, Word

LANES = ("client", "instance", "store")
Lane = Literal["client", "instance", "store"]
WIDE = 36
"""Characters between two lanes of the drawing."""


class Broken(Exception):
    """A promise was not kept: which one, what it wants, and what was seen."""

    def __init__(self, promise: str, expected: str, seen: str) -> None:
        super().__init__(f"{promise}: expected {expected}; seen {seen}")
        self.promise, self.expected, self.seen = promise, expected, seen


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
            raise Broken("P1 order", f"{stands.id} as all others see it: {stands}", str(seen))
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
        return drawn(self.told())


def drawn(steps: Sequence[Step], apart: int = 300, high: int = 24) -> str:
    """A sequence diagram; on a white ground, as an image does not know whether its page is dark."""
    x = {lane: 60 + i * apart for i, lane in enumerate(LANES)}
    bottom = 40 + high * len(steps)
    heads = [f"<text x='{x[lane]}' y='18' text-anchor='middle' font-weight='bold'>{lane}</text>" for lane in LANES]
    lives = [f"<path d='M{x[lane]} 26V{bottom}' stroke='#999'/>" for lane in LANES]
    rows = [_row(step, x, 46 + high * i) for i, step in enumerate(steps)]
    size = f"viewBox='0 0 {x['store'] + 320} {bottom + 10}' width='{x['store'] + 320}' style='max-width: 100%'"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} font-family='sans-serif' font-size='12'>"
        "<defs><marker id='head' markerWidth='9' markerHeight='8' refX='9' refY='4' orient='auto'>"
        "<path d='M0 0L9 4L0 8z' fill='#06c'/></marker></defs>"
        f"<rect width='100%' height='100%' fill='white'/>{''.join(heads + lives + rows)}</svg>"
    )


def _row(step: Step, x: dict[str, int], y: int) -> str:
    begin, to = x[step.begin], x[step.to]
    if begin == to:
        return f"<text x='{begin - 5}' y='{y + 4}' fill='#b00020'>✕ {escape(step.text)}</text>"
    arrow = f"<path d='M{begin} {y}H{to}' stroke='#06c' marker-end='url(#head)'/>"
    return f"{arrow}<text x='{(begin + to) // 2}' y='{y - 4}' text-anchor='middle'>{escape(step.text)}</text>"


def rows_of(broken: Broken) -> list[tuple[str, str]]:
    return [("promise", broken.promise), ("expected", broken.expected), ("seen", broken.seen)]
