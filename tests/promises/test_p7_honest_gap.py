"""P7: a cursor that can't be served is answered `gap` with the reason, then all that is kept; never a silent skip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from kit.history import History
from kit.lab.instances import Node, Serve
from kit.packets import START, AnyPacket, Content, EntryId, Hello, Prompt
from kit.store import open_store
from kit.transcript import Transcript
from tests.conftest import RealStore
from tests.promises.support import Judge, Watcher, count, counting, endless, nodes, read_log, said, turn_of, watch
from tests.support import both_servers, each_server, ref, visit


async def talked(person: Watcher, turns: int = 1) -> None:
    """So many turns are over."""
    for _ in range(turns):
        await person.ended(turn_of(await person.session.prompt("go")))


@both_servers
@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("2-0", "future"),
        ("1-99", "future"),
        ("18446744073709551616-0", "future"),
        ("99999999999999999999999999-1", "future"),
        ("yesterday", "other log"),
        ("", "other log"),
        ("1-2-3", "other log"),
        ("-1-0", "other log"),
    ],
)
async def test_p7_a_cursor_that_cannot_be(store: str, serve: Serve, after: str, reason: str) -> None:
    """From the future, beyond 64 bits, nonsense: hello says `gap` and why, a gap frame follows, then the whole log."""
    async with nodes(store, counting(5), 1, join=False, serve=serve) as (one,), watch(one.server, "s") as ann:
        await talked(ann)
        async with visit(one.server, "s", query=f"?after={after}&log={ann.session.log}") as late:
            await told_all(late, reason, ann)


@both_servers
async def test_p7_a_cursor_of_another_log(store: str, serve: Serve) -> None:
    """The id exists here too, but the client read it elsewhere: nothing is taken for known."""
    async with nodes(store, counting(5), 1, join=False, serve=serve) as (one,), watch(one.server, "s") as ann:
        await talked(ann)
        async with visit(one.server, "s", query="?after=1-2&log=AAAAAAAA") as late:
            await told_all(late, "other log", ann)


async def told_all(late: Any, reason: str, ann: Watcher) -> None:
    assert isinstance(hello := late.seen[0], Hello)
    assert (hello.status, hello.reason, hello.log) == ("gap", reason, ann.session.log)
    gap = await late.receive()
    assert gap == {"type": "gap", "log": hello.log, "after": hello.after, "reason": reason}
    assert [(await late.receive())["id"] for _ in ann.log] == [entry.id for entry in ann.log]


@both_servers
async def test_p7_a_trimmed_beginning_is_told(store: str, serve: Serve) -> None:
    """`keep` trims whole epochs from the front: who stands before it gets `trimmed`, who asks for all, too; who stands behind, none."""
    async with nodes(store, counting(10), 1, keep=30, join=False, serve=serve) as (one,), watch(one.server, "s") as ann:
        await talked(ann, 6)
        kept = await read_log(store, "s")
        assert 20 <= len(kept) <= 40
        assert isinstance(kept[0], Prompt)
        async with watch(one.server, "s", "bob", after="1-3", log=ann.session.log) as bob, watch(one.server, "s", "eve") as eve:
            for late in (bob, eve):
                await late.reached(EntryId.parse(kept[-1].id))
                assert [gap.reason for gap in late.gaps] == ["trimmed"]
                assert late.gaps[0].after == kept[0].prev
                assert late.log == kept
        async with watch(one.server, "s", "zoe", after=kept[5].id, log=ann.session.log) as zoe:
            await zoe.reached(EntryId.parse(kept[-1].id))
            assert zoe.seen == kept[6:]


@both_servers
async def test_p7_an_open_turn_is_never_trimmed(store: str, serve: Serve) -> None:
    """Its prompt and all after it stay, however much is said meanwhile."""

    async def slow(history: History) -> AsyncIterator[AnyPacket]:
        yield Content("I am thinking")
        await asyncio.Event().wait()

    agents = {"agent": counting(10, pace=5000), "slow": slow}
    async with nodes(store, agents, 1, keep=10, join=False, serve=serve) as (one,), watch(one.server, "s") as ann:
        await talked(ann, 2)
        slow_one = turn_of(await ann.session.prompt("go", to="slow"), "slow")
        await talked(ann, 5)
        log = await read_log(store, "s")
        assert f"{log[0].id}/slow" == slow_one
        await ann.session.stop(slow_one)
        await ann.ended(slow_one)


# ---- the log is lost while people are connected and an agent speaks ----


async def emptied(redis: Redis, stream: str) -> None:
    await redis.flushall()


async def deleted(redis: Redis, stream: str) -> None:
    await redis.delete(stream)


@both_servers
@pytest.mark.parametrize("lose", [emptied, deleted])
async def test_p7_a_log_that_vanishes_is_told_to_everybody(store: str, serve: Serve, lose: Callable[[Redis, str], Awaitable[None]]) -> None:
    """DEL and FLUSHALL under a speaking agent: clients on both instances are told `lost`, and what is said next reaches both."""
    async with nodes(store, endless, 2, serve=serve) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        turn = turn_of(await ann.session.prompt("go"))
        await bob.pieces(turn, 20)
        async with open_store(store) as own:
            await lose(own.redis, (await Transcript(own).open("s")).log.stream)
        for person in (ann, bob):
            await person.until(lambda w: w.gaps)
        again = turn_of(await bob.session.prompt("anew"))
        for person in (ann, bob):
            await person.pieces(again, 5)
        assert (await ann.session.stop()).status == "applied"
        for person in (ann, bob):
            assert (await person.ended(again)).reason == "stopped"
            assert {gap.reason for gap in person.gaps} == {"lost"}
        log = await read_log(store, "s")
        Judge(log)
        assert ann.log == bob.log == log
        assert ann.session.log == bob.session.log


@each_server
async def test_p7_a_store_that_comes_back_empty(real_store: RealStore, serve: Serve) -> None:
    """`kill -9` of the store under a speaking agent: everybody is told `lost`; the session goes on in a new log."""
    async with (
        nodes(real_store.url, endless, 2, serve=serve) as both,
        watch(both[0].server, "s") as ann,
        watch(both[1].server, "s", "bob") as bob,
    ):
        await bob.pieces(turn_of(await ann.session.prompt("go")), 20)
        await asyncio.to_thread(real_store.restart)
        await went_on(real_store, both, ann, bob)
        assert [e.text for e in ann.log if isinstance(e, Prompt)] == ["anew"]


@each_server
async def test_p7_a_store_that_lost_the_tail(real_store: RealStore, serve: Serve) -> None:
    """It comes back with an old dump: what it kept is served under a new log's name, what it lost is told, and the turn goes on."""
    async with (
        nodes(real_store.url, counting(400, pace=300), 2, join=False, serve=serve) as both,
        watch(both[0].server, "s") as ann,
        watch(both[1].server, "s", "bob") as bob,
    ):
        turn = turn_of(await ann.session.prompt("go"))
        await bob.pieces(turn, 20)
        await asyncio.to_thread(real_store.save)
        before = ann.session.log
        await bob.pieces(turn, 60)
        await asyncio.to_thread(real_store.come_back_old)
        for person in (ann, bob):
            await person.until(lambda w: w.gaps)
            assert (await person.ended(turn)).reason == "done"
            assert {gap.reason for gap in person.gaps} == {"lost"}, person.gaps
        log = await read_log(real_store.url, "s")
        Judge(log)
        lost = [e for e in bob.seen[: bob.seen.index(bob.gaps[0])] if e not in log]
        assert lost  # else the dump was not old
        assert said(log, turn) == count(400)
        assert ann.log == bob.log == log
        assert ann.session.log == bob.session.log != before


