"""The agent on a model, against the embedded model over real HTTP: at every crash point, stopped, and when the provider fails."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise
from types import AsyncGeneratorType
from typing import Any, cast

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from kit.agents import model, openai
from kit.agents.demo import default_agent
from kit.agents.model import Cut, Record, Refuse, Server, Stall, rate_limited
from kit.agents.openai import openai_agent
from kit.history import HAND_OVER, Agent, AgentError
from kit.packets import Action, AnyPacket, Ask, Content, Thought, ToolResult
from tests import test_model
from tests.fake_turn import FakeTurn, Killed, replies, told

server = test_model.server  # a model without pauses
MODES: dict[str, dict[str, Any]] = {
    "background": {"dialect": "responses"},
    "foreground": {"dialect": "responses", "background": False},
    "chat": {"dialect": "chat"},
}
ran: list[tuple[str, str]] = []
"""Each run of a tool: its call id and its argument."""


async def get_weather(city: str, *, call: str) -> str:
    """The weather in a city."""
    ran.append((call, city))
    return "cold"


async def send_mail(to: str = "all") -> str:
    """Send the mail."""
    ran.append(("", to))
    return "sent"


async def set_theme(theme: str = "dark") -> None:
    """Set the theme."""


TWO_CALLS = "What is the weather in Oslo and Paris?"
PERSON = replies({"Which city?": "Rome", "set_theme": "done", "send_mail": "yes"})


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test talks to a real provider, and a proxy in the environment must not matter."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    ran.clear()


async def over(server: Server, count: int) -> list[Record]:
    """The requests so far, once so many are over."""
    await server.ended(count)
    return server.requests


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


BROKEN = Refuse(500, "The server had an error.", "server_error", headers={"retry-after-ms": "1"})  # the client comes again at once


def agent_on(server: Server, mode: str, *, key: str = "k", **options: Any) -> Agent:
    tools = {"tools": [get_weather, send_mail], "client_tools": [set_theme], "approve": ["send_mail"]}
    return openai_agent(base_url=server.url, api_key=key, **{**tools, **MODES[mode], **options})


def count_events(monkeypatch: pytest.MonkeyPatch, kill_at: int | None = None) -> list[int]:
    """Count the provider's events; at one of them the instance is killed, before anything is made of it."""
    real, seen = openai.Model.events, [0]

    async def events(*args: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(real(*args)) as source:
            async for event in source:
                seen[0] += 1
                if seen[0] == kill_at:
                    raise Killed
                yield event

    monkeypatch.setattr(openai.Model, "events", events)
    return seen


# ---- crashes ----


async def survives_each_kill(
    server: Server, mode: str, prompt: str, events: int, expected: Any, tools: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each of so many events, and run again: the story and the tools that ran are what they were without."""
    for kill_at in range(1, events + 1):
        ran.clear()
        turn = FakeTurn(joins=random.Random(kill_at)).prompt(prompt)
        with monkeypatch.context() as patch:
            count_events(patch, kill_at)
            with pytest.raises(Killed):
                await turn.run(agent_on(server, mode))
        await turn.run(agent_on(server, mode))
        assert turn.story() == expected, f"killed at event {kill_at}"
        assert ran == tools, f"killed at event {kill_at}"


async def test_killed_at_any_event_a_turn_ends_as_if_nothing_had_happened(
    server: Server, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the provider said and nobody told is asked for again, or attached to: text exact, each tool run once."""
    with monkeypatch.context() as patch:
        events = count_events(patch)
        expected, tools, _ = await whole(server, mode, TWO_CALLS)
    await survives_each_kill(server, mode, TWO_CALLS, events[0], expected, tools, monkeypatch)


@pytest.mark.parametrize("prompt", [TWO_CALLS, "What is the weather?", "Set theme dark and send mail"])
async def test_killed_after_any_kind_of_packet_a_turn_ends_as_if_nothing_had_happened(server: Server, mode: str, prompt: str) -> None:
    """Between two calls of a run, between a call and its result, after an ask, an answer, an approval: another instance goes on."""
    expected, tools, said = await whole(server, mode, prompt)
    text = [isinstance(packet, Thought | Content) and type(packet) is type(after) for packet, after in pairwise((*said, None))]
    inside = next(i for i, is_text in enumerate(text) if is_text)
    for kill_after in [inside + 1, *(i + 1 for i, is_text in enumerate(text) if not is_text)]:
        ran.clear()
        turn = FakeTurn(joins=random.Random(kill_after)).prompt(prompt)
        with pytest.raises(Killed):
            await turn.run(agent_on(server, mode), PERSON, kill_after)
        await turn.run(agent_on(server, mode), PERSON)
        if mode != "background" and all(isinstance(packet, Action) for packet in said[kill_after - 1 : kill_after + 1]):
            assert gist(turn.story(), ran) == gist(expected, tools), "no cursor leads back between two calls: the second is asked for again"
            continue
        assert turn.story() == expected, f"killed after packet {kill_after}"
        assert ran == tools, f"killed after packet {kill_after}"


async def test_killed_before_a_packet_is_stored_a_tool_runs_again_with_the_same_id(server: Server, mode: str) -> None:
    """A result that was lost is made again: the call id is the tool's idempotency key."""
    expected, tools, said = await whole(server, mode, TWO_CALLS)
    first_result = next(i for i, packet in enumerate(said, 1) if isinstance(packet, ToolResult))
    ran.clear()
    turn = FakeTurn().prompt(TWO_CALLS)
    with pytest.raises(Killed):
        await turn.run(agent_on(server, mode), None, first_result, lose_last=True)
    await turn.run(agent_on(server, mode))
    assert turn.story() == expected
    assert ran == [tools[0], *tools]


async def test_killed_again_and_again_it_still_says_everything_once(server: Server, mode: str) -> None:
    """An instance that lives for a few packets only, over and over; large pieces are split by the log."""
    expected, tools, _ = await whole(server, mode, TWO_CALLS)
    turn, lives = FakeTurn(joins=random.Random(1), limit=4).prompt(TWO_CALLS), random.Random(2)
    ran.clear()
    for _ in range(100):
        try:
            await turn.run(agent_on(server, mode), None, lives.randrange(1, 7))
            break
        except Killed:
            continue
    assert gist(turn.story(), ran) == gist(expected, tools)
    if mode == "background":
        assert turn.story() == expected
        assert ran == tools


def gist(story: list[tuple[Any, ...]], tools: list[tuple[str, str]]) -> tuple[str, list[str]]:
    """What a person reads at the end, and what ran: without the thoughts, the call ids, and the order of calls and results."""
    return "".join(part[1] for part in story if part[0] == "Content"), [argument for _, argument in tools]


async def whole(server: Server, mode: str, prompt: str) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]], tuple[AnyPacket, ...]]:
    """An uncrashed turn: what happened, which tools ran, and the packets."""
    ran.clear()
    turn = FakeTurn().prompt(prompt)
    await turn.run(agent_on(server, mode), PERSON)
    assert ran
    assert turn.open() == []
    return turn.story(), list(ran), turn.history.said


