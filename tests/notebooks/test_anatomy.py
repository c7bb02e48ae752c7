"""A chapter's anatomy: 25 to 35 cells, short and narrow, prose before each, one definition a cell, used below it; questions at its end.

00, the tour, is exempt.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.notebooks.build import number_of
from tests.notebooks.chapters import Definition, chapters, code, definitions

QUESTION = re.compile(r"<details><summary>[^`\n]+\?</summary>\n\n.+?\n\n</details>", re.DOTALL)
"""With its answer, folded. A summary is HTML: no Markdown in it."""
CELLS = range(25, 36)
QUESTIONS = 3
AIM, END = 12, 30
"""Lines of a code cell: what three in four keep to, and what none exceeds."""
WIDTH = 107
"""Characters of a line of code that a page of 1000 pixels shows, and JupyterLab beside its files in 1280."""


def faults(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with a chapter, each in a sentence."""
    if len(notebook.cells) not in CELLS:
        yield f"{len(notebook.cells)} cells, not {CELLS[0]} to {CELLS[-1]}"
    cells = code(notebook)
    lines = [len(source.splitlines()) for source in cells]
    yield from (f"a cell of {n} lines, over {END}: {source[:40]!r}" for n, source in zip(lines, cells, strict=True) if n > END)
    if (long := sum(n > AIM for n in lines)) * 4 > len(lines):
        yield f"{long} of {len(lines)} code cells have more than {AIM} lines"
    shown = [line for source in cells if not source.startswith("# kit/") for line in source.splitlines()]  # the kit's own is as it is
    yield from (f"a line of {len(line)} characters, over {WIDTH}: {line.strip()[:40]!r}" for line in shown if len(line) > WIDTH)
    yield from _without_prose(notebook)
    last = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"][-1]
    if (asked := len(QUESTION.findall(last))) != QUESTIONS:
        yield f"{asked} questions in its last text, not {QUESTIONS}"
    for i, source in enumerate(cells):
        found = definitions(source)
        if len(found) > 1:
            yield f"{len(found)} definitions in one cell: {', '.join(d.name for d in found)}"
        checked = f'lab.check("{number_of(source)}")'
        later = [*(ast.unparse(node) for node in ast.parse(source).body if not isinstance(node, Definition)), *cells[i + 1 :]]
        yield from (f"nothing uses {d.name}" for d in found if not any(checked in cell or uses(cell, d.name) for cell in later))


def uses(source: str, name: str) -> bool:
    """Whether a cell names something, other than to define it again."""
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(ast.parse(source)))


def _without_prose(notebook: NotebookNode) -> Iterator[str]:
    """Code cells that follow another; only a check may follow its exercise."""
    before = None
    for cell in notebook.cells:
        is_check = before is not None and number_of(before.source) and cell.source == f'lab.check("{number_of(before.source)}")'
        if cell.cell_type == "code" and (before is None or before.cell_type == "code") and not is_check:
            yield f"no prose before {cell.source[:40]!r}"
        before = cell


def test_every_chapter_keeps_to_it() -> None:
    """By chapter, all that is wrong."""
    assert {number: wrong for number, notebook in chapters().items() if (wrong := list(faults(notebook)))} == {}


# ---- the lint itself ----


def chapter(*sources: str, cells: int = 26) -> NotebookNode:
    """A chapter with these code cells, otherwise without fault."""
    made = [
        cell for source in (*sources, *["x"] * (cells // 2 - len(sources))) for cell in (new_markdown_cell("why"), new_code_cell(source))
    ]
    made[-2].source = "\n\n".join(["<details><summary>Why?</summary>\n\nBecause.\n\n</details>"] * QUESTIONS)
    return new_notebook(cells=made)


DEFINES, USES = "def f():\n    pass", "f()"


def test_a_good_chapter_has_no_fault() -> None:
    assert list(faults(chapter(DEFINES, USES))) == []
    assert list(faults(chapter(f"{DEFINES}\n{USES}"))) == []
    exercise = chapter("# exercise 1.1\ndef f():\n    pass")
    exercise.cells.insert(2, new_code_cell('lab.check("1.1")'))
    assert list(faults(exercise)) == []


@pytest.mark.parametrize(
    ("notebook", "fault"),
    [
        (chapter(cells=24), "24 cells, not 25 to 35"),
        (chapter(cells=36), "36 cells, not 25 to 35"),
        (chapter("x\n" * 31), "a cell of 31 lines, over 30: 'x\\nx\\n"),
        (chapter(*["x\n" * 13] * 4), "4 of 13 code cells have more than 12 lines"),
        (chapter(f"x = {'1' * 104}"), "a line of 108 characters, over 107: 'x = 1"),
        (chapter("def f():\n    pass\nclass G:\n    pass", "f, G"), "2 definitions in one cell: f, G"),
        (chapter(DEFINES), "nothing uses f"),
        (new_notebook(cells=[*chapter().cells, new_markdown_cell("Next.")]), "0 questions in its last text, not 3"),
        (chapter(USES, DEFINES), "nothing uses f"),
        (chapter(DEFINES, DEFINES), "nothing uses f"),
        (new_notebook(cells=[*chapter(DEFINES, USES).cells, new_code_cell("y")]), "no prose before 'y'"),
        (new_notebook(cells=[*chapter(DEFINES, USES).cells, new_code_cell('lab.check("1.1")')]), "no prose before 'lab.check"),
    ],
)
def test_a_fault_is_named(notebook: NotebookNode, fault: str) -> None:
    """Each by itself."""
    assert any(found.startswith(fault) for found in faults(notebook)), list(faults(notebook))
