"""Speech: what every arm's producer says when it is asked, so that all of them do the same job.

`{"tokens": 500, "size": 36}` asks for so many tokens of so many characters, as fast as can be; `{"tokens": 150, "pace": 50}` for tokens
at a pace (a second), each with its ordinal and the time at which it was said: `17@123.456789x;`. Every token ends with `x;`.
(peers/speech.cjs says the same in node.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator


async def tokens(tokens: int, size: int = 36, pace: float | None = None, step: bool = False, said: int = 0) -> AsyncIterator[str]:
    """The tokens after the first `said`; with `step`, the loop turns before each."""
    if pace is not None:
        async for token in _stamped(said, tokens, pace):
            yield token
        return
    token = ";".rjust(size, "x")
    for _ in range(tokens - said):
        if step:
            await asyncio.sleep(0)
        yield token


async def _stamped(said: int, count: int, pace: float) -> AsyncIterator[str]:
    """The clock (CLOCK_MONOTONIC) is one for all processes of the machine."""
    start = time.monotonic()
    for i in range(count - said):
        await asyncio.sleep(max(0.0, start + i / pace - time.monotonic()))
        yield f"{said + i + 1}@{time.monotonic():.6f}x;"
