"""A cluster of three servers: the promises hold there, with sessions on all of them, and what befalls one server is no other's business."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.exceptions import RedisError, ResponseError

from kit.lab.instances import Node, Serve
from kit.lab.picture import look
from kit.log import WrongShards
from kit.packets import End, EntryId, Packet, Takeover
from kit.store import Store, open_store
from kit.transcript import Transcript
from tests.conftest import RealCluster
from tests.promises.support import Judge, Watcher, count, counting, endless, nodes, read_log, said, turn_of, watch
from tests.support import each_server

SHARDS = 8


def spread(store: Store, each: int = 2) -> dict[Store, list[str]]:
    """So many sessions on each server."""
    transcript = Transcript(store, shards=SHARDS)
    names: dict[Store, list[str]] = {server: [] for server in store.servers}
    for i in range(200):
        kept = names[store.of(transcript.open_key(transcript.shard(f"s{i}")))]
        if len(kept) < each:
            kept.append(f"s{i}")
    assert [len(kept) for kept in names.values()] == 3 * [each]
    return names


@pytest.fixture
async def sessions(real_cluster: RealCluster) -> list[str]:
    """The names of six sessions, two on each server."""
    async with open_store(real_cluster.url) as store:
        return [name for kept in spread(store).values() for name in kept]


async def log_of(cluster: RealCluster, session: str) -> list[object]:
    """The log, which the judge has read."""
    log = await read_log(cluster.url, session, SHARDS)
    Judge(log)
    return list(log)


@asynccontextmanager
async def watching(node: Node, sessions: list[str], name: str) -> AsyncIterator[list[Watcher]]:
    """A client in each session."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(watch(node.server, session, name)) for session in sessions]


# ---- who keeps what ----


async def test_cluster_any_server_leads_to_all(real_cluster: RealCluster) -> None:
    """Its URL is that of a server; all three are found, and each has a run id of its own."""
    for server in real_cluster.servers:
        async with open_store(server.url) as store:
            assert {f"redis://127.0.0.1:{one.port}/0" for one in real_cluster.servers} == {one.url for one in store.servers}
            for one in store.servers:
                await one.redis.ping()
            assert len({one.run_id for one in store.servers}) == 3


async def test_cluster_what_belongs_to_no_shard_has_a_server_too(real_cluster: RealCluster) -> None:
    """The number of shards, and tickets, which are taken once wherever they lie."""
    async with open_store(real_cluster.url) as store:
        transcript = Transcript(store, shards=SHARDS)
        await transcript.agree()
        with pytest.raises(WrongShards):
            await Transcript(store).agree()
        tickets = [f"t{i}" for i in range(12)]
        assert len({store.of(f"kit:ticket:{ticket}") for ticket in tickets}) == 3
        for ticket in tickets:
            await transcript.put_ticket(ticket, ticket.encode(), 5.0)
        assert [await transcript.take_ticket(ticket) for ticket in tickets] == [ticket.encode() for ticket in tickets]
        assert [await transcript.take_ticket(ticket) for ticket in tickets] == 12 * [None]
        for sessions in spread(store).values():
            assert (await look(transcript, sessions[0])).keys[0][2] == str(SHARDS)


async def test_cluster_keys_without_a_tag_are_refused_together(real_cluster: RealCluster) -> None:
    """The draft of chapter 09, which the kit's keys avoid: one script may not name keys of two slots."""
    async with open_store(real_cluster.url) as store:
        line = store.of("demo").redis
        with pytest.raises(ResponseError, match="same slot"):
            await line.eval("return 1", 2, "demo:log", "demo:refs")
        assert await store.of("{3}:demo").redis.eval("return 1", 2, "{3}:demo:log", "{3}:demo:refs") == 1


# ---- the promises ----


