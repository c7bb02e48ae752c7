"""Ending: cancel tasks until they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


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
