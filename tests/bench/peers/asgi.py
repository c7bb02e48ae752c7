"""Asgi: uvicorn on a free port, with the faster loop and parser that it recommends where they are installed (`uvicorn[standard]`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn

from tests.bench.child import run, say, until_told_to_go

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
with suppress(ImportError):
    import uvloop

    loop_factory = uvloop.new_event_loop


def serve(app_for: Callable[[str], Any]) -> None:
    """In a child: serve `app_for(store)`."""

    async def main(store: str) -> None:
        config = uvicorn.Config(app_for(store), lifespan="off", log_config=None, access_log=False)
        with socket.create_server(("127.0.0.1", 0)) as listening:  # whoever dials before uvicorn is up waits in its backlog
            say(url=f"http://127.0.0.1:{listening.getsockname()[1]}")
            serving = asyncio.create_task(uvicorn.Server(config).serve([listening]))
            await until_told_to_go(at_once=True)
            await serving

    run(main, loop_factory)
