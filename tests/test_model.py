"""The embedded model, as the real `openai` client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from kit.agents import model
from kit.agents.embedded import arithmetic, templates
from kit.agents.embedded.intents import QUESTIONS, Tool
from kit.agents.embedded.replies import NOT_MINE, Assistant, Conversation, Item, Output, Reply, User, reply
from kit.agents.model import Cut, Fail, Stall

WEATHER = Tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
ASK = Tool("ask", {"type": "object", "properties": {"text": {"type": "string"}, "choices": {"type": "array"}}, "required": ["text"]})
THEME = Tool("set_theme", {"properties": {"theme": {"enum": ["light", "dark"]}}, "required": ["theme"]})
NOTE = Tool(
    "show_notification",
    {
        "properties": {
            "text": {"type": "string"},
            "seconds": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "sound": {"type": "boolean", "default": False},
        },
        "required": ["text", "sound"],
    },
)
SELECTION = Tool("get_selection")
TOOLS = (WEATHER, ASK, THEME, NOTE, SELECTION)
FOR_CHAT: Any = [{"type": "function", "function": {"name": t.name, "parameters": dict(t.schema)}} for t in TOOLS]
FOR_RESPONSES: Any = [{"type": "function", "name": t.name, "parameters": dict(t.schema), "strict": False} for t in TOOLS]
AT_ONCE = 0.05
"""Seconds within which the server has to notice that a client left; the best of a few tries, as the machine may be busy."""


class Gate:
    """A `sleep` that lets the model say so many tokens and then waits for more to be let through."""

    def __init__(self, free: int) -> None:
        self.free = asyncio.Semaphore(free)
        self.used_up = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        if self.free.locked():
            self.used_up.set()
        await self.free.acquire()

    def open(self, tokens: int = 1_000_000) -> None:
        for _ in range(min(tokens, 10_000)):
            self.free.release()


@contextlib.asynccontextmanager
async def client_of(url: str, key: str = "none") -> AsyncIterator[AsyncOpenAI]:
    """The real client: no proxy, no retries, nothing of the environment."""
    http = DefaultAsyncHttpxClient(trust_env=False, verify=False)
    async with AsyncOpenAI(base_url=url, api_key=key, http_client=http, max_retries=0, organization="", project="") as client:
        yield client


@pytest.fixture
async def server() -> AsyncIterator[model.Server]:
    async with model.serve(pace=None) as server:
        yield server


@pytest.fixture
async def client(server: model.Server) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(server.url) as client:
        yield client


def told(prompt: str, *items: Item, tools: tuple[Tool, ...] = TOOLS) -> Reply:
    return reply(Conversation("", (User(prompt), *items), tools))


def content(said: Reply) -> str:
    return "".join(said.content)


def called(said: Reply) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, json.loads(call.arguments)) for call in said.calls]


async def chat_chunks(client: AsyncOpenAI, messages: Any, **more: Any) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True, **more)]


async def events(client: AsyncOpenAI, input: Any, **more: Any) -> list[Any]:
    return [event async for event in await client.responses.create(model="m", input=input, stream=True, **more)]


def deltas(seen: list[Any], type: str = "response.output_text.delta") -> list[str]:
    return [event.delta for event in seen if event.type == type]


# ---- what is said ----


def test_counting_says_the_numbers_and_nothing_else() -> None:
    """One token a number, the space before it included; up to 100,000."""
    assert told("Please count slowly to 4, thanks").content == ("1", " 2", " 3", " 4")
    assert content(told("count from 3 down to 1")) == "3 2 1"
    assert content(told("count to 0")) == "0"
    far = told("count to 100,000").content
    assert (len(far), far[-1]) == (100_000, " 100000")
    assert "at most" in content(told("count to 100001"))
    assert "at most" in content(told("count to " + "9" * 5000))
    assert "".join(told("count to 200").thought) == "The person wants me to count to 200."


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("what is 17 * 23", "17 * 23 is 391."),
        ("12 + 4", "12 + 4 is 16."),
        ("What is (2 + 3) * -4?", "(2 + 3) * -4 is -20."),
        ("0.1 + 0.2", "0.1 + 0.2 is 0.3."),
        ("how much is 7 divided by 2?", "7 / 2 is 3.5."),
        ("2 to the power of 100", "2 ** 100 is 1267650600228229401496703205376."),
        ("10 / 3", "10 / 3 is about 3.333333333."),
        ("1,000 times 2", "1000 * 2 is 2000."),
        ("1/0", "I can't give you 1/0: it divides by zero, which has no value."),
        ("9**9**9", "I can't give you 9**9**9: it has more digits than anybody would read."),
        ("2 ** 0.5", "I can't give you 2 ** 0.5: it asks for a root, and I only take whole powers."),
        ("(1 + 2", "I can't give you (1 + 2: it is not a sum that I can read."),
    ],
)
def test_a_sum_is_exact_or_honestly_refused(prompt: str, answer: str) -> None:
    assert content(told(prompt)) == answer


@given(st.text("0123456789.+-*/%() ", max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_sum_breaks_the_evaluator(text: str) -> None:
    """Whatever the signs: a value that is spelled in digits, or NoValue, and nothing else."""
    with contextlib.suppress(arithmetic.NoValue):
        assert re.fullmatch(r"(about )?-?[\d.]+(e[+-]\d+)?", arithmetic.spell(arithmetic.evaluate(text)))


def test_the_weather_comes_from_the_table_without_a_tool() -> None:
    assert content(told("What's the weather in sao paulo and Oslo?", tools=())).startswith("In São Paulo it is 24 °C")
    assert "In Oslo it is 4 °C, light snow" in content(told("What's the weather in sao paulo and Oslo?", tools=()))
    for city in templates.WEATHER:
        assert content(told(f"weather in {city.lower()}?", tools=())).startswith(f"In {city} it is")
    assert content(told("weather in Trondheim tomorrow", tools=())).startswith("Trondheim is not in the small table")


def test_the_weather_tool_is_called_once_per_city_and_its_result_told() -> None:
    first = told("What is the weather in Oslo and Rome?")
    assert first.thought
    assert content(first) == "Let me look up Oslo and Rome:"
    assert called(first) == [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})]
    outputs = (Output(first.calls[0].id, '{"celsius": 4, "sky": "snow"}'), Output(first.calls[1].id, "18 degrees."))
    after = told("What is the weather in Oslo and Rome?", Assistant(content(first)), *first.calls, *outputs)
    assert content(after) == "get_weather says about Oslo: celsius 4, sky snow. get_weather says about Rome: 18 degrees."
    assert not after.calls
    assert called(told("What is the weather in Oslo and Rome?", first.calls[0], outputs[0])) == [("get_weather", {"city": "Rome"})]


def test_a_missing_city_is_asked_for_and_the_answer_taken_up() -> None:
    """With the tool `ask` through it, and then through the weather tool; without it in plain text."""
    asked = told("How is the weather?")
    assert called(asked) == [("ask", {"text": "Which city?", "choices": ["Oslo", "Berlin", "Paris", "London"]})]
    for answer in ("Rome", '"Rome"'):
        assert called(told("How is the weather?", *asked.calls, Output(asked.calls[0].id, answer))) == [("get_weather", {"city": "Rome"})]
    plain = told("How is the weather?", tools=())
    assert content(plain).startswith("Which city?")
    assert content(told("How is the weather?", Assistant(content(plain)), User("Cairo"), tools=())).startswith("In Cairo it is 28 °C")
    assert content(told("How is the weather?", Assistant(content(plain)), User("count to 2"), tools=())) == "1 2"


@pytest.mark.parametrize(
    ("prompt", "name", "arguments"),
    [
        ("Please set the theme to dark", "set_theme", {"theme": "dark"}),
        ("Switch to the light theme", "set_theme", {"theme": "light"}),
        ("What is my selection?", "get_selection", {}),
        ('show a notification "hi there" for 5 seconds', "show_notification", {"text": "hi there", "seconds": 5, "sound": True}),
        ("show a notification saying lunch", "show_notification", {"text": "lunch", "sound": True}),
    ],
)
def test_a_tool_that_the_prompt_names_is_called(prompt: str, name: str, arguments: dict[str, Any]) -> None:
    first = told(prompt)
    assert called(first) == [(name, arguments)]
    after = told(prompt, *first.calls, Output(first.calls[0].id, "ok"))
    assert (content(after).startswith(f"I called {name}"), "it answered: ok." in content(after)) == (True, True)


def test_a_tool_is_not_called_for_a_word_in_passing() -> None:
    assert not told("what is a theme").calls
    assert not told("set the theme to dark", tools=()).calls


@pytest.mark.parametrize(
    ("wanted", "name", "argument", "value"),
    [
        ("fibonacci numbers", "fibonacci", 8, [0, 1, 1, 2, 3, 5, 8, 13]),
        ("prime numbers", "is_prime", 91, False),
        ("a prime test", "is_prime", 97, True),
        ("reversing a string", "reverse", "abc", "cba"),
        ("fizzbuzz", "fizzbuzz", 5, ["1", "2", "Fizz", "4", "Buzz"]),
        ("factorials", "factorial", 6, 720),
    ],
)
def test_the_code_that_it_writes_runs_and_is_right(wanted: str, name: str, argument: Any, value: Any) -> None:
    answer = content(told(f"Write a function for {wanted}"))
    space: dict[str, Any] = {}
    exec(answer.partition("```python\n")[2].partition("```")[0], space)
    assert space[name](argument) == value


def test_plan_hello_and_everything_else() -> None:
    """A plan is about its topic; what is not in the script is said to be so, with the way to a real model."""
    assert content(told("Plan a trip to Rome")).startswith("A plan for a trip to Rome:\n\n1. ")
    assert called(told("make a plan"))[0][1]["text"] in QUESTIONS
    assert "scripted model" in content(told("Hello!"))
    frogs = content(told("Tell me about   frogs"))
    assert "“Tell me about frogs” is beyond my script" in frogs
    assert all(name in frogs for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL"))


def test_a_speakers_name_before_the_prompt_is_no_part_of_it() -> None:
    """Where several people share a session, each prompt says whose it is."""
    assert content(told("ann: what is 2 + 2")) == "2 + 2 is 4."
    assert "Oslo it is" in content(told("bo: weather?", Assistant("Which city? For example: Rome."), User("ann: Oslo"), tools=()))


def test_the_last_prompt_decides() -> None:
    """A steer makes the earlier, half-said answer context and nothing more."""
    assert content(told("count to 9", Assistant("1 2 3"), User("what is 2 + 2"))) == "2 + 2 is 4."


# ---- half-said answers ----


def conversations() -> dict[str, Conversation]:
    look = told("weather in Oslo")
    ran = (User("weather in Oslo"), Assistant(content(look)), *look.calls, Output(look.calls[0].id, "snow"))
    prompts = ["count to 30", "what is 17 * 23", "weather in Oslo", "write a function for primes", "plan a talk", "frogs?", "count to 1"]
    return {p: Conversation("", (User(p),), TOOLS) for p in prompts} | {"after the tool": Conversation("be brief", ran, TOOLS)}


@pytest.mark.parametrize("name", conversations())
def test_a_half_said_answer_is_continued_exactly_at_every_cut(name: str) -> None:
    """Cut at any character, whole tokens or not: the rest, no thought again, and the same calls with the same ids."""
    asked = conversations()[name]
    whole = reply(asked)
    text, thought = content(whole), "".join(whole.thought)
    assert text
    for cut in range(1, len(text) + 1):
        rest = reply(Conversation(asked.instructions, (*asked.items, Assistant(text[:cut])), asked.tools))
        assert text[:cut] + content(rest) == text
        assert (rest.thought, rest.calls) == ((), whole.calls)
    for cut in range(1, len(thought) + 1):
        rest = reply(Conversation(asked.instructions, (*asked.items, Assistant("", thought[:cut])), asked.tools))
        assert thought[:cut] + "".join(rest.thought) == thought
        assert (rest.content, rest.calls) == (whole.content, whole.calls)


def test_half_an_answer_by_somebody_else_is_answered_with_a_note_that_may_be_cut_too() -> None:
    whole = "Bonjour" + NOT_MINE + "1 2 3"
    for cut in range(len("Bonjour"), len(whole) + 1):
        assert whole[:cut] + content(told("count to 3", Assistant(whole[:cut]))) == whole


def test_a_call_has_the_same_id_on_every_instance_and_another_in_another_place() -> None:
    """The id is what makes a tool run once, so it must survive a crash and not be reused later in the conversation."""
    first = told("get my selection")
    assert told("get my selection").calls == first.calls
    again = told("get my selection", *first.calls, Output(first.calls[0].id, "a"), Assistant("Done."), User("get my selection"))
    assert again.calls[0].name == "get_selection"
    assert again.calls[0].id != first.calls[0].id


async def test_both_dialects_continue_a_half_said_answer(client: AsyncOpenAI) -> None:
    text = " ".join(map(str, range(1, 13)))
    for cut in range(1, len(text) + 1):
        asked: Any = [{"role": "user", "content": "count to 12"}, {"role": "assistant", "content": text[:cut]}]
        chat = await client.chat.completions.create(model="m", messages=asked)
        assert text[:cut] + (chat.choices[0].message.content or "") == text
        response = await client.responses.create(model="m", input=asked)
        assert text[:cut] + response.output_text == text
        assert [item.type for item in response.output] == (["message"] if cut < len(text) else [])
    in_two: Any = [{"role": "user", "content": "count to 3"}, *({"role": "assistant", "content": c} for c in ("1", " 2"))]
    assert deltas(await events(client, in_two)) == [" 3"]


async def test_two_servers_say_the_same(server: model.Server, client: AsyncOpenAI) -> None:
    """What is said depends on the conversation and on nothing that a process holds."""
    asked: Any = [{"role": "user", "content": "weather in Oslo"}]
    async with model.serve(pace=None) as other, client_of(other.url) as there:
        first, second = [await c.chat.completions.create(model="m", messages=asked, tools=FOR_CHAT) for c in (client, there)]
        assert first.choices[0].message.tool_calls
        assert first.choices == second.choices


# ---- Chat Completions ----


async def test_chat_streams_thought_then_one_token_a_number(client: AsyncOpenAI) -> None:
    chunks = await chat_chunks(client, [{"role": "user", "content": "count to 200"}], stream_options={"include_usage": True})
    choices = [c.choices[0] for c in chunks if c.choices]
    said = [c.delta.content for c in choices if c.delta.content]
    assert said == ["1", *(f" {i}" for i in range(2, 201))]
    thought = [t for c in choices if (t := getattr(c.delta, "reasoning_content", None))]
    assert "".join(thought) == "The person wants me to count to 200."
    assert [c.finish_reason for c in choices][-2:] == [None, "stop"]
    assert chunks[-1].usage.completion_tokens == 200 + len(thought)
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens


async def test_chat_in_one_piece_says_what_its_stream_says(client: AsyncOpenAI) -> None:
    asked: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "12 + 4"}]}]
    whole = await client.chat.completions.create(model="m", messages=asked)
    chunks = await chat_chunks(client, asked)
    assert whole.choices[0].message.content == "12 + 4 is 16." == "".join(c.choices[0].delta.content or "" for c in chunks)
    assert getattr(whole.choices[0].message, "reasoning_content", None)
    assert whole.choices[0].finish_reason == "stop"


async def test_chat_tool_calls_come_in_parts_and_their_outputs_are_used(client: AsyncOpenAI) -> None:
    asked: Any = [{"role": "user", "content": "weather in Oslo and Rome"}]
    chunks = await chat_chunks(client, asked, tools=FOR_CHAT)
    parts = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    arguments = ["".join(p.function.arguments or "" for p in parts if p.index == i) for i in (0, 1)]
    assert [json.loads(a) for a in arguments] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert all(sum(bool(p.function.arguments) for p in parts if p.index == i) >= 2 for i in (0, 1))
    whole = await client.chat.completions.create(model="m", messages=asked, tools=FOR_CHAT)
    message = whole.choices[0].message
    assert [c.id for c in message.tool_calls or []] == [p.id for p in parts if p.id]
    outputs = [
        {"role": "tool", "tool_call_id": c.id, "content": sky} for c, sky in zip(message.tool_calls or [], ("snow", "sun"), strict=True)
    ]
    after = await client.chat.completions.create(model="m", messages=[*asked, message, *outputs], tools=FOR_CHAT)
    assert after.choices[0].message.content == "get_weather says about Oslo: snow. get_weather says about Rome: sun."


# ---- Responses ----


async def test_every_event_has_the_shape_of_its_type_and_the_next_number(client: AsyncOpenAI) -> None:
    """Held strictly against the types of the installed package, which the client itself does not check."""
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for more in ({}, {"max_output_tokens": 12}):
        seen = await events(client, "weather in Oslo", tools=FOR_RESPONSES, **more)
        assert [e.sequence_number for e in seen] == list(range(len(seen)))
        for event in seen:
            checked = adapter.validate_python(event.to_dict())
            assert checked.type == event.type
            assert checked.model_extra in (None, {})
    assert list(dict.fromkeys(e.type for e in await events(client, "weather in Oslo", tools=FOR_RESPONSES))) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
    ]


async def test_responses_streams_one_token_a_number(client: AsyncOpenAI) -> None:
    seen = await events(client, "count to 200")
    assert deltas(seen) == ["1", *(f" {i}" for i in range(2, 201))]
    thought = deltas(seen, "response.reasoning_summary_text.delta")
    assert "".join(thought) == "The person wants me to count to 200."
    assert seen[-1].response.status == "completed"
    assert seen[-1].response.output_text == "".join(deltas(seen))
    assert seen[-1].response.usage.output_tokens == 200 + len(thought)


async def test_responses_tool_loop_and_previous_response(client: AsyncOpenAI) -> None:
    """A call's output may follow the whole conversation or `previous_response_id`: the answer is the same."""
    asked: Any = [{"role": "user", "content": "How is the weather?"}]
    first = await client.responses.create(model="m", input=asked, tools=FOR_RESPONSES)
    call = next(item for item in first.output if item.type == "function_call")
    assert (call.name, json.loads(call.arguments)["text"]) == ("ask", "Which city?")
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Oslo"}]
    items: Any = [*asked, *(item.to_dict() for item in first.output), *output]
    whole = await client.responses.create(model="m", input=items, tools=FOR_RESPONSES)
    short = await client.responses.create(model="m", input=output, tools=FOR_RESPONSES, previous_response_id=first.id)
    for second in (whole, short):
        called = next(item for item in second.output if item.type == "function_call")
        assert (called.name, json.loads(called.arguments)) == ("get_weather", {"city": "Oslo"})
    assert (await client.responses.retrieve(short.id)).output == short.output


