"""P5: after the receipt `applied e-0`, no packet of the stopped turn but its `end` has an id above `e-0`; the model call is closed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as StoreConnectionError

from kit.agents import model
from kit.agents.openai import openai_agent
from kit.history import History
from kit.lab.instances import Node, Serve
from kit.packets import AnyPacket, Ask, Content, Edit, End, EntryId, Packet, Prompt
from tests.promises.support import Judge, Watcher, counting, nodes, read_log, said, turn_of, watch
from tests.support import both_servers


class Watched:
    """An agent that counts without end, and notes when it was closed."""

    def __init__(self) -> None:
        self.open = 0
        self.histories: list[History] = []

    async def __call__(self, history: History) -> AsyncIterator[AnyPacket]:
        self.open += 1
        self.histories.append(history)
        try:
            for i in range(history.pieces + 1, 1_000_000):
                yield Content(f"{i} ")
                await asyncio.sleep(0)
        finally:
            self.open -= 1


def after(log: list[Any], turn: str, id: str | None) -> list[Packet]:
    """The packets of a turn above an id."""
    return [e for e in log if isinstance(e, Packet) and e.turn == turn and EntryId.parse(e.id) > EntryId.parse(str(id))]


@both_servers
async def test_p5_nothing_but_the_end_follows_a_stop(store: str, serve: Serve) -> None:
    """150 stops at random moments, said to the instance that runs the turn and to the other one."""
    rng, agent = random.Random(5), Watched()
    async with nodes(store, agent, 2, lease=10.0, serve=serve) as (one, other):
        for n in range(15):
            await stop_ten(rng, agent, one, other, f"s{n}")
            Judge(await read_log(store, f"s{n}"))


async def stop_ten(rng: random.Random, agent: Watched, one: Node, other: Node, session: str) -> None:
    async with watch(one.server, session, "ann") as ann, watch(other.server, session, "bob") as bob:
        for i in range(10):
            turn = turn_of(await ann.session.prompt("go"))
            if rng.random() < 0.7:
                await ann.pieces(turn, rng.randrange(1, 40))
            receipt = await (ann, bob)[i % 2].session.stop(rng.choice([turn, None]))
            assert receipt.status == "applied"
            assert (await ann.ended(turn)).reason == "stopped"
            assert agent.open == 0
            assert [type(packet) for packet in after(ann.log, turn, receipt.id)] == [End]


@both_servers
async def test_p5_a_queued_turn_is_stopped_before_it_speaks(store: str, serve: Serve) -> None:
    """A stop of one queued turn takes it out of the queue; what comes after it moves up."""
    async with nodes(store, counting(60), 1, serve=serve) as (one,), watch(one.server, "s") as ann:
        first, second, third = [turn_of(await ann.session.prompt(text)) for text in ("a", "b", "c")]
        assert (await ann.session.stop(second)).status == "applied"
        assert (await ann.ended(second)).reason == "stopped"
        assert (await ann.ended(first)).reason == "done"
        assert (await ann.ended(third)).reason == "done"
        assert [type(p) for p in ann.log if isinstance(p, Packet) and p.turn == second] == [End]
        Judge(ann.log)


@both_servers
async def test_p5_stop_ends_all_that_is_open_or_queued(store: str, serve: Serve) -> None:
    """Without `turn`: of every agent, streaming, queued and waiting for an answer; a later prompt is not meant."""

    async def asking(history: History) -> AsyncIterator[AnyPacket]:
        yield Ask(call=f"c{history.turn}", text="Well?")

    async with nodes(store, {"counter": Watched(), "asker": asking}, 2, serve=serve) as (one, other), watch(one.server, "s") as ann:
        turns = [turn_of(await ann.session.prompt("go", to=to), to) for to in ("counter", "counter", "asker")]
        await ann.until(lambda w: any(isinstance(e, Ask) for e in w.log))
        await idle(one.server, turns[2])
        async with watch(other.server, "s", "bob") as bob:
            receipt = await bob.session.stop()
            later = turn_of(await bob.session.prompt("go on", to="asker"), "asker")
            for turn in turns:
                assert (await bob.ended(turn)).reason == "stopped"
                assert [type(packet) for packet in after(bob.log, turn, receipt.id)] == [End]
            await bob.until(lambda w: any(isinstance(e, Ask) and e.turn == later for e in w.log))
            Judge(bob.log)


async def idle(server: Any, turn: str) -> None:
    """No run of this turn is left in the instance: it waits for a person."""
    while runs := [task for run, task in server.instance._runs.items() if run.turn == turn]:
        await asyncio.wait(runs)


@both_servers
async def test_p5_an_edit_replaces_the_turn_and_keeps_what_was_said(store: str, serve: Serve) -> None:
    """The old turn ends `replaced`; the new one comes before what was queued, and its history holds what the old one said."""
    agent = Watched()
    async with nodes(store, agent, 1, serve=serve) as (one,), watch(one.server, "s") as ann:
        first = turn_of(await ann.session.prompt("first"))
        queued = turn_of(await ann.session.prompt("queued"))
        await ann.pieces(first, 10)
        edit = await ann.session.edit(first, "better")
        assert (await ann.ended(first)).reason == "replaced"
        new = turn_of(edit)
        await ann.pieces(new, 5)
        assert [type(packet) for packet in after(ann.log, first, edit.id)] == [End]
        history = agent.histories[-1]
        assert (history.turn, history.prompt.text) == (new, "better")
        assert said(list(history.entries), first) == ann.text(first)
        assert ann.text(queued) == ""
        await ann.session.stop(new)
        await ann.pieces(queued, 1)
        assert isinstance(agent.histories[-1].prompt, Prompt)
        await ann.session.stop()
        await ann.ended(queued)
        Judge(ann.log)


@both_servers
async def test_p5_an_edit_of_a_waiting_turn_asks_anew(store: str, serve: Serve) -> None:
    """A turn that waits is run by nobody; still it ends `replaced`, and the new one speaks."""

    async def asking(history: History) -> AsyncIterator[AnyPacket]:
        if isinstance(history.prompt, Edit):
            yield Content("now I know")
        else:
            yield Ask(call="c", text="Which?")

    async with nodes(store, asking, 1, serve=serve) as (one,), watch(one.server, "s") as ann:
        first = turn_of(await ann.session.prompt("first"))
        await ann.until(lambda w: any(isinstance(e, Ask) for e in w.log))
        await idle(one.server, first)
        new = turn_of(await ann.session.edit(first, "the second"))
        assert (await ann.ended(first)).reason == "replaced"
        assert (await ann.ended(new)).reason == "done"
        assert ann.text(new) == "now I know"


@both_servers
@pytest.mark.parametrize(
    "mode",
    [{"dialect": "responses"}, {"dialect": "responses", "background": False}, {"dialect": "chat"}],
    ids=["background", "foreground", "chat"],
)
async def test_p5_the_model_call_is_closed(store: str, serve: Serve, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's server sees that its client left in mid-answer, or (background) that the response was cancelled: no token after that."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    async with model.serve(pace=200.0) as provider:
        agent = openai_agent(base_url=provider.url, model="kit-scripted", **mode)
        async with nodes(store, agent, 1, serve=serve) as (one,), watch(one.server, "s") as ann:
            turn = turn_of(await ann.session.prompt("count to 300"))
            await ann.until(saying("20", turn))
            receipt = await ann.session.stop(turn)
            assert (await ann.ended(turn)).reason == "stopped"
            assert [type(packet) for packet in after(ann.log, turn, receipt.id)] == [End]
            await provider.ended(2 if mode == {"dialect": "responses"} else 1)  # the answer, and what cancels it
            assert "left" in [record.outcome for record in provider.requests]
            assert provider.tokens_made < 300
            if mode == {"dialect": "responses"}:
                assert any(record.path.endswith("/cancel") and record.status == 200 for record in provider.requests)


def saying(text: str, turn: str) -> Callable[[Watcher], bool]:
    return lambda watcher: text in watcher.text(turn)


@both_servers
async def test_p5_a_stopped_turn_asks_nobody_when_the_store_is_back(store: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was about to ask another agent when the store failed, and was stopped before it answered again."""

    async def passing_on(history: History) -> AsyncIterator[AnyPacket | Prompt]:
        yield Content("before ")
        yield Prompt(text="go on", to="other")

    async with nodes(store, {"agent": passing_on, "other": counting(3)}, 1, serve=serve) as (one,), watch(one.server, "s") as ann:
        instance, failed = one.server.instance, asyncio.Event()
        say = instance.transcript.say

        async def failing(log: Any, word: Any, **options: Any) -> Any:
            if word.from_ == "agent" and not failed.is_set():
                assert (await ann.session.stop()).status == "applied"
                failed.set()
                raise StoreConnectionError("the test lost the store")
            return await say(log, word, **options)

        monkeypatch.setattr(instance.transcript, "say", failing)
        turn = turn_of(await ann.session.prompt("go"))
        assert (await ann.ended(turn)).reason == "stopped"
        assert failed.is_set()
        assert [type(entry).__name__ for entry in await read_log(store, "s")] == ["Prompt", "Content", "Stop", "End"]
