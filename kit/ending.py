"""Ending: hear of it, or do something before others hear; end tasks; clean up though cancelled; stop listening; settle a future."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def on_signals(call: Callable[[], object], *numbers: signal.Signals) -> Iterator[None]:
    """Call it in the loop when one of these signals comes inside the block: not by the loop's own way, which is not there on Windows."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@asynccontextmanager
async def before(number: signal.Signals, work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """A signal that comes inside the block has `work` done first, once; then who handled it before, such as a server, hears of it.

    Nothing happens where nobody handles it, or in another thread than the main one. A server that asyncio tells (`add_signal_handler`)
    hears at the same time.
    """
    theirs = signal.getsignal(number) if threading.current_thread() is threading.main_thread() else None
    if not callable(theirs):
        yield
        return
    loop = asyncio.get_running_loop()
    working: asyncio.Task[None] | None = None

    async def both() -> None:
        try:
            await work()
        finally:
            theirs(number, None)

    def begin() -> None:
        nonlocal working
        if working is None:
            working = loop.create_task(both())
        elif working.done():  # else it is the same once more: a platform tells all processes, and their parent tells them
            theirs(number, None)

    signal.signal(number, lambda *_: loop.call_soon_threadsafe(begin))
    try:
        yield
    finally:
        signal.signal(number, theirs)
        if working:
            await asyncio.wait({working})


async def end(tasks: Iterable[asyncio.Task[Any]], message: str | None = None, *, again: float = 0.3) -> None:
    """Cancel tasks and wait for them; what they raise stays with them.

    One `cancel()` may get lost in a library: `asyncio.wait_for` of Python 3.11 swallows it when what it waits for is ready in the same
    step, and so does fakeredis while it connects. So it is asked again, after
    `again` seconds: long enough not to disturb anybody who is cleaning up.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel(message)
        _, pending = await asyncio.wait(pending, timeout=again)


async def finish(work: Coroutine[Any, Any, None]) -> None:
    """Do what must not be left half done: whoever is cancelled meanwhile hears of it afterwards."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled
    await task


async def stop_listening(listener: asyncio.Server) -> None:
    """Close it; who has been accepted by then has a transport, and its protocol knows.

    `close()` alone forgets who was accepted in the very step before: their sockets stay open, and nobody has them (CPython's issue 109564).
    """
    loop = asyncio.get_running_loop()
    for one in listener.sockets:
        with suppress(NotImplementedError):  # Windows' own loop accepts in another way
            loop.remove_reader(one.fileno())
    try:
        for _ in range(2):  # their transports are made, then their protocols are told
            await asyncio.sleep(0)
    finally:
        listener.close()


def settle(waiting: asyncio.Future[T], answer: T | Exception) -> None:
    """Give somebody who waits, if he still does, an answer, or raise it there."""
    if waiting.done():
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
