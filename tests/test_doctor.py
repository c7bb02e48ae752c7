"""`python -m kit doctor`: each check on a healthy machine, and with its failure forced."""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import subprocess
import sys
import webbrowser
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from kit import doctor
from kit.doctor import Check


def test_a_result_is_one_line_and_frozen() -> None:
    """OK, or FAIL with the remedy."""
    check = Check(False, "no port", "open one")
    assert str(check) == "FAIL  no port: open one"
    assert str(Check(True, "a port", "unused")) == "OK    a port"
    with pytest.raises(FrozenInstanceError):
        check.ok = True  # type: ignore[misc]


@pytest.mark.parametrize(("version", "ok"), [((3, 10, 13), False), ((3, 11, 0), True), ((3, 13, 1), True), ((4, 0, 0), True)])
def test_python(version: tuple[int, int, int], ok: bool) -> None:
    """Below 3.11 nothing runs."""
    check = doctor.python(version)
    assert check.ok is ok
    assert check.fatal
    assert ".".join(map(str, version)) in str(check)


async def test_on_an_old_python_that_is_all_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks can't be trusted, or not even imported, there."""
    monkeypatch.setattr(doctor, "python", lambda: Check(False, "Python 3.8.0", "make an environment"))
    assert [check.found for check in await doctor.check_all()] == ["Python 3.8.0"]


async def test_where_a_package_is_missing_nothing_is_said_that_would_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines about Python and the packages, and no traceback."""
    monkeypatch.setattr(doctor, "requirements", lambda: ["pytest>=1", "no-such-package>=1"])
    monkeypatch.setitem(sys.modules, "kit.store", None)
    found = [check.found for check in await doctor.check_all()]
    assert len(found) == 3
    assert found[-1] == "no-such-package is not installed"


@pytest.mark.parametrize(
    ("requirement", "version", "ok"),
    [
        ("ipykernel>=7.4,<8", "7.4.0", True),
        ("ipykernel>=7.4,<8", "7.3.9", False),
        ("ipykernel>=7.4,<8", "8.0.0", False),
        ("ipykernel>=7.4,<8", "7.10", True),  # not as strings
        ("ipykernel>=7.4,<8", "7.4", True),
        ("jupyterlab-widgets>=3.0.16,!=3.0.17", "3.0.17", False),
        ("jupyterlab-widgets>=3.0.16,!=3.0.17", "3.0.16", True),
        ("jupyterlab-widgets>=3.0.16,!=3.0.17", "3.0.18", True),
        ("websockets>=17", "17.4", True),
        ("websockets>=17", "17rc1", True),
        ("websockets>=17", "9.9", False),
        ("fakeredis[lua]>=2.40", "2.40.1", True),
        ("fakeredis[lua]>=2.40", "2.39", False),
    ],
)
def test_a_package_is_within_its_bounds(requirement: str, version: str, ok: bool) -> None:
    """The remedy is the command that installs it."""
    asked: list[str] = []
    check = doctor.package(requirement, lambda name: asked.append(name) or version)
    assert check.ok is ok
    assert asked == [Requirement(requirement).name]
    assert version in str(check)
    assert ok or f'pip install "{requirement}"' in str(check)


def test_a_package_that_is_missing_is_fatal() -> None:
    """Its line says how to install it."""

    def nowhere(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    check = doctor.package("msgspec>=0.22", nowhere)
    assert (check.ok, check.fatal) == (False, True)
    assert 'msgspec is not installed: python -m pip install "msgspec>=0.22"' in str(check)


def test_every_dependency_of_the_project_is_asked_for(tmp_path: Path) -> None:
    """Of the checkout; and of the installed kit where there is no checkout."""
    lines = doctor.requirements()
    assert any(line.startswith("websockets>=") for line in lines)
    installed = doctor.requirements(tmp_path / "pyproject.toml")
    project, package = ({(each.name.lower(), *each.extras) for each in map(Requirement, found)} for found in (lines, installed))
    assert project == package


def test_the_kit_must_be_importable_from_a_kernels_folder() -> None:
    """Installed, or on PYTHONPATH; only being in the current folder does not help a kernel."""

    def nowhere(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    assert doctor.kit_for_kernels({}, lambda _: "0.1.0").ok
    assert doctor.kit_for_kernels({"PYTHONPATH": os.pathsep.join(["/x", str(doctor.ROOT)])}, nowhere).ok
    check = doctor.kit_for_kernels({"PYTHONPATH": "."}, nowhere)
    assert not check.ok
    assert "pip install" in check.remedy


def test_loopback() -> None:
    """A port that can't be had is told; 192.0.2.1 is an address that no machine has (RFC 5737)."""
    assert doctor.loopback().ok
    check = doctor.loopback("192.0.2.1")
    assert not check.ok
    assert "192.0.2.1" in check.found
    assert "firewall" in check.remedy


def test_a_port_that_is_taken_is_told_and_is_no_failure() -> None:
    """JupyterLab looks for another by itself."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        check = doctor.port(number)
    assert str(check) == f"OK    port {number} is taken: JupyterLab takes one that is free, and prints it"
    assert str(doctor.port(number)) == f"OK    port {number} is free for JupyterLab"


@pytest.mark.parametrize(
    ("named", "found", "says"),
    [
        ("", "firefox", "OK    a browser opens by itself (firefox)"),
        ("", None, "OK    no browser opens by itself here: open the address that JupyterLab prints in any browser"),
        ("", "w3m", "FAIL  w3m is the only browser here, and runs no scripts: open the address that JupyterLab prints in any browser"),
        ("/no/such-browser %s", "x", "FAIL  BROWSER=/no/such-browser %s, which is not here: unset BROWSER, or open the address"),
        (f"/no/such-browser{os.pathsep}sh -c %s", "sh", "OK    a browser opens by itself (sh)"),
    ],
)
def test_what_shows_jupyterlab(named: str, found: str | None, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server there is none, and none is needed; a variable that leads nowhere, or to a page of text, is told."""

    def get() -> object:
        if found is None:
            raise webbrowser.Error("could not locate runnable browser")
        return SimpleNamespace(name=found)

    monkeypatch.setattr(webbrowser, "get", get)
    assert str(doctor.browser({"BROWSER": named})).startswith(says)


