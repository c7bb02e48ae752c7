"""Documents in a room, on both stores: people and agents on one text, whatever breaks; and what does not get in."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from kit.agents import model
from kit.agents.embedded.templates import CODE
from kit.agents.openai import openai_agent
from kit.client import Backoff, NotLetIn
from kit.document import document_session
from kit.history import Agent, History
from kit.lab.instances import Node
from kit.packets import AnyPacket, Document, EntryId, Patch, Splice, Takeover, Write, encode, new_ref
from kit.replica import Replica, SharedDocument, connect_document
from tests.promises.support import Losses, nodes, read_log, turn_of, watch
from tests.support import Visitor, ref, visit

NAME = "main.py"
LINES = 40


def writing(lines: int, name: str = NAME, pace: float = 500.0) -> Agent:
    """Writes a document of so many numbered lines, a line a piece; goes on where the history ends."""

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        for i in range(history.pieces, lines + 1):
            yield Write(name=name, text=f"{history.agent} {i}\n") if i else Document(name=name, kind="python")
            await asyncio.sleep(1 / pace)

    return agent


def lines_of(agent: str, count: int) -> list[str]:
    return [f"{agent} {i}" for i in range(1, count + 1)]


def document(node: Node, name: str = "ann", **options: Any) -> Any:
    hurry = Backoff(base=0.01, limit=0.1, rng=random.Random(7))
    return connect_document(node.url, session="s", name=NAME, token=node.token(name), pace=0.02, backoff=hurry, **options)


async def opened(there: SharedDocument) -> None:
    await there.until(lambda _: there.replica.opened is not None)


async def kept(store: str) -> str:
    """What the log of the document folds to, for one who comes late."""
    late = Replica()
    for entry in await read_log(store, document_session("s", NAME)):
        late.take(entry)
    return late.text


# ---- together ----


async def test_people_type_into_what_an_agent_is_writing(store: str) -> None:
    """Neither waits for the other, nothing is lost, and each line of the agent stays whole."""
    agents = {"coder": writing(LINES)}
    async with nodes(store, agents, 1) as (node,), watch(node.server, "s") as watcher, document(node) as ann, document(node, "bob") as bob:
        turn = turn_of(await watcher.session.prompt("write"), "coder")
        await ann.until(lambda text: "coder 3\n" in text)
        ann.type(0, insert="# by ann\n")
        bob.type(bob.text.index("\n") + 1, insert="# by bob\n")
        assert ann.text.startswith("# by ann\n"), "one's own keystroke is seen at once"
        await watcher.ended(turn)
        await asyncio.gather(ann.settled(), bob.settled())
        whole = await ann.until(lambda text: f"coder {LINES}\n" in text and "by bob" in text)
        assert await bob.until(lambda text: text == whole) == await kept(store)
        assert [line for line in whole.splitlines() if line[0] != "#"] == lines_of("coder", LINES)
        assert whole.count("# by ann\n") == whole.count("# by bob\n") == 1


async def test_typing_fences_no_agent_that_speaks_elsewhere(store: str) -> None:
    """Patches are words of the document's log: in the session's log the epoch is the prompt's."""
    async with nodes(store, {"coder": writing(LINES)}, 1) as (node,), watch(node.server, "s") as watcher, document(node) as ann:
        turn = turn_of(await watcher.session.prompt("write"), "coder")
        await opened(ann)
        for _ in range(5):
            ann.type(0, insert="x")
            await ann.settled()
        await watcher.ended(turn)
        assert {EntryId.parse(entry.id).epoch for entry in watcher.log} == {1}


async def test_after_a_stop_nothing_said_after_it_reaches_the_document(store: str) -> None:
    """What the document holds is what the session's log holds, which has nothing of the turn above the stop."""
    async with nodes(store, {"coder": writing(10**6, pace=2000)}, 1) as (node,), watch(node.server, "s") as watcher, document(node) as ann:
        turn = turn_of(await watcher.session.prompt("write"), "coder")
        await ann.until(lambda text: "coder 20\n" in text)
        stopped = await watcher.session.stop()
        await watcher.ended(turn)
        written = [entry for entry in watcher.log if isinstance(entry, Write)]
        assert all(EntryId.parse(entry.id) < EntryId.parse(str(stopped.id)) for entry in written)
        assert await kept(store) == "".join(entry.text for entry in written)


