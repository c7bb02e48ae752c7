"""What nbval does not see: cells that were never run, checks without anything to check against, credentials in what is stored."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebooks.save import METADATA, ROOT, VIEW, clean, notebooks

ALL = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in notebooks()]
JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]+")


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def shows_something(source: str) -> bool:
    """Whether the cell's last line is a value, which the notebook prints unless it is None."""
    last = ast.parse(source).body[-1]
    return isinstance(last, ast.Expr) and not source.rstrip().endswith(";")


@pytest.mark.parametrize("path", ALL)
def test_every_cell_was_run_in_order(path: Path) -> None:
    """The stored run is one run from top to bottom."""
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


@pytest.mark.parametrize("path", ALL)
def test_every_cell_that_shows_something_has_it_stored(path: Path) -> None:
    """Nbval passes a cell without stored outputs, whatever it prints now."""
    bare = [cell.source for cell in code_cells(path) if shows_something(cell.source) and not cell.outputs]
    assert not bare


@pytest.mark.parametrize("path", ALL)
def test_no_stored_output_is_an_error(path: Path) -> None:
    """Only a cell that is marked for it may raise; a bad magic prints `UsageError` and passes nbval."""
    for cell in code_cells(path):
        assert "UsageError" not in json.dumps(cell.outputs)
        raises = any(output.output_type == "error" for output in cell.outputs)
        assert raises == ("raises-exception" in cell.metadata.get("tags", []))


@pytest.mark.parametrize("path", ALL)
def test_nothing_of_one_run_only_is_stored(path: Path) -> None:
    """Neither widget state, nor a machine's path, nor a token."""
    notebook = nbformat.read(path, as_version=4)
    assert dict(notebook.metadata) == METADATA
    text = path.read_text("utf-8")
    assert VIEW not in text
    assert not JWT.search(text)
    assert str(ROOT) not in text
    assert not re.search(r"ticket\.[\w-]{32}", text)


@pytest.mark.parametrize("path", ALL)
def test_markers_are_spelt_as_nbval_reads_them(path: Path) -> None:
    """A marker with a typo is a comment, and the cell is checked no more or no less than before."""
    for cell in code_cells(path):
        for marker in re.findall(r"#\s*(nbval[\w-]*)", cell.source, re.IGNORECASE):
            assert marker.upper().replace("-", "_") in {"NBVAL_IGNORE_OUTPUT", "NBVAL_CHECK_OUTPUT", "NBVAL_RAISES_EXCEPTION"}


def test_the_guard_sees_a_cell_without_its_output() -> None:
    """`shows_something` tells a value from a statement."""
    assert shows_something("a = 1\na")
    assert not shows_something("a = 1")
    assert not shows_something("f();")


def test_cleaning_removes_views_and_keeps_captions() -> None:
    """A saved widget is its caption."""
    output = nbformat.v4.new_output("execute_result", {VIEW: {"model_id": "x"}, "text/plain": "caption"}, execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    clean(notebook)
    assert notebook.cells[0].outputs[0].data == {"text/plain": "caption"}
