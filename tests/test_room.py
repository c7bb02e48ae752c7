"""The room: agents that address each other, on both stores: who speaks when, and that it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.agents.scripted import scripted
from kit.history import Agent, History
from kit.packets import Action, AnyPacket, Ask, Content, End, EntryId, Packet, Prompt, Thought, ToolResult
from kit.room import addressed, room
from tests.promises.support import Judge, Watcher, ids, nodes, read_log, said, turn_of, watch

# ---- who is addressed ----


def test_what_stands_behind_a_name_is_said_to_it() -> None:
    """A name counts at the beginning of a line; what is said to it reaches to the next name."""
    text = "Here is the plan, @tester.\n@coder: write it\nin ten lines\n@tester,coder now run it\n@nobody hello"
    assert addressed(text, {"coder", "tester"}) == {"coder": "write it\nin ten lines\nnow run it", "tester": "now run it"}


@given(st.text(alphabet="@abc,:\n ", max_size=60))
def test_only_names_of_the_room_are_addressed_and_never_with_nothing(text: str) -> None:
    """Whatever an agent writes."""
    said = addressed(text, {"a", "b"})
    assert set(said) <= {"a", "b"}
    assert all(what == what.strip() and what for what in said.values())


# ---- turns ----


def team(rounds: int = 8, **scripts: str) -> dict[str, Agent]:
    """A room whose agents always say the same."""
    return room({name: scripted([Content(text)]) for name, text in scripts.items()}, rounds=rounds)


def spoke(watcher: Watcher) -> list[str]:
    """Who asked whom, and who said what, in order."""
    told = []
    for entry in watcher.log:
        if isinstance(entry, Prompt):
            told.append(f"{entry.from_} asks {entry.to}: {entry.text}")
        elif isinstance(entry, Content | Thought):
            told.append(f"{entry.from_}: {entry.text}")
    return told


async def quiet(watcher: Watcher, turns: int) -> None:
    """Wait until so many turns have ended."""
    await watcher.until(lambda w: sum(isinstance(e, End) for e in w.log) == turns)


async def test_agents_pass_the_word_on(store: str) -> None:
    """Each entry says who speaks; an agent's prompt says to whom, and which turn it comes out of."""
    agents = team(architect="A list.\n@coder write it", coder="Done.\n@tester run it", tester="It works.")
    async with nodes(store, agents, 2) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        first = turn_of(await ann.session.prompt("a to-do list"), "architect")
        await quiet(bob, 3)
        assert spoke(bob) == [
            "ann asks architect: a to-do list",
            "architect: A list.\n@coder write it",
            "architect asks coder: write it",
            "coder: Done.\n@tester run it",
            "coder asks tester: run it",
            "tester: It works.",
        ]
        prompts = [e for e in bob.log if isinstance(e, Prompt)]
        assert [p.re for p in prompts] == [None, first, f"{prompts[1].id}/coder"]
        Judge(await read_log(store, "s"))


async def test_they_cannot_run_away(store: str) -> None:
    """Two that always ask each other are silent after `rounds` questions, and speak again when a person does."""
    agents = team(rounds=4, ping="@pong your turn", pong="@ping your turn")
    async with nodes(store, agents, 1) as (node,), watch(node.server, "s") as ann:
        for _ in range(2):
            before = len([e for e in ann.log if isinstance(e, End)])
            await ann.session.prompt("go", to="ping")
            await quiet(ann, before + 5)
        asked = [e for e in ann.log if isinstance(e, Prompt) and e.re]
        assert len(asked) == 8
        assert "agents have asked each other 4 times" in spoke(ann)[-1]


async def test_a_word_to_several_opens_a_turn_of_each(store: str) -> None:
    """`a,b` and `all`; nobody else speaks, and a name that is not there is refused with those that are."""
    agents = team(a="I am a", b="I am b", c="I am c")
    async with nodes(store, agents, 2) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        assert (await ann.session.prompt("who?", to="a,c")).status == "applied"
        await quiet(ann, 2)
        assert sorted(spoke(ann)[1:]) == ["a: I am a", "c: I am c"]
        await bob.session.prompt("who?", to="all")
        await quiet(ann, 5)
        refused = await ann.session.prompt("who?", to="a,x")
        assert refused.status == "refused"
        assert refused.reason == "there is no agent 'x' here: address `all`, or some of a,b,c"
        Judge(await read_log(store, "s"))


async def test_stop_all_is_one_epoch(store: str) -> None:
    """Every turn ends as stopped behind one word, the waiting ones too, and what they were about to ask is never asked."""

    async def talker(history: History) -> AsyncIterator[AnyPacket]:
        yield Content("@b go on\n")
        for i in range(1000):
            yield Content(f"{i} ")
            await asyncio.sleep(0.005)

    agents = room({"a": talker, "b": scripted([Content("b speaks")])})
    async with nodes(store, agents, 1) as (node,), watch(node.server, "s") as ann:
        running = turn_of(await ann.session.prompt("one"), "a")
        waiting = turn_of(await ann.session.prompt("two"), "a")
        await ann.pieces(running, 5)
        stopped = await ann.session.stop()
        assert [(await ann.ended(turn)).reason for turn in (running, waiting)] == ["stopped", "stopped"]
        after = [e for e in ann.log if EntryId.parse(e.id) > EntryId.parse(str(stopped.id))]
        assert all(isinstance(e, End) for e in after)
        assert not [e for e in ann.log if isinstance(e, Prompt) and e.re]


