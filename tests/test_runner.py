"""Runner: whatever a program does, its run ends, is told of, and leaves nothing behind; and nothing runs that nobody approved."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit.history import History
from kit.packets import Action, AnyPacket, ToolResult
from kit.runner import NotHere, approved, run
from tests.promises.support import nodes, turn_of, watch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the limits are the kernel's")


async def tried(program: str, **limits: Any) -> Any:
    return await run({"main.py": program}, **limits)


async def test_what_a_program_prints_and_how_it_ends() -> None:
    ran = await tried("import other; print(other.x); raise SystemExit(3)")
    assert "No module named 'other'" in ran.output  # -I: not even its own directory is searched
    assert ran.how == "it ended with 1"
    ran = await run({"main.py": "print(open('other.txt').read())", "other.txt": "é"})
    assert (ran.how, ran.output) == ("it ended with 0", "é\n")


async def test_a_program_has_no_environment_no_input_and_a_directory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_SECRET", "hush")
    ran = await tried("import os, sys; print(dict(os.environ), sys.stdin.read() == '', os.listdir('.'), os.getcwd())")
    environment, rest = ran.output.split("}", 1)
    assert "hush" not in environment
    assert "KIT" not in environment
    assert rest.startswith(" True ['main.py']")
    assert "run-" in rest
    assert not os.path.exists(rest.split()[-1])  # noqa: ASYNC240, PTH110  # nothing waits for it


async def test_an_endless_loop_uses_up_its_cpu() -> None:
    ran = await tried("while True: pass", cpu=1)
    assert ran.how == "it used up its CPU time and was ended"


async def test_a_sleeper_is_ended_when_its_time_is_over() -> None:
    ran = await tried("import time; print('z', flush=True); time.sleep(1000)", seconds=1.0)
    assert (ran.how, ran.output) == ("it ran longer than 1 s and was ended", "z\n")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such limit")
async def test_a_memory_hog_fails_by_itself() -> None:
    ran = await tried("x = []\nwhile True: x.append(bytearray(1 << 24))", memory=256 << 20)
    assert "MemoryError" in ran.output
    assert ran.how == "it ended with 1"


async def test_a_print_without_end_is_cut() -> None:
    ran = await tried("while True: print('x' * 1000)", output=10_000)
    assert (ran.how, len(ran.output)) == ("it printed more than 10000 bytes and was ended", 10_000)
    assert ran.seconds < 5


@pytest.mark.parametrize("closes", [True, False], ids=["closed output", "open output"])
async def test_a_child_that_outlives_its_parent_is_ended_with_it(closes: bool) -> None:
    """Forked twice, it is nobody's child; but of the same process group, which holds what it waits for."""
    program = f"""
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        if {closes}: os.close(1); os.close(2)
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(0.2)
"""
    ran = await tried(program)
    assert (ran.how, ran.seconds < 5) == ("it ended with 0", True)
    gone(int(ran.output))


def gone(pid: int) -> None:
    """It is, or it was told to be and is about to."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=5)  # raises where it lives on


async def test_whoever_leaves_the_group_holds_nobody_up() -> None:
    """No sandbox: such a program lives on. But its run ends, and is told of."""
    program = "import os, time\nif os.fork() == 0: os.setsid(); print(os.getpid(), flush=True); time.sleep(1000)\ntime.sleep(0.2)"
    ran = await tried(program)
    assert (ran.how, ran.seconds < 5) == ("it ended with 0", True)
    os.kill(int(ran.output), signal.SIGKILL)


async def test_without_waitid_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS before Python 3.13."""
    monkeypatch.delattr(os, "waitid")
    ran = await tried("raise SystemExit(3)")
    assert ran.how == "it ended with 3"
    ran = await tried("import time; time.sleep(1000)", seconds=1.0)
    assert ran.how == "it ran longer than 1 s and was ended"


async def test_a_run_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    """A stop of the turn is a cancellation of the run."""
    begun = tmp_path / "begun"
    os.mkfifo(begun)  # to read it is to wait for who writes it
    program = f"import os, time\nwith open({str(begun)!r}, 'w') as pipe: pipe.write(str(os.getpid()))\ntime.sleep(1000)"
    task = asyncio.create_task(tried(program))
    pid = int(await asyncio.to_thread(begun.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gone(pid)


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_run_that_is_cancelled_as_it_begins_leaves_none_either(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """In whichever step."""
    begun = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            begun.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    task = asyncio.create_task(tried("import time\ntime.sleep(1000)"))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [process.returncode for process in begun] == [-signal.SIGKILL]


async def test_nothing_runs_while_the_room_is_open_to_other_machines(tmp_path: Path) -> None:
    with pytest.raises(NotHere, match="open to other machines"):
        await tried(f"open({str(tmp_path / 'ran')!r}, 'w')", alone=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("answer", ["yes", "no", None])
async def test_nothing_runs_that_nobody_approved(store: str, tmp_path: Path, answer: str | None) -> None:
    """What runs is what was shown; a no is told as the action's result, and without an answer the turn waits."""
    program = f"open({str(tmp_path / 'ran')!r}, 'w').write('x'); print('ok')"

    async def tester(history: History) -> AsyncIterator[AnyPacket]:
        async for packet in approved(history, "run-1", {"main.py": program}, partial(run, argv=(sys.executable, "-I", "main.py"))):
            yield packet

    async with nodes(store, {"tester": tester}, 1) as (node,), watch(node.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("run it"), "tester")
        asked = await ann.until(lambda w: next((e for e in w.log if isinstance(e, Action)), None))
        assert (asked.on, asked.arguments) == ("approve", {"main.py": program})
        if answer is None:
            await ann.session.stop()
        else:
            await ann.session.answer("run-1", answer)
        await ann.ended(turn)
        results = [e for e in ann.log if isinstance(e, ToolResult)]
        assert (tmp_path / "ran").exists() == (answer == "yes")
        assert [r.value == {"how": "it ended with 0", "output": "ok\n"} for r in results] == {"yes": [True], "no": [False], None: []}[
            answer
        ]
