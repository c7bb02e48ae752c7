"""Chapters: what the tests of notebooks read out of them."""

from __future__ import annotations

import ast

import nbformat
from nbformat import NotebookNode

from tests.notebooks.build import SOLUTIONS

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def chapters() -> dict[str, NotebookNode]:
    """The solutions by the number of their chapter: what is edited, and so what is judged."""
    return {path.name[:2]: nbformat.read(path, as_version=4) for path in sorted(SOLUTIONS.glob("[0-9]*.ipynb"))}


def code(notebook: NotebookNode) -> list[str]:
    """The code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def definitions(source: str) -> list[Definition]:
    """The functions and classes at a cell's top level."""
    return [node for node in ast.parse(source).body if isinstance(node, Definition)]
