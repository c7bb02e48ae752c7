"""Socketio: python-socketio with its Redis manager. It has no way to go on after a drop: who comes back joins the room again."""

from __future__ import annotations

from typing import Any

import socketio

from tests.bench.peers.asgi import serve
from tests.bench.speech import tokens


def app(store: str) -> Any:
    server = socketio.AsyncServer(async_mode="asgi", client_manager=socketio.AsyncRedisManager(store))

    async def join(sid: str, session: str) -> None:
        await server.enter_room(sid, session)
        await server.emit("joined", to=sid)

    async def speak(session: str, what: dict[str, Any]) -> None:
        async for token in tokens(**what):
            await server.emit("token", token, room=session)

    async def ask(sid: str, session: str, what: dict[str, Any]) -> None:
        server.start_background_task(speak, session, what)

    server.on("join", join)
    server.on("ask", ask)
    return socketio.ASGIApp(server)


if __name__ == "__main__":
    serve(app)