async def test_a_limit_on_tokens_ends_incomplete(client: AsyncOpenAI) -> None:
    seen = await events(client, "count to 50", max_output_tokens=12)
    assert (seen[-1].type, seen[-1].response.incomplete_details.reason) == ("response.incomplete", "max_output_tokens")
    assert seen[-1].response.usage.output_tokens == 12
    chunks = await chat_chunks(client, [{"role": "user", "content": "count to 50"}], max_tokens=12)
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_models_and_any_name(client: AsyncOpenAI) -> None:
    assert [m.id async for m in client.models.list()] == [model.NAME]
    assert (await client.responses.create(model="whatever", input="1 + 1")).model == "whatever"


# ---- background ----


async def test_background_run_is_re_attached_after_every_number() -> None:
    """The client leaves; the run goes on; after any cursor exactly what comes after it arrives, live or later."""
    gate = Gate(10)
    async with model.serve(sleep=gate) as server, client_of(server.url) as client:
        async with await client.responses.create(model="m", input="count to 5", background=True, stream=True) as stream:
            first = await anext(aiter(stream))
        assert (await server.ended(1)).outcome == "left"
        live = await client.responses.retrieve(first.response.id, stream=True, starting_after=first.sequence_number)
        assert (await client.responses.retrieve(first.response.id)).status == "in_progress"
        gate.open()
        seen = [first, *[e async for e in live]]
        assert "".join(deltas(seen)) == "1 2 3 4 5"
        assert seen[-1].type == "response.completed"
        assert [e.sequence_number for e in seen] == list(range(len(seen)))
        for after in range(len(seen)):
            later = await client.responses.retrieve(first.response.id, stream=True, starting_after=after)
            assert [e async for e in later] == seen[after + 1 :]
        assert (await client.responses.retrieve(first.response.id)).output_text == "1 2 3 4 5"


