"""Chat: a session in a terminal. This is the program around it: the streams, Ctrl-C, and the place that is kept."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from kit.chat.person import USAGE, Person
from kit.chat.place import Place, load, save
from kit.chat.terminal import Terminal, wants_colour
from kit.client import NotLetIn, connect
from kit.ending import on_signals

_GIVE = "give one with --token or KIT_TOKEN"
WINDOWS = os.name == "nt"


async def chat(
    url: str, token: str, *, session: str, frames: bool = False, state: Path | None = None, lines: AsyncIterator[str] | None = None
) -> int:
    """Chat in a session of the instance at `url` with what stdin says; gives the exit status: 1 where it is not let in.

    `state`: the file that keeps the place (1 also where it can't); None keeps none, for a store that ends with the program.
    """
    terminal = _terminal(frames)
    if not re.fullmatch(r"[!-~]+", token):  # what no header can carry is no token either
        terminal.note(f"that is no token: {_GIVE}")
        return 1
    patient, status, pressed = not sys.stdin.isatty(), 1, Event()
    terminal.note(f"session {session} at {url}" + ("" if patient else f"; {USAGE}"))

    def keep(place: Place) -> None:
        if state is not None:
            save(state, session, place)

    try:
        place = load(state, session) if state else Place()
        person = Person(terminal, place.seen, patient=patient)

        def interrupt() -> None:
            pressed.set()
            person.interrupt()

        with on_signals(interrupt, signal.SIGINT):
            async with connect(url, session=session, token=token, after=place.after, log=place.log) as connection:
                await person.run(connection, lines or _typed(sys.stdin.fileno(), sys.stdin.encoding, pressed), keep)
        status = 0
    except* NotLetIn as refused:
        reason = next(error for error in refused.exceptions if isinstance(error, NotLetIn))
        terminal.note(str(reason) + (f": {_GIVE}" if reason.status == 401 else ""))
    except* BrokenPipeError:  # nobody reads on, as with `| head`; what is buffered would fail again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except* OSError as errors:
        terminal.note(f"what you have seen can't be kept ({errors.exceptions[0]}): name another file with --state")
    return status


def _terminal(frames: bool) -> Terminal:
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, io.TextIOWrapper):  # what a terminal can't show becomes `?`; frames are UTF-8 whatever the locale
            out.reconfigure(errors="replace", encoding="utf-8" if frames else out.encoding)
    return Terminal(sys.stdout, sys.stderr, frames=frames, colour=wants_colour(sys.stdout))


async def _typed(fd: int, encoding: str, pressed: Event) -> AsyncIterator[str]:
    """The lines of stdin, read on a thread: a terminal made non-blocking for the loop would be so for stdout too, and a file can't be.

    `pressed`: set where Ctrl-C was heard. On Windows it ends a read as the end of the file does, a moment earlier.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        # Not sys.stdin: its lock, held by this thread at exit, aborts the interpreter.
        with suppress(RuntimeError), open(fd, encoding=encoding, errors="replace", closefd=False) as stdin:  # the loop has ended
            while True:
                with suppress(OSError):  # the terminal hung up
                    for line in stdin:
                        loop.call_soon_threadsafe(lines.put_nowait, line)
                if not (WINDOWS and pressed.wait(0.3)):
                    break
                pressed.clear()
            loop.call_soon_threadsafe(lines.put_nowait, None)

    Thread(target=read, name="stdin", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line
