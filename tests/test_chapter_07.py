"""Chapter 07: each draft fails for the reason that the chapter gives, and what it ends with does not; on fakeredis and on a real server."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.agents import model
from kit.agents.demo import default_agent
from kit.agents.embedded import templates
from kit.agents.scripted import scripted
from kit.document import Text
from kit.packets import (
    Action,
    Answer,
    Content,
    Document,
    Edit,
    End,
    Entry,
    EntryId,
    Prompt,
    Splice,
    Stop,
    Takeover,
    ToolResult,
    Write,
)
from kit.replica import SharedDocument, connect_document
from kit.room import _asked, room
from tests.notebooks.chapters import cells, defined, defines
from tests.promises.support import Judge, Watcher, nodes, read_log, turn_of, watch

CELLS = cells("07")
NAMES = {"architect", "coder", "tester", "NAME", "WRONG", "RIGHT", "CODE", "ANN", "CODER", "TEST", "PICTURE", "WORDS", "PLAN", "team"}
"""What is taken from them beside imports and definitions."""
ALONE = SimpleNamespace(server=SimpleNamespace(alone=True))


def taken(*ids: str, here: Any = ALONE) -> dict[str, Any]:
    """The imports, definitions and named constants of some cells, and of the first one what all need."""
    return defined(CELLS, "start", "polite", *ids, takes=is_taken, here=here)


def is_taken(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id=name), *_])]):
            return name in NAMES
        case _:
            return defines(node)


def texts(watcher: Watcher) -> dict[str, list[str]]:
    """What each agent has said, in order."""
    found: dict[str, list[str]] = {}
    for entry in watcher.log:
        if isinstance(entry, Content):
            found.setdefault(entry.from_, []).append(entry.text)
    return found


async def ends(watcher: Watcher, count: int) -> None:
    await watcher.until(lambda w: sum(isinstance(entry, End) for entry in w.log) == count)


# ---- drafts ----


async def test_who_speaks_at_the_same_time_has_not_heard_the_others(store: str) -> None:
    """Asked at once, the coder knows of no plan; asked behind the architect, the same coder does."""
    drafts = taken("all-at-once")
    voices = {name: drafts[name] for name in ("architect", "coder", "tester")}
    async with nodes(store, voices, 2) as (one, other), watch(one.server, "s", "you") as ann, watch(other.server, "s", "bob") as bob:
        await ann.session.prompt("slugs", to="architect,coder,tester")
        await ends(ann, 3)
        plan, guess, nothing = (texts(ann)[name][0] for name in voices)
        assert ("plan" in plan, "no plan" in guess, "nothing" in nothing) == (True, True, True)
        for name in ("coder", "tester"):
            await bob.ended(turn_of(await bob.session.prompt("now", to=name), name))
        assert [texts(bob)[name][1] for name in ("coder", "tester")] == ["I build what is planned.", "I test what is built."]


async def test_who_hears_everything_answers_everything_until_all_are_stopped_by_one_word(store: str) -> None:
    """The turns that are open grow with every answer, the same thing is asked again and again; after a stop nobody says anything."""
    drafts = taken("all-at-once", "tell-all")
    names = ("architect", "coder", "tester")
    agents = {name: drafts["loud"](drafts[name], ",".join(other for other in names if other != name)) for name in names}
    async with nodes(store, agents, 2) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        await ann.session.prompt("slugs", to=",".join(names))
        opened = []
        for count in (6, 12):
            await ann.until(lambda w, count=count: sum(isinstance(entry, End) for entry in w.log) >= count)
            opened.append(sum(len(entry.addressed) for entry in ann.log if isinstance(entry, Prompt)) - count)
        assert 0 < opened[0] < opened[1]
        told = [(entry.from_, entry.text) for entry in ann.log if isinstance(entry, Prompt) and entry.re]
        assert len(set(told)) < len(told)
        stopped = await bob.session.stop()
        await ann.until(lambda w: len(live(w)) == 0)
        behind = [entry for entry in await read_log(store, "s") if EntryId.parse(entry.id) > EntryId.parse(str(stopped.id))]
        assert behind
        assert {type(entry) for entry in behind} <= {End, Takeover}  # whoever ends a turn that was still queued says so first
        Judge(await read_log(store, "s"))


def live(watcher: Watcher) -> set[str]:
    """The turns that have been opened and have not ended."""
    opened = {f"{entry.id}/{name}" for entry in watcher.log if isinstance(entry, Prompt) for name in entry.addressed}
    return opened - {entry.turn for entry in watcher.log if isinstance(entry, End)}


async def test_two_polite_agents_have_no_end_but_the_bound(store: str) -> None:
    """The chapter's two at the door: with a bound of four they ask each other four times, with a bound out of reach for ever."""
    polite = {"host": scripted([Content("@guest After you.")]), "guest": scripted([Content("@host No, after you.")])}
    async with nodes(store, room(polite, rounds=10**6), 1) as (node,), watch(node.server, "s") as ann:
        await ann.session.prompt("Come in", to="host")
        await ends(ann, 40)
        assert live(ann)
        await ann.session.stop()


