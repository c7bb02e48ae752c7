"""Feed: what turns that run at the same time read of a log is read once, and is what the store has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kit.feed import Feed
from kit.packets import START, Content, EntryId, Prompt, stored
from kit.store import open_store
from kit.transcript import Transcript


class Turn:
    """One that hears nothing."""

    turn = "1-0/agent"
    taken = None

    def hear(self) -> None: ...


@pytest.fixture
async def feed(store: str) -> AsyncIterator[Feed]:
    """A session with one word and its first piece, where a turn runs."""
    async with open_store(store) as opened:
        transcript = Transcript(opened)
        log = await transcript.open("s")
        feed = Feed(transcript, log)
        await say(feed, "a")
        yield feed


async def say(feed: Feed, text: str) -> None:
    """A word and a piece of its answer."""
    word = await feed.transcript.say(feed.log, Prompt(text=text, from_="ann", ref=f"ref of {text}"))
    await feed.transcript.append(feed.log, word.id.epoch, [(stored(Content(text)), None)])


@pytest.fixture
def asked(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> list[tuple[EntryId, int]]:
    """After which ids the store was asked, and for how many entries."""
    asked, read = list[tuple[EntryId, int]](), feed.transcript.read

    async def told(log: Any, after: EntryId, count: int = 200) -> Any:
        asked.append((after, count))
        return await read(log, after, count)

    monkeypatch.setattr(feed.transcript, "read", told)
    return asked


async def ids(feed: Feed) -> list[str]:
    history, head = await feed.history("1-0/agent")
    assert str(head) == (history[-1].id if history else "0-0")
    return [entry.id for entry in history]


async def test_what_one_turn_has_read_no_other_reads_again(feed: Feed, asked: list[tuple[EntryId, int]]) -> None:
    """Only whether its beginning still stands is asked."""
    feed.turns |= {Turn(), Turn()}
    assert await ids(feed) == ["1-0", "1-1"]
    await say(feed, "b")
    asked.clear()
    assert await ids(feed) == ["1-0", "1-1", "2-0", "2-1"]
    assert asked == [(START, 1), (EntryId(1, 1), 2000)]


async def test_what_the_store_has_no_more_is_not_in_it(feed: Feed) -> None:
    """Trimmed, as a long log is; or all of it gone."""
    feed.turns |= {Turn()}
    await say(feed, "b")
    assert len(await ids(feed)) == 4
    await feed.transcript.trim(feed.log, EntryId(2, 0))
    assert await ids(feed) == ["2-0", "2-1"]
    await say(feed, "c")
    await feed.transcript.trim(feed.log, EntryId(3, 0))
    assert await ids(feed) == ["3-0", "3-1"]
    await feed.transcript.store.redis.delete(feed.log.stream)
    assert await ids(feed) == []


async def test_with_the_last_turn_it_is_forgotten(feed: Feed, asked: list[tuple[EntryId, int]]) -> None:
    """A session in which nobody speaks costs no memory for what was said."""
    turns = [Turn(), Turn()]
    feed.turns.update(turns)
    await ids(feed)
    for turn, first in zip(turns, (1, 2000), strict=True):
        feed.leave(turn)
        asked.clear()
        await ids(feed)
        assert asked[0] == (START, first)


async def test_another_log_is_read_from_its_beginning(feed: Feed) -> None:
    """Its ids mean something else."""
    feed.turns |= {Turn()}
    await ids(feed)
    await feed.transcript.store.redis.flushdb()
    await say_anew(feed)
    history, _ = await feed.history("1-0/agent")
    assert [entry.text for entry in history if isinstance(entry, Prompt)] == ["new"]


@pytest.mark.parametrize("followed", [False, True])
async def test_what_lies_before_an_own_append_is_read_where_no_other_read_brings_it(
    feed: Feed, asked: list[tuple[EntryId, int]], followed: bool
) -> None:
    """Where one does, it is not asked for twice."""
    await feed.catch_up()
    feed.followed = followed
    await feed.transcript.append(feed.log, 1, [(stored(Content("by another")), None)])
    asked.clear()
    await feed.append([(stored(Content("own")), None)])
    assert feed.cursor == EntryId(1, 1 if followed else 3)
    assert len(asked) == (not followed)


async def say_anew(feed: Feed) -> None:
    feed.move(await feed.transcript.open("s"))
    await say(feed, "new")
