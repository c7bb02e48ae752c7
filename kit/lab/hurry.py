"""Hurry: an event loop whose clock jumps to the next timer once nothing else can happen, so that a minute of silence takes no time.

For stories that stay in this process, over loopback: what one end has sent the other can read at once. Where another process or a thread
is waited for, time must be real.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

SURE = 1.0
"""Seconds of a jump from which on we look a second time, and longer: a busy kernel may deliver on loopback a moment late."""


class HurriedLoop(asyncio.SelectorEventLoop):
    """`loop.time()` is the real time and all that was jumped over."""

    def __init__(self) -> None:
        self._hurry = _Hurry()
        super().__init__(self._hurry)

    def time(self) -> float:
        return super().time() + self._hurry.jumped


class _Hurry(selectors.DefaultSelector):
    """Reports what is ready now; where nothing is, the time until the next timer has passed."""

    jumped = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            ready = super().select(timeout if timeout is None else 0.001 if timeout > SURE else 0)
            if not ready and timeout:
                self.jumped += timeout
        return ready
