"""Transcript: what the store enforces, on fakeredis and on a real server: ids, refs, fencing, leases, tickets, logs that are replaced.

redis-py's return types are unions: what store.py and transcript.py assume of them is pinned down here on both.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from kit.agents.scripted import scripted
from kit.commits import BESIDE
from kit.ending import settle
from kit.instance import Instance
from kit.log import Gone, Log, Unheard, WrongShards
from kit.packets import START, At, Content, EntryId, Prompt, Stop, Takeover, stored
from kit.scripts import APPEND, FORK, OPEN, RELEASE, RENEW, SAY, TAKE
from kit.store import Store, StoreError, StoreRestarted, StoreTooOld, open_store
from kit.transcript import Transcript
from tests.conftest import RealStore

SCRIPTS = OPEN, FORK, SAY, RENEW, RELEASE, TAKE, APPEND


@pytest.fixture
async def transcript(store: str) -> AsyncIterator[Transcript]:
    async with open_store(store) as opened:
        yield Transcript(opened, lease=5.0)


@pytest.fixture
async def log(transcript: Transcript) -> Log:
    return (await transcript.open("s")).log


def word(text: str = "hi", ref: str = "r1", name: str = "ann") -> Prompt:
    return Prompt(text=text, from_=name, ref=ref)


def said(*texts: str) -> list[tuple[bytes, At | None]]:
    return [(stored(Content(text, turn="1-0/a", n=1)), None) for text in texts]


async def texts(transcript: Transcript, log: Log) -> list[str]:
    return [f"{entry.id}" for entry in await transcript.read(log, START)]


# ---- words ----


async def test_a_word_opens_an_epoch(transcript: Transcript, log: Log) -> None:
    """`<e+1>-0`, and `prev` is the last id before it; the body comes back as it was."""
    first = await transcript.say(log, word())
    assert (str(first.id), first.entry and str(first.entry.prev)) == ("1-0", "0-0")
    await transcript.append(log, 1, said("a", "b"))
    second = await transcript.say(log, word(ref="r2"))
    assert (str(second.id), second.entry and str(second.entry.prev)) == ("2-0", "1-2")
    one, a, b, two = await transcript.read(log, START)
    assert (two, one.before, a.before, b.before, two.before) == (second.entry, START, EntryId(1, 0), EntryId(1, 1), EntryId(1, 2))
    assert two.body == stored(word(ref="r2"))


async def test_a_repeated_word_is_found_and_not_said_twice(transcript: Transcript, log: Log) -> None:
    """By its ref and its sender; with another body `same` is False; with its outcome where that was settled."""
    first = await transcript.say(log, word())
    again = await transcript.say(log, word())
    assert (again.id, again.known, again.same, again.entry, again.outcome) == (first.id, True, True, None, "")
    assert not (await transcript.say(log, word("other"))).same
    assert not (await transcript.say(log, word(name="bob"))).known
    await transcript.settle(log, word(), first, "too_late")
    assert (await transcript.say(log, word())).outcome == "too_late"
    found = await transcript.find(log, word())
    assert found == await transcript.say(log, word())
    assert await transcript.find(log, word(ref="r9")) is None
    assert await texts(transcript, log) == ["1-0", "2-0"]


async def test_of_a_word_said_many_times_at_once_one_stands(transcript: Transcript, log: Log) -> None:
    spoken = await asyncio.gather(*(transcript.say(log, word()) for _ in range(20)))
    assert {one.id for one in spoken} == {EntryId(1, 0)}
    assert sum(not one.known for one in spoken) == 1


async def test_epochs_are_whole_numbers_however_large(transcript: Transcript, log: Log) -> None:
    """Lua's numbers are doubles, whose text would become 1e+15: the id must not."""
    await transcript.say(log, word())
    await transcript.store.redis.execute_command("XADD", log.stream, f"{10**15}-7", "f", "{}")
    assert str((await transcript.say(log, word(ref="r2"))).id) == f"{10**15 + 1}-0"


# ---- packets ----


async def test_packets_are_numbered_in_the_epoch_that_was_heard(transcript: Transcript, log: Log) -> None:
    await transcript.say(log, word())
    entries = await transcript.append(log, 1, said("a", "b", "c"))
    assert [str(entry.id) for entry in entries] == ["1-1", "1-2", "1-3"]
    assert entries == [entry for entry in await transcript.read(log, START) if entry.id.n]