async def test_background_run_is_cancelled() -> None:
    """Its stream just ends, no token follows, and a second cancel changes nothing."""
    gate = Gate(12)
    async with model.serve(sleep=gate) as server, client_of(server.url) as client:
        stream = await client.responses.create(model="m", input="count to 500", background=True, stream=True)
        seen: list[Any] = []
        async for event in stream:
            seen.append(event)
            if deltas(seen)[-1:] == [" 2"]:
                break
        cancelled = await client.responses.cancel(seen[0].response.id)
        gate.open()
        rest = [e async for e in stream]
        assert cancelled.status == "cancelled"
        assert not [e for e in rest if e.type in ("response.completed", "response.failed")]
        assert server.tokens_made == 12
        assert (await client.responses.cancel(cancelled.id)).status == "cancelled"
        with pytest.raises(openai.BadRequestError, match="background mode"):
            await client.responses.cancel((await client.responses.create(model="m", input="1 + 1")).id)


async def test_background_without_a_stream_is_asked_for_its_status() -> None:
    gate = Gate(3)
    async with model.serve(sleep=gate) as server, client_of(server.url) as client:
        begun = await client.responses.create(model="m", input="what is 6 * 7", background=True)
        assert (begun.status, begun.output) == ("in_progress", [])
        gate.open()
        follow = await client.responses.retrieve(begun.id, stream=True)
        assert [e async for e in follow][-1].type == "response.completed"
        assert (await client.responses.retrieve(begun.id)).output_text == "6 * 7 is 42."


