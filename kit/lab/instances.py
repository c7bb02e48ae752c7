"""Instances: several in this process, as a platform runs functions: each can be stopped, frozen, asked to leave, and started cold.

What lives in this process can't be killed: its tasks are cancelled, so that it hands nothing over and gives no lease back. To its clients
and to the store that is the same; real processes are in processes.py.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from kit.ending import end, finish
from kit.history import Agent
from kit.lab.ports import free_ports
from kit.server import serve
from kit.service import Service
from kit.store import Store, open_store

Serve = Callable[..., AbstractAsyncContextManager[Service]]
"""`kit.server.serve`, or `kit.lab.hosted.serve`."""


class Node:
    """An instance with lines of its own to the store. While it runs it has a `server` and a `store`; `start` keeps its port."""

    def __init__(self, agents: Agent | Mapping[str, Agent], store: str, answers: asyncio.Event, serve: Serve, **options: Any) -> None:
        self._agents, self._store_url, self._answers, self._options = agents, store, answers, options
        self._serve = serve
        self.server: Service
        self.store: Store
        self.running = False
        self._reaches = asyncio.Event()
        self._leave = asyncio.Event()
        self._change = asyncio.Lock()
        self._life: asyncio.Task[None]

    @property
    def url(self) -> str:
        """Where it listens: `ws://127.0.0.1:PORT`."""
        return self.server.url

    def token(self, name: str = "you", session: str = "*") -> str:
        """A token that is good on every instance of its block."""
        return self.server.token(name, session)

    async def start(self) -> None:
        """A cold start: on the port that it had, knowing nothing; nothing, where it runs. Raises what keeps it from that."""
        async with self._change:
            if not self.running:
                ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._reaches.set()
                self._leave.clear()
                self._life = asyncio.create_task(self._live(ready))
                try:
                    await asyncio.wait({ready, self._life}, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:  # nobody would find it any more
                    await finish(end({self._life}))
                    raise
                if self._life.done():
                    self._life.result()

    async def _live(self, ready: asyncio.Future[None]) -> None:
        async with open_store(self._store_url) as self.store:
            gate(self.store, self._reaches, self._answers)
            async with self._serve(self._agents, store=self.store, **self._options) as self.server:
                self.running = True
                ready.set_result(None)
                try:
                    await self._leave.wait()
                finally:
                    self.running = False

    def freeze(self) -> None:
        """From now on no command of it reaches the store: it cannot renew, and does not know that time passes. Its sockets stay open."""
        self._reaches.clear()

    def thaw(self) -> None:
        """All that it was about to do, it does now."""
        self._reaches.set()

    async def stop(self) -> None:
        """Gone: sockets cut, tasks cancelled, no turn handed over, no lease given back."""
        self.thaw()
        async with self._change:
            if self.running:
                await self.server.cut()
                await finish(end({self._life}))

    async def leave(self) -> None:
        """An orderly exit: its turns are handed over, its clients told to come back."""
        self.thaw()
        async with self._change:
            if self.running:
                self._leave.set()
                await self._life


def gate(store: Store, *open: asyncio.Event) -> None:
    """While one of the events is not set, commands wait before they leave for the store."""

    def gated(get: Callable[..., Any]) -> Callable[..., Any]:
        async def get_connection(*args: Any, **kwargs: Any) -> Any:
            for event in open:
                await event.wait()
            return await get(*args, **kwargs)

        return get_connection

    def passing(ready: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: all(event.is_set() for event in open) and ready()

    for server in store.servers:
        for pool in (server.redis.connection_pool, server.ears.connection_pool):
            pool.get_connection = gated(pool.get_connection)
        server.commits.connect = gated(server.commits.connect)  # type: ignore[method-assign]  # of this one store
        server.commits.ready = passing(server.commits.ready)  # type: ignore[method-assign]  # the same


@asynccontextmanager
async def instances(
    agents: Agent | Mapping[str, Agent],
    count: int = 2,
    *,
    store: str | None = None,
    answers: asyncio.Event | None = None,
    serve: Serve = serve,
    **options: Any,
) -> AsyncIterator[list[Node]]:
    """So many instances over one store (a URL; None: this process's memory) while the block runs; `options` go to `serve`.

    While `answers` is not set, the store is as good as paused, for all of them.

    async with instances(agent, 2, lease=0.5) as (one, other):
        async with connect(one.url, token=one.token(), session="demo") as session:
            ...
    """
    store = store or f"fake://instances-{secrets.token_hex(8)}"
    options.setdefault("secret", secrets.token_urlsafe(32))
    if answers is None:
        answers = asyncio.Event()
        answers.set()
    nodes = [Node(agents, store, answers, serve, **{"port": port, **options}) for port in free_ports(count)]
    try:
        for node in nodes:
            await node.start()
        yield nodes
    finally:
        await finish(_stop(nodes))


async def _stop(nodes: list[Node]) -> None:
    for node in nodes:
        await node.stop()
