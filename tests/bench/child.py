"""Child: a server in a process of its own, so that its CPU time and memory are its own.

It is started as `python -m tests.bench.<name> '<options as JSON>'` (or `node <name>.cjs ...`), prints one line of JSON when it is ready,
and goes when its stdin closes: also when the bench is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.bench.peers.install import environment

HERE = Path(__file__).parent


class Child:
    """A running child; `ready` is what it printed first."""

    def __init__(self, process: subprocess.Popen[str], ready: Mapping[str, Any]) -> None:
        self.process, self.ready = process, ready
        self._process = psutil.Process(process.pid)

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def token(self) -> str | None:
        return self.ready.get("token")

    def cpu(self) -> float:
        """Seconds of CPU that it and its own workers have used so far, in user and in kernel mode."""
        times = [process.cpu_times() for process in (self._process, *self._process.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))

    def memory(self) -> int:
        """Bytes that it holds in RAM (RSS)."""
        return int(self._process.memory_info().rss)

    def told(self) -> Any:
        """The next line that it prints."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        """`kill -9`, and gone."""
        self.process.kill()
        self.process.wait()


@contextmanager
def child(name: str, **options: Any) -> Iterator[Child]:
    """A child while the block runs."""
    program = ["node", str(HERE / name)] if name.endswith(".cjs") else [sys.executable, "-m", f"tests.bench.{name}"]
    command = [*program, json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdin
        assert process.stdout
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command)} did not start; what it printed is above")
            yield Child(process, json.loads(line))
        finally:
            process.stdin.close()


def say(**line: Any) -> None:
    """Print one line for the bench."""
    print(json.dumps(line), flush=True)


def run(main: Callable[..., Awaitable[None]], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """In the child: run `main(**options)`."""

    async def work() -> None:
        await main(**json.loads(sys.argv[1]))

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work())


async def until_told_to_go(*, at_once: bool = False) -> None:
    """Wait until the bench closes stdin. `at_once`: then end the process, with nothing put in order."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    if at_once:
        os._exit(0)
