"""Listening: an ASGI application on a port of this process, by uvicorn in the loop that is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from kit.ending import finish, stop_listening


@asynccontextmanager
async def listening(
    app: ASGIApp, host: str = "127.0.0.1", port: int = 0, *, state: ServerState | None = None, **options: Any
) -> AsyncIterator[asyncio.Server]:
    """An application on a port while the block runs; then every connection is cut. Its lifespan is the caller's affair.

    `state`: where uvicorn keeps the connections that are open; `options` are uvicorn's. Raises OSError where the port is taken.
    """
    # Not `uvicorn.Server.serve`: it takes the signals of the main thread, and needs 0.1 s and more to notice that it should stop.
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, **options)
    config.load()
    state = state or ServerState()
    listener = await asyncio.get_running_loop().create_server(lambda: H11Protocol(config, state, {}), host, port)
    try:
        yield listener
    finally:
        await finish(_cut(listener, state))


async def _cut(listener: asyncio.Server, state: ServerState) -> None:
    await stop_listening(listener)
    for connection in list(state.connections):
        connection.transport.abort()
    # Not cancelled: uvicorn logs a cancelled request as an error, and one whose client is gone not at all.
    await asyncio.gather(*state.tasks, return_exceptions=True)
