"""Cut: one answer of an agent, as it stands in the log in the end, though the instance that ran it went in the middle.

The instance goes as soon as so many pieces stand in the log: the agent waits at its `yield` then, so exactly these do. What the agent does
between two pieces is cut, too, therefore: it has not been done, or a tool was called and its result is not there.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
import traceback
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import NamedTuple

from kit.ending import end
from kit.history import Agent, AgentError, History
from kit.lab.chaos import Witness, witness
from kit.lab.instances import Node, instances
from kit.lab.served import end_leases
from kit.lab.story import Broken
from kit.lab.table import shorten
from kit.lab.trial import Blocks
from kit.packets import Action, AnyPacket, Ask, Content, End, Packet, Prompt, Thought, ToolResult, Write, split
from kit.store import Store, open_store
from kit.text import text_of

Reply = Callable[[Ask | Action], str]
"""What the person answers to a question, or to an action that is to be approved or run by a client."""
LEASE = 20.0
"""Of a turn, in seconds. Nobody waits for it: a lease is deleted once its owner is gone, and who starts looks at once."""


class Step(NamedTuple):
    """What was said, as one that reads it sees it: neighbouring texts are one, and calls are counted, whatever they are named."""

    what: str
    text: str


def steps(said: Sequence[AnyPacket]) -> list[Step]:
    """The packets of a turn as steps."""
    told: list[Step] = []
    calls: dict[str, str] = {}
    for packet in said:
        what, text = str(packet.__struct_config__.tag), text_of(packet)
        if isinstance(packet, Action | Ask | ToolResult):
            call = calls.setdefault(packet.call, f"call {len(calls) + 1}")
            text = f"{call}: {text.removeprefix(f'{packet.call}: ')}"
        if isinstance(packet, Write):
            what, text = f"write {packet.name}", packet.text
            what += f" over {packet.over.delete} at {packet.over.at}" if packet.over else ""
        joins = told and told[-1].what == what and isinstance(packet, Thought | Content | Write)
        told[-1:] = [Step(what, told[-1].text + text)] if joins else [*told[-1:], Step(what, text)]
    return told


class Silent(Broken):
    """It came to no end in its time."""


class CutAnswer:
    """One answer to a prompt. `cut`: how many pieces stand in the log when its instance goes; `stop`: a person stops it at the first."""

    def __init__(self, agent: Agent, prompt: str, reply: Reply, cut: int = 0, *, stop: bool = False) -> None:
        self.agent, self.prompt, self.reply, self.cut, self.stop = agent, prompt, reply, cut, stop
        self.said: list[AnyPacket] = []
        self.raised: BaseException | None = None
        self._reached = asyncio.Event()
        self._yielded = 0

    @property
    def pieces(self) -> int:
        return _pieces(self.said)

    async def run(self, seconds: float) -> CutAnswer:
        """Raises Broken where the agent fails, Silent where it comes to no end; OSError where its instance could not come back."""
        memory = f"fake://cut-{secrets.token_hex(8)}"
        async with (
            open_store(memory) as store,
            instances(self._once, 1, store=memory, lease=LEASE, join=False) as (one,),
            witness(one.url, "s", one.token()) as seen,
        ):
            asked = await seen.session.prompt(self.prompt)
            going = [asyncio.create_task(self._go(one, store, seen))] if self.cut else []
            try:
                async with asyncio.timeout(seconds):
                    await self._attend(seen, f"{asked.id}/agent")
            except TimeoutError:
                for task in going:
                    if task.done():
                        task.result()
                raise self._broken(Silent, "P6 survives", f"an end within {seconds:g} s", "none") from None
            finally:
                await end(going)
        return self

    async def _once(self, history: History) -> AsyncGenerator[AnyPacket | Prompt, None]:
        """The agent; but after its last piece before the cut nothing more comes of it."""
        dies = self.cut and not self._reached.is_set()
        packets: object = self.agent(history)
        if not isinstance(packets, AsyncGenerator):
            if inspect.iscoroutine(packets):
                packets.close()
            raise AgentError(f"an agent is an async generator (`async def` with a `yield`); this one gave a {type(packets).__name__}")
        try:
            async with aclosing(packets):
                async for packet in packets:
                    yield packet
                    self._yielded += 0 if isinstance(packet, Prompt) else len(list(split(packet)))
                    if dies and self._yielded >= self.cut:
                        self._reached.set()
                        await asyncio.Event().wait()
        except Exception as error:
            self.raised = error
            raise

    async def _go(self, one: Node, store: Store, seen: Witness) -> None:
        """Once all up to the cut stands in the log the instance is gone, and so is its lease; another one starts, cold."""
        await self._reached.wait()
        await seen.until(lambda w: _pieces(w.seen) >= self.cut)
        await one.stop()
        await end_leases(store)
        await one.start()

    async def _attend(self, seen: Witness, turn: str) -> None:
        """Be the person: read, answer what is asked, stop it where that is tried, until its end."""
        read = 0
        while not (self.said and isinstance(self.said[-1], End)):
            await seen.until(lambda w: len(w.seen) > read)  # noqa: B023  # it is awaited at once
            new = seen.seen[read:]
            read += len(new)  # while one is answered, more may come
            for entry in new:
                if isinstance(entry, Packet) and entry.turn == turn:
                    self.said.append(entry)
                    await self._react(entry, seen, turn)
        last = self.said[-1]
        if last.reason == "failed":
            promise, wanted = ("P5 stop", "it ends when it is stopped") if self.stop else ("P6 survives", "it goes on")
            raise self._broken(Broken, promise, wanted, self._failure(last))

    async def _react(self, entry: AnyPacket, seen: Witness, turn: str) -> None:
        if self.stop and len(self.said) == 1:
            await seen.session.stop(turn)
        match entry:
            case Action(call=call, on="client"):
                await seen.session.claim(call)
                await seen.session.result(call, self.reply(entry))
            case Ask(call=call) | Action(call=call, on="approve"):
                await seen.session.answer(call, self.reply(entry))

    def _failure(self, failed: End) -> str:
        if isinstance(self.raised, Blocks):
            return "it keeps the loop for itself: a `time.sleep`, or a loop without an `await`"
        if self.raised is None or isinstance(self.raised, AgentError):
            return failed.text or "it failed"
        *_, last = traceback.extract_tb(self.raised.__traceback__)
        return f"it raised {type(self.raised).__name__}: {self.raised} (line {last.lineno} of {last.name})"

    def _broken(self, kind: type[Broken], promise: str, expected: str, seen: str) -> Broken:
        return kind(promise, expected, f"{seen}; it had said {shown(steps(self.said))}")


def _pieces(said: Iterable[object]) -> int:
    """Of the agent's own: the end is the turn's."""
    return sum(packet.k for packet in said if isinstance(packet, Packet) and not isinstance(packet, End))


def shown(told: Sequence[Step]) -> str:
    """The first steps, in a line."""
    return " | ".join(f"{step.what} {shorten(json.dumps(step.text, ensure_ascii=False), 70)}" for step in told[:4]) or "nothing"