async def test_only_so_many_finished_responses_are_kept() -> None:
    async with model.serve(pace=None, keep=2) as server, client_of(server.url) as client:
        made = [(await client.responses.create(model="m", input="1 + 1")).id for _ in range(4)]
        hidden = await client.responses.create(model="m", input="1 + 1", store=False)
        with pytest.raises(openai.NotFoundError, match="not found"):
            await client.responses.retrieve(hidden.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made[0])
        assert (await client.responses.retrieve(made[-1])).status == "completed"


# ---- clients that leave ----


@pytest.mark.parametrize("dialect", ["chat", "responses"])
async def test_a_client_that_leaves_stops_the_model_at_once(dialect: str) -> None:
    """The server notices within 50 ms, and no token more is made."""
    assert min([await seconds_until_noticed(dialect) for _ in range(3)]) < AT_ONCE


async def seconds_until_noticed(dialect: str) -> float:
    gate = Gate(15)
    async with model.serve(sleep=gate) as server, client_of(server.url) as client:
        if dialect == "chat":
            stream: Any = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "count to 500"}], stream=True
            )
        else:
            stream = await client.responses.create(model="m", input="count to 500", stream=True)
        async with stream:
            async for _ in stream:
                if server.tokens_sent == 15:
                    break
        left = time.monotonic()
        record = await server.ended(1)
        noticed = time.monotonic() - left
        gate.open()
        assert (record.outcome, record.tokens, record.model) == ("left", 15, "m")
        await client.models.list()
        assert (server.tokens_made, server.tokens_sent) == (15, 15)
    return noticed


