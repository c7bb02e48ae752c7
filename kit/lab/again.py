"""Again: a chapter begun anew without losing what was written, or begun in the middle of the course; for workshops.

Every chapter starts cold, and no cell of it needs an earlier chapter or an exercise that is solved: the learner's copies, in which none is,
are run by the tests, each by itself. So who is late lacks no code, only words.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import NamedTuple

from kit.lab.check import NOTEBOOKS, Text
from kit.lab.served import flush
from kit.lab.start import MEMORY, Lab
from kit.lab.table import as_html, as_text
from kit.lab.thread import run

_TERM = re.compile(r"^\| \*\*(.+?)\*\* \| (.+) \| \[(\d\d)\]", re.MULTILINE)


class Term(NamedTuple):
    """A line of the glossary: a word, what it means, and the chapter that teaches it."""

    word: str
    meaning: str
    chapter: str


class Vocabulary(tuple[Term, ...]):
    """What a chapter takes as known, the earliest first."""

    __slots__ = ()

    def _rows(self) -> list[tuple[str, str, str]]:
        return [(term.chapter, term.word, term.meaning) for term in self]

    def __repr__(self) -> str:
        return as_text(self._rows()) or "Nothing: it is the first."

    def _repr_html_(self) -> str:
        return as_html(self._rows(), ("taught in", "word", "what it means")) if self else f"<p>{self!r}</p>"


def reset(chapter: str | None = None, *, notebooks: Path = NOTEBOOKS) -> Text:
    """Close the lab, so that the notebook's first cell starts it empty; with a chapter ("05") put a fresh copy of it beside yours, too.

    Nothing of yours is changed: the copy gets a name that no file has.
    """
    said = "The lab is closed: run your notebook's first cell, and it starts anew, with an empty store."
    if Lab.current:
        if Lab.current.options["store"]:
            said = (
                "The lab is closed: run your notebook's first cell to start it anew. The store is a server of yours: what it holds, stays."
            )
        Lab.current.close()
    run(flush(MEMORY))
    if chapter is None:
        return Text(said)
    original = next(notebooks.glob(f"{_two_digits(chapter)}_*.ipynb"), None)
    if original is None:
        return Text(f"{said}\nThere is no chapter {chapter!r} in {notebooks}.")
    return Text(f"{said}\nA fresh copy is {_beside(original)}, beside yours, which is as it was.")


def catch_up(chapter: str, *, notebooks: Path = NOTEBOOKS) -> Vocabulary | Text:
    """What a chapter ("05") takes as known, out of the glossary. Nothing of the earlier chapters needs to be run."""
    glossary = notebooks / "GLOSSARY.md"
    if not glossary.is_file():
        return Text(f"There is no glossary at {glossary}: it comes with the repository.")
    terms = (Term(*found) for found in _TERM.findall(glossary.read_text("utf-8")))
    return Vocabulary(sorted((term for term in terms if term.chapter < _two_digits(chapter)), key=lambda term: term.chapter))


def _two_digits(chapter: str) -> str:
    return str(chapter)[:2].zfill(2)  # 5 and "05_state" are as clear as "05"


def _beside(original: Path) -> str:
    """Copy it into the kernel's folder, which is the notebook's; gives its new name."""
    for n in count(2):
        name = f"{original.stem}-{n}.ipynb"
        try:
            with Path(name).open("xb") as copy:  # x: a file that is there is an error, whoever was quicker
                copy.write(original.read_bytes())
        except FileExistsError:
            continue
        return name
    raise AssertionError
