"""Balancer: four instances behind one address: deploys and time limits cut every socket, and nobody misses a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress

from websockets import ConnectionClosed, Subprotocol
from websockets.asyncio.client import connect as connect_websocket

from kit.history import Agent, History
from kit.lab.balancer import Balancer, balancer
from kit.lab.instances import Node, Serve
from kit.packets import AnyPacket, Content, Takeover
from tests.promises.support import Judge, Watcher, count, counting, nodes, read_log, watch
from tests.support import both_servers

PEOPLE = 6
KIT = [Subprotocol("kit.v1")]
LEASE = 20.0
"""Longer than a test: a turn that goes on was handed over, and not found when its lease ran out."""


async def greeting(name: bytes) -> asyncio.Server:
    """A server that says its name and closes."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            writer.write(name)

    return await asyncio.start_server(greet, "127.0.0.1", 0)


async def heard(wire: Balancer) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    with closing(writer):
        return await reader.read()


async def test_each_connection_goes_to_the_next_and_past_those_that_are_down() -> None:
    """In turn; where one does not listen, to the one after it; where nobody does, the connection is closed."""
    servers = [await greeting(name) for name in (b"a", b"b", b"c")]
    urls = [f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
    async with balancer(urls) as wire:
        assert [await heard(wire) for _ in range(4)] == [b"a", b"b", b"c", b"a"]
        await shut(servers[1])
        assert [await heard(wire) for _ in range(4)] == [b"c", b"a", b"c", b"a"]
        assert sum(wire.carried.values()) == 8
        for server in (servers[0], servers[2]):
            await shut(server)
        assert await heard(wire) == b""


async def shut(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()


@asynccontextmanager
async def people(wire: Balancer, node: Node) -> AsyncIterator[list[Watcher]]:
    """One in each session, through the balancer."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(watch(wire.url, f"s{i}", token=node.token())) for i in range(PEOPLE)]


async def asked(person: Watcher) -> str:
    """A turn that the person's prompt opened: it was applied, or (its receipt was cut off) it had been."""
    receipt = await person.session.prompt("go")
    assert "applied" in (receipt.status, receipt.was)
    return f"{receipt.id}/agent"


def counting_until(done: asyncio.Event) -> Agent:
    """Says `1 2 3 ... ` until then, and goes on where the history ends."""

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        pieces = history.pieces
        while not done.is_set():
            await asyncio.sleep(0.01)
            pieces += 1
            yield Content(f"{pieces} ")

    return agent


async def told_once(store: str, everybody: list[Watcher], turns: list[str]) -> list[list[object]]:
    """All turns end, exact; what each person saw is the log, without a gap. Gives the logs."""
    logs = []
    for i, (person, turn) in enumerate(zip(everybody, turns, strict=True)):
        assert (await person.ended(turn)).reason == "done"
        log = await read_log(store, f"s{i}")
        Judge(log)
        assert person.gaps == []
        assert person.seen == log
        assert person.text(turn) == count(len(person.text(turn).split()))
        logs.append(list(log))
    return logs


@both_servers
async def test_a_rolling_deploy_with_connections_open(store: str, serve: Serve) -> None:
    """One instance after the other leaves and comes back: sockets close with 1012, turns are handed over, nothing is lost or said twice."""
    done = asyncio.Event()
    async with (
        nodes(store, counting_until(done), 4, lease=LEASE, serve=serve) as four,
        balancer([node.url for node in four]) as wire,
        people(wire, four[0]) as everybody,
    ):
        turns = [await asked(person) for person in everybody]
        assert len(wire.carried) == 4
        for n, node in enumerate(four, 1):
            await asyncio.gather(*(person.pieces(turn, 10 * n) for person, turn in zip(everybody, turns, strict=True)))
            headers = {"Authorization": f"Bearer {node.token()}"}
            async with connect_websocket(f"{node.url}/s/s0", additional_headers=headers, subprotocols=KIT, proxy=None) as plain:
                await node.leave()
                with suppress(ConnectionClosed):
                    async for _ in plain:
                        pass
                assert plain.close_code == 1012
            await node.start()
        done.set()
        logs = await told_once(store, everybody, turns)
        given = [entry for log in logs for entry in log if isinstance(entry, Takeover) and entry.by is None]
        assert len(given) >= PEOPLE  # each was given away at least once, by the instance that it began on
        assert wire.dials >= 2 * PEOPLE


@both_servers
async def test_the_maximum_duration_of_a_connection_is_nobodys_loss(store: str, serve: Serve) -> None:
    """A platform closes every socket after its time; the agents do not notice, and each client goes on where it was."""
    async with (
        nodes(store, counting(300, pace=100), 4, lease=LEASE, max_duration=1.0, serve=serve) as four,
        balancer([node.url for node in four]) as wire,
        people(wire, four[0]) as everybody,
    ):
        turns = [await asked(person) for person in everybody]
        logs = await told_once(store, everybody, turns)
        assert wire.dials >= 2 * PEOPLE
        assert not [entry for log in logs for entry in log if isinstance(entry, Takeover)]