async def test_an_agent_changes_what_it_read_and_not_what_was_typed_meanwhile(store: str) -> None:
    read, typed = asyncio.Event(), asyncio.Event()

    async def fixer(history: History) -> AsyncIterator[AnyPacket]:
        if not history.documents:
            yield Write(name=NAME, text="def add(a, b):\n    return a - b\n")
        elif history.prompt.text == "fix":
            change = history.documents[NAME].change("a - b", "a + b")
            read.set()
            await typed.wait()
            yield change

    async with nodes(store, {"coder": fixer}, 1) as (node,), watch(node.server, "s") as watcher, document(node) as ann:
        await watcher.ended(turn_of(await watcher.session.prompt("write"), "coder"))
        fixing = turn_of(await watcher.session.prompt("fix"), "coder")
        await read.wait()
        text = await ann.until(lambda text: "return" in text)
        ann.type(text.index("a - b"), insert="(")
        ann.type(ann.text.index("a - b") + 5, insert=")")
        ann.type(0, insert="# sums\n")
        await ann.settled()
        typed.set()
        await watcher.ended(fixing)
        assert await ann.until(lambda text: "+" in text) == "# sums\ndef add(a, b):\n    return (a + b)\n"


async def test_an_agent_looks_again_at_what_it_has_written_and_people_have_typed(store: str) -> None:
    """In the same round: all that it has said by then stands in what it sees, and can be changed."""
    seen, looked, looks = [], asyncio.Event(), asyncio.Event()

    async def coder(history: History) -> AsyncIterator[AnyPacket]:
        yield Write(name=NAME, text="one two")
        seen.append((await history.now()).documents[NAME].text)
        looked.set()
        await looks.wait()
        now = await history.now()
        seen.append(now.documents[NAME].text)
        yield now.documents[NAME].change("two", "2")

    async with nodes(store, {"coder": coder}, 1, lease=60) as (node,), watch(node.server, "s") as watcher, document(node) as ann:
        turn = turn_of(await watcher.session.prompt("write"), "coder")
        await looked.wait()
        await ann.until(lambda text: text == "one two")
        ann.type(0, insert="typed ")
        await ann.settled()
        looks.set()
        await watcher.ended(turn)
        assert seen == ["one two", "typed one two"]
        assert await ann.until(lambda text: "2" in text) == "typed one 2"


async def test_a_model_writes_what_people_type_into(store: str) -> None:
    """The embedded model, over real HTTP, in a room of two instances; a person types before it changes what it wrote."""
    async with model.serve(pace=None) as llm:
        agent = openai_agent(base_url=llm.url, api_key="k", dialect="chat", documents=True)
        async with nodes(store, {"coder": agent}, 2) as (one, other), watch(one.server, "s") as watcher, document(other) as ann:
            await watcher.ended(turn_of(await watcher.session.prompt(f"write a function for fibonacci into {NAME}"), "coder"))
            text = await ann.until(lambda text: text == CODE["fibonacci"])
            ann.type(text.index("\n"), insert="  # by ann")
            await ann.settled()
            change = f'write document "{NAME}" "[0], 1, 1" "[], 0, 1"'
            await watcher.ended(turn_of(await watcher.session.prompt(change), "coder"))
            changed = text.replace("[], 0, 1", "[0], 1, 1").replace(":\n", ":  # by ann\n", 1)
            assert await ann.until(lambda text: "[0]" in text) == changed == await kept(store)


async def test_a_turn_that_is_taken_over_writes_on_and_nothing_twice(store: str) -> None:
    """The instance dies in mid-writing: what it had said and not brought is brought by the next one."""
    async with nodes(store, {"coder": writing(200, pace=300)}, 2) as (one, other), watch(other.server, "s") as watcher:
        async with watch(one.server, "s", "bob") as bob:
            turn = turn_of(await bob.session.prompt("write"), "coder")
        async with document(other) as ann:
            await ann.until(lambda text: "coder 50\n" in text)
            await one.stop()
            await watcher.ended(turn)
            assert any(isinstance(entry, Takeover) for entry in watcher.log)
            assert (await ann.until(lambda text: "coder 200\n" in text)).splitlines() == lines_of("coder", 200)


