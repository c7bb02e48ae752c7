"""Scripted: an agent that says a list of packets.

It finds its place by counting the pieces that stand in the log, so it goes on exactly where another instance was killed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from msgspec.structs import replace

from kit.history import Agent, History
from kit.packets import Action, AnyPacket, Ask, ToolResult, split

Script = Sequence[AnyPacket] | Callable[[str], Sequence[AnyPacket]]
"""What to say: always the same, or made from the text of the prompt (by a pure function, as it is called again in each round)."""


def scripted(script: Script, *, pace: float | None = None, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> Agent:
    """An agent that says `script`, at `pace` pieces a second (None: as fast as they are taken).

    After an `Ask`, and after an `Action` that runs on the client or waits for approval, it returns and goes on when that is answered.

    >>> agent = scripted([Thought("Hm."), Ask(call="c1", text="How many?"), Content("Thank you.")])
    """

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        loop = asyncio.get_running_loop()
        start, said = loop.time(), history.pieces
        for i, piece in enumerate(_pieces(script, history)):
            if i >= said:
                if pace is not None and pace < math.inf:
                    # Against the clock, not after the last piece: at 1000 a second the delays would add up.
                    await sleep(max(0.0, start + (i - said + 1) / pace - loop.time()))
                yield piece
            if history.waits_for(piece):
                return

    return agent


def _pieces(script: Script, history: History) -> list[AnyPacket]:
    """The script as the log will hold it: large texts split, and call ids that no other turn has used."""
    packets = script(history.prompt.text) if callable(script) else script
    # A turn that waits for a person lets a later one speak before it goes on: so not only those before the prompt count.
    taken = {entry.call for entry in history if isinstance(entry, Action | Ask) and entry.turn != history.turn}
    return [piece for packet in packets for piece in split(_renamed(packet, taken, history.prompt.id))]


def _renamed(packet: AnyPacket, taken: set[str], opening: str) -> AnyPacket:
    if isinstance(packet, Action | Ask | ToolResult) and packet.call in taken:
        return replace(packet, call=f"{packet.call}.{opening}")
    return packet
