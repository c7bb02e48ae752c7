"""Picture: what is shown of a store is what it holds, and looking changes nothing; on fakeredis and on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kit.lab.picture import NEWEST, look
from kit.packets import Content, Prompt, stored
from kit.store import open_store
from kit.transcript import Transcript


@pytest.fixture
async def transcript(store: str) -> AsyncIterator[Transcript]:
    async with open_store(store) as opened:
        yield Transcript(opened, lease=5.0)


async def test_a_turn_its_lease_and_the_newest_entries(transcript: Transcript) -> None:
    """Held, then free; and the newest entries are packets, however many were said at once."""
    log = (await transcript.open("s")).log
    await transcript.say(log, Prompt(text="hi", to="a", from_="ann", ref="r1"), agents=["a"], by="me")
    await transcript.append(log, 1, [(stored(Content(f"{n}", from_="a", turn="1-0/a", n=n)), None) for n in range(1, 21)])
    picture = await look(transcript, "s")
    ((turn, by, left),) = picture.turns
    assert (turn, by) == ("1-0/a", "me")
    assert 0 < left <= 5
    assert picture.entries == [(f"1-{n}", "a", "content", f"{n}") for n in range(21 - NEWEST, 21)]
    holds = {key: text for key, _, text, _ in picture.keys}
    assert holds["{0}:open"] == "open turns: 1"
    assert holds["{0}:s"] == f"log = {log.name}"
    assert holds[log.stream] == "the log up to 1-20, in appends: 2"
    assert holds[log.refs] == "words by their ref: 1"
    assert holds[log.lease("1-0/a")] == "me"
    await transcript.release(log, "1-0/a", "me", open=True)
    assert (await look(transcript, "s")).turns == [("1-0/a", "", -1.0)]


async def test_another_sessions_turns_are_counted_and_not_shown(transcript: Transcript) -> None:
    other = (await transcript.open("s2")).log
    await transcript.say(other, Prompt(text="hi", to="a", from_="ann", ref="r1"), agents=["a"], by="me")
    await transcript.open("s")
    picture = await look(transcript, "s")
    assert picture.turns == picture.entries == []
    assert ("{0}:open", "set", "open turns: 1", "") in picture.keys


async def test_looking_changes_nothing(transcript: Transcript) -> None:
    """No key is made, not even of a session that nobody has opened; a ticket stays good, and what it holds is not told."""
    await transcript.put_ticket("a-ticket", b"ann", 60.0)
    before = sorted(await transcript.store.redis.keys("*"))
    picture = await look(transcript, "nobody-was-here")
    assert len(picture.keys) == 5
    assert ("kit:ticket:…", "string", "tickets, not read: 1", "") in picture.keys
    assert "a-ticket" not in str(picture)
    assert sorted(await transcript.store.redis.keys("*")) == before
    assert await transcript.take_ticket("a-ticket") == b"ann"
