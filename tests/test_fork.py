"""Fork: another session that begins with what a log held up to an id; the same on fakeredis and on a real server."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from itertools import pairwise

import pytest
from msgspec.structs import replace

from kit.client import connect
from kit.fork import NotKept, Taken, fork
from kit.history import History
from kit.lab.instances import Node
from kit.log import Log, Stored, Unheard
from kit.packets import (
    START,
    Action,
    AnyPacket,
    Ask,
    Content,
    Document,
    Edit,
    End,
    Entry,
    EntryId,
    Prompt,
    Stop,
    Write,
    decode_entry,
    stored,
)
from kit.projection import Projection
from kit.replica import SharedDocument, connect_document
from kit.store import open_store
from kit.transcript import Transcript
from tests.promises.support import counting, nodes, turn_of, watch


@pytest.fixture
async def transcript(store: str) -> AsyncIterator[Transcript]:
    async with open_store(store) as opened:
        yield Transcript(opened, shards=7)


@pytest.fixture
async def log(transcript: Transcript) -> Log:
    """Two answers: `1-0` to `1-3`, which has ended, and `2-0` to `2-4`, which is open and said three packets at once."""
    log = (await transcript.open("s")).log
    await transcript.say(log, Prompt(text="one", to="a", from_="ann", ref="r1"))
    await transcript.append(log, 1, said("1-0/a", Content("x"), Content("y"), End(reason="done")))
    await transcript.say(log, Prompt(text="two", to="a", from_="ann", ref="r2"))
    await transcript.append(log, 2, said("2-0/a", Content("p"), Content("q"), Content("r")))
    await transcript.append(log, 2, said("2-0/a", Content("s"), n=4))
    return log


def said(turn: str, *packets: AnyPacket, n: int = 1) -> list[tuple[bytes, None]]:
    """Packets of a turn, as a run says them."""
    agent = turn.partition("/")[2]
    return [(stored(replace(p, from_=agent, turn=turn, n=n + i)), None) for i, p in enumerate(packets)]


async def entries(transcript: Transcript, log: Log) -> list[Stored]:
    return await transcript.read(log, START, 1000)


def last(found: list[Stored]) -> Entry:
    return decode_entry(found[-1].frame())


async def test_a_fork_has_the_same_entries_up_to_the_id(transcript: Transcript, log: Log) -> None:
    """The same ids and bodies, each id's successor next; the log itself stays as it is, and what comes then is the fork's own."""
    before = await entries(transcript, log)
    forked = await fork(transcript, log, EntryId(1, 3), "what-if")
    found = await entries(transcript, forked.log)
    assert found == before[:4]
    assert forked.head == EntryId(1, 3) == (await transcript.open("what-if")).head
    assert all(a.id == b.before for a, b in pairwise(found))
    spoken = await transcript.say(forked.log, Prompt(text="another", to="a", from_="ann", ref="r2"))
    assert (str(spoken.id), spoken.known) == ("2-0", False), "a ref of the log is new in the fork"
    assert await entries(transcript, log) == before


async def test_an_id_within_packets_that_were_said_at_once(transcript: Transcript, log: Log) -> None:
    """`2-2` stands in one entry of the stream with `2-1` and `2-3`: the fork holds what stands up to it."""
    forked = await fork(transcript, log, EntryId(2, 2), "what-if")
    texts = [e.text for stored in await entries(transcript, forked.log) if isinstance(e := decode_entry(stored.frame()), Content)]
    assert texts == ["x", "y", "p", "q"]


async def test_an_open_turn_ends_where_the_log_was_forked(transcript: Transcript, log: Log) -> None:
    """`stopped`, once, behind the id, with the turn's next ordinal; nobody is asked to run it."""
    for at in (EntryId(2, 0), EntryId(2, 3)):
        forked = await fork(transcript, log, at, f"at-{at}")
        end = last(await entries(transcript, forked.log))
        assert end == End(reason="stopped", id=f"2-{at.n + 1}", from_="a", turn="2-0/a", n=at.n + 1)
        assert forked.head == EntryId(2, at.n + 1)
        assert "at-" not in str(await transcript.open_turns(forked.log.shard))
    with pytest.raises(Unheard):
        await transcript.append(forked.log, 1, said("1-0/a", Content("late")))


async def test_a_turn_that_a_word_has_ended_ends_as_it_would_have(transcript: Transcript, log: Log) -> None:
    """Forked between the word and the end."""
    edit = await transcript.say(log, Edit(turn="2-0/a", text="three", from_="ann", ref="r3"))
    stop = await transcript.say(log, Stop(from_="ann", ref="r4"))
    ends = []
    for at in (edit.id, stop.id):
        forked = await fork(transcript, log, at, f"at-{at}")
        ends.append([e for s in await entries(transcript, forked.log) if isinstance(e := decode_entry(s.frame()), End)][1:])
    assert [[(e.turn, e.reason) for e in of] for of in ends] == [[("2-0/a", "replaced"), ("3-0/a", "stopped")]] * 2


