"""A model that writes documents: once, whatever is killed; never over what it was not shown; and only where it was asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest

from kit.agents.answer import answer
from kit.agents.conversation import Event, Message, Wanted
from kit.agents.embedded.templates import CODE
from kit.agents.model import Server
from kit.agents.openai import openai_agent
from kit.agents.tools import Tools
from kit.agents.writing import LATE, ONCE, PIECE
from kit.document import Text
from kit.history import Agent, Copy, History
from kit.packets import (
    Action,
    AnyPacket,
    At,
    Content,
    Document,
    EntryId,
    Over,
    Patch,
    Splice,
    Thought,
    ToolResult,
    Write,
    new_ref,
)
from tests import test_openai
from tests.fake_turn import FakeTurn, Killed, replies
from tests.test_answer import FakeModel
from tests.test_openai import MODES, count_events

no_environment, server = test_openai.no_environment, test_openai.server
PROMPT = "write a function for fibonacci into fib.py"
CONTENTS = CODE["fibonacci"]


class PaperTurn(FakeTurn):
    """A fake turn with the documents that it writes, into which people type."""

    def __init__(self) -> None:
        super().__init__()
        self.papers: dict[str, Text] = {}

    @property
    def history(self) -> History:
        copies = {name: Copy(name, text.read(), str(text.head)) for name, text in self.papers.items()}
        return replace(super().history, documents=copies, look=self.look)

    async def look(self, history: History) -> History:
        return replace(history, documents=self.history.documents)

    def store(self, packet: AnyPacket) -> None:
        super().store(packet)
        said = self.entries[-1]
        if isinstance(said, Document):
            self.papers.setdefault(said.name, Text()).open(EntryId(0, 1), said)
        if isinstance(said, Write):
            paper = self.papers[said.name]
            paper.write(EntryId(paper.head.epoch, paper.head.n + 1), said)

    def types(self, name: str, at: int, text: str) -> None:
        paper = self.papers[name]
        assert paper.patch(EntryId(paper.head.epoch + 1, 0), new_ref(Patch(base=str(paper.head), splices=[Splice(at, 0, text)])))

    def reads(self, name: str) -> str:
        return self.papers[name].read()


def agent_on(server: Server, mode: str, **options: Any) -> Agent:
    return openai_agent(base_url=server.url, api_key="k", documents=True, **MODES[mode], **options)


def wants(call: str = "c", sequence: int | None = None, /, **arguments: str) -> list[Event]:
    """A run of a model that wants to write."""
    wanted = Wanted(call, "write_document", msgspec.json.encode({"name": "a.md", **arguments}).decode())
    return [Event(At("r", sequence), Thought("I write.")), Event(At("r"), calls=(wanted,))]


END = [Event(At("r"), Content("Done.")), Event(At("r"), calls=())]


def on(fake: FakeModel, **options: Any) -> Agent:
    tools = Tools([], documents=True, **options)
    return partial(answer, lambda: fake, tools, 8, 3)


async def written(**arguments: str) -> PaperTurn:
    """A turn in which a.md was written, and a second prompt."""
    turn = PaperTurn()
    await turn.prompt("write").run(on(FakeModel(wants(text="one two two"), END)))
    turn.prompt("again")
    return turn


# ---- once ----


@pytest.mark.parametrize("mode", MODES)
async def test_killed_at_any_event_it_writes_once(server: Server, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PaperTurn().prompt(PROMPT)
    with monkeypatch.context() as patch:
        events = count_events(patch)
        await whole.run(agent_on(server, mode))
    assert [type(packet) for packet in whole.history.said if not isinstance(packet, Thought | Content)] == [
        Action,
        Document,
        Write,
        ToolResult,
    ]
    for kill_at in range(1, events[0] + 1):
        turn = PaperTurn()
        turn.prompt(PROMPT)
        with monkeypatch.context() as patch:
            count_events(patch, kill_at)
            with pytest.raises(Killed):
                await turn.run(agent_on(server, mode))
        await turn.run(agent_on(server, mode))
        assert turn.story() == whole.story(), f"killed at event {kill_at}"
        assert turn.reads("fib.py") == CONTENTS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lose_last", [False, True], ids=["stored", "lost"])
async def test_killed_after_any_packet_it_writes_once(server: Server, mode: str, lose_last: bool) -> None:
    """Between the call and the document, the document and its text, the text and the result; each stored, or lost on its way."""
    count = await PaperTurn().prompt(PROMPT).run(agent_on(server, mode))
    for kill_after in range(1, count + 1):
        turn = PaperTurn()
        turn.prompt(PROMPT)
        with pytest.raises(Killed):
            await turn.run(agent_on(server, mode), None, kill_after, lose_last=lose_last)
        await turn.run(agent_on(server, mode))
        assert turn.reads("fib.py") == CONTENTS, f"killed after packet {kill_after}"
        calls = [packet.call for packet in turn.history.said if isinstance(packet, Action)]
        writes = [packet.at.response for packet in turn.history.said if isinstance(packet, Write) and packet.at]
        assert writes == calls


@pytest.mark.parametrize("text", ["x" * PIECE, "y" * (2 * PIECE + 1), "é😀" * (PIECE // 2 + 1), ""])
async def test_a_long_text_goes_on_where_it_stands(text: str) -> None:
    """It is said in parts; killed after each, the rest follows, and nothing twice."""
    for kill_after in range(3, 8):
        turn = await written()
        change = wants("d", text=text, instead_of="one")
        try:
            await turn.run(on(FakeModel(change, END)), None, kill_after)
        except Killed:
            turn.types("a.md", 0, "typed ")
            await turn.run(on(FakeModel(END)))
            assert turn.reads("a.md") == f"typed {text} two two"
        else:
            assert turn.reads("a.md") == f"{text} two two"


# ---- never over what it was not shown ----


async def test_what_is_typed_before_it_writes_stays() -> None:
    """The call says what it goes over: another instance carries it out, after somebody has typed."""
    turn = await written()
    with pytest.raises(Killed):
        await turn.run(on(FakeModel(wants("d", text="new", instead_of=""), END)), None, 2)
    turn.types("a.md", 3, " typed")
    await turn.run(on(FakeModel(END)))
    assert turn.reads("a.md") == "new typed"


async def test_a_run_that_another_instance_began_writes_over_nothing() -> None:
    """Attached to again, nobody knows what it was shown: it is told to look again, and does."""
    turn = await written()
    run = wants("d", 1, text="new")
    with pytest.raises(Killed):
        await turn.run(on(FakeModel(run)), None, 1)
    turn.types("a.md", 0, "typed ")
    fake = FakeModel(run[1:], wants("e", text="new and typed"), END)
    await turn.run(on(fake))
    assert [packet.error for packet in turn.history.said if isinstance(packet, ToolResult) and packet.error] == [LATE]
    assert turn.reads("a.md") == "new and typed"
    assert "typed one two two" in fake.asked[1][0][0].text  # type: ignore[union-attr]  # it was shown what was typed


@pytest.mark.parametrize("part", ["two", "three", " ", "one  two"])
async def test_a_part_that_does_not_stand_there_once_is_refused(part: str) -> None:
    turn = await written()
    await turn.run(on(FakeModel(wants("d", text="new", instead_of=part), END)))
    assert [packet.error for packet in turn.history.said if isinstance(packet, ToolResult)] == [ONCE]
    assert turn.reads("a.md") == "one two two"


async def test_what_a_call_goes_over_is_not_the_models_to_say() -> None:
    turn = await written()
    wanted = Wanted("d", "write_document", '{"name": "a.md", "text": "new", "over": {"base": "0-1", "at": 0, "delete": 3}}')
    await turn.run(on(FakeModel([Event(At("r"), calls=(wanted,))], END)))
    (result,) = [packet for packet in turn.history.said if isinstance(packet, ToolResult)]
    assert "not_taken" in str(result.error)
    assert turn.reads("a.md") == "one two two"


@pytest.mark.parametrize("name", ["", "a/b", "x" * 31, "a b"])
async def test_a_name_that_no_document_can_have_is_an_error_for_the_model(name: str) -> None:
    turn = PaperTurn()
    await turn.prompt("go").run(on(FakeModel(wants("d", text="new", name=name), END)))
    assert [str(packet.error)[:13] for packet in turn.history.said if isinstance(packet, ToolResult)] == ["bad arguments"]
    assert turn.papers == {}


# ---- what the model sees ----


async def test_it_is_shown_the_documents_as_they_stand_each_time_it_is_asked() -> None:
    """Also what it has written itself a moment ago, which it may change then; and its calls as it made them."""
    turn = await written()
    turn.types("a.md", 0, "typed ")
    fake = FakeModel(wants("d", text="ONE", instead_of="one"), wants("e", text="1", instead_of="ONE"), END)
    await turn.run(on(fake))
    shown = [items[0].text for items, _ in fake.asked if isinstance(items[0], Message)]
    assert ["typed one two two" in shown[0], "typed ONE two two" in shown[1], "typed 1 two two" in shown[2]] == [True] * 3
    assert '{"name":"a.md","text":"ONE","instead_of":"one"}' in [getattr(item, "arguments", "") for item in fake.asked[2][0]]
    assert turn.reads("a.md") == "typed 1 two two"


async def test_a_document_of_its_kind_is_opened_once() -> None:
    turn = PaperTurn()
    fake = FakeModel(wants("a", name="plan.mmd", text="flowchart TD"), wants("b", name="plan.mmd", text="flowchart LR"), END)
    await turn.prompt("go").run(on(fake))
    assert [(p.name, p.kind) for p in turn.history.said if isinstance(p, Document)] == [("plan.mmd", "mermaid")]
    assert turn.reads("plan.mmd") == "flowchart LR"
    assert [p.over for p in turn.history.said if isinstance(p, Write)] == [None, Over("0-2", 0, 12)]


@pytest.mark.parametrize(("reply", "text"), [("yes", "new"), ("no", "one two two")])
async def test_it_waits_for_approval_where_that_is_wanted(reply: str, text: str) -> None:
    turn = await written()
    agent = on(FakeModel(wants("d", text="new"), END), approve=["write_document"])
    await turn.run(agent, replies({"write_document": reply}))
    assert turn.reads("a.md") == text


async def test_without_being_asked_for_it_neither_sees_nor_writes_documents(server: Server) -> None:
    turn = await written()
    await turn.prompt(PROMPT).run(openai_agent(base_url=server.url, api_key="k", dialect="chat"))
    assert server.requests[-1].body is not None
    assert "as they stand now" not in str(server.requests[-1].body["messages"])
    assert "write_document" not in str(server.requests[-1].body["tools"])
    assert not any(isinstance(packet, Action | Write) for packet in turn.history.said)
