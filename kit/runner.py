"""Runner: programs that agents wrote, run as child processes with limits, once a person has said yes.

**This is no sandbox.** The program runs as you: it can read your files and reach your network. The limits keep an honest mistake from
taking the machine with it: an endless loop, a list that grows for ever, a print without end, a process left behind. What stands between
you and malice is that you read what you approve; so a program is shown whole where its approval is asked, and what was shown is what runs.
Nothing is run at all while a room is open to others than this machine. A program that leaves its process group (`setsid`) outlives
its run; for programs you don't trust use a container or a virtual machine.

POSIX only: the limits are the kernel's (setrlimit(2)), and macOS has none for memory that can be used.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kit.ending import end, finish
from kit.history import History
from kit.packets import Action, AnyPacket, ToolResult

_LIMIT = """
import os, resource, sys
cpu, memory, size = map(int, sys.argv[1:4])
for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, size), (resource.RLIMIT_CORE, 0)):
    if (sys.platform, what) != ("darwin", resource.RLIMIT_AS):  # macOS refuses a limit below what each process has mapped
        resource.setrlimit(what, (most, most))
resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # SIGXCPU says why; SIGKILL follows where that is ignored
os.execv(sys.argv[4], sys.argv[4:])
"""
"""Limits are set in the child, by a program of its own: Python code between fork and exec may deadlock where there are threads."""


class NotHere(Exception):
    """Programs are not run here; the sentence says why."""


@dataclass(frozen=True)
class Ran:
    """A run: how it ended, in words; what the program printed; how long it took (seconds)."""

    how: str
    output: str
    seconds: float


async def run(
    files: Mapping[str, str],
    argv: Sequence[str] = (sys.executable, "-I", "main.py"),
    *,
    seconds: float = 10.0,
    cpu: int = 5,
    memory: int = 512 << 20,
    output: int = 32 << 10,
    alone: bool = True,
) -> Ran:
    """Run a program over `files`, in a new directory, without environment or input, and end all that is left of its process group.

    At most `seconds`, of them `cpu` for each process, `memory` bytes of addresses for each, `output` bytes printed. `alone`: whether nobody
    but this machine can reach the room. Raises NotHere.
    """
    if os.name != "posix":
        raise NotHere("programs of agents are run on Linux and macOS only: their limits are the kernel's there")
    if not alone:
        raise NotHere("the room is open to other machines: nothing that its agents write is run while it is")
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text)
        limits = [str(limit) for limit in (cpu, memory, 16 << 20)]
        ours, theirs = os.pipe()
        began = time.monotonic()
        with os.fdopen(ours, "rb") as pipe:
            try:
                process = subprocess.Popen(  # noqa: S603, ASYNC220  # what a person approved; it returns once the program has begun
                    [sys.executable, "-I", "-c", _LIMIT, *limits, *argv],
                    cwd=folder,
                    env={},
                    stdin=subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=theirs,
                    start_new_session=True,
                )
            finally:
                os.close(theirs)
            text, how = await _attend(process, pipe, seconds, output)
        return Ran(how or _ended(process.returncode), text, time.monotonic() - began)


async def _attend(process: subprocess.Popen[bytes], pipe: IO[bytes], seconds: float, most: int) -> tuple[str, str | None]:
    """Read what it prints until it ends or may not go on; gives that, and why it was ended."""
    said, stream = bytearray(), asyncio.StreamReader()

    async def read() -> None:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        with closing(transport):
            while len(said) <= most and (piece := await stream.read(4096)):
                said.extend(piece)

    # Not reaped yet when this returns: as long as it is not, its number is not given to another process group.
    over = asyncio.ensure_future(asyncio.to_thread(_wait, process.pid))
    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait({over, reading}, return_when=asyncio.FIRST_COMPLETED)
            if len(said) <= most:  # it has closed its output and may go on, or has ended
                await asyncio.wait({over})
        how = None
    except TimeoutError:
        how = f"it ran longer than {seconds:g} s and was ended"
    finally:
        await finish(_end_all(process, over, reading))
    if len(said) > most:
        how = f"it printed more than {most} bytes and was ended"
    return said[:most].decode(errors="replace"), how


def _wait(pid: int) -> None:
    """Until a child has ended; it is not reaped."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    import psutil  # a kernel has it; macOS has no waitid before Python 3.13

    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


async def _end_all(process: subprocess.Popen[bytes], over: asyncio.Future[Any], reading: asyncio.Task[None]) -> None:
    """Of its process group; what it has printed is read first."""
    with suppress(PermissionError):  # macOS' answer where only the dead are left
        os.killpg(process.pid, signal.SIGKILL)
    await over
    process.wait()
    for _ in range(3):  # in vain only where somebody who left the group holds the pipe; a machine that stands still loses one of them
        if (await asyncio.wait({reading}, timeout=0.1))[0]:
            return
    await end({reading})


def _ended(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "it used up its CPU time and was ended"
    return f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"it ended with {status}"


async def approved(
    history: History, call: str, files: Mapping[str, str], run: Callable[[Mapping[str, str]], Awaitable[Ran]] = run
) -> AsyncIterator[AnyPacket]:
    """What an agent says to have `files` run as the action `call`: shown whole first; run, once a person answers yes; with what came of it.

    Yield from it in each round of the turn. `run` is `run` with other limits.
    """
    action = next((p for p in history.said if isinstance(p, Action) and p.call == call), None)
    if action is None:
        yield Action(call=call, name="run", arguments=dict(files), on="approve")
    elif (answer := history.answer(call)) and history.result(call) is None:
        if answer.text.strip().lower() != "yes":
            yield ToolResult(call=call, error=f"{answer.from_} declined: it was not run")
            return
        try:
            ran = await run({name: str(text) for name, text in action.arguments.items()})
        except NotHere as why:
            yield ToolResult(call=call, error=str(why))
            return
        yield ToolResult(call=call, value={"how": ran.how, "output": ran.output})
