"""Hosted: the kit's ASGI application on a port of this process: for notebooks, tests and benchmarks."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kit import asgi
from kit.ending import stop_listening
from kit.history import Agent
from kit.listening import listening
from kit.service import Service, origin_of


@asynccontextmanager
async def serve(
    agents: Agent | Mapping[str, Agent], *, host: str = "127.0.0.1", port: int = 0, secret: str | None = None, **options: Any
) -> AsyncIterator[Service]:
    """As `kit.server.serve`, but it is the ASGI application that is served while the block runs; then drain."""
    app = asgi.app(agents, secret=secrets.token_urlsafe(32) if secret is None else secret, **options)
    async with app.running(), listening(app, host, port, server_header=False, **asgi.UVICORN) as listener:
        service = app.service
        service.origin = origin_of(listener.sockets)
        if service.instance.presence.rooms:
            service.door.origins.add(service.origin)
        yield service
        await stop_listening(listener)
        await service.drain()
