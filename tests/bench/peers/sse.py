"""SSE: the standard way without WebSockets: starlette, `POST` beside server-sent events, and a Redis stream whose ids are the events'.

An XADD for each token, awaited (a token is kept before the next one is made, as in every arm); an XREAD for each reader, and what it
brings goes out in one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.bench.peers.asgi import serve
from tests.bench.speech import tokens


def app(store: str) -> Starlette:
    redis: Any = Redis.from_url(store, socket_timeout=None)
    speaking: set[asyncio.Task[None]] = set()

    async def speak(session: str, what: dict[str, Any]) -> None:
        async for token in tokens(**what):
            await redis.xadd(session, {"t": token})

    async def ask(request: Request) -> Response:
        task = asyncio.create_task(speak(request.path_params["session"], await request.json()))
        speaking.add(task)
        task.add_done_callback(speaking.discard)
        return Response(status_code=202)

    async def events(session: str, last: str | bytes) -> AsyncIterator[bytes]:
        while True:
            for _, entries in await redis.xread({session: last}, count=1000, block=5000) or []:
                last = entries[-1][0]
                yield b"".join([b"id: %s\ndata: %s\n\n" % (id, fields[b"t"]) for id, fields in entries])

    async def listen(request: Request) -> Response:
        after = request.headers.get("last-event-id", "0")
        return StreamingResponse(events(request.path_params["session"], after), media_type="text/event-stream")

    return Starlette(routes=[Route("/s/{session}", ask, methods=["POST"]), Route("/s/{session}", listen)])


if __name__ == "__main__":
    serve(app)