async def test_a_cursor_is_taken_up_without_asking_again(server: Server) -> None:
    """In background mode the model is asked once per run, whatever happens to the instances."""
    turn = FakeTurn().prompt("count to 5")
    with pytest.raises(Killed):
        await turn.run(agent_on(server, "background"), None, 3)
    at = turn.history.said[-1].at
    await turn.run(agent_on(server, "background"))
    assert at is not None
    assert [(r.method, r.path) for r in await over(server, 2)] == [
        ("POST", "/v1/responses"),
        ("GET", f"/v1/responses/{at.response}?starting_after={at.sequence}&stream=true"),
    ]


@pytest.mark.parametrize("mode", ["foreground", "chat"], indirect=True)
async def test_without_a_cursor_the_half_said_answer_is_sent_back(server: Server, mode: str) -> None:
    """The model goes on from its own words, and is told in its instructions how."""
    turn = FakeTurn().prompt("count to 5")
    with pytest.raises(Killed):
        await turn.run(agent_on(server, mode), None, 9)
    half = {"role": "assistant", "content": turn.story()[-1][1]}
    await turn.run(agent_on(server, mode))
    requests = await over(server, 2)
    assert [r.method for r in requests] == ["POST", "POST"]
    assert (requests[1].body.get("input") or requests[1].body["messages"])[-1] == half
    assert openai.CONTINUE in (requests[1].body.get("instructions") or requests[1].body["messages"][0]["content"])