async def test_who_has_not_heard_the_last_word_is_refused(transcript: Transcript, log: Log) -> None:
    """All or nothing: none of the three stands in the log; with the epoch heard, all do."""
    await transcript.say(log, word())
    await transcript.say(log, word(ref="r2"))
    with pytest.raises(Unheard, match="heard epoch 1"):
        await transcript.append(log, 1, said("a", "b", "c"))
    with pytest.raises(Unheard):
        await transcript.append(log, 1, said("alone"))
    assert await texts(transcript, log) == ["1-0", "2-0"]
    await transcript.append(log, 2, said("a", "b", "c"))
    assert await texts(transcript, log) == ["1-0", "2-0", "2-1", "2-2", "2-3"]


async def test_a_batch_of_several_turns_is_refused_one_by_one(transcript: Transcript, log: Log) -> None:
    """Group commit: commits that gather are sent together, and each has its own answer."""
    other = (await transcript.open("other")).log
    await transcript.say(log, word())
    await transcript.say(other, word())
    await transcript.say(other, word(ref="r2"))
    commits = [
        transcript.append(log, 1, said("a")),
        transcript.append(other, 1, said("late", "late")),
        transcript.append(log, 1, said("b", "c")),
        transcript.append(other, 2, said("d")),
    ]
    answers = await asyncio.gather(*commits, return_exceptions=True)
    assert [isinstance(answer, Unheard) for answer in answers] == [False, True, False, False]
    assert await texts(transcript, log) == ["1-0", "1-1", "1-2", "1-3"]
    assert await texts(transcript, other) == ["1-0", "2-0", "2-1"]


async def test_a_stream_that_is_gone_is_never_begun_again(transcript: Transcript, log: Log) -> None:
    """Not by a packet (NOMKSTREAM), not by a word; nor by a word into a log of another name."""
    await transcript.say(log, word())
    await transcript.store.redis.delete(log.stream)
    for count in (1, 3):
        with pytest.raises(Gone):
            await transcript.append(log, 1, said(*"abc"[:count]))
    with pytest.raises(Gone):
        await transcript.say(log, word(ref="r2"))
    assert await transcript.store.redis.exists(log.stream) == 0
    fresh = await transcript.open("s")
    assert (fresh.was, fresh.head) == (log.name, START)
    assert fresh.log.name != log.name
    assert str((await transcript.say(fresh.log, word())).id) == "1-0", "its refs are new too"
    with pytest.raises(Gone):
        await transcript.say(log, word(ref="r3"))


async def test_the_providers_cursor_stands_beside_the_body(transcript: Transcript, log: Log) -> None:
    await transcript.say(log, word())
    body = stored(Content("x", turn="1-0/a", n=1))
    await transcript.append(log, 1, [(body, At(response="resp", sequence=4))])
    entry = (await transcript.read(log, START))[1]
    assert (entry.body, entry.at) == (body, b'{"response":"resp","sequence":4}')
    assert b"resp" not in entry.frame()


# ---- sessions ----


async def test_a_session_keeps_its_log(transcript: Transcript, log: Log) -> None:
    """Eight random characters, the same for everybody who opens it, and another for another session."""
    assert len(log.name) == 8
    assert {opened.log.name for opened in await asyncio.gather(*(transcript.open("s") for _ in range(10)))} == {log.name}
    assert (await transcript.open("other")).log.name != log.name
    await transcript.say(log, word())
    await transcript.append(log, 1, said("a"))
    opened = await transcript.open("s")
    assert (opened.head, opened.was) == (EntryId(1, 1), "")


async def test_keys_carry_their_shards_hash_tag(store: str) -> None:
    """All keys of a session are in one slot of a cluster, and sessions are spread over the shards by CRC-32."""
    async with open_store(store) as opened:
        transcript = Transcript(opened, shards=7)
        for session in ("a", "b", "demo"):
            log = (await transcript.open(session)).log
            await transcript.say(log, word(), agents=["a"], by="me")
            await transcript.tell(log, b"{}")
        for key in await opened.redis.keys("*"):
            assert key.startswith(b"{")
        assert {transcript.shard(str(i)) for i in range(200)} == set(range(7))
        demo = (await transcript.open("demo")).log
        assert transcript.shard("demo") == zlib.crc32(b"demo") % 7
        assert demo.stream == f"{{{transcript.shard('demo')}}}:demo:{demo.name}"


async def test_the_first_word_finds_the_scripts_in_the_store(store: str) -> None:
    """Whoever comes first, and all who come with them, would wait until they are sent."""
    async with open_store(store) as opened, Instance(Transcript(opened), {"agent": scripted([])}).running():
        known = await opened.redis.script_exists(*(hashlib.sha1(script.encode()).hexdigest() for script in SCRIPTS))
    assert known == [True] * len(SCRIPTS)