async def test_a_client_that_gives_up_waiting_stops_the_model_too() -> None:
    gate = Gate(3)
    async with model.serve(sleep=gate) as server, client_of(server.url) as client:
        asking = asyncio.create_task(client.responses.create(model="m", input="count to 500"))
        await gate.used_up.wait()
        asking.cancel()
        record = await server.ended(1)
        assert (record.method, record.path, record.outcome, record.body["input"]) == ("POST", "/v1/responses", "left", "count to 500")


async def test_leaving_the_block_drops_open_streams_at_once() -> None:
    """Foreground, background and stalled: nothing keeps the server."""
    loop = asyncio.get_running_loop()
    async with client_of("http://127.0.0.1:9/v1") as client, model.serve(sleep=Gate(5)) as server:
        client.base_url = server.url
        server.fail_next(Stall(after=1))
        streams = [await client.responses.create(model="m", input="count to 99", stream=True, background=b) for b in (False, False, True)]
        for stream in streams:
            await anext(aiter(stream))
        before = loop.time()
    assert loop.time() - before < 0.5  # uvicorn's own way would wait for the stalled one
    for stream in streams:
        with pytest.raises(openai.APIConnectionError):
            [e async for e in stream]


def test_it_runs_in_another_threads_loop() -> None:
    said: list[str] = []

    async def talk() -> None:
        async with model.serve(pace=None) as server, client_of(server.url) as client:
            said.append((await client.responses.create(model="m", input="1 + 1")).output_text)

    thread = threading.Thread(target=lambda: asyncio.run(talk()))
    thread.start()
    thread.join()
    assert said == ["1 + 1 is 2."]


