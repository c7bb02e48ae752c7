"""Build the notebooks: `python -m tests.notebooks.build [name ...]`.

What is edited is `solutions/NN_name.ipynb`, where the exercises are filled in. It is run strictly: a check that fails, fails the build.
From it the learner's `NN_name.ipynb` is made, with stubs, and run. A notebook without exercises has no solution beside it: it is edited
where it is.

An exercise is a cell whose first line is `# exercise 1.1`. What stands below its line `# solution: ...`, to `# end` or the end of the cell,
is left out of the learner's copy: `...  # your turn: ...` stands there instead.
"""

from __future__ import annotations

import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tests.notebooks.save import METADATA, NOTEBOOKS, ROOT, save

SOLUTIONS = NOTEBOOKS / "solutions"
EXERCISE = re.compile(r"# exercise (\d+\.\d+)\n")
SOLUTION = re.compile(r"^(?P<indent> *)# solution: *(?P<asked>\S.*)\n(?:.*\n)*?(?:(?P=indent)# end(?:\n|\Z)|\Z)", re.MULTILINE)


class NoSolution(Exception):
    """An exercise without anything to leave out."""

    def __init__(self, number: str) -> None:
        super().__init__(f"exercise {number} has no line `# solution: what is asked for`, with the solution below it")


def number_of(source: str) -> str | None:
    """The number of the exercise that a cell is."""
    found = EXERCISE.match(source)
    return found[1] if found else None


def stub(source: str) -> str:
    """An exercise's cell as the learner gets it; raises NoSolution."""
    left, count = SOLUTION.subn(r"\g<indent>...  # your turn: \g<asked>\n", source + "\n")
    if not count:
        raise NoSolution(str(number_of(source)))
    return left.rstrip("\n")


def learners(solution: NotebookNode) -> NotebookNode:
    """The learner's notebook, not run yet."""
    made = deepcopy(solution)
    made.metadata = nbformat.from_dict(METADATA)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if number_of(cell.source):
                cell.source = stub(cell.source)
    return made


def text_of(notebook: NotebookNode) -> list[tuple[Any, ...]]:
    """What a notebook says, without what it printed."""
    return [(cell.id, cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def build(path: Path) -> None:
    """Run a solution, make the learner's copy, run that."""
    save(path, strict=True)
    made = learners(nbformat.read(path, as_version=4))
    copy = NOTEBOOKS / path.name
    nbformat.write(made, copy)
    save(copy)


def main(names: list[str]) -> None:
    solved = {path.name for path in SOLUTIONS.glob("*.ipynb")}
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")) + sorted(SOLUTIONS.glob("[0-9]*.ipynb")):
        if (not names or path.stem in names) and (path.parent == SOLUTIONS or path.name not in solved):
            print(f"building {path.relative_to(ROOT)}")
            if path.parent == SOLUTIONS:
                build(path)
            else:
                save(path)


if __name__ == "__main__":
    main(sys.argv[1:])