async def test_a_piece_that_the_log_split_is_not_told_twice(server: Server) -> None:
    """A crash between the halves of a split piece: the first half has no cursor of its own."""
    turn = FakeTurn(limit=2).prompt("count to 12")
    await turn.run(agent_on(server, "background"))
    expected = turn.story()
    halves = [i for i, entry in enumerate(turn.entries) if isinstance(entry, Thought | Content) and entry.at is None]
    assert halves
    for half in halves:
        torn = FakeTurn(*turn.entries[: half + 1])
        torn.turn = turn.turn
        await torn.run(agent_on(server, "background"))
        assert torn.story() == expected


async def test_a_response_that_is_gone_is_continued_from_what_was_said(server: Server) -> None:
    """The provider forgot it (404), or another instance cancelled it: the rest is asked for."""
    turn = FakeTurn().prompt("count to 9")
    with pytest.raises(Killed):
        await turn.run(agent_on(server, "background"), None, 9)
    async with model.serve(pace=None) as another:
        await turn.run(agent_on(another, "background"))
    assert turn.story()[-1] == ("Content", "1 2 3 4 5 6 7 8 9")


async def test_a_response_that_somebody_cancelled_is_continued_from_what_was_said(server: Server) -> None:
    """There is no event for that: the stream just ends, and the status tells."""
    server.pace = 200
    turn, some = FakeTurn().prompt("count to 40"), asyncio.Event()

    async def answering() -> None:
        async for packet in agent_on(server, "background")(turn.history):
            turn.store(packet)
            if isinstance(packet, Content):
                some.set()

    task = asyncio.create_task(answering())
    await some.wait()
    at = turn.history.said[-1].at
    assert at is not None
    async with AsyncOpenAI(base_url=server.url, api_key="k", http_client=DefaultAsyncHttpxClient(trust_env=False)) as client:
        await client.responses.cancel(at.response)
    server.pace = None
    await task
    assert turn.story()[-1] == ("Content", " ".join(map(str, range(1, 41))))
    paths = sorted(r.path for r in await over(server, 4))
    assert paths == ["/v1/responses", "/v1/responses", f"/v1/responses/{at.response}", f"/v1/responses/{at.response}/cancel"]


# ---- stop and hand-over ----


async def stopped(server: Server, mode: str, message: str | None = None) -> FakeTurn:
    """A turn that is cancelled in the middle of its answer, while the agent waits for the provider."""
    server.pace = 100
    turn, some = FakeTurn().prompt("count to 1000"), asyncio.Event()

    async def answering() -> None:
        async for packet in agent_on(server, mode)(turn.history):
            turn.store(packet)
            if isinstance(packet, Content):
                some.set()

    task = asyncio.create_task(answering())
    await some.wait()
    task.cancel(message)
    with pytest.raises(asyncio.CancelledError):
        await task
    return turn


async def test_a_stop_closes_the_stream_and_cancels_the_response(server: Server, mode: str) -> None:
    """The model stops, too: the provider makes no token that nobody reads."""
    await stopped(server, mode)
    requests = await over(server, 2 if mode == "background" else 1)
    assert [r.outcome for r in requests if r.path in ("/v1/responses", "/v1/chat/completions")] == ["left"]
    assert [r.path.rpartition("/")[2] for r in requests[1:]] == (["cancel"] if mode == "background" else [])
    assert server.tokens_made < 100


async def test_a_closed_generator_is_a_stop(server: Server) -> None:
    """The runner may close the agent while it holds a packet, instead of cancelling it."""
    server.pace = 100
    packets = cast("AsyncGenerator[AnyPacket, None]", agent_on(server, "background")(FakeTurn().prompt("count to 1000").history))
    await anext(packets)
    await packets.aclose()
    assert [r.path.rpartition("/")[2] for r in await over(server, 2)] == ["responses", "cancel"]