# ---- pace ----


async def test_pace_is_kept_and_may_change_meanwhile() -> None:
    """Delays are measured from deadlines: what was slept too long is not added up."""
    now = 0.0
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds + 0.001  # wakes a millisecond late
        if len(slept) == 20:
            server.pace = 100.0

    async with model.serve(pace=10.0, sleep=sleep, clock=lambda: now) as server, client_of(server.url) as client:
        await client.responses.create(model="m", input="count to 32")
        assert slept[0] == pytest.approx(0.1)
        assert slept[1:20] == [pytest.approx(0.099)] * 19
        assert slept[20:] == [pytest.approx(0.009)] * (len(slept) - 20)
        with pytest.raises(ValueError, match="tokens per second"):
            server.pace = 0
        server.pace = float("inf")
        assert server.pace is None


# ---- faults ----


async def test_refusals_look_like_the_real_ones(server: model.Server, client: AsyncOpenAI) -> None:
    server.fail_next(model.wrong_key("sk-secret"), model.rate_limited(0.5), model.server_error())
    with pytest.raises(openai.AuthenticationError) as wrong:
        await client.responses.create(model="m", input="1 + 1")
    assert wrong.value.code == "invalid_api_key"
    assert "secret" not in str(wrong.value)
    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "1 + 1"}], stream=True)
    assert (limited.value.response.headers["retry-after"], limited.value.code) == ("0.5", "rate_limit_exceeded")
    with pytest.raises(openai.InternalServerError):
        await client.models.list()
    assert (await client.responses.create(model="m", input="1 + 1")).output_text == "1 + 1 is 2."
    assert [r.status for r in server.requests] == [401, 429, 500, 200]


