"""Chapters: what the tests of notebooks read out of them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import nbformat
from nbformat import NotebookNode

from tests.notebooks.build import SOLUTIONS

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def chapters() -> dict[str, NotebookNode]:
    """The solutions by the number of their chapter: what is edited, and so what is judged."""
    return {path.name[:2]: nbformat.read(path, as_version=4) for path in sorted(SOLUTIONS.glob("[0-9]*.ipynb"))}


def cells(chapter: str) -> dict[str, str]:
    """The code cells of a chapter ("04") by what their ids end with: what is tested is what a learner runs."""
    notebook = chapters()[chapter]
    return {cell.id.partition("-")[2]: cell.source for cell in notebook.cells if cell.cell_type == "code"}


def code(notebook: NotebookNode) -> list[str]:
    """The code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def definitions(source: str) -> list[Definition]:
    """The functions and classes at a cell's top level."""
    return [node for node in ast.parse(source).body if isinstance(node, Definition)]


def defines(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom | Definition)


def defined(cells: Mapping[str, str], *ids: str, takes: Callable[[ast.stmt], bool] = defines, **names: Any) -> dict[str, Any]:
    """What some cells import and define, one after the other, without what they run; they see the `names` that are given."""
    for id in ids:
        body = [node for node in ast.parse(cells[id]).body if takes(node)]
        exec(compile(ast.Module(body, []), id, "exec"), names)
    return names
