"""`python -m kit lab`: what it copies, what it never touches, and the command it becomes."""

from __future__ import annotations

import ast
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.sign import NotebookNotary

from kit import doctor, work
from kit.__main__ import main
from kit.work import FIRST, NoNotebooks, command, copy_notebooks, open_lab, settings


@pytest.fixture
def notebooks(tmp_path: Path) -> Path:
    """A folder as the repository's: two chapters, an image, a solution, and what must not be copied."""
    folder = tmp_path / "notebooks"
    for name in (
        FIRST,
        "01_upgrade.ipynb",
        "images/map.svg",
        "exercises/chapter_01.py",
        "exercises/__pycache__/x.pyc",
        "solutions/01_upgrade.ipynb",
        ".ipynb_checkpoints/x.ipynb",
        "GLOSSARY.md",
        "README.md",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"original {name}")
    return folder


def test_the_first_time_all_chapters_images_and_solutions_are_copied_and_nothing_else(notebooks: Path, tmp_path: Path) -> None:
    """Checkpoints and other files stay behind."""
    copied = copy_notebooks(notebooks, tmp_path / "work")
    chapter = {"01_upgrade.ipynb", "exercises/chapter_01.py", "solutions/01_upgrade.ipynb"}
    assert set(copied.new) == {FIRST, *chapter, "images/map.svg", "GLOSSARY.md"}
    there = {p.relative_to(tmp_path / "work").as_posix() for p in (tmp_path / "work").rglob("*") if p.is_file()}
    assert there == {*copied.new, ".originals.json"}
    assert (tmp_path / "work" / FIRST).read_text() == f"original {FIRST}"


def test_a_learners_file_is_never_written_over(notebooks: Path, tmp_path: Path) -> None:
    """Run again with nothing new, what was changed stands, and nothing is said of it."""
    copy_notebooks(notebooks, tmp_path / "work")
    (tmp_path / "work" / FIRST).write_text("my answer")
    assert copy_notebooks(notebooks, tmp_path / "work") == ([], [], [])
    assert (tmp_path / "work" / FIRST).read_text() == "my answer"