async def test_the_clients_own_retries_get_through(server: model.Server, client: AsyncOpenAI) -> None:
    server.fail_next(model.rate_limited(0.001), model.rate_limited(0.001))
    patient = client.with_options(max_retries=2)
    assert (await patient.responses.create(model="m", input="1 + 1")).output_text == "1 + 1 is 2."
    assert [r.status for r in server.requests] == [429, 429, 200]


async def test_a_key_that_is_not_the_servers_is_refused() -> None:
    async with model.serve(key="right") as server:
        async with client_of(server.url, "wrong") as client:
            with pytest.raises(openai.AuthenticationError, match=r"wron\*\*\*"):
                await client.models.list()
        async with client_of(server.url, "right") as client:
            assert [m.id async for m in client.models.list()]


@pytest.mark.parametrize("after", [0, 1, 7])
async def test_a_cut_drops_the_connection_after_so_many_events(server: model.Server, client: AsyncOpenAI, after: int) -> None:
    server.fail_next(Cut(after))
    stream = await client.responses.create(model="m", input="count to 50", stream=True)
    assert [(await anext(stream)).sequence_number for _ in range(after)] == list(range(after))
    with pytest.raises(openai.APIConnectionError):
        await anext(stream)
    assert (await server.ended(1)).outcome == "cut"


async def test_a_clean_cut_ends_the_body_without_a_terminal_event(server: model.Server, client: AsyncOpenAI) -> None:
    """Which the client does not notice: the trap that `retrieve` is for."""
    server.fail_next(Cut(4, clean=True))
    seen = await events(client, "count to 50", background=True)
    assert len(seen) == 4
    rest = [e async for e in await client.responses.retrieve(seen[0].response.id, stream=True, starting_after=3)]
    assert "".join(deltas(rest)) == " ".join(map(str, range(1, 51)))
    server.fail_next(Cut(3, clean=True))
    assert len(await chat_chunks(client, [{"role": "user", "content": "count to 50"}])) == 3


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stall_says_nothing_until_the_client_leaves(server: model.Server, client: AsyncOpenAI, stream: bool) -> None:
    server.fail_next(Stall(2))
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.05).responses.create(model="m", input="count to 50") if not stream else await events(
            client.with_options(timeout=0.05), "count to 50"
        )
    record = await server.ended(1)
    assert (record.outcome, record.tokens, server.tokens_made) == ("left", 0, 0)


