"""Presence: who is in a room, over several instances; and that a session that is no room costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from kit.client import Session
from kit.instance import Instance
from kit.packets import Typing, Who
from kit.server import Server
from kit.store import open_store
from kit.transcript import Transcript
from tests.promises.support import nodes, watch
from tests.support import Counting, prompt, visit

AGENTS = {"architect": Counting(), "coder": Counting()}


class Guest:
    """A client that remembers what it was told beside the log."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.asides: list[Typing | Who] = []
        self._heard = asyncio.Event()
        session.on_aside = self._hear

    def _hear(self, aside: Typing | Who) -> None:
        self.asides.append(aside)
        self._heard.set()

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until it is so; it is looked at whenever something was told."""
        while not what():
            self._heard.clear()
            await self._heard.wait()

    async def sees(self, *names: str) -> None:
        await self.until(lambda: self.session.people == sorted(names))


@asynccontextmanager
async def guest(server: Server, name: str, **options: Any) -> AsyncIterator[Guest]:
    async with watch(server, "room", name, **options) as watcher:
        yield Guest(watcher.session)


async def test_everybody_hears_at_once_who_came_and_who_went(store: str) -> None:
    """On both instances, the newcomer too, long before the next telling is due."""
    async with nodes(store, AGENTS, rooms=["room"], presence=3600.0) as (one, two), guest(one.server, "ann") as ann:
        await ann.sees("ann")
        async with guest(two.server, "bob") as bob, guest(two.server, "cleo") as cleo:
            for here in (ann, bob, cleo):
                await here.sees("ann", "bob", "cleo")
            assert {tuple(who.agents) for who in cleo.asides if isinstance(who, Who)} == {("architect", "coder")}
        await ann.sees("ann")


async def test_who_comes_twice_is_one_and_stays_until_both_have_gone(store: str) -> None:
    """Two windows of one person."""
    async with nodes(store, AGENTS, 1, rooms=["room"], presence=3600.0) as (node,), guest(node.server, "ann") as ann:
        async with guest(node.server, "bob"):
            async with guest(node.server, "bob") as again:
                await again.sees("ann", "bob")
                told = len(ann.asides)
            await ann.until(lambda: len(ann.asides) > told)
            assert ann.session.people == ["ann", "bob"]
        await ann.sees("ann")


async def test_an_instance_that_leaves_takes_its_list_with_it(store: str) -> None:
    """An orderly exit tells an empty list; nobody waits for silence."""
    async with (
        nodes(store, AGENTS, rooms=["room"], presence=3600.0) as (one, two),
        guest(one.server, "ann") as ann,
        guest(two.server, "bob"),
    ):
        await ann.sees("ann", "bob")
        await two.leave()
        await ann.sees("ann")


async def test_an_exit_tells_what_has_just_changed(store: str) -> None:
    """However late that was."""
    async with (
        nodes(store, AGENTS, 1, rooms=["room"], presence=3600.0) as (node,),
        visit(node.server, "room") as ann,
        open_store(store) as opened,
    ):
        async with Instance(Transcript(opened), AGENTS, rooms=["room"]).running() as instance:
            instance.presence.tell(await instance.ears.open("room"))
        assert (await ann.until("who", names=[]))["agents"] == [*AGENTS]


async def test_a_list_that_is_not_heard_any_more_is_void(store: str) -> None:
    """The instance is frozen and tells nothing; the other goes on telling, and so is not void."""
    async with (
        nodes(store, AGENTS, rooms=["room"], presence=0.02) as (one, two),
        guest(one.server, "ann", silence=0.5) as ann,
        guest(two.server, "bob"),
    ):
        await ann.sees("ann", "bob")
        two.freeze()
        await ann.sees("ann")
        two.thaw()
        await ann.sees("ann", "bob")


async def test_a_session_that_is_no_room_is_told_nothing(store: str) -> None:
    """A thousand idle sessions cost the store no command."""
    async with (
        nodes(store, AGENTS, rooms=["room"], presence=0.01) as (one, two),
        visit(one.server, "s") as ann,
        visit(two.server, "s", name="bob"),
    ):
        async with guest(two.server, "cleo") as cleo:
            told = len(cleo.asides)
            await cleo.until(lambda: len(cleo.asides) > told + 3)
        await ann.answers(prompt())
        assert not any(isinstance(frame, Who) for frame in ann.seen)
