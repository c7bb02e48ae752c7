"""Full: an instance of the kit, with an agent that does what its prompt says.

The prompt is JSON: `{"tokens": 500, "size": 36}`, or `{"tokens": 20, "pace": 20}`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from kit.history import History
from kit.packets import AnyPacket, Content
from kit.server import serve
from tests.bench.child import run, say, until_told_to_go


async def agent(history: History) -> AsyncIterator[AnyPacket]:
    """Says `tokens` pieces: with a `pace` (a second) the time at which it says each; else texts of `size` characters, as fast as can be.

    With `step`, the loop turns before each.
    """
    asked = json.loads(history.prompt.text)
    if "pace" in asked:
        async for text in stamps(asked["tokens"] - history.pieces, asked["pace"]):
            yield Content(text)
        return
    text = "x" * asked["size"]
    for _ in range(asked["tokens"] - history.pieces):
        if asked.get("step"):
            await asyncio.sleep(0)
        yield Content(text)


async def stamps(count: int, pace: float) -> AsyncIterator[str]:
    """The time, `count` times, at `pace` a second. The clock (CLOCK_MONOTONIC) is one for all processes of the machine."""
    start = time.monotonic()
    for i in range(count):
        await asyncio.sleep(max(0.0, start + i / pace - time.monotonic()))
        yield f"{time.monotonic():.6f} "


async def main(store: str | None = None, join: bool = True, lease: float = 2.0, secret: str | None = None) -> None:
    async with serve(agent, store=store, join=join, lease=lease, secret=secret) as server:
        say(url=server.url, token=server.token("bench"))
        await until_told_to_go()


if __name__ == "__main__":
    run(main)