async def test_the_model_itself_fails_in_mid_stream(server: model.Server, client: AsyncOpenAI) -> None:
    server.fail_next(Fail(9), Fail(4), Fail(4), Fail(4))
    seen = await events(client, "count to 50", background=True)
    assert (len(seen), seen[-1].type, seen[-1].sequence_number) == (10, "response.failed", 9)
    assert seen[-1].response.error.code == "server_error"
    with pytest.raises(openai.APIError, match="The server had an error"):
        await chat_chunks(client, [{"role": "user", "content": "count to 50"}])
    assert (await client.responses.create(model="m", input="count to 50")).status == "failed"
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "count to 50"}])
    assert (await client.responses.retrieve(seen[0].response.id)).status == "failed"


# ---- bad requests ----

CALL: Any = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
BAD: list[tuple[str, Any, str | None]] = [
    ("/responses", {"input": "x"}, "model"),
    ("/responses", {"model": "m"}, "input"),
    ("/responses", {"model": "", "input": "x"}, "model"),
    ("/responses", {"model": "m", "input": 3}, "input"),
    ("/responses", {"model": "m", "input": [{"role": "user"}]}, "input[0].content"),
    ("/responses", {"model": "m", "input": [{"role": "king", "content": ""}]}, "input[0].role"),
    ("/responses", {"model": "m", "input": [{"type": "nonsense"}]}, "input[0].type"),
    ("/responses", {"model": "m", "input": "x", "max_output_tokens": 0}, "max_output_tokens"),
    ("/responses", {"model": "m", "input": "x", "previous_response_id": "resp_none"}, "previous_response_id"),
    ("/responses", {"model": "m", "input": "x", "background": True, "store": False}, "background"),
    ("/responses", {"model": "m", "input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}, "input"),
    ("/responses", {"model": "m", "input": [CALL]}, "input"),
    (
        "/responses",
        {"model": "m", "input": "x", "tools": [{"type": "function", "name": "f", "parameters": {"properties": 3}}]},
        "tools[0].parameters",
    ),
    ("/chat/completions", {"model": "m"}, "messages"),
    ("/chat/completions", {"model": "m", "messages": []}, "messages"),
    ("/chat/completions", {"model": 3, "messages": []}, "model"),
    ("/chat/completions", {"model": "m", "messages": [{"content": "x"}]}, "messages[0].role"),
    ("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ("/chat/completions", {"model": "m", "messages": [{"role": "tool", "tool_call_id": "c", "content": ""}]}, "messages"),
    ("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": ""}], "stream": "yes"}, "stream"),
    ("/chat/completions", [], None),
]


@pytest.mark.parametrize(("path", "body", "param"), BAD)
async def test_a_bad_request_is_told_which_field(client: AsyncOpenAI, path: str, body: Any, param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.post(path, body=body, cast_to=object)
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": "\xff"}', b"[" * 100_000, b'{"model": "m", "input": "\\ud800"}'])
async def test_a_body_that_is_no_json_is_a_bad_request(client: AsyncOpenAI, body: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match="JSON"):
        await client.post("/responses", content=body, cast_to=object)


async def test_what_is_not_there_is_404_and_a_bad_cursor_400(client: AsyncOpenAI) -> None:
    for asking in (client.responses.retrieve("resp_none"), client.responses.cancel("resp_none"), client.get("/nothing", cast_to=object)):
        with pytest.raises(openai.NotFoundError):
            await asking
    with pytest.raises(openai.APIStatusError) as error:
        await client.get("/responses", cast_to=object)
    assert error.value.status_code == 405
    made = await client.responses.create(model="m", input="1 + 1")
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.retrieve(made.id, stream=True)
    made = await client.responses.create(model="m", input="1 + 1", background=True)
    with pytest.raises(openai.BadRequestError) as bad:
        await client.responses.retrieve(made.id, stream=True, extra_query={"starting_after": "x"})
    assert bad.value.param == "starting_after"
    assert [e async for e in await client.responses.retrieve(made.id, stream=True, starting_after=10**6)] == []
