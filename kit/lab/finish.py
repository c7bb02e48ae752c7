"""Finish: nothing of a chapter is left over: no task that runs or failed unseen, no open socket.

A forgotten task fails in silence, and a forgotten socket holds a port and a connection until the kernel ends. The lab's own are no concern
here: it goes on, so that its panels do.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar
from weakref import WeakSet

from kit.lab.thread import loop, run

T = TypeVar("T")


class Unfinished(Exception):
    """Something is left over; each line says what, and how it is ended."""


class Finished:
    """The result of a chapter that left nothing behind."""

    def __repr__(self) -> str:
        return "✓ finished: no task and no socket is left over"


class Watch:
    """Looks for what was left since it began. What a kernel runs of its own is there before."""

    def __init__(self) -> None:
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet(_living(asyncio.Task))
        self._sockets = WeakSet(_living(socket.socket))
        self._failed: list[str] = []
        self._loop = _running_loop()
        self._listen(self._loop)
        loop().call_soon_threadsafe(self._listen, loop())

    def _listen(self, of: asyncio.AbstractEventLoop | None) -> None:
        """A task that is gone when we look has told its loop, when it was collected, that nobody asked what it raised."""
        if of is not None:
            of.set_exception_handler(self._told)

    def _told(self, of: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._failed.append(f"{context['message']}: {context.get('exception')!r}")
        of.default_exception_handler(context)

    def tasks(self) -> Iterator[asyncio.Task[Any]]:
        """The cells' own that still run (the kernel's other tasks are made by its own packages)."""
        for task in _living(asyncio.Task):
            if not task.done() and task not in self._tasks and task.get_loop() is self._loop is not None and not is_foreign(task):
                yield task

    def failed(self) -> Iterator[str]:
        """What tasks raised, and nobody asked for."""
        yield from self._failed
        for task in _living(asyncio.Task):
            # asyncio's own mark for a result that nobody has looked at; to ask for the exception would wipe it.
            if task.done() and task not in self._tasks and getattr(task, "_log_traceback", False):
                yield f"{task.get_name()}: {task.exception()!r}"

    def sockets(self, own: Collection[int], model: int) -> Iterator[str]:
        """Those that hold a port or a connection, but for the lab's: at its own ports, and its agents' to the model."""
        wakers = _wakers()
        for each in _living(socket.socket):
            if each not in self._sockets and each not in wakers and each.family in (socket.AF_INET, socket.AF_INET6):
                here, there = _address(each.getsockname), _address(each.getpeername)
                if here and here[1] and here[1] not in own and model not in (here[1], (there or here)[1]):
                    yield f"{here[0]}:{here[1]} {f'to {there[0]}:{there[1]}' if there else 'listening'}"

    def report(self, own: Collection[int], model: int) -> list[str]:
        """With the lab's own local ports and that of its model: one sentence for each thing that is left over."""
        _collect()  # so that it does not depend on the moment what garbage is still there
        return [
            *(f"a task still runs: {task.get_name()} ({task.get_coro()}): await it or cancel it" for task in self.tasks()),
            *(f"a task failed and nobody looked: {failure}" for failure in self.failed()),
            *(f"a socket is open: {which}: close it, best by `async with`" for which in self.sockets(own, model)),
        ]

    def end(self) -> None:
        """Cancel what still runs: a chapter that is begun again begins alone."""
        for task in self.tasks():
            task.cancel()


def _beside(work: Callable[[], T]) -> T:
    """Do it on the kit's thread, between two steps of its tasks."""
    if threading.current_thread().name == "kit":
        return work()

    async def done() -> T:
        return work()

    return run(done())


def _collect() -> None:
    """Collect garbage: most of it is streams of the kit's loop, and what is being closed there can't be closed from here."""
    _beside(gc.collect)


def is_strict() -> bool:
    """Whether this is a test of the chapters (KIT_STRICT=1), where a failed check is an error."""
    return os.environ.get("KIT_STRICT", "") not in ("", "0")


def _living(*kinds: type[T]) -> list[T]:
    """All objects of these kinds. Who is making a tuple while we hold it gets a SystemError from CPython, so none of the kit is."""
    # Not isinstance: a proxy's `__class__` runs code.
    return _beside(lambda: [each for each in gc.get_objects() if issubclass(type(each), kinds)])


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def is_foreign(task: asyncio.Task[Any]) -> bool:
    """Whether a task is the kernel's own, this very cell, or a blocking read that fakeredis lets run out after its connection is gone."""
    if task is asyncio.current_task(task.get_loop()):
        return True
    code = getattr(task.get_coro(), "cr_code", None)
    packages = ("ipykernel", "tornado", "zmq", "IPython", "fakeredis")
    return code is not None and any(f"{os.sep}{name}{os.sep}" in code.co_filename for name in packages)


def _wakers() -> WeakSet[socket.socket]:
    """The pairs by which event loops wake themselves: on Windows they are TCP connections."""
    from tornado.platform.asyncio import SelectorThread  # here: a kernel has it, and no chapter's client needs it

    names = ("_ssock", "_csock", "_waker_r", "_waker_w")
    found = (getattr(one, name, None) for one in _living(asyncio.BaseEventLoop, SelectorThread) for name in names)
    return WeakSet(each for each in found if each is not None)


def _address(ask: Callable[[], Any]) -> Any:
    """One of a socket's two addresses, where it has it: it may be closed, not connected, or (on Windows) not bound."""
    try:
        return ask()
    except OSError:
        return None