@each_server
async def test_cluster_p1_p2_each_client_sees_its_log_whatever_is_cut(real_cluster: RealCluster, sessions: list[str], serve: Serve) -> None:
    """Six sessions at once, a client of each on both instances, sockets cut at random: nothing lost, doubled or out of order."""
    rng = random.Random(1)
    async with (
        nodes(real_cluster.url, counting(80, pace=400), 2, shards=SHARDS, serve=serve) as (one, other),
        watching(one, sessions, "ann") as here,
        watching(other, sessions, "bob") as there,
    ):
        turns = [turn_of(receipt) for receipt in await asyncio.gather(*(w.session.prompt("go") for w in here))]
        for pieces in (10, 30, 60):
            session = rng.randrange(6)
            await there[session].pieces(turns[session], pieces)
            await other.server.cut()
        for session, near, far, turn in zip(sessions, here, there, turns, strict=True):
            await near.ended(turn)
            await far.ended(turn)
            assert near.seen == far.seen == await log_of(real_cluster, session)
            assert far.text(turn) == count(80)


@each_server
async def test_cluster_p5_a_stop_is_a_stop(real_cluster: RealCluster, sessions: list[str], serve: Serve) -> None:
    """Said to the instance that does not run the turn: nothing follows the receipt but the end."""
    async with (
        nodes(real_cluster.url, endless, 2, shards=SHARDS, serve=serve) as (one, other),
        watching(one, sessions, "ann") as here,
        watching(other, sessions, "bob") as there,
    ):
        turns = [turn_of(receipt) for receipt in await asyncio.gather(*(w.session.prompt("go") for w in here))]
        for session, near, far, turn in zip(sessions, here, there, turns, strict=True):
            await near.pieces(turn, 5)
            receipt = await far.session.stop()
            assert (await near.ended(turn)).reason == "stopped"
            after = [e for e in near.log if isinstance(e, Packet) and EntryId.parse(e.id) > EntryId.parse(str(receipt.id))]
            assert [type(packet) for packet in after] == [End]
            await log_of(real_cluster, session)


@each_server
async def test_cluster_p6_another_instance_goes_on(real_cluster: RealCluster, sessions: list[str], serve: Serve) -> None:
    """The owner of turns on all three servers is gone without a word: each goes on elsewhere, exact."""
    async with (
        nodes(real_cluster.url, counting(80, pace=100), 2, shards=SHARDS, serve=serve) as (owner, other),
        watching(other, sessions, "bob") as far,
    ):
        async with watching(owner, sessions, "ann") as near:
            turns = [turn_of(receipt) for receipt in await asyncio.gather(*(w.session.prompt("go") for w in near))]
        await asyncio.gather(*(watcher.pieces(turn, 10) for watcher, turn in zip(far, turns, strict=True)))
        await owner.stop()
        for session, watcher, turn in zip(sessions, far, turns, strict=True):
            assert (await watcher.ended(turn)).reason == "done"
            log = await log_of(real_cluster, session)
            assert watcher.seen == log
            assert any(isinstance(e, Takeover) for e in log)
            assert said(watcher.log, turn) == count(80)


@each_server
async def test_cluster_p7_a_server_that_lost_its_tail_is_no_others_business(real_cluster: RealCluster, serve: Serve) -> None:
    """One comes back with an old dump: its sessions are told `lost`, move to a new log and go on; on the others nobody notices."""
    async with open_store(real_cluster.url) as store:
        names = {server.url: kept for server, kept in spread(store).items()}
    victim = real_cluster.servers[1]
    sessions = [name for kept in names.values() for name in kept]
    async with (
        nodes(real_cluster.url, counting(120, pace=60), 2, shards=SHARDS, serve=serve) as (one, other),
        watching(one, sessions, "ann") as here,
        watching(other, sessions, "bob") as there,
    ):
        turns = [turn_of(receipt) for receipt in await asyncio.gather(*(w.session.prompt("go") for w in here))]
        await asyncio.gather(*(w.pieces(turn, 10) for w, turn in zip(there, turns, strict=True)))
        await asyncio.to_thread(victim.save)
        await asyncio.gather(*(w.pieces(turn, 30) for w, turn in zip(there, turns, strict=True)))
        await asyncio.to_thread(victim.come_back_old)
        for session, near, far, turn in zip(sessions, here, there, turns, strict=True):
            hit = session in names[victim.url]
            for watcher in (near, far):
                if hit:
                    await watcher.until(lambda w: w.gaps)
                assert (await watcher.ended(turn)).reason == "done"
                assert {gap.reason for gap in watcher.gaps} == ({"lost"} if hit else set())
            log = await log_of(real_cluster, session)
            assert near.log == far.log == log
            assert said(far.log, turn) == count(120)