# ---- the learner's functions and the kit's ----

PROMPTS = st.builds(Prompt, text=st.just("x"), re=st.sampled_from([None, "1-0/a"]))
ENTRIES = st.lists(
    st.one_of(
        PROMPTS,
        st.just(Edit(turn="1-0/a", text="x")),
        st.just(Stop()),
        st.just(Answer(call="c", text="yes")),
        st.just(Content("x", turn="1-0/a")),
        st.just(Takeover(turn="1-0/a", by="b")),
    )
)


@given(ENTRIES)
def test_the_bound_of_the_exercise_is_the_kits(log: list[Entry]) -> None:
    assert taken("asked")["asked"](log) == _asked(log)  # type: ignore[arg-type]  # any sequence of entries


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, list[tuple[int, int, str]]]:
    """A text and edits of it, each with a letter of its own."""
    base = draw(st.text("abc", max_size=8))
    edits = []
    for letter in "VWXYZ"[: draw(st.integers(0, 5))]:
        at = draw(st.integers(0, len(base)))
        edits.append((at, draw(st.integers(0, len(base) - at)), letter * draw(st.integers(0, 2))))
    return base, edits


@given(edited())
def test_merged_as_in_the_exercise_is_folded_as_in_the_kit(case: tuple[str, list[tuple[int, int, str]]]) -> None:
    """Edits of one base come to the same text in both; and no typing is lost in it."""
    base, edits = case
    text = Text()
    text.open(EntryId(0, 1), Document(name="a", kind="text"))
    text.write(EntryId(0, 2), Write(name="a", text=base, turn="0-0/a", n=1))
    for i, (at, delete, insert) in enumerate(edits, 1):
        text.splice(EntryId(i, 0), EntryId(0, 2), [Splice(at, delete, insert)])
        text.head = EntryId(i, 0)
    merged = taken("merged")["merge"](base, edits)
    assert merged == text.read()
    assert all(insert in merged for _, _, insert in edits)


def test_places_of_another_text_break_the_code() -> None:
    """The chapter's two edits: applied one after the other it is no Python any more, merged both are there."""
    cell = taken("one-after-the-other", "merged")
    edits = [cell["ANN"], cell["CODER"]]
    with pytest.raises(SyntaxError):
        ast.parse(cell["naive"](cell["CODE"], edits))
    assert cell["merge"](cell["CODE"], edits) == cell["ANN"][2] + cell["CODE"].replace(cell["WRONG"], cell["RIGHT"])


# ---- the room ----


def team(here: Any = ALONE) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The chapter's constants, and its agents as members of a room."""
    cells = taken("one-after-the-other", "coder", "tester", here=here)
    return cells, room(cells["team"])


async def approves(watcher: Watcher, count: int, answer: str = "yes") -> Action:
    """Answer the action that is asked for as the `count`-th."""
    await watcher.until(lambda w: sum(isinstance(entry, Action) for entry in w.log) == count)
    action = [entry for entry in watcher.log if isinstance(entry, Action)][-1]
    await watcher.session.answer(action.call, answer)
    return action


ASKED = ["architect: slugs", "coder: write it", "tester: run it", "coder: repair it: AssertionError: hello--world", "tester: run it"]


@pytest.mark.parametrize("dies", ["nobody", "in the coder's writing", "once the tester waits", "in the repair"])
async def test_one_sentence_becomes_code_that_works(store: str, dies: str) -> None:
    """Who asks whom, each once; the code is repaired; a person's lines stay; and an instance that dies in the middle changes nothing."""
    cells, agents = team()
    async with (
        nodes(store, agents, 2, lease=0.5) as (one, other),
        watch(other.server, "s") as ann,
        connect_document(other.url, session="s", name=cells["NAME"], token=other.token("ann"), pace=0.02) as paper,
    ):
        async with watch(one.server, "s", "bob") as bob:
            await bob.session.prompt("slugs")
        await paper.until(lambda text: "words" in text)
        paper.type(0, insert="# by ann\n")
        if dies == "in the coder's writing":
            await one.stop()
        await ann.until(lambda w: any(isinstance(entry, Action) for entry in w.log))
        if dies == "once the tester waits":
            await one.stop()
        await approves(ann, 1)
        if dies == "in the repair":  # the coder has said what to change, and not yet whom it asks
            await ann.until(lambda w: any(isinstance(entry, Write) and entry.over for entry in w.log))
            await other.stop()
            await other.start()
        await approves(ann, 2)
        await ends(ann, 5)
        assert [f"{e.to}: {e.text}" for e in ann.log if isinstance(e, Prompt)] == ASKED
        assert texts(ann)["tester"][-1] == "It works."
        assert [e.value["how"] for e in ann.log if isinstance(e, ToolResult)] == ["it ended with 1", "it ended with 0"]
        right = cells["CODE"].replace(cells["WRONG"], cells["RIGHT"])
        assert await paper.until(lambda text: cells["RIGHT"] in text) == f"# by ann\n{right}"
        Judge(await read_log(store, "s"))