@pytest.mark.parametrize("seed", range(3))
async def test_everybody_ends_with_one_text_over_bad_lines(store: str, seed: int) -> None:
    """3 people and 2 agents on two instances, with cuts, lost replies and an instance that dies: one text, and all that was typed."""
    rng = random.Random(seed)
    agents = {"coder": writing(60, pace=200), "tester": writing(60, pace=200)}
    async with nodes(store, agents, 2) as (one, other), watch(other.server, "s") as watcher, AsyncExitStack() as stack:
        losses = [Losses(node.store, random.Random(seed + i), share=0.1) for i, node in enumerate((one, other))]
        turns = [turn_of(await watcher.session.prompt("write", to=agent), agent) for agent in agents]
        people = [await stack.enter_async_context(document(node, f"p{i}")) for i, node in enumerate((other, other, one))]
        await asyncio.gather(*map(opened, people))
        typed = ""
        for word in range(30):
            person = rng.choice(people)
            typed += (new := f"<{word}>")
            person.type(rng.randrange(len(person.text) + 1), insert=new)
            if word == 15:
                await one.stop()
                await one.start()
            if word % 5 == 0:
                await other.server.cut(document_session("s", NAME))
            await asyncio.sleep(0.01)  # the pace of a typist, not a wait
        for turn in turns:
            await watcher.ended(turn)
        await asyncio.gather(*(person.settled() for person in people))
        whole = await kept(store)
        for person in people:
            await person.until(lambda text: text == whole)
        assert sorted(whole) == sorted(typed + "".join(f"{agent} {i}\n" for agent in agents for i in range(1, 61)))
        assert sum(sum(loss.count.values()) for loss in losses) > 0


# ---- what does not get in ----


