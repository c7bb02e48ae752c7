"""Save: run a notebook and store what it prints.

What is only true of this run is left out: the widgets' state and views (a fresh page shows their caption instead), times, versions.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebooks() -> list[Path]:
    """The notebooks, in the order of their chapters."""
    return sorted(NOTEBOOKS.rglob("[0-9]*.ipynb"))


def save(path: Path, *, strict: bool = False) -> None:
    """Run one notebook from its first cell to its last; raises nbclient's CellExecutionError where one fails that should not.

    `strict`: where a check that fails is an error, too.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(path.parent)}}, store_widget_state=False)
    client.execute(env={**os.environ, "KIT_STRICT": str(int(strict))})
    clean(notebook)
    nbformat.write(notebook, path)


def clean(notebook: NotebookNode) -> None:
    """Leave out what is only true of one run."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(VIEW, None)
