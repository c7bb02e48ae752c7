"""The project's files agree with each other: pyproject.toml, the locks, environment.yml, the Makefile and the wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"]]
FOR_LOCAL = [Requirement(line) for line in PYPROJECT["dependency-groups"]["local"]]
FOR_TESTS = [Requirement(line) for line in PROJECT["optional-dependencies"]["test"]]
TESTED = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]


def _lock(name: str) -> dict[str, Requirement]:
    """Package name -> its line; a package that stands twice would be pinned differently for different people."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    pins: dict[str, Requirement] = {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}
    assert len(pins) == len(lines)
    return pins


LOCK = _lock("requirements.lock")
TEST_LOCK = _lock("requirements-test.lock")
LOCAL_LOCK = _lock("requirements-local.lock")


def _pin(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def _files(*patterns: str) -> Iterator[Path]:
    """What is in the repository, or about to be: not what .gitignore names."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return (path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file())


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [(LOCK, DIRECT), (TEST_LOCK, DIRECT + FOR_TESTS), (LOCAL_LOCK, FOR_LOCAL)],
    ids=["requirements", "requirements-test", "requirements-local"],
)
def test_every_direct_dependency_is_pinned_within_its_range(lock: dict[str, Requirement], wanted: list[Requirement]) -> None:
    """`make lock` was run after pyproject.toml was changed."""
    for requirement in wanted:
        assert _pin(lock[canonicalize_name(requirement.name)]) in requirement.specifier, requirement


def test_every_direct_dependency_has_a_lower_bound() -> None:
    """Without one, pip may resolve to a version that nobody has tried."""
    assert [str(r) for r in DIRECT + FOR_TESTS + FOR_LOCAL if not any(s.operator == ">=" for s in r.specifier)] == []


def test_the_tests_lock_holds_the_other_with_the_same_pins() -> None:
    """What is tested is what a learner gets."""
    assert {name: _pin(pin) for name, pin in LOCK.items()}.items() <= {name: _pin(pin) for name, pin in TEST_LOCK.items()}.items()


def test_the_local_model_is_pinned_alone_and_comes_with_nothing_else() -> None:
    """Its lock is installed without dependencies, only on request, and nothing that everybody gets asks for it."""
    assert set(LOCAL_LOCK) == {canonicalize_name(r.name) for r in FOR_LOCAL}
    assert not set(LOCAL_LOCK) & set(TEST_LOCK)
    assert not re.search(r"--|://|@|file:|/", "\n".join(map(str, LOCAL_LOCK.values())))


def test_what_runs_the_tests_is_what_is_locked() -> None:
    """The environment that this runs in holds the pinned versions, so a green run says something about the lock."""
    here = {name: _pin(pin) for name, pin in TEST_LOCK.items() if not pin.marker or pin.marker.evaluate()}
    assert {name: version(name) for name in here} == here


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-test.lock"])
def test_a_lock_is_for_every_platform_and_every_index(name: str) -> None:
    """Markers instead of a lock per platform; no address, no path, no hash (a mirror's files may have others)."""
    text = (ROOT / name).read_text()
    assert re.search(r"^colorama==\S+ ; sys_platform == 'win32'$", text, re.MULTILINE)
    assert re.search(r"^appnope==\S+ ; sys_platform == 'darwin'$", text, re.MULTILINE)
    assert not re.search(r"--|://|@|file:|/", text)


def test_no_project_file_names_an_index() -> None:
    """Where packages come from is each machine's own business."""
    for path in _files("*.toml", "*.lock", "*.yml", "*.yaml", "*.cfg", "Makefile", ".ci/*"):
        assert not re.search(r"index-url =|find-links =|/simple\b|://(?!keepachangelog|semver)\S*pypi", path.read_text()), path


def test_environment_yml_installs_the_lock_and_the_project() -> None:
    """Conda brings Python and pip; everything else is pip's and pinned."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert (pip, packages) == ("pip", {"pip": ["-r requirements.lock", "-e ."]})
    above = f"3.{int(TESTED[-1].split('.')[1]) + 1}"
    assert Requirement(python).specifier == SpecifierSet(f">={TESTED[0]},<{above}")


def test_python_versions_agree() -> None:
    """The lower bound, the tested versions, and what the tools take as the oldest."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    oldest = TESTED[0]
    assert PROJECT["requires-python"] == f">={oldest}"
    assert tools["mypy"]["python_version"] == oldest
    assert tools["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    makefile = (ROOT / "Makefile").read_text()
    assert f"--python-version {oldest} " in makefile
    assert f"for version in {' '.join(TESTED)};" in makefile
    assert f'tested="{" ".join(reversed(TESTED))}"' in (ROOT / ".ci/find-python").read_text()


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "notebooks/images").iterdir()}
    assert {name: size for name, size in sizes.items() if size > 300_000} == {}
    assert len(sizes) == 3


def test_the_wheel_carries_all_of_the_kit(tmp_path: Path) -> None:
    """The widgets' JavaScript, styles and page too: a wheel without them installs well and shows an empty panel."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert carried == {path.relative_to(ROOT).as_posix() for path in _files("kit")}


def test_find_python_refuses_an_old_python_in_a_clear_sentence(tmp_path: Path) -> None:
    """The first thing that goes wrong on a learner's machine."""
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\necho "$0 is Python 3.9" >&2\nexit 1\n')
    old.chmod(0o755)
    for name in ("python3.11", "python3.12", "python3.13"):
        (tmp_path / name).symlink_to(old)
    environment = {"PATH": f"{tmp_path}:/bin:/usr/bin", "HOME": str(tmp_path)}
    done = subprocess.run([ROOT / ".ci/find-python"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert not done.stdout
    assert "This needs Python 3.11, 3.12 or 3.13, and none was found." in done.stderr
    assert f"python3: {old} is Python 3.9" in done.stderr
    assert "make lab PYTHON=/path/to/python3.13" in done.stderr


def test_find_python_passes_over_a_shim_that_refuses(tmp_path: Path) -> None:
    """A version manager puts `python3.12` on PATH for a version that is not switched on."""
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    oldest = tmp_path / f"python{TESTED[0]}"
    oldest.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    oldest.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/bin:/usr/bin", "HOME": str(tmp_path)}
    done = subprocess.run([ROOT / ".ci/find-python"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


def test_the_pre_commit_hooks_fetch_nothing() -> None:
    """They run what is in .venv."""
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in configuration["repos"] if repo["repo"] == "local" for hook in repo["hooks"]]
    assert [repo["repo"] for repo in configuration["repos"]] == ["local"]
    assert {hook["language"] for hook in hooks} == {"system"}


def test_the_licence_is_the_one_that_is_declared() -> None:
    """MIT, and nobody is left out."""
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License\n")
    assert "Copyright (c) 2026 Tokens on the wire contributors" in text
    assert (PROJECT["license"], PROJECT["license-files"]) == ("MIT", ["LICENSE"])


def test_the_workflow_runs_what_make_test_does_on_each_python() -> None:
    """Linux and macOS; it may read the repository, and nothing else."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"] == {"os": ["ubuntu-latest", "macos-latest"], "python": TESTED}
    assert job["steps"][-1] == {"run": "make test PYTHON=python"}
    assert workflow["permissions"] == {"contents": "read"}


def test_what_the_contributors_page_names_is_there() -> None:
    """Each target of make, and each file, but for those that stand for one (`NN_name`)."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    targets = {*re.findall(r"`make (\w+)`", page)}
    assert targets >= {"check", "test", "lock"}
    assert [name for name in targets if not re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)] == []
    named = {name for name in re.findall(r"[\w./-]+\.(?:py|md|yml|toml)\b", page) if "NN" not in name}
    assert len(named) > 12
    assert [name for name in sorted(named) if not ((ROOT / name).exists() or (ROOT / "kit" / name).exists())] == []
