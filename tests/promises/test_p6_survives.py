"""P6: `kill -9` of an instance in mid-answer: another goes on within lease + 0.5 s; what was said is not said again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets import ConnectionClosed, Subprotocol
from websockets.asyncio.client import connect as connect_websocket

from kit.lab.instances import Node, Serve
from kit.lab.processes import Process, processes
from kit.packets import Content, Entry, EntryId, Packet, Prompt, Takeover
from tests.conftest import RealStore
from tests.promises.support import Judge, Losses, Watcher, count, counting, nodes, read_log, said, turn_of, watch
from tests.support import both_servers

KIT = [Subprotocol("kit.v1")]
COUNTER = "tests.promises.support:counter"
TO = 300
NUMBERS = " ".join(str(i) for i in range(1, TO + 1))


def numbers(entries: list[Entry], turn: str) -> str:
    return "".join(e.text for e in entries if isinstance(e, Content) and e.turn == turn)


def went_on(turn: str, epoch: int) -> Callable[[Watcher], bool]:
    """Whether the turn has spoken in a later epoch than this."""
    return lambda w: any(isinstance(e, Content) and e.turn == turn and EntryId.parse(e.id).epoch > epoch for e in w.log)


def of(process: Process, session: str = "s") -> AbstractAsyncContextManager[Watcher]:
    return watch(process.url, session, token=process.token)


async def used(process: Process) -> None:
    """An instance answers its first prompt 0.4 s later than the next: the model's client library builds its types when they are used."""
    async with of(process, f"used-{process.process.pid}") as watcher:
        await watcher.ended(turn_of(await watcher.session.prompt("count to 1")))


async def test_p6_another_process_goes_on_after_kill_9(real_store: RealStore) -> None:
    """The owner is killed in mid-answer; clients on the two others see the rest within lease + 0.5 s: nothing lost, doubled or late.

    The text must be exact each time. The time is told of the best of three: a machine that does other things only adds to it.
    """
    lease, took = 0.5, list[float]()
    while not took or (len(took) < 3 and min(took) > lease + 0.5):
        real_store.empty()
        took.append(await seconds_after_a_kill(real_store.url, lease))
    print(f"went on {[round(t * 1000) for t in took]} ms after kill -9, with a lease of {lease * 1000:.0f} ms")
    assert min(took) <= lease + 0.5


async def seconds_after_a_kill(store: str, lease: float) -> float:
    """One such story, with the time from the kill to the next packet."""
    async with processes(count=3, store=store, lease=lease, pace=100) as (owner, other, third):
        await asyncio.gather(used(other), used(third))
        async with of(other) as bob, of(third) as eve:
            async with of(owner) as ann:
                turn = turn_of(await ann.session.prompt(f"count to {TO}"))
            for watcher in (bob, eve):
                await watcher.until(lambda w: " 40 " in numbers(w.log, turn))
            killed = time.monotonic()
            owner.kill()
            await bob.until(went_on(turn, 1))
            took = time.monotonic() - killed
            for watcher in (bob, eve):
                assert (await watcher.ended(turn)).reason == "done"
                assert numbers(watcher.log, turn) == NUMBERS
            log = await read_log(store, "s")
            Judge(log)
            assert bob.seen == eve.seen == log
            assert any(isinstance(e, Takeover) for e in log)  # more than one where a busy machine keeps an instance from renewing
            return took


async def test_p6_a_process_that_wakes_up_late_says_nothing_more(real_store_url: str) -> None:
    """SIGSTOP past the lease, another takes over, SIGCONT: the zombie is refused, gives up its turn, and serves on."""
    async with processes(COUNTER, 2, store=real_store_url, lease=0.5) as (owner, other), of(owner) as ann, of(other) as bob:
        turn = turn_of(await ann.session.prompt("go"))
        await bob.until(lambda w: " 40 " in numbers(w.log, turn))
        owner.freeze()
        await bob.until(went_on(turn, 1))
        owner.thaw()
        for watcher in (bob, ann):
            assert (await watcher.ended(turn)).reason == "done"
            assert numbers(watcher.log, turn) == count(TO)
        again = turn_of(await ann.session.prompt("go"))
        await ann.ended(again)
        assert numbers(ann.log, again) == count(TO)
        log = await read_log(real_store_url, "s")
        Judge(log)
        await bob.ended(again)
        assert ann.seen == bob.seen == log


