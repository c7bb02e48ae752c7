"""Graduation: a cell headed `# kit/turn.py` holds what stands in the kit, so that a lesson and the kit cannot drift apart.

Compared are syntax trees. Docstrings, comments and layout do not count: a lesson's are for a first reading. Names, annotations, defaults
and decorators do.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from tests.notebooks.chapters import chapters, code
from tests.notebooks.save import ROOT

HEAD = re.compile(r"# (kit/[\w/]+\.py)\s*$", re.MULTILINE)

TAUGHT: dict[str, dict[str, list[str]]] = {
    "02": {"kit/auth.py": ["read_token"], "kit/lab/attacks.py": ["read_naively"]},
    "03": {"kit/packets.py": ["Thought"]},
    "04": {"kit/ending.py": ["end"]},
    "05": {"kit/store.py": ["is_refused_id"]},
    "06": {"kit/client.py": ["Backoff"]},
    "07": {"kit/room.py": ["_MENTION", "addressed"]},
    "08": {"kit/agents/answer.py": ["Echo"]},
    "09": {"kit/lab/events.py": ["event"]},
}
"""By chapter and file the functions, classes and constants that it teaches whole: `{"02": {"kit/auth.py": ["Refused"]}}`."""


def named(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What statements define at their top level, by name: functions, classes, constants. The last one of a name counts."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
    return found


def bare(node: ast.stmt) -> str:
    """A definition as a tree without docstrings, here or in what it holds."""
    copy = ast.parse(ast.unparse(node))
    for each in ast.walk(copy):
        match each:
            case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body) | ast.ClassDef(body=body) if (
                ast.get_docstring(each) is not None
            ):
                each.body = body[1:] or [ast.Pass()]
    return ast.dump(copy)


def headed(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """The file and the source of each cell that claims to be the kit's, by its first line (or its second, below `# exercise 1.1`)."""
    for source in code(notebook):
        lines = [line for line in source.splitlines()[:2] if line.startswith("# ")]
        if found := next(filter(None, map(HEAD.fullmatch, lines)), None):
            yield found[1], source


def faults(notebook: NotebookNode, taught: Mapping[str, list[str]], root: Path = ROOT) -> Iterator[str]:
    """What is wrong with a chapter's headed cells, each in a sentence."""
    shown: set[tuple[str, str]] = set()
    for file, source in headed(notebook):
        if not (root / file).is_file():
            yield f"there is no {file}"
            continue
        kits, here = named(ast.parse((root / file).read_text("utf-8")).body), named(ast.parse(source).body)
        if not here:
            yield f"a cell headed {file} defines nothing: {source[:60]!r}"
        for name, node in here.items():
            shown.add((file, name))
            if name not in kits:
                yield f"{file} has no {name}"
            elif bare(node) != bare(kits[name]):
                yield f"{name} differs from the one in {file}"
    wanted = {(file, name) for file, names in taught.items() for name in names}
    yield from (f"{name} of {file} is to be taught, and no headed cell has it" for file, name in sorted(wanted - shown))
    yield from (f"{name} of {file} is shown, and not in the list of what is taught" for file, name in sorted(shown - wanted))


def test_every_chapter_teaches_what_the_kit_does() -> None:
    """By chapter, all that differs."""
    assert {number: wrong for number, notebook in chapters().items() if (wrong := list(faults(notebook, TAUGHT.get(number, {}))))} == {}


def test_what_is_listed_belongs_to_a_chapter() -> None:
    """A typo in the list would ask nothing of anybody."""
    assert set(TAUGHT) <= set(chapters())


# ---- the test itself ----

KIT = '''
"""Turn: a file of the kit."""
LIMIT = 3

def f(a: int, b: int = LIMIT) -> int:
    """What it does, at length."""
    # why
    return a + b

class G:
    """A class."""
    def h(self) -> None:
        """Nothing."""
'''
SAME = "# kit/turn.py\ndef f(a: int, b: int = LIMIT) -> int:\n    return (a + b)"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit/turn.py").write_text(KIT)
    return tmp_path


def judged(root: Path, *sources: str, taught: tuple[str, ...] = ("f",)) -> list[str]:
    return list(faults(new_notebook(cells=[new_code_cell(source) for source in sources]), {"kit/turn.py": list(taught)}, root))


def test_docstrings_comments_and_layout_do_not_count(root: Path) -> None:
    """Nor does an earlier draft without the head."""
    assert judged(root, "def f(a): ...", SAME) == []
    assert judged(root, f"# exercise 1.1\n{SAME}") == []
    assert judged(root, "# kit/turn.py\nclass G:\n    def h(self) -> None:\n        '''Other words.'''", taught=("G",)) == []
    assert judged(root, "# kit/turn.py\nLIMIT = 3", taught=("LIMIT",)) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (SAME.replace("a + b", "b + a"), "f differs from the one in kit/turn.py"),
        (SAME.replace(" -> int", ""), "f differs from the one in kit/turn.py"),
        (SAME.replace("= LIMIT", "= 3"), "f differs from the one in kit/turn.py"),
        (SAME.replace("def f", "async def f"), "f differs from the one in kit/turn.py"),
        ("# kit/turn.py\nf(1)", "a cell headed kit/turn.py defines nothing: '# kit/turn.py\\nf(1)'"),
        (f"{SAME}\n\ndef extra():\n    pass", "kit/turn.py has no extra"),
        (SAME.replace("turn", "gone"), "there is no kit/gone.py"),
        ("f(1)", "f of kit/turn.py is to be taught, and no headed cell has it"),
        (f"{SAME}\n\nLIMIT = 3", "LIMIT of kit/turn.py is shown, and not in the list of what is taught"),
    ],
)
def test_a_difference_is_named(root: Path, source: str, fault: str) -> None:
    """Each by itself."""
    assert fault in judged(root, source)