async def test_another_number_of_shards_is_refused(store: str) -> None:
    async with open_store(store) as opened:
        await Transcript(opened, shards=2).agree()
        await Transcript(opened, shards=2).agree()
        with pytest.raises(WrongShards, match=r"started with 3 shards.* 2"):
            await Transcript(opened, shards=3).agree()


async def test_everything_expires_together(store: str) -> None:
    """After `ttl`, counted from the last word or renewal; the session begins again with nothing."""
    async with open_store(store) as opened:
        transcript = Transcript(opened, ttl=50.0)
        log = (await transcript.open("s")).log
        await transcript.say(log, word(), agents=["a"], by="me")
        for key in (log.owner, log.stream, log.refs):
            assert 0 < await opened.redis.pttl(key) <= 50_000
            await opened.redis.pexpire(key, 1_000)
        await transcript.renew([(log, "1-0/a", "me")])
        for key in (log.owner, log.stream, log.refs):
            assert await opened.redis.pttl(key) > 40_000


async def test_trimming_takes_whole_epochs_from_the_front(transcript: Transcript, log: Log) -> None:
    for n in range(1, 4):
        await transcript.say(log, word(ref=f"r{n}"))
        await transcript.append(log, n, said("a", "b"))
    await transcript.trim(log, EntryId(3, 0))
    assert await texts(transcript, log) == ["3-0", "3-1", "3-2"]
    assert (await transcript.read(log, START))[0].before == EntryId(2, 2), "the first that is kept still says what it follows"
    assert (await transcript.open("s")).head == EntryId(3, 2)


async def test_reading_pages_through_the_log(transcript: Transcript, log: Log) -> None:
    await transcript.say(log, word())
    for text in "abcdefg":
        await transcript.append(log, 1, said(text))
    first = await transcript.read(log, START, 3)
    assert [str(entry.id) for entry in first] == ["1-0", "1-1", "1-2"]
    assert [str(entry.id) for entry in await transcript.read(log, first[-1].id, 3)] == ["1-3", "1-4", "1-5"]
    assert await transcript.read(log, EntryId(1, 7)) == []


async def test_following_waits_for_several_streams(transcript: Transcript, log: Log) -> None:
    """A blocking read of two logs wakes for the one that is written to; with nothing new it gives nothing."""
    other = (await transcript.open("other")).log
    following = asyncio.create_task(transcript.follow({log.stream: START, other.stream: START}, block=5.0))
    spoken = await transcript.say(other, word())
    assert await following == {other.stream: [spoken.entry]}
    assert await transcript.follow({log.stream: START}, block=0.01) == {}
    assert await transcript.follow({other.stream: spoken.id}, block=0.01) == {}


# ---- leases ----


async def test_a_prompt_gives_its_turns_lease_where_it_is_free(transcript: Transcript, log: Log) -> None:
    """In the same script: between the word and the lease nobody can come. Repeated, it gives nothing."""
    spoken = await transcript.say(log, word(), agents=["a"], by="me")
    assert spoken.leased == ("1-0/a",)
    assert await transcript.open_turns(0) == [("s", "1-0/a")]
    assert 4.0 < (await transcript.time_left([("s", "1-0/a")]))[0] <= 5.0
    assert not await transcript.take(log, "1-0/a", "other")
    assert (await transcript.say(log, word(), agents=["a"], by="other")).leased == ()
    woken = await transcript.say(log, Stop(from_="ann", ref="r2"), wakes=["1-0/a", "1-0/b"], by="other")
    assert woken.leased == ("1-0/b",), "what is leased stays with its owner"


async def test_a_lease_is_renewed_by_its_owner_only(transcript: Transcript, log: Log) -> None:
    await transcript.say(log, word(), agents=["a"], by="me")
    await transcript.store.redis.pexpire(log.lease("1-0/a"), 1_000)
    await transcript.renew([(log, "1-0/a", "other")])
    assert (await transcript.time_left([("s", "1-0/a")]))[0] <= 1.0
    await transcript.renew([(log, "1-0/a", "me")])
    assert (await transcript.time_left([("s", "1-0/a")]))[0] > 4.0
    await transcript.release(log, "1-0/a", "me", open=True)
    await transcript.renew([(log, "1-0/a", "me")])
    assert (await transcript.time_left([("s", "1-0/a")]))[0] < 0, "what was given back stays free"


