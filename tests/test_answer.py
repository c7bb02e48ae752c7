"""One round of the agent on a model that does what the embedded one never does: think again in other words, call something else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Self

import pytest

from kit.agents.answer import Echo, answer
from kit.agents.conversation import Call, Event, Failed, Function, Item, Message, Wanted
from kit.agents.tools import Tools
from kit.history import Agent, AgentError, History
from kit.packets import Action, Ask, At, Content, Prompt, Thought, ToolResult
from tests.fake_turn import FakeTurn, replies

Run = Sequence[Event | Failed]


class FakeModel:
    """A model that gives one run after the other, and remembers what it was asked."""

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)
        self.asked: list[tuple[list[Item], At | None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def events(self, items: Sequence[Item], functions: Sequence[Function], cursor: At | None) -> AsyncGenerator[Event, None]:
        self.asked.append((list(items), cursor))
        for event in self.runs.pop(0):
            if isinstance(event, Failed):
                raise event
            yield event

    async def cancel(self) -> None: ...


ran: list[str] = []


async def look(at: str) -> str:
    """Look."""
    ran.append(at)
    return f"a {at}"


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def agent_on(model: FakeModel) -> Agent:
    def agent(history: History) -> Any:
        return answer(lambda: model, Tools([look]), 8, 3, history)

    return agent


def at(number: int | None = None, response: str = "r") -> At:
    return At(response, number)


def calls(*names: str, call: str = "c") -> Event:
    return Event(at(), calls=tuple(Wanted(f"{call}{name}", "look", f'{{"at": "{name}"}}') for name in names))


END = calls()
BOTH = [Event(at(), Thought("I look.")), calls("cat", "dog")]


async def half_told(*runs: Run, packets: int) -> FakeTurn:
    """A turn that was killed after so many packets."""
    turn = FakeTurn().prompt("go")
    said = agent_on(FakeModel(*runs))(turn.history)
    for _ in range(packets):
        turn.store(await anext(said))
    return turn


async def test_a_run_of_which_only_the_first_call_was_told_goes_on_with_that() -> None:
    """Killed between two calls, where no cursor leads back to the run: what stands in the log runs, and then the model is asked again."""
    turn = await half_told(BOTH, packets=2)
    model = FakeModel([calls("dog", call="x")], [Event(at(), Content("Both.")), END])
    await turn.run(agent_on(model))
    assert [type(p) for p in turn.history.said] == [Thought, Action, ToolResult, Action, ToolResult, Content]
    assert ran == ["cat", "dog"]
    assert model.asked[0][0] == [Message("user", "go"), Call("ccat", "look", '{"at":"cat"}', "a cat")]


async def test_of_a_run_with_a_cursor_only_the_calls_that_were_not_told_are_told() -> None:
    """The provider keeps the run, and its calls come again in their order."""
    run = [Event(at(1), Thought("I look.")), *BOTH[1:]]
    turn = await half_told(run, packets=2)
    model = FakeModel(BOTH[1:], [Event(at(), Content("Both.")), END])
    await turn.run(agent_on(model))
    assert [type(p) for p in turn.history.said] == [Thought, Action, Action, ToolResult, ToolResult, Content]
    assert ran == ["cat", "dog"]
    assert model.asked[0][1] == at(1)


async def test_a_thought_in_other_words_is_told_whole() -> None:
    """Half a thought and then another one must not run into each other."""
    turn = await half_told([Event(at(), Thought("I should ")), Failed("cut", again=True)], packets=1)
    await turn.run(agent_on(FakeModel([Event(at(), Thought("I sho")), Event(at(), Thought("rten it.")), END])))
    assert turn.story() == [("Thought", "I should \n\nI shorten it.")]


@pytest.mark.parametrize(
    ("told", "heard", "new"),
    [
        ("abc", ["a", "bc", "d"], "d"),
        ("abc", ["abcd"], "d"),
        ("abc", ["ab"], ""),
        ("abc", ["ab", "x", "y"], "\n\nabxy"),
        ("", ["x", "y"], "xy"),
        ("aa", ["a", "a", "a"], "a"),
    ],
)
def test_an_echo_is_what_was_told_already(told: str, heard: list[str], new: str) -> None:
    echo = Echo(told)
    assert "".join(echo.new(text) for text in heard) == new


async def test_a_split_piece_is_known_to_be_told_only_by_its_own_response() -> None:
    """The first half of a piece was told, then its response is gone: the continuation must not lose as many characters."""
    turn = await half_told([Event(at(1), Content("one ")), Event(at(2), Content("two ")), END], packets=1)
    turn.store(Content("tw"))  # the first half of the next piece: without a cursor
    model = FakeModel([Failed("gone", again=True, gone=True)], [Event(at(1, "r2"), Content("o three")), END])
    await turn.run(agent_on(model))
    assert turn.story() == [("Content", "one two three")]
    assert [cursor for _, cursor in model.asked] == [at(1), None]
    assert model.asked[1][0][-1] == Message("assistant", "one tw")


async def test_a_run_that_says_nothing_ends_the_turn() -> None:
    """Also after an answer: it is not asked again and again."""
    asks = Event(at(), calls=(Wanted("c1", "ask", '{"text": "Which?"}'),))
    turn, model = FakeTurn().prompt("go"), FakeModel([asks], [END])
    await turn.run(agent_on(model), replies({"Which?": "this"}))
    assert [type(p) for p in turn.history.said] == [Ask]
    assert model.runs == []


async def test_a_repeated_call_id_becomes_another_action() -> None:
    """Some servers count calls from 0 in each answer; one call id is one action, and its result belongs to it alone."""
    turn = FakeTurn().prompt("go")
    same = Event(at(), calls=(Wanted("0", "look", '{"at": "cat"}'), Wanted("0", "look", '{"at": "dog"}')))
    await turn.run(agent_on(FakeModel([same], [same], [END])))
    ids = [p.call for p in turn.history.said if isinstance(p, Action)]
    assert len(set(ids)) == 4
    assert [p.call for p in turn.history.said if isinstance(p, ToolResult)] == ids
    assert ran == ["cat", "dog", "cat", "dog"]


async def test_half_a_surrogate_pair_is_replaced() -> None:
    """It is no text: no log could hold it."""
    turn = FakeTurn().prompt("go")
    await turn.run(agent_on(FakeModel([Event(at(), Content("a\ud800b")), END])))
    assert turn.story() == [("Content", "a?b")]


async def test_what_cannot_be_tried_again_ends_the_turn_with_its_sentence() -> None:
    with pytest.raises(AgentError, match=r"^No\.$"):
        await FakeTurn().prompt("go").run(agent_on(FakeModel([Failed("No.", again=False)])))


async def test_where_several_agents_are_asked_their_calls_differ() -> None:
    """Two models that read the same may call by the same ids, and one id stands for one action of the session."""
    ids = []
    for name in ("cat", "dog"):
        turn = FakeTurn(Prompt(id="1-0", text="go", to="cat,dog", from_="ada"))
        turn.turn = f"1-0/{name}"
        await turn.run(agent_on(FakeModel([calls("x")], [Event(at(), Content("done")), END])))
        ids += [packet.call for packet in turn.history.said if isinstance(packet, Action)]
    assert ids == ["cx.1-0/cat", "cx.1-0/dog"]


async def test_a_run_that_fails_again_and_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once at once; then, where nothing was said meanwhile, longer each time: a limit that passes needs its time to."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("kit.agents.answer.asyncio.sleep", sleep)
    monkeypatch.setattr("kit.agents.answer.random.Random.uniform", lambda _, low, high: high)
    cut = Failed("cut", again=True)
    turn = FakeTurn().prompt("go")
    await turn.run(agent_on(FakeModel([cut], [cut], [Event(at(), Content("a")), cut], [cut], [Event(at(), Content("b")), END])))
    assert slept == [0.0, 0.5, 0.0, 0.5]
