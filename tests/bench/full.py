"""Full: an instance of the kit, with an agent that says what its prompt asks for (speech.py)."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator

from kit.history import History
from kit.packets import Content
from kit.server import serve
from tests.bench.child import run, say, until_told_to_go
from tests.bench.speech import tokens


async def agent(history: History) -> AsyncIterator[Content]:
    """Goes on where the history ends."""
    async for text in tokens(**json.loads(history.prompt.text), said=history.pieces):
        yield Content(text)


async def main(store: str | None = None, join: bool = True, lease: float = 2.0, secret: str | None = None) -> None:
    async with serve(agent, store=store, join=join, lease=lease, secret=secret) as server:
        gc.collect()
        gc.freeze()  # as `python -m kit serve` does
        say(url=server.url, token=server.token("bench"))
        await until_told_to_go()


if __name__ == "__main__":
    run(main)
