"""Work: the learner's own copies of the notebooks, and JupyterLab on them.

What a learner has changed is never written over. A copy that nobody touched follows its original; of one that was changed it is said
when its original has changed too. `.originals.json` beside the copies holds the digest of each original as it was copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from kit.whole import write_whole

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
FIRST = "00_start_here.ipynb"
_COPIED = ("*.ipynb", "GLOSSARY.md", "PROJECT.md", "images/**/*", "exercises/**/*", "solutions/**/*", "tapes/*.tape")


class NoNotebooks(Exception):
    """The notebooks are not where the kit is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"there are no notebooks at {folder}: they come with the repository, so clone it and run `make lab` there")


class Copied(NamedTuple):
    """By path in the folder: what is new there, what followed its original, and what was kept though its original has changed."""

    new: list[str]
    updated: list[str]
    kept: list[str]


def copy_notebooks(notebooks: Path, work: Path) -> Copied:
    """Bring `work` up to date without losing anything of the learner's. Raises NoNotebooks."""
    if not (notebooks / FIRST).is_file():
        raise NoNotebooks(notebooks)
    originals, copied = _originals(work), Copied([], [], [])
    for name in _names(notebooks):
        original, copy = notebooks / name, work / name
        now, then = _digest(original), originals.get(name)
        here = _digest(copy) if copy.exists() else None
        if here not in (None, then, now):  # the learner's
            if then != now:
                copied.kept.append(name)
            continue
        if here != now:
            (copied.updated if here else copied.new).append(name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_whole(copy, [original.read_bytes()])  # half of a notebook would be taken for the learner's, and kept
        originals[name] = now
    write_whole(work / ".originals.json", [json.dumps(originals, indent=1).encode()])
    return copied


def trust(copies: Iterable[Path], data: Path | None = None) -> None:
    """Sign notebooks as Jupyter does those that it ran itself: else a panel is not drawn when its page is loaded again, until every cell
    of the notebook has run once (https://jupyter-notebook.readthedocs.io/en/stable/security.html).

    `data`: the folder of Jupyter's that holds its key and the signatures; None: the user's own.
    """
    nbformat: Any = import_module("nbformat")  # here, not above: jupyterlab brings it, and only who opens the notebooks pays for it
    where = {} if data is None else {"data_dir": str(data)}
    with import_module("nbformat.sign").NotebookNotary(**where) as notary:
        for copy in copies:
            notary.sign(nbformat.read(copy, as_version=4))


def _names(notebooks: Path) -> Iterator[str]:
    for pattern in _COPIED:
        files = (path.relative_to(notebooks) for path in sorted(notebooks.glob(pattern)) if path.is_file())
        yield from (file.as_posix() for file in files if not any(part.startswith((".", "__")) for part in file.parts))


def _originals(work: Path) -> dict[str, str]:
    """The digest of each original, as it was when it was copied."""
    try:
        return dict(json.loads((work / ".originals.json").read_bytes()))
    except (OSError, ValueError, TypeError):  # then every difference counts as the learner's own
        return {}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def command(work: Path, more: Sequence[str], *, root: bool) -> list[str]:
    """JupyterLab of this very Python on the first notebook, on loopback only, behind its token; `more` comes last, and so wins."""
    options = ["--ServerApp.ip=127.0.0.1", f"--LabApp.default_url=/lab/tree/{FIRST}"]  # the address that it prints
    options += ["--allow-root"] if root else []  # in a container everybody is
    return [sys.executable, "-m", "jupyterlab", str(work / FIRST), *options, *more]


def settings(env: Mapping[str, str] = os.environ) -> str:
    """`JUPYTER_CONFIG_PATH` with ours: else JupyterLab asks, over the first notebook, whether to fetch news from its makers' site.

    Its option for that, `LabApp.news_url`, says nothing to the page (4.6), which does the asking.
    """
    return os.pathsep.join(filter(None, (env.get("JUPYTER_CONFIG_PATH"), str(Path(__file__).parent / "jupyter"))))


def run(arguments: list[str]) -> int:
    """Become this program. Windows has no exec that keeps the console: there it is run and waited for."""
    os.environ["JUPYTER_CONFIG_PATH"] = settings()
    if os.name != "nt":
        sys.stdout.flush()
        os.execv(arguments[0], arguments)  # noqa: S606  # our own command line, and no shell that could misread it
    return subprocess.call(arguments)  # noqa: S603  # the same


def open_lab(folder: Path | None, more: Sequence[str], *, notebooks: Path = NOTEBOOKS, become: Callable[[list[str]], int] = run) -> int:
    """Copy the notebooks to `folder` (None: `work/` beside them), say what was done, and open them. Raises NoNotebooks."""
    work = (folder or notebooks.parent / "work").absolute()
    copied = copy_notebooks(notebooks, work)
    trust(work / name for name in (*copied.new, *copied.updated) if name.endswith(".ipynb"))
    for count, what in ((len(copied.new), "new"), (len(copied.updated), "brought up to date, as you had not changed them")):
        if count:
            print(f"{work}: {count} {what}")
    if copied.kept:
        print(f"Your changes are kept; there are newer originals of {', '.join(copied.kept)}: rename yours to get them beside it.")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return become(command(work, more, root=root))
