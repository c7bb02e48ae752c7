"""Bare: the `websockets` library alone, sending as fast as it can: what every ratio is measured against."""

from __future__ import annotations

import json
from contextlib import suppress

from websockets import ConnectionClosed, Subprotocol
from websockets.asyncio.server import ServerConnection, serve

from tests.bench.child import run, say, until_told_to_go


async def main(size: int = 120) -> None:
    """A connection asks for a number of messages, gets them, and asks again."""
    message = b";".rjust(size, b"x")

    async def send_all(websocket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async for asked in websocket:
                for _ in range(json.loads(asked)["tokens"]):
                    await websocket.send(message, text=True)

    async with serve(send_all, "127.0.0.1", 0, compression=None, subprotocols=[Subprotocol("kit.v1")]) as server:
        say(url=f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
        await until_told_to_go()


if __name__ == "__main__":
    run(main)
