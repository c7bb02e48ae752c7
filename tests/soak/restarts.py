"""Restarts: the store itself goes and comes back under dozens of sessions that speak: with all it held, or without its tail.

Each story has a store and instances of its own. Afterwards no turn is open, each says exactly what it was to say, and everybody who is
there has seen the log as it stands in the store.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from kit.history import Agent, History
from kit.packets import AnyPacket, Content, Document, End, Entry, Prompt, Write
from tests.conftest import RealStore
from tests.promises.support import Judge, Watcher, count, counting, nodes, read_log, turn_of, watch
from tests.soak.stories import PATIENT, Failed

SAYS = {"slow": 12, "fast": 150, "writer": 20, "asker": 8}
"""Pieces of text in an answer."""


async def writer(history: History) -> AsyncIterator[AnyPacket]:
    """Writes its numbers into a document of its own."""
    name = f"of-{history.turn.replace('/', '-')}"
    if history.pieces == 0:
        yield Document(name=name, kind="text")
    for i in range(max(history.pieces, 1), SAYS["writer"] + 1):
        await asyncio.sleep(1 / 20)
        yield Write(name=name, text=f"{i} ")


async def asker(history: History) -> AsyncIterator[AnyPacket | Prompt]:
    """Has another one speak, in between."""
    for i in range(history.pieces + 1, SAYS["asker"] + 1):
        await asyncio.sleep(1 / 20)
        if i == 4:
            yield Prompt(text="go", to="slow")
        yield Content(f"{i} ")


AGENTS: Mapping[str, Agent] = {
    "slow": counting(SAYS["slow"], pace=6),
    "fast": counting(SAYS["fast"], pace=100),
    "writer": writer,
    "asker": asker,
}
ADDRESSED = "slow", "fast", "writer", "asker", "slow,fast,writer"


async def restarts(seed: int, stories: int) -> None:
    """So many stories, one after the other. Raises Failed."""
    began, times, sessions = time.monotonic(), 0, 0
    for each in range(seed, seed + stories):
        with tempfile.TemporaryDirectory() as directory:
            store = RealStore(Path(directory))
            try:
                more, logs = await _story(store, random.Random(each))
            except AssertionError as broken:
                raise Failed(f"restarts, seed {each}: {broken}") from broken
            finally:
                store.kill()
        times, sessions = times + more, sessions + logs
        if (each - seed + 1) % 10 == 0:
            print(f"  {each - seed + 1} stories, the last with seed {each}, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{stories} stories in which a store restarted {times} times under {sessions} sessions: each log exact", flush=True)


async def _story(store: RealStore, rng: random.Random) -> tuple[int, int]:
    """How often the store restarted, and how many sessions it had."""
    tail_kept, times, instances = rng.random() < 0.6, rng.randint(1, 3), rng.randint(1, 2)
    async with nodes(store.url, AGENTS, instances, lease=rng.choice((0.5, 2.0))) as running, AsyncExitStack() as people:
        sessions: dict[str, list[Watcher]] = {f"s{i}": [] for i in range(rng.choice((3, 10, 40)))}
        for session, watchers in sessions.items():
            for node, name in zip(running * 2, ("ann", "bob"), strict=False):
                watchers.append(await people.enter_async_context(watch(node.server, session, name)))
        turns = {session: await _ask(ann, rng.choice(ADDRESSED)) for session, (ann, _) in sessions.items()}
        for _ in range(times):
            await asyncio.sleep(rng.uniform(0.1, 0.6))
            await _restart(store, tail_kept, rng)
        for session, (_, bob) in sessions.items():
            if rng.random() < 0.3:
                turns[session] += await _ask(bob, "fast")
        for session, watchers in sessions.items():
            _judge(session, await _settled(store.url, session, watchers), turns[session])
    return times, len(sessions)


async def _restart(store: RealStore, tail_kept: bool, rng: random.Random) -> None:
    if tail_kept:
        await asyncio.to_thread(store.restart, keep=True)
        return
    await asyncio.to_thread(store.save)
    await asyncio.sleep(rng.uniform(0, 0.2))
    await asyncio.to_thread(store.come_back_old)


async def _ask(person: Watcher, to: str) -> list[str]:
    """The turns that it opens. Raises AssertionError where it has no receipt in time."""
    try:
        async with asyncio.timeout(PATIENT):
            receipt = await person.session.prompt("go", to=to)
    except TimeoutError:
        raise AssertionError(f"no receipt of a prompt, after {len(person.seen)} entries") from None
    return [turn_of(receipt, agent) for agent in to.split(",")]


async def _settled(url: str, session: str, watchers: Sequence[Watcher]) -> list[Entry]:
    """The log, once no turn is open and everybody has seen all of it. Raises AssertionError where that takes too long."""
    log: list[Entry] = []
    try:
        async with asyncio.timeout(PATIENT):
            while not log or Judge(log).open or any(watcher.log != log for watcher in watchers):
                await asyncio.sleep(0.1)
                log = await read_log(url, session)
    except TimeoutError:
        seen = [sum(one == other for one, other in zip(watcher.log, log, strict=False)) for watcher in watchers]
        raise AssertionError(f"{session}: open: {Judge(log).open}; of {len(log)} entries, {seen} were seen") from None
    return log


def _judge(session: str, log: list[Entry], turns: Sequence[str]) -> None:
    """All that was asked for was said, to its end, each number once. Raises AssertionError."""
    ended = {entry.turn: entry.reason for entry in log if isinstance(entry, End)}
    for turn in turns:
        text = "".join(entry.text for entry in log if isinstance(entry, Content | Write) and entry.turn == turn)
        assert (ended.get(turn), text) == ("done", count(SAYS[turn.partition("/")[2]])), f"{turn} of {session}: {ended.get(turn)}, {text!r}"