@pytest.mark.parametrize("most", [3, 1000])
async def test_nothing_is_left_to_the_garbage_collector(server: Server, mode: str, most: int) -> None:
    """Whether an answer is left in the middle or heard to its end: no generator of the HTTP stream waits to be closed by chance."""
    server.pace = 1000
    packets = cast("AsyncGenerator[AnyPacket, None]", agent_on(server, mode)(FakeTurn().prompt("count to 20").history))
    async with aclosing(packets):
        for _ in range(most):
            if await anext(packets, None) is None:
                break
    await over(server, 1)
    assert await left_open() == []


async def left_open() -> list[str]:
    """The generators of the HTTP stream that nobody has closed."""
    for _ in range(100):  # what has been dropped is closed by the loop, one generator after the other
        await asyncio.sleep(0)
    # By `type`: some of all objects are proxies of what is gone, and `isinstance` asks those.
    left = [each for each in gc.get_objects() if type(each) is AsyncGeneratorType and each.ag_frame]
    libraries = ("openai", "httpx2", "httpcore2", "httpcore")
    return [each.__qualname__ for each in left if each.ag_frame.f_globals["__name__"].partition(".")[0] in libraries]


@pytest.mark.parametrize("when", ["the stream opens", "the first word is said"])
async def test_who_is_cancelled_over_and_over_leaves_nothing_open(
    server: Server, mode: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the very step in which the stream opens, too: what has been opened then is closed, though nobody was there to take it."""
    server.pace = 100
    now, create = asyncio.Event(), openai.Model._open

    async def opened(*args: Any) -> Any:
        both = await create(*args)
        if when == "the stream opens":
            asyncio.get_running_loop().call_soon(task.cancel)  # before whoever waits for this is awake
            now.set()
        return both

    async def answering() -> None:
        async for _ in agent_on(server, mode)(FakeTurn().prompt("count to 1000").history):
            now.set()

    monkeypatch.setattr(openai.Model, "_open", opened)
    task = asyncio.create_task(answering())
    await now.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    await over(server, 2 if mode == "background" else 1)
    assert await left_open() == []


async def test_a_stop_before_the_first_event_cancels_the_response(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider would go on without a reader, and its id is not known yet: it is waited for, and cancelled."""
    server.pace, asked = 100, asyncio.Event()
    create = openai.Model._open

    async def slow(*args: Any) -> Any:
        asked.set()
        await asyncio.sleep(0)
        return await create(*args)

    monkeypatch.setattr(openai.Model, "_open", slow)
    task = asyncio.ensure_future(anext(agent_on(server, "background")(FakeTurn().prompt("count to 1000").history)))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [r.path.rpartition("/")[2] for r in await over(server, 2)] == ["responses", "cancel"]


async def test_a_stop_before_an_attached_response_says_anything_cancels_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instance that took over knows the response by its cursor, and has not heard of it itself."""
    turn, asked = await stopped(server, "background", HAND_OVER), asyncio.Event()

    async def never(*_: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(openai.Model, "_open", never)
    task = asyncio.ensure_future(anext(agent_on(server, "background")(turn.history)))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [r.path.rpartition("/")[2] for r in await over(server, 2)] == ["responses", "cancel"]


async def test_a_hand_over_leaves_the_response_running_for_the_next_instance(server: Server) -> None:
    """An instance that shuts down in order cancels nothing: the next one attaches to the same response."""
    turn = await stopped(server, "background", HAND_OVER)
    assert not any("cancel" in r.path for r in await over(server, 1))
    server.pace = None
    await turn.run(agent_on(server, "background"))
    assert turn.story()[-1] == ("Content", " ".join(map(str, range(1, 1001))))
    assert [r.method for r in await over(server, 2)] == ["POST", "GET"]


async def test_a_second_cancellation_does_not_save_the_response(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An impatient runner cancels twice: the provider hears of it all the same."""
    server.pace, cancelling = 100, asyncio.Event()
    real = openai.Model._cancel

    async def watched(self: openai.Model) -> None:
        cancelling.set()
        await real(self)

    monkeypatch.setattr(openai.Model, "_cancel", watched)
    packets = agent_on(server, "background")(FakeTurn().prompt("count to 1000").history)
    await anext(packets)
    task = asyncio.ensure_future(anext(packets))
    await asyncio.sleep(0)
    task.cancel()
    await cancelling.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await over(server, 2))[-1].path.endswith("/cancel")


