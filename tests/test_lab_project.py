"""Project: the few files around one's own agent, written to an empty folder, started as a platform does, talked to from a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kit.__main__ import main
from kit.lab.project import project, write
from tests.promises.support import Judge, count, read_log, said
from tests.started import Project, started

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with the project in it."""
    write(tmp_path)
    return tmp_path


# ---- a person at a terminal ----


class Terminal:
    """`python -m kit chat`, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.screen, self._read = process, "", 0

    def type(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())

    async def shows(self, piece: str) -> None:
        """Wait until the screen shows it, behind what was waited for before; raises EOFError where the program ends instead."""
        assert self.process.stdout
        while (at := self.screen.find(piece, self._read)) < 0:
            more = await self.process.stdout.read(4096)
            if not more:
                raise EOFError(f"{piece!r} was never shown: {self.screen!r}")
            self.screen += more.decode()
        self._read = at + len(piece)

    @property
    def counted(self) -> str:
        """What the agent has said on this screen."""
        return re.sub(r"\s+", " ", "".join(re.findall(r"• content agent: ([\d\s]*)", self.screen)))


@asynccontextmanager
async def terminal(here: Project, state: Path) -> AsyncIterator[Terminal]:
    command = [sys.executable, "-m", "kit", "chat", here.url, "--session", "s", "--state", str(state)]
    environment = {**os.environ, "KIT_TOKEN": here.token("ann")}
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT, env=environment)
    try:
        yield Terminal(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_from_an_empty_folder_to_an_answer_that_is_stopped_and_one_that_is_resumed(
    folder: Path, tmp_path: Path, real_store_url: str
) -> None:
    """Stopped in mid-answer; then the terminal is left in mid-answer, and another one goes on where the first one was."""
    state = tmp_path / "chat.json"
    async with started(folder, store=real_store_url) as here:
        async with terminal(here, state) as ann:
            ann.type("go")
            await ann.shows(" 20 ")
            ann.type("/stop")
            await ann.shows("stopped")
            ann.type("again")
            await ann.shows("again? I count.")
            await ann.shows(" 20 ")
            ann.type("/quit")
            assert await ann.process.wait() == 0
        async with terminal(here, state) as ann:
            await ann.shows("200 \n■ end")
            assert "again? I count." in ann.screen, "it is drawn from its prompt on"
            assert "go? I count." not in ann.screen, "what had ended is not drawn again"
            assert ann.counted == count(200)
        log = await read_log(real_store_url, "s")
        Judge(log)
        assert said(log, "1-0/agent").startswith("go? I count.1 2 3 ")
        assert said(log, "3-0/agent") == f"again? I count.{count(200)}"
        assert await here.leave() in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it was sent
        assert "Application shutdown complete" in here.log


# ---- the files ----


STRANGERS = """
import asyncio, importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(name)

absent = set(sys.argv[1].split(","))
for name in [name for name in sys.modules if name.partition(".")[0] in absent]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())
import app, kit, uvicorn.config

async def main():
    uvicorn.config.Config(app.app).load()
    async with app.app.running():
        print(kit.__file__)

asyncio.run(main())
"""
"""The application is opened where these packages are not there."""


def test_the_requirements_are_all_that_an_instance_needs(folder: Path, real_store_url: str) -> None:
    """It runs, on a real store, where of all that is installed here only what requirements.txt brings can be imported."""
    wanted = closure((folder / "requirements.txt").read_text().splitlines())
    homes = {name: {home.lower().replace("_", "-") for home in found} for name, found in metadata.packages_distributions().items()}
    absent = {name for name, found in homes.items() if not found & wanted} - {"kit"}
    assert {"jupyterlab", "fakeredis", "openai", "pytest"} <= absent
    environment = {**os.environ, "REDIS_URL": real_store_url, "KIT_SECRET": "s" * 32}
    command = [sys.executable, "-c", STRANGERS, ",".join(absent)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(folder), "it is the kit in the folder that runs"


def closure(lines: list[str]) -> set[str]:
    """The distributions that come with these requirements."""
    found, todo = set[str](), [Requirement(line) for line in lines if not line.startswith("#")]
    while todo:
        one = todo.pop()
        name = one.name.lower().replace("_", "-")
        if name in found and not one.extras:
            continue
        found.add(name)
        try:
            more = metadata.requires(one.name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        for requirement in map(Requirement, more):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (one.extras or {""})):
                todo.append(requirement)
    return found


def test_the_files_of_the_platforms_agree_with_the_application() -> None:
    """Vercel finds `app` in app.py, and the kit sends people away before it does."""
    files = project()
    assert set(files) == {"agent.py", "app.py", "requirements.txt", "Procfile", "vercel.json"}
    vercel = json.loads(files["vercel.json"])
    (seconds,) = {entry["maxDuration"] for name, entry in vercel["functions"].items() if name == "app.py"}
    assert re.search(r"^app = ", files["app.py"], re.MULTILINE)
    assert int(re.findall(r"max_duration=(\d+) if", files["app.py"])[0]) < seconds
    assert "uvicorn app:app" in files["Procfile"]
    assert max(len(text.splitlines()) for text in files.values()) < 25


async def test_a_project_that_cannot_start_says_why(folder: Path) -> None:
    """No store there: the start ends with the reason in what it printed."""
    with pytest.raises(RuntimeError, match=r"Connection refused|Connect call failed"):
        async with started(folder, store="redis://127.0.0.1:1/0"):
            pass


def test_a_new_project_is_written_by_a_command_and_over_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into a folder that is made for it; where one of its names is taken, nothing at all is written."""
    folder = tmp_path / "one" / "mine"
    assert main(["new", str(folder)]) == 0
    assert "kit chat --agent agent:agent" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {*project(), "kit"}
    (folder / "agent.py").write_text("mine")
    (folder / "app.py").unlink()
    assert main(["new", str(folder)]) == 2
    assert "has agent.py and requirements.txt" in (told := capsys.readouterr().err)
    assert "name another folder" in told
    assert (folder / "agent.py").read_text() == "mine"
    assert not (folder / "app.py").exists()


def test_an_agent_on_a_model_needs_the_client_of_its_provider() -> None:
    on_a_model = project("from kit.agents.openai import openai_agent\n\nagent = openai_agent()\n")["requirements.txt"].splitlines()
    assert [line for line in on_a_model if line.startswith("openai")]
    assert not [line for line in project()["requirements.txt"].splitlines() if line.startswith("openai")]
