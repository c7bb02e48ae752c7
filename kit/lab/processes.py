"""Processes: instances as a user starts them, `python -m kit serve`: these can be killed.

Signals are POSIX: on Windows nothing can be frozen, and who is asked to leave is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from kit.auth import Door
from kit.ending import finish
from kit.lab.ports import free_ports

ROOT = Path(__file__).parents[2]
_SECRET = secrets.token_urlsafe(32)
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows, who is told to end is killed
_OF_THE_MODEL = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL")


class Process:
    """One instance: its `url` while it runs, and a `token` that is good on each of them; `start` keeps its port."""

    def __init__(self, options: Mapping[str, object], environment: Mapping[str, str]) -> None:
        self.url = ""
        self.running = False
        self.process: asyncio.subprocess.Process
        self._options, self._environment = options, environment
        self._change = asyncio.Lock()  # two faults may end at the same time

    @property
    def token(self) -> str:
        return Door(_SECRET, None).issue("you", ttl=24 * 3600.0)

    async def begin(self) -> None:
        """Start it; `listening` waits until it does."""
        command = [sys.executable, "-m", "kit", "--log", "warning", "serve"]
        command += [part for name, value in self._options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        self.process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=self._environment)

    async def listening(self) -> None:
        """Return when it listens. Raises RuntimeError where it ended instead; what it said is on stderr."""
        stdout = self.process.stdout
        if not (told := await stdout.readline() if stdout else b""):
            raise RuntimeError(f"an instance did not start: `python -m kit serve` ended with {await self.process.wait()}")
        self.url = json.loads(told)["url"]
        self.running = True

    async def start(self) -> None:
        """A cold start, on the port that it had; nothing, where it runs."""
        async with self._change:
            if not self.running:
                await self.end()
                await self.begin()
                await self.listening()

    def kill(self) -> None:
        """`kill -9`."""
        self.running = False
        self._signal(_KILL)

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open, and it does not know that time passes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def leave(self) -> int:
        """SIGTERM: its turns are handed over, its clients told to come back. Gives its exit status."""
        self.running = False
        self._signal(signal.SIGTERM)
        return await self.process.wait()

    async def end(self) -> None:
        """Kill it, and return when it is gone."""
        self.kill()
        await self.process.communicate()

    def _signal(self, number: signal.Signals) -> None:
        """Not by asyncio: before Python 3.13 that looks first, and takes the exit status from who waits for it (cpython issue 87744)."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):  # the latter is Windows' answer where it is ending
                os.kill(self.process.pid, number)


@asynccontextmanager
async def processes(agent: str = "", count: int = 2, *, store: str, **options: Any) -> AsyncIterator[list[Process]]:
    """So many instances over one store while the block runs, with the agent `module:name`, or the demo on the embedded model.

    `options` are those of `python -m kit serve`: `lease=0.5`, `pace=100`, `max_duration=5`. A token is good on every one of them.

    async with served_store() as store, processes("my_agents:counter", 2, store=store.url, lease=0.5) as (one, other):
        one.kill()
    """
    options = {"store": store, **({"agent": agent} if agent else {}), **options}
    started: list[Process] = []
    try:
        for port in free_ports(count):
            process = Process({"port": port, **options}, _environment(demo=not agent))
            await process.begin()
            started.append(process)
        for process in started:
            await process.listening()
        yield started
    finally:
        await finish(_end(started))


async def _end(started: list[Process]) -> None:
    for process in started:
        process.kill()
    for process in started:
        await process.end()


def _environment(*, demo: bool) -> dict[str, str]:
    """This process's own, with one secret for all. A key would let the demo ask a real model, a proxy would be asked for loopback."""
    kept = {k: v for k, v in os.environ.items() if not (demo and k in _OF_THE_MODEL) and not k.lower().endswith("_proxy")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "KIT_SECRET": _SECRET}