@each_server
async def test_p7_a_turn_whose_end_was_lost_goes_on(real_store: RealStore, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had ended, and was about to be let go, when the store came back without its end: it is said to its end again."""
    async with nodes(real_store.url, counting(40, pace=200), 1, join=False, serve=serve) as (one,), watch(one.server, "s") as ann:
        transcript = one.server.instance.transcript
        release, before, known = transcript.release, transcript.run_id(0), asyncio.Event()

        async def late(*asked: Any, **options: Any) -> bool:
            await known.wait()
            return await release(*asked, **options)

        monkeypatch.setattr(transcript, "release", late)
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 20)
        await asyncio.to_thread(real_store.save)
        await ann.ended(turn)
        await asyncio.to_thread(real_store.come_back_old)
        while transcript.run_id(0) == before:  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0.01)
        known.set()
        await ann.until(lambda w: w.gaps)
        assert (await ann.ended(turn)).reason == "done"
        log = await read_log(real_store.url, "s")
        Judge(log)
        assert ann.log == log
        assert said(log, turn) == count(40)


@each_server
async def test_p7_many_sessions_go_on_when_their_store_comes_back(real_store: RealStore, serve: Serve) -> None:
    """Some of an instance's turns meet the restart by an append, some only hear of it; each of them goes on."""
    names = [f"s{i}" for i in range(60)]
    async with nodes(real_store.url, counting(12, pace=5), 1, serve=serve) as (one,), AsyncExitStack() as people:
        everybody = [await people.enter_async_context(watch(one.server, name)) for name in names]
        turns = [turn_of(await ann.session.prompt("go")) for ann in everybody]
        for heard in (3, 7):
            for ann, turn in zip(everybody, turns, strict=True):
                await ann.pieces(turn, heard)
            await asyncio.to_thread(real_store.restart, keep=True)
        for name, ann, turn in zip(names, everybody, turns, strict=True):
            assert (await ann.ended(turn)).reason == "done"
            assert said(await read_log(real_store.url, name), turn) == count(12)
            await ann.until(lambda w: w.gaps)
            assert {gap.reason for gap in ann.gaps} == {"lost"}


async def went_on(real_store: RealStore, both: list[Node], ann: Watcher, bob: Watcher) -> None:
    for person in (ann, bob):
        await person.until(lambda w: w.gaps)
    again = turn_of(await bob.session.prompt("anew"))
    for person in (ann, bob):
        await person.pieces(again, 5)
    await ann.session.stop()
    for person in (ann, bob):
        await person.ended(again)
        assert {gap.reason for gap in person.gaps} == {"lost"}
    log = await read_log(real_store.url, "s")
    Judge(log)
    assert ann.log == bob.log == log


@both_servers
async def test_p7_what_is_said_while_an_empty_log_is_read_is_not_skipped(store: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store was emptied: a client is told, and gets the first word of the new log though it came in that very moment."""
    async with nodes(store, counting(3), 1, join=False, serve=serve) as (one,), watch(one.server, "s") as ann:
        await talked(ann)
        instance = one.server.instance
        read, asked = instance.transcript.read, list[EntryId]()

        async def slowly(log: Any, after: EntryId, *more: Any) -> Any:
            found = await read(log, after, *more)
            if not asked and not found and after == START and more == (1,):
                asked.append(after)
                await instance.say("s", Prompt(text="go", ref=ref()), "bob")
            return found

        monkeypatch.setattr(instance.transcript, "read", slowly)
        await instance.transcript.store.redis.flushall()
        await instance.ears.reopen("s")
        await ann.until(lambda w: w.gaps)
        assert (await ann.ended("1-0/agent")).reason == "done"
        assert asked
        Judge(ann.log)
        assert ann.log == await read_log(store, "s")
