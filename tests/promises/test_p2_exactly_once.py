"""P2: whatever the cuts and reconnects, a client that comes back with its cursor gets the log after it: nothing lost, nothing twice."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.lab.instances import Serve
from kit.packets import EntryId, Hello, Prompt
from tests.promises.support import Judge, Losses, count, counting, ids, nodes, read_log, said, turn_of, watch
from tests.support import both_servers, ref, visit


@both_servers
async def test_p2_a_program_that_was_restarted_gets_only_the_rest(store: str, serve: Serve) -> None:
    """`after` and `log` are all that it kept; it comes back to another instance, while the agent is speaking."""
    async with (
        nodes(store, counting(200, pace=1000), 2, serve=serve) as (one, other),
        watch(one.server, "rest") as before,
    ):
        turn = turn_of(await before.session.prompt("go"))
        await before.pieces(turn, 50)
        after, log = before.session.after, before.session.log
        first = list(before.log)
        async with watch(other.server, "rest", after=after, log=log) as again:
            await again.ended(turn)
            assert not again.gaps
            assert first[: ids(first).index(str(after)) + 1] + again.log == await read_log(store, "rest")
            assert said(first + again.log) == count(200)


@both_servers
@pytest.mark.parametrize("at", range(0, 24, 4))
async def test_p2_every_entry_is_a_place_to_come_back_to(store: str, serve: Serve, at: int) -> None:
    """A cursor on a word, on a packet, on the last entry: what follows is the log after it, and hello says `resumed`."""
    async with nodes(store, counting(20, pace=5000), 1, join=False, serve=serve) as (one,), watch(one.server, "any") as ann:
        await ann.ended(turn_of(await ann.session.prompt("go")))
        whole = ids(ann.log)
        after = whole[min(at, len(whole) - 1)]
        async with visit(one.server, "any", query=f"?after={after}&log={ann.session.log}") as socket:
            assert isinstance(hello := socket.seen[0], Hello)
            assert (hello.status, hello.after) == ("resumed", after)
            await socket.send({"type": "prompt", "text": "again", "ref": ref()})
            came = [(await socket.until("prompt", "content", "end"))["id"] for _ in range(len(whole) - whole.index(after))]
            assert came[:-1] == whole[whole.index(after) + 1 :]
            assert EntryId.parse(came[-1]).is_word


@both_servers
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_p2_cuts_while_people_talk(store: str, serve: Serve, seed: int) -> None:
    """Sockets are cut while words are under way and packets stream: each word stands once, each client saw the log once."""
    rng = random.Random(seed)
    session = f"talk-{seed}"
    async with (
        nodes(store, counting(30, pace=3000), 2, serve=serve) as both,
        watch(both[0].server, session, "ann") as ann,
        watch(both[1].server, session, "bob") as bob,
    ):
        for i in range(6):
            person = rng.choice([ann, bob])
            word = Prompt(text=f"word {i}", ref=ref())
            if rng.random() < 0.5:
                await both[rng.randrange(2)].server.cut(session)
            receipt = await person.session.say(word)
            assert receipt.status in ("applied", "duplicate")
            await both[rng.randrange(2)].server.cut(session)
        for person in (ann, bob):
            for entry in await read_log(store, session):
                if isinstance(entry, Prompt):
                    await person.ended(f"{entry.id}/agent")
        log = await read_log(store, session)
        Judge(log)
        assert ann.seen == bob.seen == log
        assert [e.text for e in log if isinstance(e, Prompt)] == [f"word {i}" for i in range(6)]


@both_servers
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_p2_lost_replies_of_the_store_lose_and_double_nothing(store: str, serve: Serve, seed: int) -> None:
    """A third of the commits is lost on the way there, on the way back, or arrives late: the text is exact, with one end."""
    session = f"lossy-{seed}"
    async with nodes(store, counting(120, pace=4000), 1, serve=serve) as (one,), watch(one.server, session) as ann:
        losses = Losses(one.store, random.Random(seed))
        turn = turn_of(await ann.session.prompt("go"))
        await ann.ended(turn)
        await losses.settled()
        log = await read_log(store, session)
        Judge(log)
        assert ann.seen == log
        assert said(log, turn) == count(120)
        assert sum(losses.count.values()) > 0
