"""Crowd: an instance with a room of eight agents, each of which says what it is asked for (speech.py), in words and paragraphs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from kit.auth import Identity
from kit.history import History
from kit.packets import Content
from kit.room import room
from kit.server import serve
from tests.bench import full
from tests.bench.child import run, say, until_told_to_go

ROOM = "room"
AGENTS = 8
PARAGRAPH = 60
"""Tokens of a paragraph."""


async def agent(history: History) -> AsyncIterator[Content]:
    said = history.pieces
    async for piece in full.agent(history):
        said += 1
        yield Content(f"{' ' if said % PARAGRAPH else chr(10)}{piece.text}")


async def main(store: str) -> None:
    """`page`: a link for one browser."""
    agents = room({f"agent{i}": agent for i in range(AGENTS)})
    async with serve(agents, store=store, rooms=[ROOM]) as server:
        origin = server.url.replace("ws", "http", 1)
        ticket = await server.door.ticket(Identity("page", ROOM, time.time() + 3600), ROOM, origin)
        say(url=server.url, token=server.token("bench"), page=f"{origin}/room/{ROOM}#{ticket}")
        await until_told_to_go()


if __name__ == "__main__":
    run(main)
