"""Thread: a loop of its own for all that must go on while a cell runs, and one way for cells to reach it.

A sleeping or awaiting cell never delays this loop. One that loops in Python takes turns with it, each half a millisecond (Python's own
default is ten times that, and starves a stream). A C function that holds the GIL stops it, as it stops everything in the process.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import sys
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from kit import proactor
from kit.lab.dropped import close_dropped

T = TypeVar("T")
SWITCH = 0.0005
"""Seconds after which a thread that holds the GIL is asked to let go (sys.setswitchinterval)."""
STEP = 0.05
"""Seconds between two looks at the kernel's interrupt: a wait without an end would not see it on every platform."""


@cache
def loop() -> asyncio.AbstractEventLoop:
    """The loop on the kit's daemon thread, started at the first call."""
    proactor.mend()  # where the cells' loop is one
    sys.setswitchinterval(min(SWITCH, sys.getswitchinterval()))
    # Windows' default, a proactor, takes the main thread's signals (`set_wakeup_fd`): an interrupt would not wake the cells' loop.
    running = asyncio.SelectorEventLoop()
    running.call_soon(close_dropped)
    threading.Thread(target=running.run_forever, name="kit", daemon=True).start()
    return running


def run(awaited: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the kit's thread and give its result; the kernel's interrupt button cancels it, at once.

    >>> run(asyncio.sleep(0, "done"))
    'done'
    """
    if threading.current_thread().name == "kit":
        awaited.close()
        raise RuntimeError("run() waits for the kit's own thread, and this is that thread: use await")
    future = asyncio.run_coroutine_threadsafe(awaited, loop())
    try:
        while True:
            try:
                return future.result(STEP)
            except concurrent.futures.TimeoutError:
                if future.done():  # it was the coroutine's own TimeoutError, or it came to its end a moment later
                    return future.result()
    except (KeyboardInterrupt, concurrent.futures.CancelledError):
        future.cancel()
        raise


def raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise an error in another thread, before its next line of Python; a C function that does not return goes on all the same."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))
