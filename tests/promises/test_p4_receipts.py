"""P4: each word gets one truthful receipt; repeated after a reconnect it is applied once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.agents.scripted import scripted
from kit.client import Session
from kit.history import History
from kit.lab.instances import Serve
from kit.packets import (
    Action,
    Answer,
    AnyPacket,
    Ask,
    Claim,
    Content,
    Edit,
    EntryId,
    Packet,
    Prompt,
    Receipt,
    Result,
    Said,
    Stop,
    ToolResult,
)
from tests.promises.support import Judge, Watcher, counting, nodes, read_log, said, turn_of, watch
from tests.support import both_servers, ref

QUESTIONS = scripted(
    [
        Content("One moment. "),
        Action(call="look", name="look", arguments={}, on="server"),
        ToolResult(call="look", value=1),
        Action(call="pay", name="pay", arguments={}, on="approve"),
        Action(call="theme", name="theme", arguments={}, on="client"),
        Ask(call="city", text="Which city?"),
        Content("Thank you."),
    ]
)


async def both_open(history: History) -> AsyncIterator[AnyPacket]:
    """Asks, approves, and acts on the client, all at once; is done when all three are closed."""
    if not history.said:
        yield Action(call="look", name="look", arguments={}, on="server")
        yield Action(call="pay", name="pay", arguments={}, on="approve")
        yield Action(call="theme", name="theme", arguments={}, on="client")
        yield Ask(call="city", text="Which city?")
    elif history.answer("city") and history.answer("pay") and history.result("theme"):
        yield ToolResult(call="pay", value=1)
        yield Content("Thank you.")


async def opened(person: Watcher) -> str:
    """A turn whose calls are all open."""
    turn = turn_of(await person.session.prompt("go"))
    await person.until(lambda w: any(isinstance(e, Ask) for e in w.log))
    return turn


@both_servers
async def test_p4_a_repeated_word_is_a_duplicate_and_applied_once(store: str, serve: Serve) -> None:
    """The same ref with the same body, to another instance, while it runs and when it is over: `duplicate` of its id, and what it was."""
    async with nodes(store, counting(30), 2, serve=serve) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s") as again:
        word = Prompt(text="go", ref=ref())
        first = await ann.session.say(word)
        assert first.status == "applied"
        for session in (ann.session, again.session):
            assert await session.say(word) == Receipt(ref=word.ref, status="duplicate", id=first.id, was="applied")
        await ann.ended(turn_of(first))
        assert (await again.session.say(word)).status == "duplicate"
        late = Stop(turn=turn_of(first), ref=ref())
        stopped = await ann.session.say(late)
        assert stopped.status == "too_late"
        assert await again.session.say(late) == Receipt(ref=late.ref, status="duplicate", id=stopped.id, was="too_late")
        log = await read_log(store, "s")
        Judge(log).agrees([first, stopped], "ann")
        assert said(log) == "".join(f"{i} " for i in range(1, 31))


@both_servers
async def test_p4_a_ref_with_another_body_is_refused_and_another_persons_ref_is_not(store: str, serve: Serve) -> None:
    """A ref belongs to one person and one word."""
    async with (
        nodes(store, counting(1), 1, serve=serve) as (one,),
        watch(one.server, "s", "ann") as ann,
        watch(one.server, "s", "bob") as bob,
    ):
        word = Prompt(text="go", ref=ref())
        assert (await ann.session.say(word)).status == "applied"
        refused = await ann.session.say(msgspec.structs.replace(word, text="stay"))
        assert (refused.status, refused.id) == ("refused", None)
        assert "ref" in str(refused.reason)
        assert (await bob.session.say(word)).status == "applied"
        assert [e.text for e in await read_log(store, "s") if isinstance(e, Prompt)] == ["go", "go"]


@both_servers
async def test_p4_of_two_answers_claims_or_results_one_is_applied(store: str, serve: Serve) -> None:
    """On two instances at once: one is first in the log, the other is too late, and both are told the truth."""
    async with (
        nodes(store, both_open, 2, serve=serve) as (one, other),
        watch(one.server, "s", "ann") as ann,
        watch(other.server, "s", "bob") as bob,
    ):
        turn = await opened(ann)
        await bob.until(lambda w: any(isinstance(e, Ask) for e in w.log))
        told: list[tuple[str, Receipt]] = []
        for word in (Claim(call="theme"), Answer(call="city", text="Oslo"), Answer(call="pay", text="yes")):
            pair = await asyncio.gather(ann.session.say(word), bob.session.say(word))
            assert sorted(receipt.status for receipt in pair) == ["applied", "too_late"]
            told += zip(("ann", "bob"), pair, strict=True)
        claimed = {e.id: e.from_ for e in ann.log if isinstance(e, Claim)}
        mine, theirs = (ann, bob) if claimed[_applied(told[:2])] == "ann" else (bob, ann)
        refused = await theirs.session.result("theme", "dark")
        assert refused.status == "refused"
        assert "claimed by" in str(refused.reason)
        assert (await mine.session.result("theme", "dark")).status == "applied"
        assert (await mine.session.result("theme", "light")).status == "too_late"
        await ann.ended(turn)
        judge = Judge(await read_log(store, "s"))
        for name in ("ann", "bob"):
            judge.agrees([receipt for by, receipt in told if by == name], name)


def _applied(told: list[tuple[str, Receipt]]) -> str:
    return next(str(receipt.id) for _, receipt in told if receipt.status == "applied")


@both_servers
@pytest.mark.parametrize(
    ("word", "hint"),
    [
        (Stop(turn="9-0/agent"), "no turn"),
        (Edit(turn="9-0/agent", text="x"), "no turn"),
        (Stop(turn="the last one"), "<prompt id>/<agent>"),
        (Answer(call="nothing", text="x"), "no call"),
        (Claim(call="nothing"), "no call"),
        (Answer(call="look", text="x"), "runs on the server"),
        (Result(call="look", value=2), "runs on the server"),
        (Result(call="city", value="Oslo"), "`answer` it"),
        (Result(call="pay", value=1), "waits for approval"),
        (Claim(call="pay"), "waits for approval"),
        (Answer(call="theme", text="dark"), "`claim` it"),
        (Prompt(text="x", to="nobody"), "no agent"),
    ],
)
async def test_p4_what_cannot_be_applied_is_refused_and_not_logged(store: str, serve: Serve, word: Said, hint: str) -> None:
    """Unknown turns, calls and agents, and words that do not fit a call: the reason says what to do, the log stays as it was."""
    async with nodes(store, both_open, 2, serve=serve) as (one, other), watch(one.server, "s") as ann:
        await opened(ann)
        async with watch(other.server, "s") as elsewhere:
            receipt = await elsewhere.session.say(word)
        assert receipt.status == "refused"
        assert hint in str(receipt.reason)
        assert [type(e) for e in await read_log(store, "s")] == [type(e) for e in ann.log]


@both_servers
async def test_p4_words_after_the_end_are_too_late_and_stand_in_the_log(store: str, serve: Serve) -> None:
    """Stop, edit and answer of a turn that has ended change nothing, and nothing runs because of them."""
    async with nodes(store, QUESTIONS, 1, serve=serve) as (one,), watch(one.server, "s") as ann:
        turn = await opened_first(ann)
        assert (await ann.session.stop(turn)).status == "applied"
        await ann.ended(turn)
        words: list[Said] = [Stop(turn=turn), Stop(), Edit(turn=turn, text="x"), Answer(call="pay", text="yes")]
        receipts = [await ann.session.say(word) for word in words]
        assert [receipt.status for receipt in receipts] == ["too_late"] * 4
        log = await read_log(store, "s")
        assert log[-1].id == receipts[-1].id
        assert {e.turn for e in log if isinstance(e, Packet)} == {turn}
        await idle(one.server)


async def opened_first(person: Watcher) -> str:
    turn = turn_of(await person.session.prompt("go"))
    await person.until(lambda w: any(isinstance(e, Action) and e.on == "approve" for e in w.log))
    return turn


async def idle(server: Any) -> None:
    """No run is left in the instance."""
    while runs := server.instance._runs:
        await asyncio.wait(list(runs.values()))


def words(rng: random.Random, person: Watcher) -> Said:
    """Something that one might say now, sensible or not."""
    turns = [f"{e.id}/agent" for e in person.log if isinstance(e, Prompt | Edit)] or ["1-0/agent"]
    calls = [e.call for e in person.log if isinstance(e, Ask | Action)] or ["none"]
    turn, call = rng.choice(turns[-3:]), rng.choice(calls[-4:])
    made: list[Said] = [
        Prompt(text="go"),
        Prompt(text="go"),
        Stop(turn=turn),
        Stop(),
        Edit(turn=turn, text="other"),
        Answer(call=call, text="yes"),
        Answer(call=call, text="Oslo"),
        Claim(call=call),
        Result(call=call, value=1),
        Result(call=call, error="no"),
    ]
    return msgspec.structs.replace(rng.choice(made), ref=ref())


async def say_and_repeat(session: Session, word: Said, rng: random.Random) -> list[Receipt]:
    """Say a word, and sometimes the same again; a refused one was never said, and may come to something by then."""
    first = await session.say(word)
    if first.status == "refused" or rng.random() < 0.7:
        return [first]
    again = await session.say(word)
    assert (again.status, again.id) == ("duplicate", first.id)
    return [first, again]


@both_servers
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_p4_every_receipt_is_what_the_log_says(store: str, serve: Serve, seed: int) -> None:
    """Two people say 25 words each at random, through cuts: an independent fold of the final log comes to the same receipts."""
    session = f"model-{seed}"
    async with (
        nodes(store, QUESTIONS, 2, serve=serve) as both,
        watch(both[0].server, session, "ann") as ann,
        watch(both[1].server, session, "bob") as bob,
    ):

        async def talk(person: Watcher, rng: random.Random) -> list[Receipt]:
            receipts = []
            for i in range(25):
                if i % 8 == 7:
                    await both[rng.randrange(2)].server.cut(session)
                receipts += await say_and_repeat(person.session, words(rng, person), rng)
            return receipts

        told = await asyncio.gather(talk(ann, random.Random(seed)), talk(bob, random.Random(seed + 1)))
        stopped = await ann.session.stop()
        for node in both:
            await idle(node.server)
        log = await read_log(store, session)
        judge = Judge(log)
        assert not judge.open
        judge.agrees([*told[0], stopped], "ann")
        judge.agrees(told[1], "bob")
        for person in (ann, bob):
            await person.reached(EntryId.parse(log[-1].id))
            assert person.seen == log