async def test_a_turn_is_let_go_only_by_who_heard_the_last_word(transcript: Transcript, log: Log) -> None:
    """A turn that waits gives its lease back; an answer that came in between keeps it."""
    await transcript.say(log, word(), agents=["a"], by="me")
    await transcript.say(log, word(ref="r2"))
    assert not await transcript.release(log, "1-0/a", "me", heard=1)
    assert await transcript.open_turns(0) == [("s", "1-0/a")]
    assert await transcript.release(log, "1-0/a", "me", heard=2)
    assert await transcript.open_turns(0) == []
    assert not await transcript.take(log, "1-0/a", "other"), "it was listed when somebody looked, and waits by now"
    woken = await transcript.say(log, word(ref="r3"), wakes=["1-0/a"], by="other")
    assert woken.leased == ("1-0/a",)
    await transcript.release(log, "1-0/a", "me", open=True)
    assert not await transcript.take(log, "1-0/a", "third"), "another's lease is not given back"
    await transcript.store.redis.delete(log.stream)
    with pytest.raises(Gone):
        await transcript.release(log, "1-0/a", "other", heard=2)


async def test_a_turn_of_a_log_before_is_not_let_go_in_the_next(transcript: Transcript, log: Log) -> None:
    """There, another turn may have the same name."""
    await transcript.say(log, word(), agents=["a"], by="me")
    await transcript.store.redis.delete(log.stream)
    fresh = (await transcript.open("s")).log
    await transcript.say(fresh, word(ref="r2"), agents=["a"], by="other")
    with pytest.raises(Gone):
        await transcript.release(log, "1-0/a", "me")
    assert await transcript.open_turns(0) == [("s", "1-0/a")]


async def test_a_turn_is_given_away_with_a_word(transcript: Transcript, log: Log) -> None:
    """The takeover by nobody, the free lease and the wake-up call are one; who has lost the lease gives nothing."""
    await transcript.say(log, word(), agents=["a"], by="me")
    give = Takeover(turn="1-0/a", by=None, from_="me", ref="g1")
    await transcript.give(log, give, "1-0/a", "somebody else")
    assert await texts(transcript, log) == ["1-0"]
    before = await transcript.last(transcript.wake_key(0))
    await transcript.give(log, give, "1-0/a", "me")
    assert await texts(transcript, log) == ["1-0", "2-0"]
    assert await transcript.last(transcript.wake_key(0)) > before
    assert await transcript.take(log, "1-0/a", "other")
    assert await transcript.open_turns(0) == [("s", "1-0/a")]


async def test_a_lease_runs_out(store: str) -> None:
    async with open_store(store) as opened:
        transcript = Transcript(opened, lease=0.02)
        log = (await transcript.open("s")).log
        assert (await transcript.say(log, word(), agents=["a"], by="me")).leased == ("1-0/a",)
        async with asyncio.timeout(5.0):
            while not await transcript.take(log, "1-0/a", "other"):
                pass


# ---- tickets ----


async def test_a_ticket_is_taken_once(transcript: Transcript) -> None:
    await transcript.put_ticket("t", b"value", 5.0)
    taken = await asyncio.gather(*(transcript.take_ticket("t") for _ in range(5)))
    assert (taken.count(b"value"), taken.count(None)) == (1, 4)
    assert await transcript.take_ticket("unknown") is None


# ---- what redis-py returns ----


async def test_what_the_commands_return(transcript: Transcript, log: Log) -> None:
    """bytes, not str; a missing value is None; XRANGE gives pairs and XREAD a list of [name, entries] (RESP 2)."""
    line = transcript.store.redis
    assert type(await line.execute_command("XADD", "x", "1-*", "f", "v")) is bytes
    assert await line.execute_command("XADD", "absent", "NOMKSTREAM", "1-*", "f", "v") is None
    assert await line.xrange("x", "(0-0", "+", 10) == [(b"1-0", {b"f": b"v"})]
    assert await line.xread({"x": "0-0"}, count=10) == [[b"x", [(b"1-0", {b"f": b"v"})]]]
    assert not await line.xread({"x": "1-0"}, count=10)
    assert await line.set("k", "v", nx=True, px=1000) is True
    assert await line.set("k", "v", nx=True, px=1000) is None
    assert await line.pttl("nothing") == -2
    assert await line.hget("nothing", "log") is None
    assert await line.smembers("nothing") == set()
    with pytest.raises(StoreError) as caught:
        await line.execute_command("XADD", "x", "0-*", "f", "v")
    assert "equal or smaller" in str(caught.value)
    pipe = line.pipeline(transaction=False)
    for command in (("MULTI",), ("XADD", "x", "0-*", "f", "v"), ("XADD", "x", "1-*", "f", "v"), ("EXEC",)):
        pipe.execute_command(*command)
    _, queued, _, done = await pipe.execute(raise_on_error=False)
    assert queued == b"QUEUED"
    assert isinstance(done[0], StoreError)
    assert type(done[1]) is bytes