async def test_a_question_waits_until_the_turn_does_not(store: str) -> None:
    """An agent that asks a person first passes the word on when it has its answer, and once."""
    agents = room(
        {"a": scripted([Content("@b take it\n"), Ask(call="c", text="sure?"), Content("well then")]), "b": scripted([Content("ok")])}
    )
    async with nodes(store, agents, 1) as (node,), watch(node.server, "s") as ann:
        await ann.session.prompt("go")
        await ann.until(lambda w: any(isinstance(e, Ask) for e in w.log))
        await ann.session.answer("c", "yes")
        await quiet(ann, 2)
        assert [e.text for e in ann.log if isinstance(e, Prompt) and e.re] == ["take it\n" + "well then"]


async def test_whoever_takes_over_asks_no_second_time(store: str) -> None:
    """The instance dies between the question and the end of the turn: another ends it, and the question stands once."""
    asked = asyncio.Event()
    hold = asyncio.Event()

    async def asker(history: History) -> AsyncIterator[AnyPacket | Prompt]:
        if not history.pieces:
            yield Content("hm")
        yield Prompt(text="go", to="b")
        asked.set()
        if not any(e.from_ == "a" and isinstance(e, Prompt) for e in history):
            await hold.wait()

    agents: Mapping[str, Any] = {"a": asker, "b": scripted([Content("b")])}
    async with nodes(store, agents, 2) as (one, other), watch(other.server, "s") as ann:
        async with watch(one.server, "s", "bob") as bob:
            turn = turn_of(await bob.session.prompt("go"), "a")
            await asked.wait()
        await one.stop()
        assert (await ann.ended(turn)).reason == "done"
        await quiet(ann, 2)
        assert [e.text for e in ann.log if isinstance(e, Prompt) and e.re] == ["go"]
        Judge(await read_log(store, "s"))


async def test_nobody_asks_past_a_word_that_he_has_not_heard(store: str) -> None:
    """P3 for an agent's prompt: a stop that stands in the log before it keeps it out, though its instance did not hear the stop."""
    ready, go = asyncio.Event(), asyncio.Event()

    async def asker(history: History) -> AsyncIterator[AnyPacket | Prompt]:
        ready.set()
        await go.wait()
        yield Prompt(text="go", to="b")

    agents: Mapping[str, Any] = {"a": asker, "b": scripted([Content("b")])}
    async with nodes(store, agents, 2, lease=5) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        turn = turn_of(await ann.session.prompt("go"), "a")
        await ready.wait()
        one.freeze()
        stopped = await bob.session.stop()
        go.set()
        one.thaw()
        assert (await bob.ended(turn)).reason == "stopped"
        await bob.session.prompt("anybody?", to="b")
        await quiet(bob, 2)
        log = await read_log(store, "s")
        assert not [e for e in log if isinstance(e, Prompt) and e.re], ids(log)
        assert stopped.status == "applied"


async def test_an_agent_that_asks_nobody_fails_with_a_reason(store: str) -> None:
    """A name that is not in the room ends the turn as failed, with what was wrong."""

    async def asker(history: History) -> AsyncIterator[AnyPacket | Prompt]:
        yield Prompt(text="go", to="ghost")

    async with nodes(store, {"a": asker}, 1) as (node,), watch(node.server, "s") as ann:
        end = await ann.ended(turn_of(await ann.session.prompt("go"), "a"))
        assert end.reason == "failed"
        assert "there is no agent 'ghost' here" in str(end.text)


# ---- overlap ----


@pytest.mark.parametrize("overlap", ["queue", "interrupt", "reject"])
async def test_a_prompt_to_an_agent_that_speaks(store: str, overlap: str) -> None:
    """It waits, stops the turn, or is refused, as the room has chosen; repeated, it finds itself."""
    go = asyncio.Event()

    async def talker(history: History) -> AsyncIterator[AnyPacket]:
        yield Content(f"to {history.prompt.text}")
        if history.prompt.text == "one":
            await go.wait()

    async with (
        nodes(store, {"a": talker}, 2, overlap=overlap) as (one, other),
        watch(one.server, "s") as ann,
        watch(other.server, "s", "bob") as bob,
    ):
        first = turn_of(await ann.session.prompt("one"), "a")
        await bob.pieces(first, 1)
        word = Prompt(text="two", ref="the-second-prompt")
        receipt = await bob.session.say(word)
        if overlap == "reject":
            assert receipt.status == "refused"
            assert receipt.reason == f"a is speaking: wait for its end, or stop {first} first"
            go.set()
        else:
            again = await bob.session.say(word)
            assert (receipt.status, again.status, again.id) == ("applied", "duplicate", receipt.id)
            if overlap == "queue":
                go.set()
            second = await bob.ended(turn_of(receipt, "a"))
            assert second.reason == "done"
        assert (await ann.ended(first)).reason == ("stopped" if overlap == "interrupt" else "done")
        log = await read_log(store, "s")
        Judge(log)
        assert said(log).startswith("to one")
        assert isinstance(log[-1], Packet)


async def test_a_name_after_a_call_begins_a_line(store: str) -> None:
    """A model announces a call, and goes on after its result: for it that is a new message."""
    first = [Content("Let me look that up:"), Action(call="c", name="look", arguments={}, on="server"), ToolResult(call="c", value=1)]
    agents = room({"a": scripted([*first, Content("@b write it")]), "b": scripted([Content("Written.")])})
    async with nodes(store, agents, 1) as (one,), watch(one.server, "s") as ann:
        await ann.session.prompt("go")
        await quiet(ann, 2)
        assert "a asks b: write it" in spoke(ann)
