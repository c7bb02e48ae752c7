"""Processes: `python -m kit serve`, killed, frozen, asked to leave and started cold; and the store that they share where there is none."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import NoScriptError, ResponseError

from kit.lab.instances import instances
from kit.lab.processes import Process, _environment, processes
from kit.lab.served import encode_reply, served_store
from kit.packets import START, EntryId, Prompt, Takeover
from kit.store import Store, StoreRestarted, open_store
from kit.transcript import Transcript
from tests.promises.support import Judge, count, counting, freeze_past_its_lease, read_log, said, turn_of, watch

COUNTER = "tests.promises.support:counter"
TO = 300


async def test_a_killed_process_is_followed_by_another_and_comes_back_cold() -> None:
    """One story over the store of this process: killed, taken over, started again at its port, asked to leave."""
    async with (
        served_store() as store,
        processes(COUNTER, 2, store=store.url, lease=0.3) as (one, other),
        watch(other.url, "s", token=one.token) as bob,
        watch(one.url, "s", token=one.token) as ann,
    ):
        turn = turn_of(await ann.session.prompt("go"))
        await bob.pieces(turn, 10)
        one.kill()
        assert await one.process.wait() == -9
        url = one.url
        await one.start()
        assert one.url == url
        await asyncio.gather(ann.ended(turn), bob.ended(turn))
        log = await read_log(store.url, "s")
        Judge(log)
        assert said(log, turn) == count(TO)
        assert any(isinstance(e, Takeover) for e in log)  # more than one where starting a process keeps the other from renewing in time
        assert ann.log == bob.log == log
        assert await one.leave() == 0


async def test_a_frozen_process_wakes_up_and_is_refused() -> None:
    """SIGSTOP past the lease: what it was about to say never lands."""
    async with served_store() as store, processes(COUNTER, 2, store=store.url, lease=0.3) as (one, other):
        async with watch(other.url, "s", token=one.token) as bob, watch(one.url, "s", token=one.token) as ann:
            turn = turn_of(await ann.session.prompt("go"))
            await freeze_past_its_lease(one, turn, ann, bob)
        log = await read_log(store.url, "s")
        Judge(log)
        assert said(log, turn) == count(TO)


@pytest.mark.parametrize("demo", [True, False])
def test_no_proxy_and_no_key_of_the_demo_reaches_a_process(monkeypatch: pytest.MonkeyPatch, demo: bool) -> None:
    """A proxy would be asked for loopback, and with a key the demo would ask a real model; one's own agent has what it would have here."""
    proxies, model = ("HTTP_PROXY", "https_proxy", "ALL_PROXY"), ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL")
    for name in (*proxies, *model):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("KEPT", "yes")
    environment = _environment(demo=demo)
    assert environment["KEPT"] == "yes"
    assert {name for name, value in environment.items() if value == "http://127.0.0.1:9"} == (set() if demo else set(model))


async def test_a_process_that_does_not_start_says_so() -> None:
    """And no other is left behind."""
    with pytest.raises(RuntimeError, match="ended with 2"):
        async with processes("no.such:agent", 2, store="fake://"):
            pytest.fail("it started")


async def test_an_end_that_is_cancelled_leaves_none_behind() -> None:
    """Whoever is interrupted twice."""
    running: asyncio.Future[list[Process]] = asyncio.get_running_loop().create_future()

    async def use() -> None:
        async with processes(COUNTER, 2, store="fake://") as started:
            running.set_result(started)
            await asyncio.Event().wait()

    using = asyncio.create_task(use())
    started = await running
    for _ in range(2):
        using.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await using
    assert [one.process.returncode for one in started] == [-signal.SIGKILL] * 2


