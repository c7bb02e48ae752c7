"""For a workshop: beginning again loses nothing, and who starts in the middle is told the words; the glossary is true to the chapters."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from kit.lab.again import catch_up, reset
from kit.lab.check import NOTEBOOKS
from kit.lab.start import Lab, start

LINES = [line for line in (NOTEBOOKS / "GLOSSARY.md").read_text("utf-8").splitlines() if line.startswith("| **")]
LINKS = re.compile(r"\[(\d\d)\]\((\S+)\)")
FIELD = """transcript, packet, word, epoch, turn, session, cursor, lease, fencing, backoff, full jitter, close code, origin, ticket,
sub-protocol""".replace("\n", " ").split(", ")
"""The names that the kit uses because they are the field's own."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learner's folder, with a notebook that was worked on; the kernel stands in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "05_state.ipynb").write_text("my answers")
    return tmp_path


# ---- again ----


def test_reset_closes_the_lab_and_the_next_one_is_empty() -> None:
    """Also where the notebook's first cell names no chapter."""
    lab = start()
    lab.session("demo").prompt("count to 2")
    assert "run your notebook's first cell" in reset()
    assert Lab.current is None
    again = start()
    try:
        assert len(again.session("demo").transcript) == 0
    finally:
        again.close()


def test_a_store_of_ones_own_is_left_as_it_is(real_store_url: str) -> None:
    """What others may have there is not the lab's."""
    start(store=real_store_url).session("demo").prompt("count to 2")
    assert "what it holds, stays" in reset()
    again = start(store=real_store_url)
    try:
        assert len(again.session("demo").transcript) > 0
    finally:
        again.close()


def test_reset_without_a_lab_is_no_error() -> None:
    """As after a kernel's restart."""
    assert Lab.current is None
    assert reset()


@pytest.mark.parametrize("chapter", ["05", "5", "05_state"])
def test_a_fresh_copy_comes_beside_what_was_written(here: Path, chapter: str) -> None:
    """As often as one likes; nothing is written over."""
    for name in ("05_state-2.ipynb", "05_state-3.ipynb"):
        assert name in reset(chapter)
        assert (here / name).read_bytes() == (NOTEBOOKS / "05_state.ipynb").read_bytes()
    assert (here / "05_state.ipynb").read_text() == "my answers"


def test_a_chapter_that_is_none_is_told(here: Path) -> None:
    """And where there are no notebooks at all."""
    assert "no chapter '77'" in reset("77")
    assert "no chapter '05'" in reset("05", notebooks=here / "nowhere")
    assert "no glossary" in str(catch_up("05", notebooks=here / "nowhere"))


def test_catching_up_tells_the_words_of_the_chapters_before() -> None:
    """In the order in which they are taught, and none of the chapter's own."""
    known = catch_up("05")
    assert not isinstance(known, str)
    chapters = [term.chapter for term in known]
    assert chapters == sorted(chapters)
    assert {*chapters} == {"00", "01", "02", "03", "04"}
    assert "fencing" in repr(known)
    assert known._repr_html_().count("<tr>") == len(known) + 1
    assert repr(catch_up("00")) == "Nothing: it is the first."


# ---- the glossary ----


def test_every_name_of_the_fields_own_is_in_the_glossary() -> None:
    terms = [line.split("**")[1] for line in LINES]
    assert [name for name in FIELD if name not in terms] == []
    assert terms == sorted(terms, key=str.lower)
    assert len(terms) == len({*terms})


@pytest.mark.parametrize("line", LINES, ids=[line.split("**")[1] for line in LINES])
def test_a_term_is_taught_where_the_glossary_says(line: str) -> None:
    """The chapter is there, and says each word of it."""
    ((number, name),) = LINKS.findall(line)
    assert name.startswith(number)
    text = "".join(cell.source for cell in nbformat.read(NOTEBOOKS / name, as_version=4).cells).lower().replace("-", "")
    assert [word for word in line.split("**")[1].lower().replace("-", "").split() if word not in text] == []
