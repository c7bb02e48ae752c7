"""Started: a project that kit/lab/project.py wrote, started as a platform starts it.

    write(folder)
    async with started(folder, store="redis://127.0.0.1:6379/0", workers=4) as project:
        async with connect(project.url, token=project.token("ann"), session="demo") as session:
            await session.prompt("go")

What starts is the start line of the Procfile, with the environment that a platform gives: nothing is there for the test alone.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from kit.auth import ANY_SESSION, Door

_ADDRESS = r"[Rr]unning on http://(\S+)"


class Project:
    """A project that runs: its `url`, its `process`, and what that printed (`log`)."""

    def __init__(self, process: asyncio.subprocess.Process, secret: str) -> None:
        self.process, self.log = process, ""
        self._door = Door(secret, None)
        self._news = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://{self._found(_ADDRESS)[0]}"

    @property
    def workers(self) -> list[int]:
        """The ids of the processes that have served, in the order in which they started."""
        return [int(id) for id in self._found(r"Started server process \[(\d+)\]")]

    def token(self, name: str, session: str = ANY_SESSION) -> str:
        return self._door.issue(name, session)

    async def serving(self, workers: int) -> None:
        """Return when so many workers have started, and one listens. Raises RuntimeError where the process ended instead."""
        while len(self._found("Application startup (complete)")) < workers or not self._found(_ADDRESS):
            self._check_runs()
            self._news.clear()
            await self._news.wait()
        while not await self._listens():  # of several workers, the address is told before the first of them listens
            self._check_runs()
            await asyncio.sleep(0.01)

    def _check_runs(self) -> None:
        if self.process.stderr is None or self.process.stderr.at_eof():
            raise RuntimeError(f"the project did not start:\n{self.log}")

    async def _listens(self) -> bool:
        host, port = self._found(_ADDRESS)[0].rsplit(":", 1)
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    def kill(self) -> None:
        """`kill -9`: its workers, too."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def leave(self) -> int:
        """SIGTERM, as platforms do; gives the exit status."""
        self.process.terminate()
        return await self.process.wait()

    async def read(self) -> None:
        """Take what it prints: a pipe that nobody reads would stop it."""
        while line := await self.process.stderr.readline() if self.process.stderr else b"":
            self.log += line.decode(errors="replace")
            self._news.set()
        self._news.set()

    def _found(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.log)


@asynccontextmanager
async def started(folder: Path, *, store: str, secret: str | None = None, port: int = 0, workers: int = 1) -> AsyncIterator[Project]:
    """Run the start line in a folder while the block runs, with so many worker processes behind one port.

    `workers`: 0 for a line that starts another server than uvicorn, which does not tell of them.
    """
    secret = secret or secrets.token_urlsafe(32)
    line = (folder / "Procfile").read_text().removeprefix("web: ")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.lower().endswith("_proxy")}
    told = {"REDIS_URL": store, "KIT_SECRET": secret, "HOST": "127.0.0.1", "PORT": str(port), "WEB_CONCURRENCY": str(workers)}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", line, cwd=folder, env={**kept, **told, "PATH": path}, stderr=PIPE, start_new_session=True
    )
    running = Project(process, secret)
    reading = asyncio.create_task(running.read())
    try:
        await running.serving(workers)
        yield running
    finally:
        running.kill()
        await process.wait()
        await reading  # until the last of them has closed its end
