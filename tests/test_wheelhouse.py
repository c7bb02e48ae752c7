"""`make wheelhouse`: which wheels it takes for which machine, and what make asks of uv and pip where there is one.

That such a folder sets a machine up, with uv and with pip, and that every notebook runs there, is what `make test-offline` proves.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
LOCK = """# of one line for each marker that the locks know
pure==1.0
appnope==1.0 ; sys_platform == 'darwin'
colorama==1.0 ; sys_platform == 'win32'
pexpect==1.0 ; sys_platform != 'emscripten' and sys_platform != 'win32'
pywinpty==1.0 ; os_name == 'nt'
timeout==1.0 ; python_full_version < '3.11.3'
overrides==1.0 ; python_full_version < '3.12'
jsfetch==1.0 ; python_full_version >= '3.12' and sys_platform == 'emscripten'
pycparser==1.0 ; implementation_name != 'PyPy'
"""


@pytest.fixture(scope="module")
def wheelhouse() -> ModuleType:
    """The script, which is no module of the kit."""
    spec = importlib.util.spec_from_file_location("wheelhouse", ROOT / ".ci" / "wheelhouse.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("platform", "python", "beside"),
    [
        ("linux-x86_64", "3.11", {"pexpect", "timeout", "overrides"}),  # whether it is 3.11.2 or 3.11.9 there, nobody knows here
        ("linux-aarch64", "3.12", {"pexpect"}),
        ("macos-arm64", "3.13", {"appnope", "pexpect"}),
        ("windows-amd64", "3.11", {"colorama", "pywinpty", "timeout", "overrides"}),
    ],
)
def test_markers_are_judged_for_the_machine_that_is_set_up(wheelhouse: ModuleType, platform: str, python: str, beside: set[str]) -> None:
    """Not for the one that fills the folder, as pip does it."""
    assert set(wheelhouse.wanted(LOCK, python, platform)) == {f"{name}==1.0" for name in {"pure", "pycparser", *beside}}


def test_for_this_machine_it_is_what_is_installed_here(wheelhouse: ModuleType) -> None:
    """But for what another patch release of this Python would need."""
    lines = wheelhouse.wanted((ROOT / "requirements-test.lock").read_text(), "{}.{}".format(*sys.version_info), None)
    missing = {name for line in lines if not [*Distribution.discover(name=(name := line.split("==")[0]))]}
    assert missing <= {"async-timeout"}


def wheel(index: Path, name: str, tag: str = "py3-none-any", version: str = "1.0") -> None:
    """A package without anything in it, as an index would have it."""
    with zipfile.ZipFile(index / f"{name}-{version}-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{name}-{version}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")


def fill(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script against the wheels in `folder`/index and the lock in `folder`."""
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "index"), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, ROOT / ".ci" / "wheelhouse.py", "--lock", folder / "lock", *options, folder / "wheels", "uv==1.0"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """All that a lock of three lines and a checkout need, for some machines."""
    index = tmp_path / "index"
    index.mkdir()
    (tmp_path / "lock").write_text("pure==1.0\nnative==1.0\ncolorama==1.0 ; sys_platform == 'win32'\n")
    for name in ("pure", "colorama", "uv"):
        wheel(index, name)
    for tag in ("cp312-manylinux_2_27_aarch64", "cp312-win_amd64", "cp313-win_amd64"):
        wheel(index, "native", f"{tag[:5]}-{tag}")
    (hatchling,) = re.findall("^hatchling==(.*)$", (ROOT / "requirements-test.lock").read_text(), re.MULTILINE)
    wheel(index, "hatchling", version=hatchling)
    wheel(index, "editables", version="0.5")
    return tmp_path


