"""Raw: a TCP socket without any protocol on it, sending as fast as it can: nothing that Python serves is faster."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from tests.bench.child import run, say, until_told_to_go


async def main(size: int = 120) -> None:
    """A line asks for a number of messages."""
    message = b";".rjust(size, b"x")

    async def send_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while asked := await reader.readline():
                for _ in range(json.loads(asked)["tokens"]):
                    writer.write(message)
                    await writer.drain()
        writer.close()

    async with await asyncio.start_server(send_all, "127.0.0.1", 0) as server:
        say(url=f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await until_told_to_go(at_once=True)


if __name__ == "__main__":
    run(main)
