"""A missing browser or Redis is installed where that needs no password, and otherwise told with the command; never skipped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.prerequisites import CHROMIUM, MissingProgram, Program, redis_server

FLUX = Program("a flux capacitor", lambda: shutil.which("flux"), apt="flux-server", brew="--cask flux")


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose `apt-get install -y flux-server` makes `flux` appear on PATH; its calls are in the file `calls`."""
    body = 'cd "$(dirname "$0")"; echo "$@" >> calls; [ "$1" = update ] || { touch flux; chmod +x flux; }'
    _script(tmp_path / "apt-get", body)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_root_on_debian_installs_what_is_missing(debian: Path) -> None:
    """With a fresh list of packages: an image that was built long ago knows only versions that are gone."""
    assert FLUX.install()
    assert (debian / "calls").read_text() == "update\ninstall -y flux-server\n"
    assert FLUX.path() == str(debian / "flux")


def test_without_root_nothing_is_installed(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests ask nobody for a password."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not FLUX.install()
    assert not (debian / "calls").exists()


def test_an_installation_that_fails_is_no_success(debian: Path) -> None:
    """As without a network."""
    _script(debian / "apt-get", "exit 100")
    assert not FLUX.install()


def test_a_missing_program_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian's where there is no other."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match=r"the tests need a flux capacitor, and there is none\. Install it: "):
        FLUX.path()
    assert FLUX.remedy("darwin") == "brew install --cask flux"
    assert FLUX.remedy("linux").startswith("sudo apt-get install -y flux-server")


def test_a_named_chromium_that_is_not_there_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who sets CHROMIUM means it."""
    named = tmp_path / "chromium"
    monkeypatch.setenv("CHROMIUM", str(named))
    with pytest.raises(MissingProgram, match="CHROMIUM"):
        CHROMIUM.path()
    _script(named, "")
    assert CHROMIUM.path() == str(named)


def test_the_redis_server_is_a_program_that_runs() -> None:
    """Wherever it was found."""
    assert os.access(redis_server(), os.X_OK)