async def test_a_store_that_works(store: str) -> None:
    """In memory and by URL, Lua included."""
    assert str(await doctor.store(store)).startswith("OK")


async def test_nothing_is_left_in_the_store_for_good(real_store_url: str) -> None:
    """Whatever the check wrote goes by itself within seconds."""
    from kit.store import open_store

    await doctor.store(real_store_url)
    async with open_store(real_store_url) as opened:
        keys = await opened.redis.keys("*:doctor-*")
        assert keys
        assert set(await opened.redis.keys("*")) - set(keys) <= {b"{0}:wake", b"{0}:around"}  # each shard's own, and bounded
        assert all([0 < await opened.redis.pttl(key) <= 5000 for key in [*keys, b"{0}:around"]])


async def test_a_store_that_is_not_there_is_told_without_its_password() -> None:
    """The address is shown, what lets one in is not."""
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        check = await doctor.store(f"redis://ann:geheim@127.0.0.1:{port}/0")
    assert not check.ok
    assert f"redis://127.0.0.1:{port}/0" in str(check)
    assert "geheim" not in str(check)


async def test_a_store_that_does_not_answer_is_given_up() -> None:
    """It accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check = await doctor.store(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", patience=0.2)
    assert not check.ok
    assert "no answer within 0.2 s" in check.remedy


@pytest.mark.parametrize("password", ["ab/cd", "ab#cd", "ab?cd", "ab@cd"])
async def test_a_password_that_ends_the_host_is_not_shown(password: str) -> None:
    """Base64 has slashes, and then the rest of it is the path, or the port, for whoever reads the address."""
    check = await doctor.store(f"redis://ann:{password}@127.0.0.1:1/0")
    assert not check.ok
    assert not {"ab", "cd"} & set(re.findall(r"\w+", str(check)))


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "no url", "redis://127.0.0.1:notaport/0", ""])
async def test_an_address_that_is_none(url: str) -> None:
    """It is told, not a traceback."""
    check = await doctor.store(url)
    assert not check.ok
    assert "correct the address" in check.remedy


async def test_a_store_that_is_too_old_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own sentence, with the address as it may be shown."""
    from kit import store as kit_store

    def too_old(url: str) -> None:
        raise kit_store.StoreTooOld(url, "6.2.1")

    monkeypatch.setattr(kit_store, "open_store", too_old)
    check = await doctor.store("redis://:geheim@127.0.0.1:6379/0")
    assert not check.ok
    assert "6.2.1" in check.remedy
    assert "geheim" not in str(check)


@pytest.mark.parametrize(
    ("env", "ok", "says"),
    [
        ({}, True, "no proxy"),
        ({"NO_PROXY": "example.org"}, True, "no proxy"),
        ({"http_proxy": ""}, True, "no proxy"),
        ({"http_proxy": "http://p:3128"}, False, "NO_PROXY=127.0.0.1,localhost"),
        ({"ALL_PROXY": "socks5://p:1", "NO_PROXY": "example.org,localhost"}, False, "NO_PROXY=example.org,localhost,127.0.0.1"),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": "127.0.0.1, localhost"}, True, "loopback excluded"),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": "*"}, True, "loopback excluded"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "127.0.0.0/8,localhost"}, False, "127.0.0.1"),  # urllib knows no networks
    ],
)
def test_proxy_variables_must_exclude_loopback(env: dict[str, str], ok: bool, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy keeps what was excluded before."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    check = doctor.proxy()
    assert check.ok is ok
    assert says in str(check)
    assert "3128" not in str(check)


@pytest.mark.parametrize(
    ("key", "ok"),
    [
        (None, True),
        ("", True),
        ("  ", True),
        ("sk-abc123", True),
        (" sk-abc123\n", True),
        ("sk-abc 123", False),
        ('"sk-abc123"', False),
        ("sk-äbc", False),
    ],
)
def test_a_key_is_looked_at_and_never_printed(key: str | None, ok: bool) -> None:
    """A space around it is taken off by whoever uses it; one inside is a copying mistake."""
    check = doctor.api_key({} if key is None else {"OPENAI_API_KEY": key})
    assert check.ok is ok
    assert "sk-" not in str(check)


def test_the_program_says_a_line_a_check_and_fails_if_one_does() -> None:
    """As a process: here all is well but for what is forced."""
    run = [sys.executable, "-m", "kit", "doctor"]
    env = {
        **os.environ,
        "OPENAI_API_KEY": "",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "BROWSER": "sh",
    }
    well = subprocess.run(run, env=env, cwd=doctor.ROOT, capture_output=True, text=True, timeout=30)
    assert all(line.startswith("OK    ") for line in well.stdout.splitlines()), well.stdout
    assert (well.returncode, well.stderr) == (0, "")
    assert len(well.stdout.splitlines()) >= 20
    ill = subprocess.run(run, env={**env, "OPENAI_API_KEY": "geheim geheim"}, cwd=doctor.ROOT, capture_output=True, text=True, timeout=30)
    assert ill.returncode == 1
    (failed,) = [line for line in ill.stdout.splitlines() if line.startswith("FAIL")]
    assert failed.startswith("FAIL  OPENAI_API_KEY is set: The API key holds a space")
