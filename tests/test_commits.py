"""Commits: what is said at once stands together, and still each packet has its own id, on both stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from kit.commits import BESIDE, FEW
from kit.held import PORTION
from kit.log import ENTRY, Gone, Log, Unheard
from kit.packets import START, At, Content, EntryId, Prompt, Stop, encode, stored
from kit.store import Store, StoreError, open_store
from kit.transcript import Transcript
from tests.conftest import RealStore


@pytest.fixture
async def transcript(store: str) -> AsyncIterator[Transcript]:
    async with open_store(store) as opened:
        yield Transcript(opened)


@pytest.fixture
async def log(transcript: Transcript) -> Log:
    """A log with one word."""
    log = (await transcript.open("s")).log
    await transcript.say(log, Prompt(text="hi", from_="ann", ref="r1"))
    return log


def said(*texts: str) -> list[tuple[bytes, At | None]]:
    return [(stored(Content(text)), None) for text in texts]


async def in_the_stream(transcript: Transcript, log: Log) -> list[str]:
    return [id.decode() for id, _ in await transcript.store.redis.xrange(log.stream)]


async def test_packets_said_at_once_are_one_entry_and_have_ids_of_their_own(transcript: Transcript, log: Log) -> None:
    """The entry has the id of its last packet; what is read has the ids, the bodies and the predecessors of all."""
    added = await transcript.append(log, 1, said("a", "b\n", "c"))
    assert [str(entry.id) for entry in added] == ["1-1", "1-2", "1-3"]
    assert await in_the_stream(transcript, log) == ["1-0", "1-3"]
    assert (await transcript.read(log, START))[1:] == added
    assert [str(entry.before) for entry in added] == ["1-0", "1-1", "1-2"]
    assert [entry.body for entry in added] == [body for body, _ in said("a", "b\n", "c")]


async def test_what_follows_a_cursor_inside_an_entry_is_read(transcript: Transcript, log: Log) -> None:
    """A client may have stopped between two packets of one entry."""
    await transcript.append(log, 1, said("a", "b", "c"))
    await transcript.append(log, 1, said("d"))
    for n in range(5):
        assert [entry.id.n for entry in await transcript.read(log, EntryId(1, n))] == list(range(n + 1, 5))
        assert [e.id.n for e in (await transcript.follow({log.stream: EntryId(1, n)}, 0.01)).get(log.stream, [])] == list(range(n + 1, 5))


async def test_what_was_heard_meanwhile_is_not_read_again(transcript: Transcript, log: Log) -> None:
    """A shared read that began before an own append gives what came after it."""
    await transcript.append(log, 1, said("a", "b"))
    await transcript.append(log, 1, said("c"))
    found = await transcript.follow({log.stream: START}, 0.01, heard=lambda: {log.stream: EntryId(1, 2)})
    assert [entry.id for entry in found[log.stream]] == [EntryId(1, 3)]


async def test_agents_that_speak_in_one_epoch_share_its_numbers(transcript: Transcript, log: Log) -> None:
    """However their appends fall together, no id is given twice and none is left out."""
    other = Transcript(transcript.store)
    sizes = [1, 3, 2, 5, 1, 1, 4, 2]
    added = await asyncio.gather(*((transcript, other)[i % 2].append(log, 1, said(*"x" * size)) for i, size in enumerate(sizes)))
    assert sorted(entry.id.n for entries in added for entry in entries) == list(range(1, sum(sizes) + 1))
    assert [entry.id.n for entry in await transcript.read(log, START)] == list(range(sum(sizes) + 1))


async def test_several_packets_are_refused_like_one(transcript: Transcript, log: Log) -> None:
    """By a later word, and by a stream that is gone; nothing of them stands then."""
    await transcript.say(log, Stop(from_="ann", ref="r2"))
    with pytest.raises(Unheard):
        await transcript.append(log, 1, said("a", "b"))
    await transcript.append(log, 2, said("a", "b"))
    assert await in_the_stream(transcript, log) == ["1-0", "2-0", "2-2"]
    await transcript.store.redis.delete(log.stream)
    with pytest.raises(Gone):
        await transcript.append(log, 2, said("c", "d"))
    assert not await transcript.store.redis.exists(log.stream)


async def test_entries_are_bounded(transcript: Transcript, log: Log) -> None:
    """Whoever reads counts entries, so a commit may take several: all or nothing, also then."""
    long = "x" * (ENTRY // 3)
    added = await transcript.append(log, 1, said(long, long, long, "y", long, "z" * 2 * ENTRY))
    assert [entry.id.n for entry in added] == [1, 2, 3, 4, 5, 6]
    assert await in_the_stream(transcript, log) == ["1-0", "1-2", "1-5", "1-6"]
    assert [entry.body for entry in (await transcript.read(log, START))[1:]] == [entry.body for entry in added]
    await transcript.say(log, Stop(from_="ann", ref="r2"))
    with pytest.raises(Unheard):
        await transcript.append(log, 1, said(long, long, long, long))
    assert len(await in_the_stream(transcript, log)) == 5


async def test_each_packet_keeps_its_providers_cursor(transcript: Transcript, log: Log) -> None:
    """Some packets have one and others don't."""
    at = At(response="r", sequence=7)
    await transcript.append(log, 1, [(stored(Content("a")), None), (stored(Content("b")), at), (stored(Content("c")), None)])
    assert [entry.at for entry in (await transcript.read(log, START))[1:]] == [None, encode(at), None]


