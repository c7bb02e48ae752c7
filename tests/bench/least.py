"""Least: an XADD by redis-py, awaited, then a send by `websockets`, and nothing else: what the kit's two libraries take for a token."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from websockets import ConnectionClosed, Subprotocol
from websockets.asyncio.server import ServerConnection, serve

from tests.bench.child import run, say, until_told_to_go
from tests.bench.speech import tokens


async def main(store: str) -> None:
    """A connection asks for tokens and gets them; nobody can come back."""
    redis: Any = Redis.from_url(store, socket_timeout=None)

    async def speak(websocket: ServerConnection, what: dict[str, Any]) -> None:
        assert websocket.request
        with suppress(ConnectionClosed):
            async for token in tokens(**what):
                await redis.xadd(websocket.request.path, {"t": token})
                await websocket.send(token)

    async def answer(websocket: ServerConnection) -> None:
        async with asyncio.TaskGroup() as speaking:
            with suppress(ConnectionClosed):
                async for asked in websocket:
                    speaking.create_task(speak(websocket, json.loads(asked)))

    async with serve(answer, "127.0.0.1", 0, compression=None, subprotocols=[Subprotocol("kit.v1")]) as server:
        say(url=f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
        await until_told_to_go()


if __name__ == "__main__":
    run(main)