# ---- the store itself ----


async def old_redis(version: str, valkey: bool = False) -> asyncio.Server:
    """A server that says +OK to everything but INFO: what a Redis of this version says of itself."""
    info = f"# Server\r\nredis_version:{version}\r\n{'valkey_version:8.0.0' if valkey else 'x:y'}\r\nrun_id:abc\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (line := await reader.readline()).startswith(b"*"):
            parts = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                parts.append((await reader.readexactly(size + 2))[:-2].upper())
            writer.write(f"${len(info)}\r\n{info}\r\n".encode() if parts[0] == b"INFO" else b"+OK\r\n")
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("version", "valkey", "good"), [("6.2.14", False, False), ("7.0.0", False, True), ("10.0.1", False, True), ("6.9", True, True)]
)
async def test_a_redis_below_7_is_refused_in_a_sentence(version: str, valkey: bool, good: bool) -> None:
    """It names the address, the version and what to do; a Valkey is new enough whatever Redis it says it is."""
    async with await old_redis(version, valkey) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        if good:
            async with open_store(url) as opened:
                assert opened.run_id == "abc"
        else:
            with pytest.raises(StoreTooOld, match=rf"{url} is Redis {version}; the kit needs Redis 7 or newer"):
                async with open_store(url):
                    pass


async def test_nothing_there_raises_the_stores_error() -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(RedisConnectionError):
        async with open_store(f"redis://127.0.0.1:{port}/0"):
            pass


async def test_fake_stores_are_shared_by_name() -> None:
    """`fake://NAME` by all in the process who name it; without a name, one's own."""
    async with open_store("fake://shared-here") as one, open_store("fake://shared-here") as same, open_store() as own:
        await one.redis.set("k", "v")
        assert await same.redis.get("k") == b"v"
        assert await own.redis.get("k") is None


@asynccontextmanager
async def opened_on(url: str) -> AsyncIterator[tuple[Store, Transcript, Log]]:
    async with open_store(url) as store:
        transcript = Transcript(store)
        yield store, transcript, (await transcript.open("s")).log


async def test_a_restarted_store_gives_the_log_a_new_name(real_store: RealStore) -> None:
    """With all that it kept: the entries are there, under a name that says that its tail may be gone."""
    async with opened_on(real_store.url) as (store, transcript, log):
        await transcript.say(log, word())
        await transcript.append(log, 1, said("a"))
        real_store.restart(keep=True)
        with pytest.raises(StoreError):  # the connection is cut, or the new one is greeted as another server's
            await transcript.append(log, 1, said("lost"))
        await again(lambda: transcript.read(log, START))
        assert store.run_id != log.run
        with pytest.raises(Gone):
            await transcript.append(log, 1, said("late"))
        opened = await again(lambda: transcript.open("s"))
        assert (opened.was, opened.head) == (log.name, EntryId(1, 1))
        assert await texts(transcript, opened.log) == ["1-0", "1-1"]
        assert (await transcript.say(opened.log, word())).known, "the refs moved with it"
        await again(lambda: transcript.append(opened.log, 1, said("b")))
        assert await texts(transcript, opened.log) == ["1-0", "1-1", "1-2"]


async def test_the_line_of_the_agents_words_refuses_its_first_command_after_a_restart(real_store: RealStore) -> None:
    """Nothing is appended by who does not know yet that the end of the log may be gone."""
    async with opened_on(real_store.url) as (store, transcript, log):
        await transcript.say(log, word())
        await transcript.append(log, 1, said("a"))
        real_store.restart(keep=True)
        seen: list[type[BaseException]] = []
        while StoreRestarted not in seen:
            assert len(seen) < 10
            seen.append(await raised_by(store.commits.ask(("XADD", log.stream, "NOMKSTREAM", "1-*", "f", "x"))))
        assert await again(lambda: texts(transcript, log)) == ["1-0", "1-1"]


