"""The instructor's guide is true: its sums, its exercises, its chapters, and the sentences that it quotes."""

from __future__ import annotations

import re

import pytest

from kit.lab.check import NOTEBOOKS, exercises

GUIDE = (NOTEBOOKS / "INSTRUCTOR.md").read_text("utf-8")
CHAPTERS = sorted(path.name[:2] for path in NOTEBOOKS.glob("[0-9]*.ipynb"))
TIMES = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in GUIDE.splitlines() if re.match(r"\| .+ \| \**\d+\** \|", line)]


def section(chapter: str) -> str:
    """What the guide says of a chapter."""
    return GUIDE.partition(f"\n### {chapter} ")[2].partition("\n#")[0]


@pytest.mark.parametrize("column", [1, 2, 3], ids=["2 hours", "half a day", "a day"])
def test_a_timetable_adds_up(column: int) -> None:
    *rows, total = [int(row[column]) for row in TIMES]
    assert TIMES[-1][0] == "sum"
    assert sum(rows) == total


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_chapter_has_minutes_and_a_section(chapter: str) -> None:
    """And names its exercises, no others."""
    assert [row[0][:2] for row in TIMES].count(chapter) == 1
    path = NOTEBOOKS / f"exercises/chapter_{chapter}.py"
    known = set(exercises(path)) if path.exists() else set()
    told = section(chapter)
    assert told
    assert {n for n in re.findall(r"\b\d\.\d\b", told) if n.startswith(f"{int(chapter)}.")} == known


def test_the_readme_has_the_minutes_of_the_day() -> None:
    told = re.findall(r"^\| \[(\d\d)\]\(.+?\| (\d+) \|", (NOTEBOOKS.parent / "README.md").read_text("utf-8"), re.MULTILINE)
    assert told == [(row[0][:2], row[3]) for row in TIMES if row[0][:2] in CHAPTERS]
    assert len(told) == len(CHAPTERS)


def test_what_it_quotes_is_what_the_kit_says() -> None:
    """A sentence that was changed would be looked for in vain."""
    kit = NOTEBOOKS.parent / "kit"
    said = "".join(path.read_text("utf-8") for kind in ("*.py", "*.js") for path in sorted(kit.rglob(kind)))
    quotes = re.findall("“(.+?)”", GUIDE)
    assert len(quotes) >= 9
    assert [quote for quote in quotes if quote not in said] == []


def test_what_it_calls_is_there() -> None:
    """Functions of the lab, by name."""
    from kit import lab

    called = {*re.findall(r"`?lab\.(\w+)", GUIDE)}
    assert called >= {"open_room", "catch_up", "reset", "check_agent"}
    assert [name for name in called if not hasattr(lab, name)] == []