async def test_a_script_that_the_store_has_forgotten_is_given_to_it_again(transcript: Transcript, log: Log) -> None:
    """As after SCRIPT FLUSH: nothing was carried out, so the same append goes once more."""
    await transcript.append(log, 1, said("a", "b"))
    await transcript.store.redis.script_flush()
    await transcript.append(log, 1, said("c", "d"))
    assert [entry.id.n for entry in await transcript.read(log, START)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("texts", "count"), [("ab", 20), ("a", FEW + 1), ("a", FEW)])
async def test_shards_are_committed_together(store: str, texts: str, count: int) -> None:
    """Logs of several shards go in one round, a script each, or a command for each packet; each gets its own answer."""
    async with open_store(store) as opened:
        transcript = Transcript(opened, shards=8)
        logs = [(await transcript.open(f"s{i}")).log for i in range(count)]
        assert len({log.shard for log in logs}) > 1
        for i, log in enumerate(logs):
            await transcript.say(log, Prompt(text="hi", from_="ann", ref="r1"))
            if i % 5 == 0:
                await transcript.say(log, Stop(from_="ann", ref="r2"))
        answers = await asyncio.gather(*(transcript.append(log, 1, said(*texts)) for log in logs), return_exceptions=True)
        assert [type(answer) is Unheard for answer in answers] == [i % 5 == 0 for i in range(count)]
        for log, answer in zip(logs, answers, strict=True):
            assert isinstance(answer, Unheard) or (await transcript.read(log, START))[1:] == answer


