"""Naive: what one writes first: an awaited XADD for each token, and a blocking XREAD for each connection. On fakeredis, like a notebook."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fakeredis import FakeAsyncRedis, FakeServer
from websockets import Subprotocol
from websockets.asyncio.server import ServerConnection, serve

from tests.bench.child import run, say, until_told_to_go
from tests.bench.speech import tokens


async def main() -> None:
    """Each connection is a session; its prompts ask for `tokens` at a `pace`."""
    redis: Any = FakeAsyncRedis(server=FakeServer(), max_connections=1000)

    async def answer(stream: str, **what: Any) -> None:
        async for text in tokens(**what):
            await redis.xadd(stream, {"f": json.dumps({"type": "content", "text": text})})

    async def send(websocket: ServerConnection, stream: str) -> None:
        last: bytes | str = "0"
        while True:
            for _, entries in await redis.xread({stream: last}, block=5000) or []:
                for id, fields in entries:
                    await websocket.send(fields[b"f"], text=True)
                    last = id

    async def visit(websocket: ServerConnection) -> None:
        assert websocket.request
        stream = websocket.request.path
        sending = asyncio.create_task(send(websocket, stream))
        answers = [asyncio.create_task(answer(stream, **json.loads(json.loads(asked)["text"]))) async for asked in websocket]
        for task in (sending, *answers):
            task.cancel()

    async with serve(visit, "127.0.0.1", 0, compression=None, subprotocols=[Subprotocol("kit.v1")]) as server:
        say(url=f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
        await until_told_to_go(at_once=True)


if __name__ == "__main__":
    run(main)