async def test_what_was_asked_before_the_restart_was_known_is_not_said_after_it(real_store: RealStore) -> None:
    """Many words at once, each on a connection of its own: none of them gets into the log under its old name."""
    async with opened_on(real_store.url) as (_, transcript, log):
        await transcript.say(log, word())
        real_store.restart(keep=True)
        said = await asyncio.gather(*(transcript.say(log, word(ref=f"r{i}")) for i in range(2, 10)), return_exceptions=True)
        assert [answer for answer in said if not isinstance(answer, (*StoreError, Gone))] == []
        assert await again(lambda: texts(transcript, log)) == ["1-0"]


async def test_nothing_is_done_to_a_log_that_came_back_by_what_was_known_before(real_store: RealStore) -> None:
    """A turn that ended in a lost tail is open again; a word that stood there was not said; what is old enough to be trimmed may not be."""
    async with opened_on(real_store.url) as (store, transcript, log):
        spoken = await transcript.say(log, word(), agents=["a"], by="me")
        real_store.restart(keep=True)
        while store.run_id == log.run:
            with suppress(*StoreError):
                await store.redis.ping()
        for late in (
            lambda: transcript.release(log, "1-0/a", "me"),
            lambda: transcript.settle(log, word(), spoken, "applied"),
            lambda: transcript.trim(log, EntryId(2, 0)),
        ):
            with pytest.raises(Gone):
                await again(late)
        assert await again(lambda: transcript.open_turns(0)) == [("s", "1-0/a")]
        assert await texts(transcript, log) == ["1-0"]
        again_said = await transcript.find(log, word())
        assert again_said is not None
        assert again_said.outcome == ""


@pytest.mark.parametrize("noticed", [False, True], ids=["unnoticed", "noticed"])
async def test_what_waited_for_another_append_while_the_store_restarted_is_not_appended(
    real_store: RealStore, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    """Else it would stand behind what was lost, as if nothing lay between. What is said under the log's new name is."""
    async with opened_on(real_store.url) as (store, transcript, log):
        await transcript.say(log, word())
        await transcript.append(log, 1, said("a"))
        send, over = store.commits.send, asyncio.Event()
        held: list[asyncio.Task[None]] = []

        def late(*asked: Any) -> None:
            held.append(asyncio.create_task(later(*asked)))

        async def later(*asked: Any) -> None:
            await over.wait()
            send(*asked)

        monkeypatch.setattr(store.commits, "send", late)
        appends = [asyncio.create_task(transcript.append(log, 1, said("b"))) for _ in range(BESIDE)]
        await asyncio.sleep(0.01)
        assert len(held) == BESIDE
        appends += [asyncio.create_task(transcript.append(log, 1, said(text))) for text in "cd"]
        await asyncio.sleep(0.01)
        real_store.restart(keep=True)
        if noticed:
            heard: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
            send([("ECHO", "nobody hears this")], partial(settle, heard))
            await raised_by(heard)
        while store.run_id == log.run:
            with suppress(*StoreError):
                await store.redis.ping()
        over.set()
        asked = await asyncio.gather(*appends, return_exceptions=True)
        assert [type(answer) for answer in asked[BESIDE:]] == [Gone, Gone]
        assert all(isinstance(answer, StoreError) for answer in asked[:BESIDE])
        assert await again(lambda: texts(transcript, log)) == ["1-0", "1-1"]
        fresh = (await again(lambda: transcript.open("s"))).log
        await again(lambda: transcript.append(fresh, 1, said("e")))
        assert await texts(transcript, fresh) == ["1-0", "1-1", "1-2"]


async def test_a_blocking_read_is_given_up_where_the_server_stands_still(real_store: RealStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its system answers all that TCP asks. After a failover a cluster's instance would listen there for ever."""
    monkeypatch.setattr("kit.store.BLOCK", 0.1)
    monkeypatch.setattr("kit.store.ANSWER", 1.0)
    async with open_store(real_store.url) as store:
        assert not await store.ears.xread({"nothing": "0-0"}, block=100)
        with real_store.paused():
            async with asyncio.timeout(10):
                with pytest.raises(StoreError):
                    await store.ears.xread({"nothing": "0-0"}, block=100)


async def again(ask: Any) -> Any:
    """Ask until the store answers: each of its connections finds out about a restart by itself."""
    for _ in range(50):
        try:
            return await ask()
        except StoreError:
            await asyncio.sleep(0)
    return await ask()


async def raised_by(awaitable: Any) -> type[BaseException]:
    try:
        await awaitable
    except StoreError as error:
        return type(error)
    raise AssertionError("the command was carried out")