async def test_a_turn_that_waits_for_an_answer_goes_on_waiting(transcript: Transcript) -> None:
    """A question may be answered otherwise. One whose turn was told to stop may not, nor is an action done twice."""
    log = (await transcript.open("s")).log
    await transcript.say(log, Prompt(text="one", to="a", from_="ann", ref="r1"))
    await transcript.append(log, 1, said("1-0/a", Ask(call="c1", text="Which?")))
    await transcript.say(log, Prompt(text="two", to="b", from_="ann", ref="r2"))
    await transcript.append(log, 2, said("2-0/b", Action(call="c2", name="pay", arguments={}, on="approve")))
    stop = await transcript.say(log, Stop(turn="1-0/a", from_="ann", ref="r3"))
    asking = await fork(transcript, log, EntryId(1, 1), "asking")
    assert [str(s.id) for s in await entries(transcript, asking.log)] == ["1-0", "1-1"]
    known = Projection()
    for each in await entries(transcript, (await fork(transcript, log, stop.id, "stopped")).log):
        known.fold(each.id, each.body)
    assert (known.turns, known.ended) == ({}, {"1-0/a", "2-0/b"})


async def test_what_cannot_be_forked_is_said(transcript: Transcript, log: Log) -> None:
    """An id that is not kept or was never given, a name that is in use or is none; and nothing is begun."""
    for at in (EntryId(2, 9), EntryId(9, 0), EntryId(1, 9), START):
        with pytest.raises(NotKept, match=f"'s' holds no {at}"):
            await fork(transcript, log, at, "what-if")
    await transcript.trim(log, EntryId(2, 0))
    with pytest.raises(NotKept):
        await fork(transcript, log, EntryId(1, 1), "what-if")
    with pytest.raises(ValueError, match="a session's name"):
        await fork(transcript, log, EntryId(2, 1), "what if")
    with pytest.raises(Taken, match="'s' has a log of its own"):
        await fork(transcript, log, EntryId(2, 1), "s")
    assert (await transcript.open("what-if")).head == START
    before = await entries(transcript, (await fork(transcript, log, EntryId(2, 1), "what-if")).log)
    with pytest.raises(Taken):
        await fork(transcript, log, EntryId(2, 3), "what-if")
    assert await entries(transcript, (await transcript.open("what-if")).log) == before


async def test_a_fork_of_a_trimmed_log_begins_where_that_begins(transcript: Transcript, log: Log) -> None:
    await transcript.trim(log, EntryId(2, 0))
    first, *_ = await entries(transcript, (await fork(transcript, log, EntryId(2, 1), "what-if")).log)
    assert (first.id, first.before) == (EntryId(2, 0), EntryId(1, 3))


async def test_the_two_may_lie_in_different_shards(transcript: Transcript, log: Log) -> None:
    """Each key carries its own shard's hash tag."""
    names = [f"n{i}" for i in range(20)]
    for name in names:
        forked = await fork(transcript, log, EntryId(1, 3), name)
        assert forked.log.shard == zlib.crc32(name.encode()) % 7
        assert len(await entries(transcript, forked.log)) == 4
    assert len({transcript.shard(name) for name in names}) > 2


async def test_a_person_in_both_sees_two_conversations(store: str) -> None:
    """Who was in the session before it was forked sees it begin; the agent answers there, knowing what was said."""
    async with nodes(store, counting(5)) as (one, other):
        async with watch(one.server, "s") as ann:
            await ann.ended(f"{(await ann.session.prompt('go')).id}/agent")
            async with watch(other.server, "what-if") as bob:
                transcript = other.server.instance.transcript
                log = (await transcript.open("s")).log
                await fork(transcript, log, EntryId(1, 3), "what-if")
                await bob.reached(EntryId(1, 4))
                assert bob.log[:4] == ann.log[:4]
                assert isinstance(bob.log[4], End)
                turn = f"{(await bob.session.prompt('again')).id}/agent"
                assert (await bob.ended(turn)).reason == "done"
                assert bob.text(turn) == "1 2 3 4 5 "
        async with connect(one.server.url, token=one.server.token("eve"), session="what-if") as eve:
            assert (await anext(aiter(eve))).id == "1-0"


# ---- documents ----


async def test_documents_are_forked_with_their_session(store: str) -> None:
    """As they stood, a person's lines in them; the agent goes on there, and the first session's stay as they are."""

    async def coder(history: History) -> AsyncIterator[AnyPacket]:
        if history.prompt.text == "write":
            yield Document(name="a.py", kind="python")
            yield Write(name="a.py", text="x = 1\n")
        else:
            yield history.documents["a.py"].change("1", history.prompt.text)

    async with nodes(store, {"coder": coder}, 1) as (node,), watch(node.server, "s") as ann:
        written = await ann.ended(turn_of(await ann.session.prompt("write"), "coder"))
        async with document(node, "s") as paper:
            await paper.until(lambda text: "x = 1" in text)
            paper.type(0, insert="# ann\n")
            await paper.settled()
            await ann.ended(turn_of(await ann.session.prompt("2"), "coder"))
            transcript = node.server.instance.transcript
            await fork(transcript, (await transcript.open("s")).log, EntryId.parse(written.id), "what-if")
            async with watch(node.server, "what-if") as bob, document(node, "what-if") as copy:
                assert await copy.until(lambda text: "x" in text) == "# ann\nx = 1\n"
                await bob.ended(turn_of(await bob.session.prompt("3"), "coder"))
                assert await copy.until(lambda text: "1" not in text) == "# ann\nx = 3\n"
            assert await paper.until(lambda text: "1" not in text) == "# ann\nx = 2\n"


def document(node: Node, session: str) -> AbstractAsyncContextManager[SharedDocument]:
    return connect_document(node.url, session=session, name="a.py", token=node.token("ann"), pace=0.02)
