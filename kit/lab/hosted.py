"""Hosted: the ASGI application on a port of this process, by uvicorn in the loop that is there: for notebooks, tests and benchmarks."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from kit import asgi
from kit.history import Agent
from kit.service import Service, origin_of


@asynccontextmanager
async def serve(
    agents: Agent | Mapping[str, Agent], *, host: str = "127.0.0.1", port: int = 0, secret: str | None = None, **options: Any
) -> AsyncIterator[Service]:
    """As `kit.server.serve`, but it is the ASGI application that is served while the block runs; then drain."""
    app = asgi.app(agents, secret=secret or secrets.token_urlsafe(32), **options)
    async with app.running(), listening(app, host, port) as listener:
        service = app.service
        service.origin = origin_of(listener.sockets)
        if service.instance.presence.rooms:
            service.door.origins.add(service.origin)
        yield service
        listener.close()  # nobody new
        await service.drain()


@asynccontextmanager
async def listening(app: ASGIApp, host: str = "127.0.0.1", port: int = 0, *, server_header: bool = False) -> AsyncIterator[asyncio.Server]:
    """An application on a port while the block runs; then every connection is cut. Its lifespan is the caller's affair."""
    # Not `uvicorn.Server.serve`: it takes the signals of the main thread, and needs 0.1 s and more to notice that it should stop.
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=server_header, **asgi.UVICORN)
    config.load()
    state = ServerState()
    listener = await asyncio.get_running_loop().create_server(lambda: H11Protocol(config, state, {}), host, port)
    try:
        yield listener
    finally:
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)