@asynccontextmanager
async def a_program_is_shown(store: str) -> AsyncIterator[tuple[Any, Watcher, SharedDocument]]:
    """The notebook's cells, ann, and the document in her hands, once the tester has asked whether it may run."""
    cells, agents = team()
    async with (
        nodes(store, agents, 1) as (node,),
        watch(node.server, "s") as ann,
        connect_document(node.url, session="s", name=cells["NAME"], token=node.token("ann"), pace=0.02) as paper,
    ):
        await ann.session.prompt("slugs")
        await ann.until(lambda w: any(isinstance(entry, Action) for entry in w.log))
        yield cells, ann, paper


async def test_what_was_approved_is_what_runs(store: str) -> None:
    """Typed after the program was shown, what breaks it does not run."""
    async with a_program_is_shown(store) as (_, ann, paper):
        await paper.until(lambda text: "join" in text)
        paper.type(0, insert="raise SystemExit('typed later')\n")
        await paper.settled()
        shown = await approves(ann, 1)
        await ann.until(lambda w: any(isinstance(entry, ToolResult) for entry in w.log))
        result = next(entry for entry in ann.log if isinstance(entry, ToolResult))
        assert "typed later" not in str(shown.arguments)
        assert "hello--world" in result.value["output"]
        await ann.session.stop()


@pytest.mark.parametrize(("answer", "alone", "why"), [("no", True, "ann declined"), ("yes", False, "open to other machines")])
async def test_without_a_yes_or_with_the_room_open_nothing_runs(store: str, answer: str, alone: bool, why: str) -> None:
    """The tester says that it has not tested, and asks nobody."""
    _, agents = team(SimpleNamespace(server=SimpleNamespace(alone=alone)))
    async with nodes(store, agents, 1) as (node,), watch(node.server, "s") as ann:
        await ann.session.prompt("slugs")
        await approves(ann, 1, answer)
        await ends(ann, 3)
        result = next(entry for entry in ann.log if isinstance(entry, ToolResult))
        assert why in str(result.error)
        assert texts(ann)["tester"] == [f"Not tested: {result.error}"]


async def test_a_person_who_repairs_it_first_is_not_overwritten(store: str) -> None:
    """The coder reads the document before it writes: what is right already stays, and is tested."""
    async with a_program_is_shown(store) as (cells, ann, paper):
        text = await paper.until(lambda text: "join(words)\n" in text)
        paper.type(text.index(cells["WRONG"]), len(cells["WRONG"]), "split(None)")
        await paper.settled()
        await approves(ann, 1)
        await approves(ann, 2)
        await ends(ann, 5)
        assert texts(ann)["tester"][-1] == "It works."
        assert "split(None)" in paper.text


async def test_a_model_takes_the_coders_place(store: str) -> None:
    """The chapter's team with the agent that it names: what the model writes stands in the document, among what a person types there."""
    cells, _ = team()
    async with model.serve(pace=None) as llm:
        agents = room(cells["team"] | {"coder": default_agent(llm.url, documents=True)})
        async with (
            nodes(store, agents, 1) as (one,),
            watch(one.server, "war") as ann,
            connect_document(one.url, session="war", name="fib.py", token=one.token("tom")) as paper,
        ):
            await ann.ended(turn_of(await ann.session.prompt("write a function for fibonacci into fib.py", to="coder"), "coder"))
            await paper.until(lambda text: text == templates.CODE["fibonacci"])
            assert len([entry for entry in ann.log if isinstance(entry, Write)]) == 1


async def test_the_critic_is_heard_in_the_room(store: str) -> None:
    """The learner's agent beside the team: the coder is asked for the long line, and it ends there."""
    cells, _ = team()
    cells |= taken("critic")
    writer = scripted([Document(name="a.py", kind="python"), Write(name="a.py", text=f"short = 1\nlong = {'1' * 80}\n")])
    agents = room({"writer": writer, "coder": scripted([Content("I shall.")]), "critic": cells["critic"]})
    async with nodes(store, agents, 2) as (one, other), watch(one.server, "s") as ann, watch(other.server, "s", "bob") as bob:
        await bob.ended(turn_of(await bob.session.prompt("write"), "writer"))
        await ann.session.prompt("look at it", to="critic")
        await asyncio.gather(ends(ann, 3), ends(bob, 3))
        asked = [(entry.from_, entry.to, entry.text) for entry in bob.log if isinstance(entry, Prompt) and entry.re]
        assert asked == [("critic", "coder", "too long: line 2 of a.py")]
