"""Viewer: a client for the arms that measure time: a plain `websockets` connection that says when each token came, and when it was said."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect

from tests.bench.child import Child
from tests.bench.sink import prompt


class Token(NamedTuple):
    """When a token came and when it was said (seconds, CLOCK_MONOTONIC), and its id."""

    came: float
    said: float
    id: str


class Viewer:
    """An open connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def ask(self, **what: Any) -> None:
        """Prompt the agent of full.py."""
        await self.socket.send(prompt(msgspec.json.encode(what).decode()), text=True)

    async def tokens(self) -> AsyncIterator[Token]:
        """The tokens until the turn ends."""
        while (frame := await self._frame())["type"] != "end":
            if frame["type"] == "content":
                yield Token(time.monotonic(), float(frame["text"].split()[-1]), frame.get("id", ""))

    async def _frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = msgspec.json.decode(await self.socket.recv())
        return frame


@asynccontextmanager
async def viewer(server: Child, session: str, after: str | None = None) -> AsyncIterator[Viewer]:
    """A viewer of a session, from its beginning or after a cursor."""
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    address = f"{server.url}/s/{session}" + (f"?after={after}" if after else "")
    async with connect(
        address, additional_headers=headers, compression=None, subprotocols=[Subprotocol("kit.v1")], ping_interval=None, close_timeout=0.1
    ) as socket:
        yield Viewer(socket)