async def test_a_single_packet_is_sent_beside_a_few_and_what_comes_then_gathers(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a model's pace nobody waits for another session's token; under load all that waits goes in one round, when the last has landed."""
    async with open_store(store) as opened:
        transcript = Transcript(opened)
        logs = [(await transcript.open(f"s{i}")).log for i in range(BESIDE + 3)]
        for log in logs:
            await transcript.say(log, Prompt(text="hi", from_="ann", ref="r1"))
        rounds, send = list[tuple[Any, Any]](), opened.commits.send
        monkeypatch.setattr(opened.commits, "send", lambda *asked: rounds.append(asked))
        first, *others = (asyncio.ensure_future(transcript.append(log, 1, said("a"))) for log in logs)
        await asyncio.sleep(0)
        assert [len(commands) for commands, _ in rounds] == [1] * BESIDE
        send(*rounds[0])
        await first
        late = asyncio.ensure_future(transcript.append(logs[0], 1, said("b")))
        await asyncio.sleep(0)
        assert len(rounds) == BESIDE, "who comes after those that wait does not go before them"
        for one in rounds[1:BESIDE]:
            send(*one)
        await asyncio.wait(others[: BESIDE - 1])
        assert [len(commands) for commands, _ in rounds[BESIDE:]] == [4]
        send(*rounds[BESIDE])
        assert [[entry.id.n for entry in entries] for entries in await asyncio.gather(*others, late)] == [[1]] * (BESIDE + 2) + [[2]]


async def test_only_a_single_packet_is_sent_beside_others(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes the store longer waits for what is under way, so that more of it gathers."""
    async with open_store(store) as opened:
        transcript, rounds = Transcript(opened), list[Any]()
        logs = [(await transcript.open(f"s{i}")).log for i in range(3)]
        for log in logs:
            await transcript.say(log, Prompt(text="hi", from_="ann", ref="r1"))
        await transcript.append(logs[0], 1, said("a", "b"))  # the store has the script now
        send = opened.commits.send
        monkeypatch.setattr(opened.commits, "send", lambda *asked: rounds.append(asked))
        asked = [asyncio.ensure_future(transcript.append(log, 1, said(*texts))) for log, texts in zip(logs, ("a", "ab", "c"), strict=True)]
        await asyncio.sleep(0)
        assert len(rounds) == 1
        send(*rounds[0])
        await asked[0]
        assert len(rounds) == 2
        send(*rounds[1])
        assert [len(added) for added in await asyncio.gather(*asked)] == [1, 2, 1]


async def test_who_talks_without_a_pause_goes_before_nobody(store: str) -> None:
    """Who asks again as soon as he is told goes behind those who wait: at most what was under way lands before them."""
    async with open_store(store) as opened:
        transcript, landed = Transcript(opened), list[str]()
        talker, other = [(await transcript.open(name)).log for name in ("talker", "other")]
        for log in (talker, other):
            await transcript.say(log, Prompt(text="hi", from_="ann", ref="r1"))

        over = asyncio.Event()

        def again(_: object) -> None:
            landed.append("talker")
            if len(landed) < 20:
                transcript.send(talker, 1, said("a", "b"), again)
            else:
                over.set()

        transcript.send(talker, 1, said("a", "b"), again)
        for texts in ("cd", "e"):
            transcript.send(other, 1, said(*texts), lambda _: landed.append("other"))
        await over.wait()
        assert landed[:4].count("other") == 2


# ---- the connection that is held ----


async def test_who_was_cancelled_leaves_no_answer_to_the_next(store: str) -> None:
    """At each step of the loop: what was asked may have been carried out, but its answer is nobody's."""
    async with open_store(store) as opened:
        for steps in range(12):
            asked = asyncio.create_task(opened.commits.ask(("SET", "a", "1")))
            for _ in range(steps):
                await asyncio.sleep(0)
            asked.cancel()
            assert await opened.commits.ask(("ECHO", "next")) == [b"next"]
            await asyncio.wait({asked})


async def test_commands_that_are_asked_together_are_answered_in_order(store: str) -> None:
    """A refusal is an answer like the others."""
    async with open_store(store) as opened:
        first, refused, last = await opened.commits.ask(("ECHO", "1"), ("INCR", "a", "b"), ("ECHO", "2"))
        assert (first, last) == (b"1", b"2")
        assert isinstance(refused, ResponseError)
        assert await asyncio.gather(*(opened.commits.ask(("ECHO", str(i))) for i in range(5))) == [[b"%d" % i] for i in range(5)]


async def test_a_line_that_is_lost_in_the_middle_of_talk_is_lost_once(transcript: Transcript, log: Log) -> None:
    """Nobody knows what became of that append; the next one goes over a new connection."""
    await transcript.append(log, 1, said("a"))
    commits = transcript.store.commits
    (id,) = await commits.ask(("CLIENT", "ID"))
    ended = asyncio.ensure_future(commits.ask(("CLIENT", "KILL", "ID", id, "SKIPME", "no"), ("ECHO", "1"), ("ECHO", "2")))
    lost = asyncio.ensure_future(transcript.append(log, 1, said("b")))
    for asked in (ended, lost):
        with pytest.raises(StoreError):
            await asked
    await transcript.append(log, 1, said("c"))
    assert (await transcript.read(log, START))[-1].body == said("c")[0][0]
    assert await commits.ask(("CLIENT", "ID")) != [id]


async def test_who_cannot_be_told_keeps_nobody_from_the_store(transcript: Transcript, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that is a fault to who gets it is logged, and the others have theirs."""

    def fail(_: object) -> None:
        raise RuntimeError("the test fails here")

    transcript.send(log, 1, said("a"), fail)
    together = [asyncio.create_task(transcript.append(log, 1, said(text))) for text in "bc"]
    assert [entry.id.n for (entry,) in await asyncio.gather(*together)] == [2, 3]
    assert "who appended could not be told" in caplog.text


async def test_a_large_command_goes_to_fakeredis_in_portions() -> None:
    """It copies all that it holds at each argument: 18 MB took it 5 s."""
    async with open_store() as opened:
        transcript = Transcript(opened)
        log = (await transcript.open("s")).log
        await transcript.say(log, Prompt(text="hi", from_="ann", ref="r1"))
        await transcript.append(log, 1, said("a"))
        writer, given = opened.commits._connection._writer, list[int]()
        write = writer.writelines

        def writelines(data: Iterable[bytes]) -> None:
            for chunk in data:
                given.append(len(chunk))
                write([chunk])

        writer.writelines = writelines
        texts = [f"{i}" * 3000 for i in range(10, 210)]
        added = await asyncio.gather(*(transcript.append(log, 1, said(text)) for text in texts))
        assert (sum(given) > 1_000_000, max(given)) == (True, PORTION)
        assert [entry.body for (entry,) in added] == [stored(Content(text)) for text in texts]


async def unready(store: Store) -> None:
    """The end of its held connection has been read."""
    while store.commits.ready():  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)


async def test_a_connection_that_the_server_closed_in_a_pause_is_not_noticed(real_store: RealStore) -> None:
    """As many hosted ones do after some minutes."""
    async with open_store(real_store.url) as opened:
        for _ in range(3):
            (id,) = await opened.commits.ask(("CLIENT", "ID"))
            assert await opened.redis.execute_command("CLIENT", "KILL", "ID", id) == 1
            await unready(opened)  # the end of the connection has been read
            assert await opened.commits.ask(("ECHO", "next")) == [b"next"]


async def test_a_connection_that_is_cut_from_elsewhere_is_lost_to_all_who_wait(real_store: RealStore) -> None:
    """What is under way then, and what was asked behind it; the next goes over a new one."""
    async with open_store(real_store.url) as opened:
        (id,) = await opened.commits.ask(("CLIENT", "ID"))
        asked = [
            asyncio.ensure_future(opened.commits.ask(("BLPOP", "nothing", "0"))),
            asyncio.ensure_future(opened.commits.ask(("ECHO", "1"))),
        ]
        await asyncio.sleep(0.05)
        assert await opened.redis.execute_command("CLIENT", "KILL", "ID", id) == 1
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, StoreError) for answer in answers)
        assert await opened.commits.ask(("ECHO", "next")) == [b"next"]


async def test_fakeredis_too_tells_at_once_of_a_connection_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no socket whose end could be read: who writes finds out."""
    async with open_store("fake://") as opened:
        await opened.commits.ask(("ECHO", "1"))
        with monkeypatch.context() as patch:
            patch.setattr(opened.commits._connection._writer, "writelines", lambda _: 1 / 0)
            asked = [asyncio.ensure_future(opened.commits.ask(("ECHO", text))) for text in "ab"]
            answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        assert all(isinstance(answer, StoreError) for answer in answers)
        assert await opened.commits.ask(("ECHO", "next")) == [b"next"]


async def test_a_line_of_fakeredis_that_was_cut_from_elsewhere_is_lost_once() -> None:
    """Its end is not read: the next who asks is told, and the one after him has a new connection."""
    async with open_store("fake://") as opened:
        (id,) = await opened.commits.ask(("CLIENT", "ID"))
        assert await opened.redis.execute_command("CLIENT", "KILL", "ID", id) == 1
        with pytest.raises(StoreError):
            await asyncio.wait_for(opened.commits.ask(("ECHO", "lost")), 5)
        assert await opened.commits.ask(("ECHO", "next")) == [b"next"]


async def test_who_waits_is_told_when_a_store_is_closed(real_store: RealStore) -> None:
    """For an answer, or for a connection; and who asks then."""
    async with open_store(real_store.url) as opened, open_store(real_store.url) as other:
        await other.commits.ask(("ECHO", "1"))
        with real_store.paused():
            asked = [asyncio.ensure_future(line.commits.ask(("ECHO", text))) for line in (opened, other) for text in "ab"]
            await asyncio.sleep(0.05)
            for line in (opened, other):
                await asyncio.wait_for(line.commits.end(), 5)
            asked.append(asyncio.ensure_future(opened.commits.ask(("ECHO", "late"))))
            answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        assert [str(answer) for answer in answers] == ["the store was closed"] * 5


async def test_what_nobody_asked_for_is_no_answer(real_store: RealStore) -> None:
    """Such as a server's complaint before it closes a connection: the next answer is not taken for it."""
    async with open_store(real_store.url) as opened:
        (id,) = await opened.commits.ask(("CLIENT", "ID"))
        opened.commits._connection._writer.write(b"*1\r\n$4\r\nPING\r\n")
        await unready(opened)
        assert await opened.commits.ask(("ECHO", "1"), ("ECHO", "2")) == [b"1", b"2"]
        assert await opened.commits.ask(("CLIENT", "ID")) != [id]
