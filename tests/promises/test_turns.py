"""The life of a turn, from outside: its queue, its waiting, agents that misbehave, and stores that lose replies."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as StoreConnectionError

from kit.agents import model
from kit.agents.openai import openai_agent
from kit.agents.scripted import scripted
from kit.feed import Feed
from kit.history import Agent, AgentError, History
from kit.instance import AT_A_TIME
from kit.lab.instances import Node
from kit.lab.served import end_leases
from kit.packets import (
    MAX_BODY,
    Action,
    Answer,
    AnyPacket,
    Ask,
    At,
    Content,
    End,
    EntryId,
    Prompt,
    Result,
    Stop,
    Takeover,
    ToolResult,
    new_ref,
    stored,
)
from kit.store import StoreError, open_store
from kit.transcript import Transcript
from tests.conftest import RealStore
from tests.promises.support import Judge, Losses, count, counting, nodes, read_log, said, turn_of, watch


async def idle(node: Node) -> None:
    """No run is left in the instance."""
    while runs := node.server.instance._runs:
        await asyncio.wait(list(runs.values()))


async def released(store: str) -> None:
    """No lease is left; one that was taken to see that its turn has ended is given back at once."""
    while await leases(store):
        pass


async def leases(store: str) -> list[bytes]:
    async with open_store(store) as own:
        return [key async for key in own.redis.scan_iter("*:lease:*")]


# ---- queue and waiting ----


async def test_an_agent_answers_one_prompt_after_the_other_and_two_agents_at_once(store: str) -> None:
    """The queue is per agent: the packets of one agent's turns do not mix, those of two agents do."""
    agents = {"one": counting(40, 400), "two": counting(40, 400)}
    async with nodes(store, agents, 2) as (left, right), watch(left.server, "s") as ann, watch(right.server, "s", "bob") as bob:
        first, second = turn_of(await ann.session.prompt("a", to="one"), "one"), turn_of(await bob.session.prompt("b", to="one"), "one")
        beside = turn_of(await bob.session.prompt("c", to="two"), "two")
        for turn in (first, second, beside):
            assert (await ann.ended(turn)).reason == "done"
        order = [e.turn for e in ann.log if isinstance(e, Content)]
        assert [turn for turn in order if turn != beside] == sorted(t for t in order if t != beside)
        assert order.index(beside) < len(order) - 1 - order[::-1].index(first)
        Judge(ann.log)