def test_a_named_machine_and_python_gets_its_own_wheels(index: Path) -> None:
    """And what builds the checkout in place; nothing for machines that were not named."""
    done = fill(index, "--platforms", "windows-amd64", "--pythons", "3.12")
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.name for path in (index / "wheels").iterdir()}
    ours = {"pure-1.0-py3-none-any.whl", "colorama-1.0-py3-none-any.whl", "uv-1.0-py3-none-any.whl", "native-1.0-cp312-cp312-win_amd64.whl"}
    assert {name for name in names if not re.match("hatchling|editables", name)} == ours
    assert f"holds {len(ours) + 2} wheels" in done.stdout
    assert "make lab WHEELHOUSE=" in done.stdout


def test_what_has_no_wheel_is_named_with_its_machine(index: Path) -> None:
    """A folder that does not do must not be carried there."""
    done = fill(index, "--platforms", "macos-arm64", "--pythons", "3.12")
    assert done.returncode == 1
    assert "No matching distribution found for native==1.0" in done.stderr
    assert "For macos-arm64, Python 3.12 a wheel is missing" in done.stderr


def test_a_platform_that_is_unknown_is_told_with_those_that_are_known(index: Path) -> None:
    """As `PLATFORMS=`, which is what was typed."""
    done = fill(index, "--platforms", "linux-x86_64 amiga")
    assert done.returncode == 2
    assert "PLATFORMS: amiga unknown; there are linux-x86_64, linux-aarch64, macos-arm64, windows-amd64" in done.stderr


# ---- what make asks of uv and pip ----

PROGRAM = """#!/bin/sh
[ "$1" != -c ] || {{ echo works; exit 0; }}
echo "$(basename "$0") $*" >> "{log}"
case "$*" in *uv==*) [ ! -e "{log}.uv" ] || cp "$0" "$(dirname "$0")/uv";; esac
case "$(basename "$0") $*" in *uv==*) test -e "{log}.uv";; {works}) true;; *) false;; esac
"""


def asked(tmp_path: Path, works: str, *options: str, uv: bool = True) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """What `make .venv/.test` runs where the commands like `works` succeed, and how it ends. uv: whether pip can get it."""
    for name in ("Makefile", "pyproject.toml", "requirements-test.lock"):
        shutil.copy(ROOT / name, tmp_path)
    log, program = tmp_path / "log", tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(log=log, works=works))
    program.chmod(0o755)
    (tmp_path / ".venv" / ".made").write_text(f"{tmp_path}\n")
    if uv:
        (tmp_path / "log.uv").touch()
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # what the make that runs these tests was told
    done = subprocess.run(["make", ".venv/.test", *options], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30)
    return log.read_text().splitlines(), done


def test_with_a_wheelhouse_neither_uv_nor_pip_asks_an_index(tmp_path: Path) -> None:
    """Each of the commands, the fallback too, reads that folder and nothing else."""
    lines, done = asked(tmp_path, "python*install*-e*", "WHEELHOUSE=some folder")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:3] for line in lines] == [["python", "-m", "pip"], ["uv", "pip", "install"], ["python", "-m", "pip"]]
    assert all("--no-index --find-links some folder" in line for line in lines)


def test_without_one_the_machines_own_configuration_stands(tmp_path: Path) -> None:
    """No option about where packages come from."""
    lines, done = asked(tmp_path, "uv*")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in lines] == ["python", "uv"]
    assert not re.search("index|find-links", " ".join(lines))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], r"Is there a network\?.*make lab WHEELHOUSE=wheelhouse"),
        (["WHEELHOUSE=wheels"], r"wheels was made for another platform or Python, or from an older lock: make wheelhouse again"),
    ],
    ids=["no network", "a wheelhouse that does not do"],
)
def test_what_can_not_be_installed_says_what_to_do(tmp_path: Path, options: list[str], says: str) -> None:
    """Pip is tried where uv can't even be had; then make ends, and the next run tries again."""
    lines, done = asked(tmp_path, "nothing", *options, uv=False)
    assert [line.split()[0] for line in lines] == ["python", "python"]
    assert done.returncode != 0
    assert re.search(says, " ".join(done.stderr.split()))
    assert not (tmp_path / ".venv" / ".test").exists()
