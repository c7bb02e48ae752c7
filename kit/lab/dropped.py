"""Dropped: async generators that nobody holds any more are closed once the garbage collector is through, one after the other.

asyncio closes each in a task of its own, begun at once. That goes wrong for a chain of them, as the openai client's stream is when it is
left before its end. A cell's thread collects it, and while it does, this loop's thread is closing its outer part, which closes the inner
one: "async generator already executing", on the learner's screen. (Seen with Python 3.11; `_PyGen_Finalize` in Objects/genobject.c.)
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any


def close_dropped() -> None:
    """From now on, the generators of the running loop are closed this way."""
    _Dropped(asyncio.get_running_loop())


class _Dropped:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._generators: deque[AsyncGenerator[Any, Any]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._collecting = False
        sys.set_asyncgen_hooks(finalizer=self._drop)
        gc.callbacks.append(self._collect)

    def _drop(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Called in whichever thread the generator was found."""
        self._generators.append(generator)
        if not self._collecting:
            self._loop.call_soon_threadsafe(self._close)

    def _collect(self, phase: str, _: dict[str, int]) -> None:
        self._collecting = phase == "start"
        if self._generators and not self._collecting:
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        task = self._loop.create_task(self._close_each([self._generators.popleft() for _ in range(len(self._generators))]))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_each(self, generators: list[AsyncGenerator[Any, Any]]) -> None:
        for generator in generators:
            try:
                await generator.aclose()
            except Exception as error:  # noqa: BLE001  # the generator's own; nobody waits for it, so the loop tells it, as asyncio does
                message = f"an error occurred during closing of asynchronous generator {generator!r}"
                self._loop.call_exception_handler({"message": message, "exception": error, "asyncgen": generator})