async def test_an_agent_that_gives_up_cancels_the_response(server: Server) -> None:
    """It cannot read it any more, and it would go on, and be paid."""
    server.pace = 100
    server.fail_next(Cut(4), BROKEN, BROKEN, BROKEN)
    with pytest.raises(AgentError):
        await FakeTurn().prompt("count to 1000").run(agent_on(server, "background", tries=3))
    assert (await over(server, 5))[-1].path.endswith("/cancel")


# ---- faults ----


@pytest.mark.parametrize("fault", [rate_limited(0.01), BROKEN, Stall(0), Stall(9), Cut(0), Cut(9), Cut(9, clean=True)], ids=str)
async def test_a_fault_that_passes_is_not_seen(server: Server, mode: str, fault: Any) -> None:
    """429, 500, a stall, a cut: tried again, and the answer is the same to the letter."""
    whole = FakeTurn().prompt("count to 12")
    await whole.run(agent_on(server, mode))
    turn = FakeTurn().prompt("count to 12")
    server.fail_next(fault)
    await turn.run(agent_on(server, mode, stall=0.2 if isinstance(fault, Stall) else 30))
    assert turn.story() == whole.story()


async def test_a_wait_is_what_the_provider_wants(server: Server) -> None:
    """Retry-After is obeyed."""
    server.fail_next(rate_limited(0.3))
    before = asyncio.get_running_loop().time()
    await FakeTurn().prompt("count to 2").run(agent_on(server, "chat"))
    assert asyncio.get_running_loop().time() - before >= 0.3
    assert [r.status for r in await over(server, 2)] == [429, 200]


async def test_progress_is_no_failure(server: Server, mode: str) -> None:
    """A connection that is cut every few tokens is no reason to give up, as long as there are some."""
    server.fail_next(*[Cut(24)] * 8)
    turn = FakeTurn().prompt("count to 30")
    await turn.run(agent_on(server, mode, tries=3))
    assert turn.story()[-1] == ("Content", " ".join(map(str, range(1, 31))))


