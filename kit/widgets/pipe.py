"""Pipe: one page's WebSocket, opened by the kernel on its behalf and carried over the widget's comm.

Frames go down in batches, thirty a second: jupyter_server drops comm messages over 1,000 a second, and a page draws no faster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Origin, Subprotocol

quiet = logging.getLogger("kit.widgets.pipe")
quiet.setLevel(logging.INFO)  # below, `websockets` logs every header, and so the ticket
Send = Callable[[dict[str, Any]], None]
BATCH_EVERY = 1 / 30
"""Seconds between two messages to the page."""
WAITING = 1_000
"""Frames that may wait for the next batch; then the socket is left unread, and the instance sees a slow reader."""


class Pipe:
    """Opens `url` as the page would: with its `protocols` (the ticket is among them) and its `origin`. Create it on the loop.

    `send` gets `frames` in batches, at last `closed` with the code and reason; nothing after `close()`.
    """

    def __init__(self, url: str, protocols: list[str], origin: str, send: Send) -> None:
        self._send = send
        self._up: asyncio.Queue[str] = asyncio.Queue()
        self._down: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._task = asyncio.ensure_future(self._run(url, [Subprotocol(p) for p in protocols], Origin(origin)))

    def say(self, frames: list[str]) -> None:
        """Send the page's frames, now or once the connection is open."""
        for frame in frames:
            self._up.put_nowait(frame)

    def close(self) -> None:
        self._task.cancel()

    async def _run(self, url: str, protocols: list[Subprotocol], origin: Origin) -> None:
        code, reason = 1006, ""
        try:
            async with connect(url, subprotocols=protocols, origin=origin, compression=None, proxy=None, logger=quiet) as socket:
                code, reason = await self._carry(socket)
        except (OSError, TimeoutError, ValueError, WebSocketException):
            pass  # no hello came: to the page this is what a refused WebSocket looks like, 1006
        self._send({"kit": "closed", "code": code, "reason": reason})

    async def _carry(self, socket: ClientConnection) -> tuple[int, str]:
        """Both ways until the instance closes; the code and reason with which it did."""
        others = [asyncio.ensure_future(self._climb(socket)), asyncio.ensure_future(self._descend())]
        try:
            with suppress(ConnectionClosed):  # its code is what is returned
                async for frame in socket:
                    await self._down.put(str(frame))
            await self._down.join()
        finally:
            for task in others:
                task.cancel()
        return socket.close_code or 1006, socket.close_reason or ""

    async def _climb(self, socket: ClientConnection) -> None:
        while True:
            await socket.send(await self._up.get())

    async def _descend(self) -> None:
        while True:
            frames = [await self._down.get()]
            while not self._down.empty():
                frames.append(self._down.get_nowait())
            self._send({"kit": "frames", "frames": frames})
            for _ in frames:
                self._down.task_done()
            await asyncio.sleep(BATCH_EVERY)