async def test_p6_a_process_that_leaves_hands_over_at_once(real_store_url: str) -> None:
    """SIGTERM: the turn is given away and its sockets close with 1012; the other goes on long before the lease would end."""
    lease = 20.0
    async with processes(COUNTER, 2, store=real_store_url, lease=lease) as (owner, other), of(other) as bob, of(owner) as ann:
        headers = {"Authorization": f"Bearer {owner.token}"}
        async with connect_websocket(f"{owner.url}/s/s", additional_headers=headers, subprotocols=KIT, proxy=None, max_queue=None) as plain:
            turn = turn_of(await ann.session.prompt("go"))
            await bob.until(lambda w: " 40 " in numbers(w.log, turn))
            left, leaving = time.monotonic(), asyncio.create_task(owner.leave())
            await bob.until(went_on(turn, 1))
            took = time.monotonic() - left
            print(f"handed over in {took * 1000:.0f} ms, with a lease of {lease:.0f} s")
            with suppress(ConnectionClosed):
                async for _ in plain:
                    pass
            assert plain.close_code == 1012
        assert await leaving == 0
        assert took < lease / 4
        assert (await bob.ended(turn)).reason == "done"
        assert numbers(bob.log, turn) == count(TO)
        log = await read_log(real_store_url, "s")
        Judge(log)
        assert [e.by is None for e in log if isinstance(e, Takeover)] == [True, False]


# ---- stories: instances of this process, stopped, frozen and cut at random ----


class Story:
    """Two or three instances with a lease of 0.15 s, and what happens to them."""

    def __init__(self, running: list[Node], session: str, rng: random.Random) -> None:
        self.running, self.session, self.rng = running, session, rng

    async def happen(self, what: str, teller: Watcher) -> None:
        """One fault, and until the story goes on."""
        node = self.rng.choice(self.running)
        match what:
            case "stop":
                await node.stop()
                await node.start()
            case "leave":
                await node.leave()
                await node.start()
            case "freeze":
                node.freeze()
                asyncio.get_running_loop().call_later(self.rng.uniform(0.05, 0.4), node.thaw)
            case "cut":
                await node.server.cut(self.session)
            case "prompt":
                await teller.session.prompt("another")


FAULTS = st.lists(st.sampled_from(["stop", "leave", "freeze", "cut", "prompt"]), min_size=3, max_size=5)


@both_servers
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=FAULTS, seed=st.integers(0, 2**32))
async def test_p6_no_story_loses_or_doubles_a_piece(store: str, serve: Serve, faults: list[str], seed: int) -> None:
    """A witness without faults talks; whatever happens to the others, all turns end, exact, and all that is seen is the log."""
    session, rng = f"story-{seed}", random.Random(seed)
    agents = counting(80, pace=800)
    async with nodes(store, agents, 1, lease=0.15, serve=serve) as (safe,), nodes(store, agents, 2, lease=0.15, serve=serve) as running:
        Losses(running[0].store, rng, 0.1)
        story = Story(running, session, rng)
        async with watch(safe.server, session) as teller:
            async with watch(running[0].server, session, "bob") as victim:
                with suppress(ConnectionError):
                    first = turn_of(await victim.session.prompt("go"))
                for i, fault in enumerate(faults):
                    await teller.pieces(first, min(80, 12 * (i + 1)))
                    await story.happen(fault, teller)
            prompts = [e for e in await read_log(store, session) if isinstance(e, Prompt)]
            for prompt in prompts:
                assert (await teller.ended(f"{prompt.id}/agent")).reason == "done"
            log = await read_log(store, session)
            Judge(log)
            assert teller.seen[: len(log)] == log
            for prompt in prompts:
                assert said(log, f"{prompt.id}/agent") == count(80)
            assert not [e for e in log if isinstance(e, Packet) and e.turn not in {f"{p.id}/agent" for p in prompts}]