async def test_a_word_is_said_to_its_end_though_its_speaker_goes_away(store: str) -> None:
    """Wherever the socket's task is cancelled while it says a prompt: the turn begins at once, and not when its lease has run out."""
    async with nodes(store, counting(3), 1, lease=60) as (node,):
        for steps in range(0, 60, 3):
            session = f"s{steps}"
            async with watch(node.server, session) as ann:
                saying = asyncio.create_task(node.server.instance.say(session, new_ref(Prompt(text="go")), "ann"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                saying.cancel()
                await asyncio.wait({saying})
                if steps:  # else it had not begun
                    await ann.until(lambda w: any(isinstance(e, End) for e in w.log))


async def test_a_turn_of_the_log_before_hides_none_of_this_one(store: str) -> None:
    """The list of open turns still names `1-0/agent` of a log that is gone, while a prompt opens the one of that id in the new log."""
    async with nodes(store, counting(3), 2, lease=60) as (node, other), open_store(store) as own:
        for steps in range(0, 60, 2):
            session = f"s{steps}"
            await own.redis.sadd("{0}:open", f"{{0}}:{session} 1-0/agent")
            for instance in (node.server.instance, other.server.instance):
                instance._look[0].set()
            for _ in range(steps):
                await asyncio.sleep(0)
            async with watch(other.server, session) as ann:
                turn = turn_of(await node.server.instance.say(session, new_ref(Prompt(text="go")), "ann"))
                assert (await ann.ended(turn)).reason == "done"


async def test_a_waiting_turn_has_no_lease_and_any_instance_goes_on_with_it(store: str) -> None:
    """The instance that asked is gone; the answer makes the turn runnable on the one that hears it."""
    agent = scripted([Content("Well: "), Ask(call="c", text="Which city?"), Content("Oslo it is.")])
    async with nodes(store, agent, 2, lease=5.0) as (one, other), watch(other.server, "s", "bob") as bob:
        async with watch(one.server, "s") as ann:
            turn = turn_of(await ann.session.prompt("weather"))
            await bob.until(lambda w: any(isinstance(e, Ask) for e in w.log))
        await idle(one)
        assert await leases(store) == []
        await one.stop()
        assert (await bob.session.answer("c", "Oslo")).status == "applied"
        assert (await bob.ended(turn)).reason == "done"
        assert bob.text(turn) == "Well: Oslo it is."
        assert [e.turn for e in bob.log if isinstance(e, Takeover)] == [turn]


async def test_a_turn_that_waits_by_now_is_not_taken_over_by_who_saw_it_listed(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the list of open turns and the look at their leases, the turn begins to wait."""
    looked, asked, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    open_turns = Transcript.open_turns

    async def and_dawdle(transcript: Transcript, shard: int) -> list[tuple[str, str]]:
        if asked.is_set():
            done.set()  # with what it saw before
        listed = await open_turns(transcript, shard)
        if listed and not looked.is_set():
            looked.set()
            await asked.wait()
        return listed

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        await looked.wait()
        yield Ask(call="c", text="Which city?")

    monkeypatch.setattr(Transcript, "open_turns", and_dawdle)
    async with nodes(store, agent, 1) as (one,), watch(one.server, "s") as ann:
        await ann.session.prompt("weather")
        await ann.until(lambda w: any(isinstance(e, Ask) for e in w.log))
        await idle(one)
        asked.set()
        await done.wait()
        await idle(one)
        assert [type(e) for e in await read_log(store, "s")] == [Prompt, Ask]


async def test_an_answer_that_comes_while_the_agent_speaks_is_taken_up_in_the_next_round(store: str) -> None:
    """The stream goes on after an ask; the answer does not cancel it."""
    rounds: list[int] = []

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        rounds.append(len(history))
        if not history.said:
            yield Ask(call="c", text="Which city?")
            for i in range(1, 101):
                await asyncio.sleep(0.001)
                yield Content(f"{i} ")
        elif answer := history.answer("c"):
            yield Content(f"So: {answer.text}.")

    async with nodes(store, agent, 1, lease=5.0) as (one,), watch(one.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 20)
        assert (await ann.session.answer("c", "Oslo")).status == "applied"
        assert (await ann.ended(turn)).reason == "done"
        assert ann.text(turn) == count(100) + "So: Oslo."
        assert len(rounds) == 2
        assert not [e for e in ann.log if isinstance(e, Takeover)]


async def test_a_client_action_is_claimed_run_and_told(store: str) -> None:
    """Claim, then result: by the client that claimed it; the agent goes on with what it gave."""

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        if not history.said:
            yield Action(call="theme", name="set_theme", arguments={"to": "dark"}, on="client")
            yield Action(call="mail", name="send_mail", arguments={}, on="approve")
        elif (result := history.result("theme")) and (answer := history.answer("mail")):
            assert isinstance(result, Result)
            yield ToolResult(call="mail", value="sent") if answer.text == "yes" else ToolResult(call="mail", error="declined")
            yield Content(f"theme: {result.value}")

    async with nodes(store, agent, 2) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        turn = turn_of(await ann.session.prompt("go"))
        await bob.until(lambda w: sum(isinstance(e, Action) for e in w.log) == 2)
        assert (await bob.session.claim("theme")).status == "applied"
        assert (await bob.session.result("theme", "dark")).status == "applied"
        assert (await ann.session.answer("mail", "yes")).status == "applied"
        assert (await ann.ended(turn)).reason == "done"
        assert ann.text(turn) == "theme: dark"
        Judge(ann.log)


async def test_a_late_answer_does_not_strand_a_turn_that_its_owner_left(store: str) -> None:
    """The first answer's instance dies before it goes on; a second answer, though too late, must not take the turn off the list."""
    agent = scripted([Ask(call="c", text="Which?"), Content("Thank you.")])
    async with nodes(store, agent, 2) as (one, other), watch(other.server, "s", "bob") as bob:
        turn = turn_of(await bob.session.prompt("go"))
        await bob.until(lambda w: any(isinstance(e, Ask) for e in w.log))
        await idle(other)
        await said_and_died(one, turn)
        assert (await bob.session.answer("c", "second")).status == "too_late"
        assert (await bob.ended(turn)).reason == "done"


async def said_and_died(node: Node, turn: str) -> None:
    """An instance adds an answer, and its lease ends before it does anything with it."""
    instance = node.server.instance
    opened = await instance.transcript.open("s")
    word = Answer(call="c", text="first", from_="eve", ref="0123456789abcdef")
    await instance.transcript.say(opened.log, word, wakes=[turn], by="the dead")
    await instance.transcript.store.redis.delete(opened.log.lease(turn))


# ---- agents that misbehave ----


async def raising(history: History) -> AsyncIterator[AnyPacket]:
    yield Content("before ")
    raise ZeroDivisionError


async def giving_up(history: History) -> AsyncIterator[AnyPacket]:
    yield Content("before ")
    raise AgentError("The model's key is wrong: set another.")


async def nonsense(history: History) -> AsyncIterator[AnyPacket]:
    yield Content("before ")
    yield cast("AnyPacket", {"text": "after"})


async def ending(history: History) -> AsyncIterator[AnyPacket]:
    yield Content("before ")
    yield End(reason="done")


async def mistyped(history: History) -> AsyncIterator[AnyPacket]:
    yield Content("before ")
    yield Content(cast("str", 7))


async def half_a_pair(history: History) -> AsyncIterator[AnyPacket]:
    yield Content("before ")
    yield Content("\ud800")


async def too_large(history: History) -> AsyncIterator[AnyPacket]:
    yield Content("before ")
    yield ToolResult(call="c", value="x" * MAX_BODY)


async def asking_with_a_number(history: History) -> AsyncIterator[AnyPacket | Prompt]:
    yield Content("before ")
    yield Prompt(text=cast("str", 7), to="good")


async def asking_too_much(history: History) -> AsyncIterator[AnyPacket | Prompt]:
    yield Content("before ")
    yield Prompt(text="x" * MAX_BODY, to="good")


async def cancelling(history: History) -> AsyncIterator[AnyPacket]:
    """Waits for something of its own that was cancelled."""
    yield Content("before ")
    of_its_own = asyncio.ensure_future(asyncio.sleep(60))
    of_its_own.cancel()
    await of_its_own


async def silent(history: History) -> AsyncIterator[AnyPacket]:
    yield Content("before ")
    await asyncio.Event().wait()


def no_generator(history: History) -> Any:
    return [Content("before ")]


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [
        (raising, "The agent failed (ZeroDivisionError)"),
        (giving_up, "The model's key is wrong: set another."),
        (nonsense, "no packet"),
        (ending, "no packet"),
        (mistyped, "no packet"),
        (half_a_pair, "no packet"),
        (too_large, "no packet"),
        (asking_with_a_number, "no packet"),
        (asking_too_much, "too long"),
        (cancelling, "was cancelled, though nobody stopped it"),
        (silent, "said nothing for 1 s"),
        (no_generator, "no packet"),
    ],
)
async def test_a_bad_agent_ends_its_turn_and_nothing_else(store: str, agent: Agent, sentence: str) -> None:
    """`end failed` with a sentence for the person; what was said before stands; the session goes on with the next prompt."""
    agents = {"bad": agent, "good": counting(3)}
    async with nodes(store, agents, 1, patience=1.0 if agent is silent else 300.0) as (one,), watch(one.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"), "bad")
        end = await ann.ended(turn)
        assert end.reason == "failed"
        assert sentence in str(end.text)
        assert ann.text(turn) == ("" if agent is no_generator else "before ")
        assert (await ann.ended(turn_of(await ann.session.prompt("go", to="good"), "good"))).reason == "done"
        Judge(ann.log)
        Judge(await read_log(store, "s"))  # which everybody can read
        await released(store)


async def test_an_agent_that_ignores_its_cancellation_is_cut_off(store: str) -> None:
    """After its grace the turn ends `failed`, and what the agent says then is heard by nobody."""
    let_go = asyncio.Event()

    async def stubborn(history: History) -> AsyncIterator[AnyPacket]:
        yield Content("before ")
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        yield Content("after ")

    async with nodes(store, stubborn, 1, grace=0.1) as (one,), watch(one.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 1)
        assert (await ann.session.stop(turn)).status == "applied"
        end = await ann.ended(turn)
        assert (end.reason, "did not stop" in str(end.text)) == ("failed", True)
        let_go.set()
        await idle(one)
        assert said(await read_log(store, "s")) == "before "


async def test_an_agent_that_was_held_up_with_its_whole_process_is_not_cut_off(store: str) -> None:
    """A laptop that slept, a busy machine: it had no chance to obey in that time."""

    async def careful(history: History) -> AsyncIterator[AnyPacket]:
        yield Content("before ")
        try:
            await asyncio.Event().wait()
        finally:
            time.sleep(0.75)  # noqa: ASYNC251  that is what is meant
            await asyncio.sleep(0.01)

    async with nodes(store, careful, 1, grace=0.5) as (one,), watch(one.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 1)
        assert (await ann.session.stop(turn)).status == "applied"
        assert (await ann.ended(turn)).reason == "stopped"


async def test_an_agent_that_cleans_up_for_longer_than_its_instance_lives_is_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    """Should it fail at that: nobody could do anything about it any more."""
    done = asyncio.Event()

    async def slow(history: History) -> AsyncIterator[AnyPacket]:
        yield Content("before ")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.5)  # longer than until an end is asked for again
            done.set()
            raise RuntimeError("too late")

    async with nodes("fake://", slow, 1) as (one,):
        async with watch(one.server, "s") as ann:
            await ann.pieces(turn_of(await ann.session.prompt("go")), 1)
        await one.stop()
        await done.wait()
        await asyncio.sleep(0)
    gc.collect()
    assert "too late" not in caplog.text


async def test_text_of_any_size_is_split(store: str) -> None:
    """A piece of 200 kB with characters that JSON escapes arrives whole, in frames under the limit."""
    text = "".join(random.Random(3).choices('a"\\é\x01\n𝄞', k=100_000))
    async with nodes(store, scripted([Content(text)]), 1) as (one,), watch(one.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"))
        await ann.ended(turn)
        assert ann.text(turn) == text
        Judge(ann.log)


# ---- nothing stays behind ----


async def test_nothing_stays_when_everybody_has_left(store: str) -> None:
    """No run, no ear and no task of a session is left; the open turns' list and the leases are empty."""
    async with nodes(store, counting(20, 2000), 1) as (one,):
        quiet = len(tasks())
        for i in range(10):
            async with watch(one.server, f"s{i}") as ann:
                await ann.ended(turn_of(await ann.session.prompt("go")))
        instance = one.server.instance
        await idle(one)
        await asyncio.gather(*(ended(connection) for connection in one.server.connections))
        assert (instance._runs, instance.ears.feeds, instance.ears._opening) == ({}, {}, {})
        assert len(tasks()) <= quiet
        await released(store)
        assert await instance.transcript.open_turns(0) == []


async def ended(connection: Any) -> None:
    await connection.socket.websocket.wait_closed()
    await asyncio.sleep(0)  # its own tasks end in the step after


def tasks() -> list[asyncio.Task[Any]]:
    """All but fakeredis' own: each of its blocked reads is one."""
    return [task for task in asyncio.all_tasks() if "AsyncFakeSocket" not in str(task.get_coro())]


async def test_who_comes_in_the_step_in_which_the_last_one_leaves_has_the_same_ear_as_who_comes_next(store: str) -> None:
    """With an ear of their own, one of the two would hear nothing that is said."""
    async with nodes(store, counting(1), 1) as (one,):
        instance = one.server.instance

        async def come_and_go() -> asyncio.Task[Feed]:
            await instance.ears.open("s")
            instance.ears.close("s")
            return asyncio.create_task(instance.ears.open("s"))

        going, coming = asyncio.create_task(come_and_go()), asyncio.create_task(instance.ears.open("s"))
        assert await coming is await (await going)
        instance.ears.close("s")
        assert await instance.ears.open("s") is not coming.result()


async def test_a_prompt_whose_sender_left_at_once_can_still_be_stopped(store: str) -> None:
    """The ear of a turn stays open though its only viewer went while the word was under way: a silent agent hears the stop."""

    async def silent_agent(history: History) -> AsyncIterator[AnyPacket]:
        await asyncio.Event().wait()
        yield Content("never")

    async with nodes(store, silent_agent, 2) as (one, other), watch(other.server, "s", "bob") as bob:
        for i in range(10):
            turn = turn_of(await one.server.instance.say("s", Prompt(text="go", ref=f"{i:016d}"), "ann"))
            assert (await bob.session.stop(turn)).status == "applied"
            assert (await bob.ended(turn)).reason == "stopped"


async def test_who_slept_through_what_was_trimmed_since_says_nothing_more(store: str) -> None:
    """Its turn was taken over and ended, and all that says so is gone: it must not go on from what it heard last."""
    awake = asyncio.Event()

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        yield Content("1 ")
        await awake.wait()
        yield Content("2 ")

    async with nodes(store, agent, 1) as (one,), watch(one.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 1)
        transcript = one.server.instance.transcript
        log = (await transcript.open("s")).log
        pipe = transcript.store.redis.pipeline(transaction=True)  # the instance hears of all of it at once
        pipe.xadd(log.stream, {"f": stored(Takeover(turn=turn, by="x", from_="x")), "prev": "1-1"}, "2-0")
        pipe.xadd(log.stream, {"f": stored(End(reason="done", turn=turn, from_="agent", n=2))}, "2-1")
        pipe.xadd(log.stream, {"f": stored(Stop(turn="1-0/other", from_="bob")), "prev": "2-1"}, "3-0")
        pipe.xtrim(log.stream, minid="3-0", approximate=False)
        await pipe.execute()
        await ann.until(lambda w: w.gaps)
        awake.set()
        while await transcript.open_turns(0):  # noqa: ASYNC110  # until nobody has anything to do with it; the store tells nobody
            await asyncio.sleep(0.01)
        assert [entry.id for entry in await read_log(store, "s")] == ["3-0"]


async def test_a_prompt_that_is_said_behind_what_was_trimmed_unheard_is_answered(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other instance trimmed what this one has not heard; the prompt's turn is this one's all the same, and not dropped as unknown."""
    async with nodes(store, counting(3), 2, keep=4) as (one, other):

        async def deaf(*_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(other.server.instance.transcript, "follow", deaf)
        async with watch(one.server, "s", "ann") as ann, watch(other.server, "s", "bob") as bob:
            await bob.ended(turn_of(await bob.session.prompt("go")))
            for _ in range(3):
                await ann.ended(turn_of(await ann.session.prompt("go")))
            assert EntryId.parse((await read_log(store, "s"))[0].id).epoch > 2, "trimmed beyond what the other has heard"
            turn = turn_of(await bob.session.prompt("go"))
            assert (await ann.ended(turn)).reason == "done"
            await released(store)


# ---- lost replies ----


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_lost_replies_in_a_duel_of_two_instances(store: str, seed: int) -> None:
    """Both instances lose commits, both are frozen past the lease now and then: the text is exact, the turn ends once."""
    async with nodes(store, counting(150, 1500), 2, lease=0.1) as both, watch(both[0].server, f"s{seed}") as ann:
        rng = random.Random(seed)
        losses = [Losses(node.store, rng, 0.15) for node in both]
        turn = turn_of(await ann.session.prompt("go"))
        for i in range(4):
            await ann.pieces(turn, 30 * (i + 1))
            node = both[i % 2]
            node.freeze()
            asyncio.get_running_loop().call_later(0.25, node.thaw)
        async with watch(both[1].server, f"s{seed}", "bob") as bob:
            assert (await bob.ended(turn)).reason == "done"
        for loss in losses:
            await loss.settled()
        log = await read_log(store, f"s{seed}")
        Judge(log)
        assert said(log, turn) == count(150)


async def test_a_cursor_that_cannot_be_stored_ends_its_turn_and_nothing_else(store: str) -> None:
    """A provider's name for its response is what that provider gave."""

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        yield Content("a ", at=At(response="\ud800", sequence=1) if history.prompt.text == "bad" else None)

    async with nodes(store, agent, 1) as (one,), watch(one.server, "s") as ann:
        assert (await ann.ended(turn_of(await ann.session.prompt("bad")))).reason == "failed"
        assert (await ann.ended(turn_of(await ann.session.prompt("good")))).reason == "done"
        assert said(await read_log(store, "s")) == "a "


async def test_a_question_behind_what_was_not_heard_keeps_its_turn_open(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another instance's turn said just before is still on its way: the agent has returned, and its question stands in the log."""
    on = asyncio.Event()

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        if answer := history.answer("c1"):
            yield Content(answer.text)
        else:
            await on.wait()
            yield Ask(call="c1", text="Which?")

    async def deaf(*_: Any, **__: Any) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {}

    async with nodes(store, agent, 1) as (one,):
        transcript = one.server.instance.transcript
        monkeypatch.setattr(transcript, "follow", deaf)
        log = (await transcript.open("s")).log
        await transcript.say(log, Prompt(text="hi", to="ghost", from_="bob", ref="1" * 16), agents=["ghost"])
        async with watch(one.server, "s") as ann:
            turn = turn_of(await ann.session.prompt("go"))
            while not one.server.instance.ears.feeds["s"].followed:  # noqa: ASYNC110  # by the shared read, which will bring nothing
                await asyncio.sleep(0.01)
            await transcript.append(log, 2, [(stored(Content("boo", from_="ghost", turn="1-0/ghost", n=1)), None)])
            on.set()
            await idle(one)
            assert (await ann.session.answer("c1", "this")).status == "applied"
            assert (await ann.ended(turn)).reason == "done"
            assert said(await read_log(store, "s"), turn) == "this"


async def test_what_others_say_does_not_keep_a_silent_agent(store: str) -> None:
    """Patience is with the agent: a lively room would else wait for ever for one that hangs."""

    async def silent_agent(history: History) -> AsyncIterator[AnyPacket]:
        await asyncio.Event().wait()
        yield Content("never")

    async with nodes(store, silent_agent, 1, patience=0.5) as (one,), watch(one.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"))
        ended = asyncio.create_task(ann.ended(turn))
        for _ in range(100):
            if ended.done():
                break
            await ann.session.prompt("are you there?", to="agent")
            await asyncio.wait({ended}, timeout=0.1)
        assert ended.done()
        assert (await ended).reason == "failed"


async def test_what_was_said_behind_a_lost_append_goes_with_its_run(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another took the turn over meanwhile and said as much: it would stand in the log a second time."""
    on, more = asyncio.Event(), asyncio.Event()
    calls: list[History] = []

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        calls.append(history)
        first = len(calls) == 1
        for i in range(history.pieces + 1, 13):
            if i == (6 if first else 9):
                await (on if first else more).wait()
            yield Content(f"{i} ")
            if first and i == 9:
                await asyncio.Event().wait()

    async with nodes(store, agent, 2) as (one, other), watch(other.server, "s", "bob") as bob:
        turn = turn_of(await one.server.instance.say("s", Prompt(text="go", ref="1" * 16), "ann"))
        await bob.pieces(turn, 5)
        lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with monkeypatch.context() as patch:
            patch.setattr(one.store.commits, "send", lambda _, told: lost.set_result(told))
            on.set()
            told = await lost
            one.freeze()
            await bob.pieces(turn, 8)
        one.thaw()
        told(StoreConnectionError("the test lost a reply"))
        await bob.until(lambda w: sum(isinstance(e, Takeover) for e in w.log) == 2)
        more.set()
        assert (await bob.ended(turn)).reason == "done"
        assert said(await read_log(store, "s"), turn) == count(12)


async def test_a_word_whose_reply_is_lost_is_said_once(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script ran, its answer did not come: the connection closes, the client says the word again, and hears that it was applied."""
    lost: list[EntryId] = []
    add = Transcript._add

    async def losing(transcript: Transcript, log: Any, word: Any, *rest: Any) -> Any:
        spoken = await add(transcript, log, word, *rest)
        if isinstance(word, Prompt) and not lost:
            lost.append(spoken.id)
            raise StoreConnectionError("the test lost a reply")
        return spoken

    monkeypatch.setattr(Transcript, "_add", losing)
    async with nodes(store, counting(20), 1) as (one,), watch(one.server, "s") as ann:
        receipt = await ann.session.prompt("go")
        assert (receipt.status, receipt.was, receipt.id) == ("duplicate", "applied", str(lost[0]))
        await ann.ended(f"{receipt.id}/agent")
        assert said(await read_log(store, "s")) == count(20)
        assert EntryId.parse(ann.log[0].id) == lost[0]


async def test_a_store_that_answers_no_more_is_not_waited_for_without_end(real_store: RealStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host is gone without a word: what is asked fails, and is asked again; what arrived there all the same stands there once."""
    monkeypatch.setattr("kit.store.ANSWER", 1.0)
    monkeypatch.setattr("kit.held.ANSWER", 1.0)
    async with nodes(real_store.url, counting(200, pace=200), 1) as (one,), watch(one.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 20)
        with real_store.paused():
            async with asyncio.timeout(10):
                for _ in range(3):
                    with pytest.raises(StoreError):
                        await one.server.instance.transcript.open_turns(0)
        assert (await ann.ended(turn)).reason == "done"
        log = await read_log(real_store.url, "s")
        assert said(log, turn) == count(200)
        assert [entry for entry in log if isinstance(entry, Takeover)], "an append had no answer"
        assert ann.log == log
        Judge(log)


async def test_an_agent_asks_another_twice(store: str) -> None:
    """Two questions of one turn are two words; the same one, asked again by whoever takes the turn over, is one."""

    async def asking(history: History) -> AsyncIterator[AnyPacket | Prompt]:
        for text in ("write it", "test it", "test it"):
            yield Prompt(text=text, to="other")

    async with nodes(store, {"agent": asking, "other": counting(1)}, 1) as (one,), watch(one.server, "s") as ann:
        assert (await ann.ended(turn_of(await ann.session.prompt("go")))).reason == "done"
        await ann.until(lambda w: sum(isinstance(e, End) for e in w.log) == 3)
        assert [e.text for e in ann.log if isinstance(e, Prompt)] == ["go", "write it", "test it"]
        Judge(ann.log)


async def test_a_tool_is_run_when_its_action_stands_in_the_log(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that is said before the action is stored keeps the tool from being run: nothing would tell that it was."""
    ran: list[str] = []

    async def pay(amount: str) -> str:
        """Pay an amount."""
        ran.append(amount)
        return "paid"

    async with model.serve(pace=None) as provider:
        agent = openai_agent(base_url=provider.url, model="kit-scripted", dialect="chat", tools=[pay])
        async with nodes(store, agent, 1) as (one,), watch(one.server, "s") as ann:
            transcript, wanted, let = one.server.instance.transcript, asyncio.Event(), asyncio.Event()
            send = transcript.send

            def slowly(*asked: Any) -> None:
                if any(b'"type":"action"' in body for body, _ in asked[2]) and not let.is_set():
                    wanted.set()
                    held.append(asyncio.create_task(later(*asked)))
                else:
                    send(*asked)

            async def later(*asked: Any) -> None:
                await let.wait()
                send(*asked)

            held: list[asyncio.Task[None]] = []
            monkeypatch.setattr(transcript, "send", slowly)
            turn = turn_of(await ann.session.prompt('pay "100"'))
            await wanted.wait()
            stopped = await ann.session.stop(turn)
            let.set()
            assert (stopped.status, (await ann.ended(turn)).reason) == ("applied", "stopped")
            assert not [entry for entry in ann.log if isinstance(entry, Action)]
            assert ran == []


# ---- what a word makes the store do ----


async def test_an_agent_that_is_named_twice_is_asked_once(store: str) -> None:
    """Each name opens a turn: ten thousand of one would be as many keys."""
    async with nodes(store, counting(3), 1) as (node,), watch(node.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go", to=",".join(["agent"] * 1000)))
        await ann.ended(turn)
        (word,) = [e for e in ann.log if isinstance(e, Prompt)]
        assert (word.to, said(ann.log)) == ("agent", count(3))


async def test_an_edit_of_what_is_trimmed_away_opens_no_turn(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its turn has ended, whatever it is called; so there is nothing to list and to lease."""
    asked: list[Any] = []
    say = Transcript.say

    async def saying(transcript: Transcript, log: Any, word: Any, **options: Any) -> Any:
        asked.append(options.get("agents"))
        return await say(transcript, log, word, **options)

    async with nodes(store, counting(3), 1, keep=3) as (node,), watch(node.server, "s") as ann:
        for _ in range(3):
            await ann.ended(turn_of(await ann.session.prompt("go")))
        await idle(node)
        monkeypatch.setattr(Transcript, "say", saying)
        receipt = await ann.session.edit("1-0/a,b,c", "x")
        assert (receipt.status, asked) == ("too_late", [[]])


async def test_a_second_stop_ends_what_the_first_left(store: str) -> None:
    """The first was said by an instance that did not know yet of a turn that waits for a person: nobody was woken to end it."""

    async def asking(history: History) -> AsyncIterator[AnyPacket]:
        yield Ask(call="q", text="?")

    async with nodes(store, asking, 1) as (node,), watch(node.server, "s") as ann:
        turn = turn_of(await ann.session.prompt("go"))
        await ann.pieces(turn, 1)
        await released(store)
        feed = node.server.instance.ears.feeds["s"]
        await feed.transcript.say(feed.log, new_ref(Stop(from_="bob")))
        await ann.until(lambda w: any(isinstance(e, Stop) for e in w.log))
        await ann.session.stop()
        assert (await ann.ended(turn)).reason == "stopped"


async def test_a_log_of_words_alone_is_bounded_too(store: str) -> None:
    """No turn ends there, which would trim it."""
    async with nodes(store, counting(3), 1, keep=20) as (node,), watch(node.server, "s") as ann:
        for _ in range(100):
            assert (await ann.session.stop()).status == "too_late"
        log = await read_log(store, "s")
        assert 20 <= len(log) <= 22
        assert ann.seen[-20:] == log[-20:]


# ---- many turns at once ----


async def test_turns_that_nobody_runs_are_taken_up_beside_each_other(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, a store that is 25 ms away would hold up the tenth by a second."""
    take, now, most = Transcript.take, 0, 0

    async def taking(transcript: Transcript, *asked: Any) -> bool:
        nonlocal now, most
        if transcript is not other.server.instance.transcript:
            return await take(transcript, *asked)
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.02)
        now -= 1
        return await take(transcript, *asked)

    sessions = [f"s{i}" for i in range(20)]
    async with nodes(store, counting(5000, pace=20), 2, lease=10.0) as (one, other), AsyncExitStack() as stack:
        people = [await stack.enter_async_context(watch(other.server, session)) for session in sessions]
        turns = [turn_of(await one.server.instance.say(session, new_ref(Prompt(text="go")), "bob")) for session in sessions]
        await asyncio.gather(*(ann.pieces(turn, 5) for ann, turn in zip(people, turns, strict=True)))
        monkeypatch.setattr(Transcript, "take", taking)
        await one.stop()
        async with open_store(store) as opened:
            await end_leases(opened)
        for ann, turn in zip(people, turns, strict=True):
            await ann.until(lambda w: any(isinstance(e, Takeover) for e in w.log))
            await ann.session.stop()
            await ann.ended(turn)
            assert count(5000).startswith(said(ann.log))
    assert most == AT_A_TIME


async def test_what_a_word_that_is_under_way_opens_is_handed_over_too(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that leaves while it says a prompt; else its turn would wait until its lease has run out: here, ten minutes."""
    stands, told = asyncio.Event(), asyncio.Event()
    say = Transcript.say

    async def saying(transcript: Transcript, log: Any, word: Any, **options: Any) -> Any:
        spoken = await say(transcript, log, word, **options)
        if isinstance(word, Prompt):
            stands.set()
            await told.wait()
        return spoken

    async with nodes(store, counting(30), 2, lease=600.0) as (one, other), watch(other.server, "s") as ann:
        monkeypatch.setattr(Transcript, "say", saying)
        saying_it = asyncio.create_task(one.server.instance.say("s", new_ref(Prompt(text="go")), "bob"))
        await stands.wait()
        leaving = asyncio.create_task(one.leave())
        while not one.server.instance._leaving:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        told.set()
        turn = turn_of(await saying_it)
        await leaving
        await ann.ended(turn)
        assert [e.by is None for e in ann.log if isinstance(e, Takeover)] == [True, False]