def test_a_copy_that_was_cut_off_is_no_learners(notebooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full, or the machine went: the next time it is copied again."""
    copy_notebooks(notebooks, tmp_path / "work")
    (notebooks / FIRST).write_text("the next edition")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "the test's disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="full"):
            copy_notebooks(notebooks, tmp_path / "work")
    assert copy_notebooks(notebooks, tmp_path / "work").updated == [FIRST]
    assert (tmp_path / "work" / FIRST).read_text() == "the next edition"


def test_where_both_have_changed_the_learners_file_stays_and_it_is_said_each_time(notebooks: Path, tmp_path: Path) -> None:
    """Once the learner renames it, the new original comes."""
    copy_notebooks(notebooks, tmp_path / "work")
    mine = tmp_path / "work" / FIRST
    mine.write_text("my answer")
    (notebooks / FIRST).write_text("second edition")
    for _ in range(2):
        assert copy_notebooks(notebooks, tmp_path / "work").kept == [FIRST]
        assert mine.read_text() == "my answer"
    mine.rename(mine.with_name("mine.ipynb"))
    assert copy_notebooks(notebooks, tmp_path / "work").new == [FIRST]
    assert mine.read_text() == "second edition"


def test_a_copy_that_nobody_touched_follows_its_original(notebooks: Path, tmp_path: Path) -> None:
    """Nothing is lost by it; a new chapter comes along."""
    copy_notebooks(notebooks, tmp_path / "work")
    (notebooks / FIRST).write_text("second edition")
    (notebooks / "02_auth.ipynb").write_text("new chapter")
    assert copy_notebooks(notebooks, tmp_path / "work") == (["02_auth.ipynb"], [FIRST], [])
    assert (tmp_path / "work" / FIRST).read_text() == "second edition"


@pytest.mark.parametrize("record", [None, "not json", "[1, 2]"])
def test_without_a_readable_record_every_difference_is_the_learners(notebooks: Path, tmp_path: Path, record: str | None) -> None:
    """A `work/` from before, or a broken record, costs nobody their work."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / FIRST).write_text("from long ago")
    if record is not None:
        (tmp_path / "work" / ".originals.json").write_text(record)
    copied = copy_notebooks(notebooks, tmp_path / "work")
    assert copied.kept == [FIRST]
    assert (tmp_path / "work" / FIRST).read_text() == "from long ago"


def test_it_becomes_jupyterlab_on_the_first_notebook_on_loopback_behind_its_token(
    notebooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The options of the command line are passed on, last, so that they win. The copies are signed: a panel comes back with its page."""
    written = {path: nbformat.v4.new_notebook(metadata={"title": path.name}) for path in notebooks.rglob("*.ipynb")}
    for path, notebook in written.items():
        nbformat.write(notebook, path)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    became: list[list[str]] = []
    open_lab(None, ["--no-browser", "--port=8899"], notebooks=notebooks, become=lambda line: became.append(line) or 0)
    (line,) = became
    work = notebooks.parent / "work"
    assert line[:4] == [sys.executable, "-m", "jupyterlab", str(work / FIRST)]
    assert "--ServerApp.ip=127.0.0.1" in line
    assert line[-2:] == ["--no-browser", "--port=8899"]
    assert not re.search("token|password|0[.]0[.]0[.]0", " ".join(line))
    assert "6 new" in capsys.readouterr().out
    signed = {path.name for path in work.rglob("*.ipynb")}
    with NotebookNotary(data_dir=str(tmp_path / "jupyter")) as notary:
        assert signed == {notebook.metadata["title"] for notebook in written.values() if notary.check_signature(notebook)}


@pytest.mark.parametrize("root", [False, True])
def test_root_is_allowed_only_where_one_is_root(root: bool) -> None:
    """In a container everybody is; elsewhere JupyterLab's own warning stands."""
    assert ("--allow-root" in command(Path("w"), (), root=root)) is root


def test_jupyterlab_understands_the_command(notebooks: Path, tmp_path: Path) -> None:
    """Its own parser, with all our options: a misspelt one would be fatal or warned of."""
    copy_notebooks(notebooks, tmp_path / "work")
    line = command(tmp_path / "work", ["--no-browser", "--port=8899", "--show-config-json"], root=True)
    done = subprocess.run(line, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert '"ip": "127.0.0.1"' in done.stdout
    assert '"port": 8899' in done.stdout
    assert "/lab/tree/00_start_here.ipynb" in done.stdout
    assert "WARNING" not in done.stderr.upper()


def test_the_page_does_not_ask_about_news(tmp_path: Path) -> None:
    """By what JupyterLab's server reads for the page; and a learner's own settings stay, and come first."""
    (tmp_path / "labconfig").mkdir()
    (tmp_path / "labconfig" / "page_config.json").write_text('{"disabledExtensions": {"theirs": true}}')
    env = {**os.environ, "JUPYTER_CONFIG_PATH": settings({"JUPYTER_CONFIG_PATH": str(tmp_path)})}
    asked = [sys.executable, "-c", "from jupyterlab_server.config import get_page_config as g; print(g([])['disabledExtensions'])"]
    told = subprocess.run(asked, env=env, capture_output=True, text=True, check=True, timeout=50).stdout
    assert {"theirs", "@jupyterlab/apputils-extension:announcements"} <= set(ast.literal_eval(told))
    assert settings({}) == env["JUPYTER_CONFIG_PATH"].rpartition(os.pathsep)[2]


def test_without_notebooks_it_says_where_they_come_from(tmp_path: Path) -> None:
    """An installed kit has none."""
    with pytest.raises(NoNotebooks, match="clone it"):
        copy_notebooks(tmp_path, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_folder_that_can_not_be_written_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that is full, a checkout of somebody else's: no traceback, and what to do."""
    (tmp_path / "file").write_text("in the way")
    assert main(["lab", "--dir", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert "the notebooks can't be copied" in err
    assert "with --dir" in err


def test_a_broken_environment_is_told_in_the_doctors_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing stops it; what is only inconvenient is said, and JupyterLab opens."""
    opened: list[str] = []
    monkeypatch.setattr(work, "open_lab", lambda *_, **__: opened.append("lab") or 0)
    for fatal, status, open_ in ((True, 1, []), (False, 0, ["lab"])):
        found = [doctor.Check(True, "fine"), doctor.Check(False, "jupyterlab 1.0", "install it", fatal=fatal)]

        async def check_all(_url: str | None = None, found: list[doctor.Check] = found) -> list[doctor.Check]:
            return found

        monkeypatch.setattr(doctor, "check_all", check_all)
        assert main(["lab"]) == status
        assert capsys.readouterr().err == "FAIL  jupyterlab 1.0: install it\n"
        assert opened == open_


def test_other_commands_refuse_what_they_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """Only `lab` passes options on."""
    with pytest.raises(SystemExit):
        main(["doctor", "--sotre", "x"])
    assert "--sotre" in capsys.readouterr().err
