"""Chat: a session in a terminal. This is the program around it: the screen, the keyboard, Ctrl-C, and the place that is kept."""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection

from kit.chat.person import USAGE, Person
from kit.chat.place import Place, Unreadable, load, save
from kit.chat.terminal import Terminal, wants_colour
from kit.client import NotLetIn, connect

_DENIED = "the token was not accepted: give one with --token or KIT_TOKEN"


async def chat(
    url: str, token: str, *, session: str, frames: bool = False, state: Path | None = None, lines: AsyncIterator[str] | None = None
) -> int:
    """Chat in a session of the instance at `url` with what stdin says; gives the exit status: 1 where it is not let in.

    `state`: the file that keeps the place; None keeps none, for a store that ends with the program.
    """
    terminal = _terminal(frames)
    if not re.fullmatch(r"[!-~]+", token):  # what no header can carry is no token either
        terminal.note(_DENIED)
        return 1
    person = Person(terminal, frames=frames, patient=not sys.stdin.isatty())
    place = _left(state, session, terminal)
    cursor = {} if place is None else {"after": place.after, "log": place.log}
    direct = {"proxy": None} if (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1") else {}
    terminal.note(f"session {session} at {url}" + ("" if person.patient else f"; {USAGE}"))
    before = signal.signal(signal.SIGINT, _interrupts(person))
    try:
        async with connect(url, session=session, token=token, create_connection=tapped(person.came), **cursor, **direct) as connection:
            if place is not None:
                person.remember(place)
            await person.run(connection, lines or _typed(sys.stdin.fileno(), sys.stdin.encoding), _keeper(state, session, terminal))
    except NotLetIn as refused:
        terminal.note(f"{_DENIED} ({refused})" if refused.status == 401 else str(refused))
        return 1
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


def _terminal(frames: bool) -> Terminal:
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, io.TextIOWrapper):  # what a terminal can't show becomes `?`; frames are UTF-8 whatever the locale
            out.reconfigure(errors="replace", encoding="utf-8" if frames else out.encoding)
    return Terminal(sys.stdout, sys.stderr, colour=not frames and wants_colour(sys.stdout))


def _interrupts(person: Person) -> Callable[[int, object], None]:
    loop = asyncio.get_running_loop()

    def pressed(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(person.interrupt)

    return pressed


def tapped(came: Callable[[str], None]) -> type[ClientConnection]:
    """A connection that shows each frame as it comes: what the client makes of it no longer is what came."""

    class Tapped(ClientConnection):
        async def recv(self, decode: bool | None = None) -> Any:
            frame = await super().recv(decode)
            came(frame if isinstance(frame, str) else frame.decode())
            return frame

    return Tapped


def _left(state: Path | None, session: str, terminal: Terminal) -> Place | None:
    try:
        return None if state is None else load(state, session)
    except Unreadable as unreadable:
        terminal.note(f"{unreadable}: the session is shown from its start")
        return None


def _keeper(state: Path | None, session: str, terminal: Terminal) -> Callable[[Place], None]:
    told = state is None

    def keep(place: Place) -> None:
        nonlocal told
        try:
            if state is not None:
                save(state, session, place)
        except OSError as error:
            if not told:
                terminal.note(f"{state} can't be written ({error.strerror}): after a restart the session is shown from its start")
            told = True

    return keep


async def _typed(fd: int, encoding: str) -> AsyncIterator[str]:
    """The lines of stdin, read on a thread: a terminal made non-blocking for the loop would be so for stdout too, and a file can't be."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue(100)

    def pass_on(line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()

    def read() -> None:
        decoder, rest = codecs.getincrementaldecoder(encoding)("replace"), ""
        with suppress(OSError, RuntimeError):  # the terminal hung up; the loop has ended
            while chunk := os.read(fd, 65536):  # not sys.stdin: its lock, held at exit, aborts the interpreter
                *whole, rest = (rest + decoder.decode(chunk)).split("\n")
                for line in whole:
                    pass_on(line)
        with suppress(RuntimeError):
            pass_on(rest)
            pass_on(None)

    Thread(target=read, name="stdin", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line