async def test_progress_does_not_last_for_ever(server: Server, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never ends an answer is not asked, and paid, without end."""
    monkeypatch.setattr("kit.agents.answer.LONGEST", 0.01)
    server.fail_next(*[Cut(24, clean=True)] * 60)
    turn = FakeTurn().prompt("count to 1000")
    with pytest.raises(AgentError, match=r"^The model's server ended its stream in the middle of an answer.$"):
        await turn.run(agent_on(server, mode, tries=2))
    requests = await over(server, 40 if mode == "background" else 20)  # and the cancellation
    assert sum(r.path in ("/v1/responses", "/v1/chat/completions") or "stream" in r.path for r in requests) == 20


SENTENCES = [
    ([Refuse(401, "no", "invalid_api_key")], "{} refuses the API key (401): check OPENAI_API_KEY."),
    ([Refuse(403, "no")], "{} does not let this API key use the model m (403)."),
    ([Refuse(404, "no", "model_not_found")], "{} has no model m (404): check KIT_MODEL and OPENAI_BASE_URL."),
    ([Refuse(400, "too long")], "{} does not accept the request (400): too long"),
    (
        [Refuse(429, "no", "insufficient_quota", headers={"retry-after-ms": "1"})] * 3,
        "The account's quota at {} is used up (429): check its plan and billing.",
    ),
    ([rate_limited(0.01)] * 3, "{} has too many requests (429): try again later."),
    ([rate_limited(3600)], "{} has too many requests (429): try again in 3,600 s."),
    ([BROKEN] * 3, "{} failed (500): try again later."),
    ([Cut(0)] * 3, "{} cannot be reached: check the network and OPENAI_BASE_URL."),
]


@pytest.mark.parametrize(("faults", "sentence"), SENTENCES)
async def test_a_fault_that_stays_is_one_sentence_for_the_person(server: Server, mode: str, faults: list[Any], sentence: str) -> None:
    """What happened, and what to do about it; tried again where that can help, and only so often."""
    server.fail_next(*faults)
    with pytest.raises(AgentError) as error:
        await FakeTurn().prompt("count to 2").run(agent_on(server, mode, model="m", tries=3))
    assert str(error.value) == sentence.format(server.url.split("/")[2])
    assert len(await over(server, len(faults))) == len(faults)


async def test_silence_that_stays_is_one_sentence(server: Server, mode: str) -> None:
    """Before an answer begins the client tries again, in it the agent does."""
    server.fail_next(*[Stall(0)] * 9)
    with pytest.raises(AgentError, match=r" was silent for 0.1 s: try again later.$"):
        await FakeTurn().prompt("count to 2").run(agent_on(server, mode, tries=3, stall=0.1))


async def test_nobody_there_is_one_sentence() -> None:
    """A server that does not run."""
    agent = openai_agent(base_url="http://127.0.0.1:9/v1", tries=1)
    with pytest.raises(AgentError, match=r"^127.0.0.1:9 cannot be reached: check the network and OPENAI_BASE_URL.$"):
        await FakeTurn().prompt("hello").run(agent)


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_missing_key_is_one_sentence(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI itself wants one; an empty variable is as good as none."""
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(AgentError, match=r"^There is no API key: set OPENAI_API_KEY, or OPENAI_BASE_URL to a server that needs none.$"):
        openai_agent(api_key=key)


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.openai.com/v1", True),
        ("https://api.openai.com/v1/", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://notapi.openai.com.example/v1", False),
        ("https://evilapi.openai.com/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_openai_is_known_in_each_of_its_regions(url: str, own: bool) -> None:
    """There the Responses dialect is spoken, and a key is needed; elsewhere neither is taken for granted."""
    made: Any = openai_agent(base_url=url, api_key="k")
    assert made.args[0].keywords["dialect"] == ("responses" if own else "chat")
    if own:
        with pytest.raises(AgentError, match="There is no API key"):
            openai_agent(base_url=url, api_key="")


@pytest.mark.parametrize("key", ["sk-1 2", "sk-1\nsk-2", "sk-…", "“sk-1”"])
def test_a_key_that_no_header_can_carry_is_one_sentence(key: str) -> None:
    """Copied with a quote, an ellipsis or a line break."""
    with pytest.raises(AgentError, match="copy it into OPENAI_API_KEY again"):
        openai_agent(api_key=key)


async def test_a_wrong_key_is_one_sentence() -> None:
    """Only the provider can know that."""
    async with model.serve(pace=None, key="right") as server:
        with pytest.raises(AgentError, match="refuses the API key"):
            await FakeTurn().prompt("hello").run(agent_on(server, "chat"))
        turn = FakeTurn().prompt("count to 2")
        await turn.run(openai_agent(base_url=server.url, api_key=" right\n"))
        assert turn.story()[-1] == ("Content", "1 2")


async def test_the_environment_says_whom_to_ask(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_BASE_URL and KIT_MODEL; a server that is not OpenAI's is spoken to in Chat Completions, and needs no key."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/")
    monkeypatch.setenv("KIT_MODEL", "my-model")
    await FakeTurn().prompt("hello").run(openai_agent())
    record = (await over(server, 1))[0]
    assert (record.path, record.body["model"]) == ("/v1/chat/completions", "my-model")


async def test_a_model_that_takes_no_reasoning_is_asked_without(server: Server) -> None:
    """Whether a model thinks can only be found out by asking."""
    await FakeTurn().prompt("hello").run(agent_on(server, "background"))
    server.fail_next(Refuse(400, "Unsupported parameter", "unsupported_parameter", "reasoning.summary"))
    turn = FakeTurn().prompt("count to 2")
    await turn.run(agent_on(server, "background"))
    assert turn.story()[-1] == ("Content", "1 2")
    assert [r.body.get("reasoning") for r in await over(server, 3) if r.body] == [{"summary": "auto"}, None]


# ---- tools ----


async def test_an_action_that_is_declined_does_not_run(server: Server, mode: str) -> None:
    """Anything but yes; the model reads why."""
    turn = FakeTurn().prompt("send mail")
    await turn.run(agent_on(server, mode), replies({"send_mail": "no, wait"}))
    assert ran == []
    assert [p.error for p in turn.history.said if isinstance(p, ToolResult)] == ["declined by the person: no, wait"]
    assert "declined by the person: no, wait" in turn.story()[-1][1]


async def test_a_round_without_news_says_nothing(server: Server) -> None:
    """Called again while a person still thinks, the agent returns."""
    turn = FakeTurn().prompt("What is the weather?")
    await turn.run(agent_on(server, "chat"))
    assert isinstance(turn.history.said[-1], Ask)
    assert await turn.round(agent_on(server, "chat")) == 0
    assert len(await over(server, 1)) == 1


async def test_an_unknown_city_is_an_error_that_the_model_reads(server: Server, mode: str) -> None:
    """A tool that raises does not end the turn."""

    async def get_weather(city: str) -> str:
        raise LookupError(f"no {city}")

    turn = FakeTurn().prompt("weather in Oslo")
    await turn.run(agent_on(server, mode, tools=[get_weather], approve=[]))
    assert [p.error for p in turn.history.said if isinstance(p, ToolResult)] == ["LookupError: no Oslo"]
    assert "LookupError: no Oslo" in turn.story()[-1][1]


async def test_rounds_are_bounded(server: Server, mode: str) -> None:
    """A model that only ever calls is stopped; so many calls ran, and the person is told."""

    async def open_door() -> None:
        ran.append(("", "door"))

    async def close_window() -> None:
        ran.append(("", "window"))

    async def feed_cat() -> None:
        ran.append(("", "cat"))

    turn = FakeTurn().prompt("open door, close window, feed cat")
    with pytest.raises(AgentError, match=r"^The model called tools 2 times and has not answered.$"):
        await turn.run(agent_on(server, mode, tools=[open_door, close_window, feed_cat], approve=[], max_rounds=2))
    assert ran == [("", "door"), ("", "window")]


async def test_background_is_for_responses_only() -> None:
    with pytest.raises(ValueError, match="only the Responses dialect"):
        openai_agent(dialect="chat", background=True, api_key="k")


async def test_the_demo_shows_thought_content_action_and_result(server: Server) -> None:
    """The first prompt that anybody tries, without a key: on the embedded model."""
    turn = FakeTurn().prompt("What is the weather in Oslo?")
    await turn.run(default_agent(server.url))
    assert [part[0] for part in turn.story()] == ["Thought", "Content", "Action", "ToolResult", "Thought", "Content"]
    assert turn.story()[3][2] == {"city": "Oslo", "celsius": 4, "sky": "light snow", "wind": 3}
    turn.prompt("Set the theme to dark")
    await turn.run(default_agent(server.url))
    assert [told(waiting)[2:] for waiting in turn.open()] == [("set_theme", (("theme", "dark"),), "client")]


async def test_the_demo_talks_to_what_the_environment_names(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    await FakeTurn().prompt("hello").run(default_agent("http://127.0.0.1:9/v1"))
    assert [r.path for r in await over(server, 1)] == ["/v1/chat/completions"]


def test_the_demo_refuses_a_key_that_no_header_can_carry_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts it is told, and not the first person who prompts."""
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    with pytest.raises(AgentError, match="copy it into OPENAI_API_KEY again"):
        default_agent("http://127.0.0.1:9/v1")


def test_openai_is_imported_only_where_it_is_used() -> None:
    """It takes most of a second; the agents and the embedded model do without, and the demo until it is asked."""
    code = "import sys, kit.agents.model, kit.agents.scripted, kit.agents.answer; from kit.agents.demo import default_agent"
    code += "; default_agent('http://127.0.0.1:9/v1'); print('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_garbage_is_collected_as_before_once_the_client_is_imported() -> None:
    """Only while it is imported nobody looks for any; who had switched that off finds it off."""
    code = "import gc; from kit.agents.demo import import_client; {}import_client(); print(gc.isenabled())"
    for first, then in (("", "True\n"), ("gc.disable(); ", "False\n")):
        assert subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True).stdout == then