async def test_one_that_is_killed_again_while_it_ends_has_its_own_status(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever signals must not take it from whoever waits for it: nobody would know how it ended."""
    statuses = []
    for wait in range(60):
        one = Process({}, {})
        one.process = await asyncio.create_subprocess_exec("sleep", "100")
        one.kill()
        time.sleep(wait / 60 * 0.003)  # noqa: ASYNC251  # in which it ends, and the loop does not hear of it
        await one.end()
        statuses.append(one.process.returncode)
    assert (set(statuses), caplog.messages) == ({-signal.SIGKILL}, [])


# ---- the served store ----


@pytest.fixture
async def served() -> AsyncIterator[Any]:
    async with served_store() as store:
        yield store


async def test_it_answers_as_the_one_that_it_serves(served: Any) -> None:
    """What one process adds by the port, this one reads by its name; scripts, transactions and binary values come through."""
    async with open_store(served.url) as far, open_store(served.name) as near:
        value = bytes(range(256)) + b"\r\n"
        pipe = far.redis.pipeline(transaction=True)
        pipe.set("a", value)
        pipe.incr("n")
        assert await pipe.execute() == [True, 1]
        assert await near.redis.get("a") == value
        script = far.redis.register_script("return {redis.call('INCRBY', KEYS[1], ARGV[1]), 'x', false}")
        assert await script(keys=["n"], args=[2]) == [3, b"x", None]
        waiting = asyncio.create_task(far.ears.xread({"s": "0-0"}, block=5000))
        await near.redis.xadd("s", {"f": "1"}, id="1-1")
        assert await waiting == [[b"s", [(b"1-1", {b"f": b"1"})]]]


@pytest.mark.parametrize("steps", range(5))
async def test_who_was_accepted_when_it_ended_is_cut_off(steps: int) -> None:
    """At whichever step of the loop: a connection that nobody has would stay open."""
    async with served_store() as store:
        client = socket.create_connection(("127.0.0.1", urlsplit(store.url).port))  # it waits to be accepted
        for _ in range(steps):
            await asyncio.sleep(0)
    with client:
        client.setblocking(False)
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


async def test_an_error_is_an_answer(served: Any) -> None:
    """The connection goes on after it, and the client knows which error it is."""
    async with Redis.from_url(served.url, single_connection_client=True, protocol=2) as client:
        me = await client.client_id()
        with pytest.raises(NoScriptError):
            await client.evalsha("0" * 40, 0)
        await client.xadd("s", {"f": "1"}, id="5-1")
        with pytest.raises(ResponseError, match="equal or smaller"):
            await client.xadd("s", {"f": "1"}, id="5-1")
        assert await client.client_id() == me


async def test_a_paused_store_answers_by_and_by(served: Any) -> None:
    """A command neither fails nor returns until it goes on."""
    async with open_store(served.url) as store:
        served.pause()
        waiting = [asyncio.create_task(store.redis.incr("n")) for _ in range(3)]
        _, pending = await asyncio.wait(waiting, timeout=0.05)
        assert len(pending) == 3
        served.resume()
        assert sorted(await asyncio.gather(*waiting)) == [1, 2, 3]


@pytest.mark.parametrize("keep", [True, False])
async def test_a_restarted_store_is_another(served: Any, keep: bool) -> None:
    """Its connections are gone, its run id is new, and it is empty unless it kept what it held."""
    async with open_store(served.url) as store:
        await store.redis.set("a", 1)
        before = store.run_id
        await served.restart(keep=keep)
        refused, value = await asked_until_answered(store)
        assert any(isinstance(error, StoreRestarted) for error in refused)
        assert value == (b"1" if keep else None)
        assert store.run_id == served.run_id != before


async def asked_until_answered(store: Store) -> tuple[list[Exception], bytes | None]:
    """A connection that is gone is noticed in one command or in the next."""
    refused = list[Exception]()
    while True:
        try:
            return refused, await store.redis.get("a")
        except StoreConnectionError as error:
            refused.append(error)


async def test_a_store_can_lose_the_end_of_a_log(served: Any) -> None:
    """It comes back as another, with the first entries: a reader's place beyond them is told `lost` by the log's new name."""
    async with open_store(served.url) as store:
        transcript = Transcript(store)
        before = await transcript.open("s")
        for n in range(1, 6):
            await transcript.say(before.log, Prompt(text=str(n), from_="ann", ref=f"{n}" * 16))
        await served.lose_tail("s", keep=2)
        await asked_until_answered(store)
        after = await transcript.open("s")
        assert (after.was, after.head) == (before.log.name, EntryId(2, 0))
        assert [str(entry.id) for entry in await transcript.read(after.log, START)] == ["1-0", "2-0"]


async def test_a_session_moves_to_a_new_log_when_its_store_is_restarted(served: Any) -> None:
    """As with a real server: everybody is told `lost`, and the turn goes on from what was kept."""
    async with (
        instances(counting(200), 2, store=served.url, lease=0.3) as (one, other),
        watch(one.server, "s") as ann,
        watch(other.server, "s", "bob") as bob,
    ):
        turn = turn_of(await ann.session.prompt("go"))
        await bob.pieces(turn, 20)
        await served.restart(keep=True)
        for person in (ann, bob):
            await person.ended(turn)
            assert {gap.reason for gap in person.gaps} == {"lost"}
        log = await read_log(served.url, "s")
        Judge(log)
        assert said(log, turn) == count(200)


async def test_this_process_and_others_share_one_log(served: Any) -> None:
    """By its name here, by its port elsewhere: nobody takes the other's store for one that was restarted."""
    async with (
        instances(counting(50), 1, store=served.name) as (here,),
        instances(counting(50), 1, store=served.url) as (there,),
        watch(here.server, "s") as ann,
        watch(there.server, "s", "bob") as bob,
    ):
        turn = turn_of(await ann.session.prompt("go"))
        await asyncio.gather(ann.ended(turn), bob.ended(turn))
        assert ann.seen == bob.seen == await read_log(served.url, "s")


replies = st.recursive(st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20), lambda inner: st.lists(inner, max_size=4))


@given(replies)
def test_a_reply_is_read_as_it_was_written(reply: Any) -> None:
    """By the parser of the client library."""
    import hiredis

    reader = hiredis.Reader()
    reader.feed(encode_reply(reply))
    assert reader.gets() == reply