async def patched(visitor: Visitor, base: str, *splices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return await visitor.answer({"type": "patch", "ref": ref(), "base": base, "splices": list(splices), **fields})


async def test_a_document_takes_patches_and_a_session_everything_else(store: str) -> None:
    there_too = document_session("s", NAME)
    async with nodes(store, {"coder": writing(1)}, 1) as (node,), visit(node.server, "s") as room, visit(node.server, there_too) as there:
        assert "there is no document" in (await patched(there, "0-0"))["reason"]
        assert "takes patches and nothing else" in (await there.answer({"type": "prompt", "ref": ref(), "text": "hi"}))["reason"]
        assert "takes patches and nothing else" in (await there.answer({"type": "stop", "ref": ref()}))["reason"]
        assert "takes patches and nothing else" in (await patched(room, "0-0"))["reason"]
        await room.answer({"type": "prompt", "ref": ref(), "text": "hi"})
        await room.until("end")
        await there.until("write")
        assert (await patched(there, "0-1", {"at": 0, "insert": "x"}))["status"] == "applied"
        assert "in the future" in (await patched(there, "9-0", {"at": 0, "insert": "x"}))["reason"]
        assert "ends at 99" in (await patched(there, "1-0", {"at": 99, "insert": "x"}))["reason"]
        for bad in ({"at": -1}, {"at": 0, "delete": -1}, {"at": 0, "more": 1}, {"at": True}, {"insert": "x"}):
            answer = await patched(there, "1-0", bad)
            assert (answer["type"], answer["code"]) == ("error", "bad_field"), answer
        assert (await patched(there, "1-0", *[{"at": 0}] * 17))["at"] == "splices"


async def test_patches_that_come_too_fast_are_refused_and_the_others_go_on(store: str) -> None:
    async with nodes(store, {"coder": writing(1)}, 1) as (node,), watch(node.server, "s") as watcher, document(node) as ann:
        await watcher.ended(turn_of(await watcher.session.prompt("write"), "coder"))
        async with visit(node.server, document_session("s", NAME), name="eve") as eve:
            answers = [await patched(eve, "0-1", {"at": 0, "insert": "!"}) for _ in range(100)]
            refused = [a for a in answers if a["status"] == "refused"]
            assert 50 < len(refused) < 90
            assert all("ten patches a second" in a["reason"] for a in refused)
        ann.type(0, insert="ann")
        await ann.settled()
        assert "ann" in await kept(store)


async def test_a_repeated_patch_changes_the_document_once(store: str) -> None:
    """P4 for a patch: by its ref, on whichever instance it comes again."""
    async with nodes(store, {"coder": writing(1)}, 2) as (one, other), watch(one.server, "s") as watcher:
        await watcher.ended(turn_of(await watcher.session.prompt("write"), "coder"))
        word = new_ref(Patch(base="0-1", splices=[Splice(0, 0, "x")]))
        receipts = [await node.server.instance.say(document_session("s", NAME), word, "ann") for node in (one, other, one)]
        assert [r.status for r in receipts] == ["applied", "duplicate", "duplicate"]
        assert len({r.id for r in receipts}) == 1
        assert (await kept(store)).count("x") == 1


async def test_a_whole_file_is_pasted_and_typing_goes_on(store: str) -> None:
    """It is more than one word can hold: it goes in several, in order, and what is typed behind it as well."""
    async with nodes(store, {"coder": writing(1)}, 1) as (node,), watch(node.server, "s") as watcher, document(node) as ann:
        await watcher.ended(turn_of(await watcher.session.prompt("write"), "coder"))
        await opened(ann)
        paste = "".join(random.Random(5).choices("ab\x01\U0001f600\n", k=30_000))
        before = ann.text
        ann.type(4, insert=paste)
        ann.type(4 + len(paste), insert="typed behind it")
        await ann.settled()
        assert ann.text == before[:4] + paste + "typed behind it" + before[4:]
        assert await kept(store) == ann.text


async def test_who_is_sent_away_does_not_wait_for_the_document(store: str) -> None:
    """What waits for a text, or for what was typed, hears why neither will come."""
    async with nodes(store, {"coder": writing(1)}, 1) as (node,):
        for wait in (lambda there: there.until(lambda text: "never" in text), lambda there: there.settled()):
            async with connect_document(node.url, session="s", name=NAME, token="stale") as there:  # it is none
                there.type(0, insert="x")
                with pytest.raises(NotLetIn):
                    await wait(there)


async def test_a_document_that_only_agents_write_is_kept_as_long_as_it_is_written(store: str) -> None:
    """A day after the last entry of it, as a session: a packet renews nothing by itself."""
    async with nodes(store, {"coder": writing(LINES)}, 1, ttl=60.0) as (node,), watch(node.server, "s") as watcher:
        await watcher.ended(turn_of(await watcher.session.prompt("write"), "coder"))
        redis, there = node.server.instance.transcript.store.redis, f"{{0}}:{document_session('s', NAME)}"
        keys = [key.decode() async for key in redis.scan_iter(f"{there}*")]
        assert len(keys) >= 2
        for key in keys:
            await redis.pexpire(key, 5_000)
        await watcher.ended(turn_of(await watcher.session.prompt("write on"), "coder"))
        assert all([await redis.pttl(key) > 50_000 for key in keys])


async def test_a_repeated_patch_is_a_duplicate_though_it_comes_too_fast(store: str) -> None:
    """P4: who comes back says all again that has no receipt; refused, it would be made anew and stand there twice."""
    async with nodes(store, {"coder": writing(1)}, 1) as (node,), watch(node.server, "s") as watcher:
        await watcher.ended(turn_of(await watcher.session.prompt("write"), "coder"))
        session = document_session("s", NAME)
        words = [new_ref(Patch(base="0-1", splices=[Splice(0, 0, "x")])) for _ in range(60)]
        for word in words:
            assert (await node.server.instance.say(session, word, "eve")).status == "applied"
        late = new_ref(Patch(base="0-1", splices=[Splice(9_999, 0, "x")], from_="eve"))
        transcript = node.server.instance.transcript
        await transcript.say((await transcript.open(session)).log, late)  # as by an instance that knew less of the text
        async with visit(node.server, session, name="eve") as eve:
            answers = await eve.answers(*(json.loads(encode(word)) for word in (*words, msgspec.structs.replace(late, from_=""))))
        assert [(answer["status"], answer["was"]) for answer in answers] == [("duplicate", "applied")] * 60 + [("duplicate", "too_late")]
