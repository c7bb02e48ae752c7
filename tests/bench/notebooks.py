"""Notebooks: how long each takes from its kernel's start to its last cell, run as nbval runs it: one cell after the other.

An empty notebook, in the same run, says how much of that is the kernel's own.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.bench.table import Row
from tests.notebooks.save import NOTEBOOKS, notebooks

EMPTY = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")])


def measure(count: int, times: int) -> list[Row]:
    """A row for each of the first `count` notebooks, each run `times` times."""
    rows = []
    for path in notebooks()[:count]:
        whole, empty = [], []
        for _ in range(times):
            empty.append(_seconds(EMPTY, path.parent))
            whole.append(_seconds(nbformat.read(path, as_version=4), path.parent))
        name, took = path.relative_to(NOTEBOOKS).with_suffix("").as_posix(), median(whole)
        rows.append(Row(f"notebook {name}, an empty one beside it", f"{took:.1f} s, {median(empty):.1f} s", "< 5 s", took < 5))
    return rows


def _seconds(notebook: NotebookNode, folder: Path) -> float:
    """Raises nbclient's CellExecutionError where a cell fails that should not."""
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}, store_widget_state=False)
    client.extra_arguments = ["--log-level=ERROR"]  # that loopback is not encrypted is no news here
    began = time.perf_counter()
    with client.setup_kernel(env={**os.environ, "KIT_STRICT": "0"}):
        for i, cell in enumerate(notebook.cells):
            client.execute_cell(cell, i)
        return time.perf_counter() - began