@each_server
async def test_cluster_a_shard_that_moves_is_followed(real_cluster: RealCluster, sessions: list[str], serve: Serve) -> None:
    """Its slot goes to another server under a speaking agent, and back: each time the session gets a new log, is told so, and goes on."""
    async with (
        nodes(real_cluster.url, counting(150, pace=100), 2, shards=SHARDS, serve=serve) as (one, other),
        watch(one.server, sessions[0], "ann") as ann,
        watch(other.server, sessions[0], "bob") as bob,
    ):
        turn = turn_of(await ann.session.prompt("go"))
        await bob.pieces(turn, 10)
        transcript = Transcript(one.store, shards=SHARDS)
        key = transcript.open_key(transcript.shard(sessions[0]))
        before = one.store.of(key).url
        elsewhere = next(server.url for server in one.store.servers if server.url != before)
        for there, where in enumerate((elsewhere, before), 1):
            await asyncio.to_thread(move, real_cluster, one.store.of(key).url, key, where)
            for watcher in (ann, bob):
                await watcher.until(lambda w, n=there: len(w.gaps) >= n)
            assert one.store.of(key).url == where
        for watcher in (ann, bob):
            assert (await watcher.ended(turn)).reason == "done"
            assert {gap.reason for gap in watcher.gaps} == {"lost"}
        log = await log_of(real_cluster, sessions[0])
        assert ann.log == bob.log == log
        assert said(ann.log, turn) == count(150)


def move(cluster: RealCluster, url: str, key: str, to: str) -> None:
    """Give the key's slot, with all that is in it, to another server (https://redis.io/docs/latest/commands/cluster-setslot)."""
    by_url = {server.url: server for server in cluster.servers}
    giver, taker = by_url[url], by_url[to]
    with giver.client() as old, taker.client() as new:
        slot = old.execute_command("CLUSTER KEYSLOT", key)
        names = {"IMPORTING": old.execute_command("CLUSTER MYID"), "MIGRATING": new.execute_command("CLUSTER MYID")}
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names["IMPORTING"])
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names["MIGRATING"])
        while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            for one in keys:
                try:
                    old.execute_command("MIGRATE", "127.0.0.1", taker.port, one, 0, 5000, "REPLACE")
                except RedisError:  # its time was over meanwhile
                    assert not old.exists(one)
        for client in (new, old):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", names["MIGRATING"])


@each_server
async def test_cluster_one_server_that_stands_still_costs_the_others_no_turn(
    real_cluster: RealCluster, sessions: list[str], serve: Serve
) -> None:
    """Leases are renewed on each server for itself: on the other two nothing changes hands."""
    async with open_store(real_cluster.url) as store:
        names = {server.url: kept for server, kept in spread(store).items()}
    victim = real_cluster.servers[0]
    async with (
        nodes(real_cluster.url, counting(1000, pace=100), 2, shards=SHARDS, serve=serve, lease=1.0) as (one, _),
        watching(one, sessions, "ann") as here,
    ):
        turns = [turn_of(receipt) for receipt in await asyncio.gather(*(w.session.prompt("go") for w in here))]
        await asyncio.gather(*(w.pieces(turn, 5) for w, turn in zip(here, turns, strict=True)))
        with victim.paused():
            await asyncio.sleep(1.9)  # nearly two leases; after two seconds the others would take it for dead
        await asyncio.gather(*(w.session.stop() for w in here))
        for session, watcher, turn in zip(sessions, here, turns, strict=True):
            await watcher.ended(turn)
            if session not in names[victim.url]:
                assert not [e for e in watcher.log if isinstance(e, Takeover)]
            await log_of(real_cluster, session)
