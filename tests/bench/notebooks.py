"""Notebooks: how long each takes from its kernel's start to its last cell, run as nbval runs it: one cell after the other.

An empty notebook, in the same run, says how much of that is the kernel's own. And how long the slowest check of a solution takes: it
does all its steps, while a learner waits.
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
        runs, empty = [], []
        for _ in range(times):
            empty.append(_run(EMPTY, path.parent)[0])
            runs.append(_run(nbformat.read(path, as_version=4), path.parent))
        name, took = path.relative_to(NOTEBOOKS).with_suffix("").as_posix(), median(whole for whole, _ in runs)
        rows.append(Row(f"notebook {name}, an empty one beside it", f"{took:.1f} s, {median(empty):.1f} s", "< 5 s", took < 5))
        if name.startswith("solutions/"):
            slowest = median(check for _, check in runs)
            rows.append(Row(f"notebook {name}, its slowest check", f"{slowest * 1000:.0f} ms", "< 200 ms", slowest < 0.2))
    return rows


def _run(notebook: NotebookNode, folder: Path) -> tuple[float, float]:
    """The seconds of all, and of the slowest check. Raises nbclient's CellExecutionError where a cell fails that should not."""
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}, store_widget_state=False)
    client.extra_arguments = ["--log-level=ERROR"]  # that loopback is not encrypted is no news here
    began, slowest = time.perf_counter(), 0.0
    with client.setup_kernel(env={**os.environ, "KIT_STRICT": "0"}):
        for i, cell in enumerate(notebook.cells):
            before = time.perf_counter()
            client.execute_cell(cell, i)
            if cell.source.startswith("lab.check("):
                slowest = max(slowest, time.perf_counter() - before)
        return time.perf_counter() - began, slowest
