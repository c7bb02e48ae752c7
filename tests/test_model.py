"""The embedded model, as the real `openai` client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from kit.agents import model
from kit.agents.conversation import Call, Item, Message, Wanted
from kit.agents.embedded import templates
from kit.agents.embedded.intents import QUESTIONS, Reply
from kit.agents.embedded.replies import reply, tokens
from kit.agents.embedded.requests import Schema
from kit.agents.model import Cut, Stall

OFFERED: dict[str, Any] = {
    "get_weather": {"properties": {"city": {"type": "string"}}, "required": ["city"]},
    "ask": {"properties": {"text": {"type": "string"}, "choices": {"type": "array"}}, "required": ["text"]},
    "set_theme": {"properties": {"theme": {"enum": ["light", "dark"]}}, "required": ["theme"]},
    "show_note": {"properties": {"text": {"type": "string"}, "seconds": {"type": "integer"}}, "required": ["text"]},
    "get_selection": {},
}
TOOLS = {name: msgspec.convert(schema, Schema) for name, schema in OFFERED.items()}
FOR_CHAT: Any = [{"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in OFFERED.items()]
FOR_RESPONSES: Any = [{"type": "function", "name": name, "parameters": schema, "strict": False} for name, schema in OFFERED.items()]
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


def told(prompt: str, *items: Item, tools: Mapping[str, Schema] = TOOLS) -> Reply:
    return reply((Message("user", prompt), *items), tools)


def called(said: Reply) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, json.loads(call.arguments)) for call in said.calls]


def ran(call: Wanted, output: str) -> Call:
    return Call(*call, output)


async def chat_chunks(client: AsyncOpenAI, messages: Any, **more: Any) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True, **more)]


async def events(client: AsyncOpenAI, input: Any, **more: Any) -> list[Any]:
    return [event async for event in await client.responses.create(model="m", input=input, stream=True, **more)]


def deltas(seen: list[Any], type: str = "response.output_text.delta") -> list[str]:
    return [event.delta for event in seen if event.type == type]


# ---- what is said ----


def test_counting_says_the_numbers_and_nothing_else() -> None:
    """One token a number, the space before it included; up to 10,000."""
    assert tokens(told("Please count slowly to 4, thanks").content) == ["1", " 2", " 3", " 4"]
    assert tokens(told("count to 10,000").content)[9_998:] == [" 9999", " 10000"]
    for far in ("10001", "9" * 3000):
        assert told(f"count to {far}").content == "I count to 10000 at most."
    assert told("count to 200").thought == "The person wants me to count to 200."


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("what is 17 * 23", "17 * 23 is 391."),
        ("12 + 4", "12 + 4 is 16."),
        ("What's 2 + 3 * 4 - 1?", "2 + 3 * 4 - 1 is 13."),
        ("0.1 + 0.2", "0.1 + 0.2 is 0.3."),
        ("-5 - 6/4", "-5 - 6/4 is -6.5."),
        ("10 / 3", "10 / 3 is about 3.33333333333."),
        ("123456789 * 987654321", "123456789 * 987654321 is 121932631112635269."),
    ],
)
def test_a_sum_is_exact(prompt: str, answer: str) -> None:
    assert told(prompt).content == answer


@pytest.mark.parametrize("prompt", ["1/0", "9**9", "1 2 + 3", "2 +", "2 -- 3", "42", "--1", "", "Tell me about   frogs", "hello world"])
def test_what_is_not_in_the_script_is_said_to_be_so(prompt: str) -> None:
    """With the way to a real model."""
    said = told(prompt)
    assert f"“{' '.join(prompt.split())}” is beyond my script" in said.content
    assert all(name in said.content for name in ("scripted model", "OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL"))
    assert not said.calls


@pytest.mark.parametrize(
    ("prompt", "first"),
    [("hello", "Hello!"), ("Hi there!", "Hello!"), ("Good morning", "Hello!"), ("help", "I am"), ("What can you do?", "I am")],
)
def test_a_greeting_is_returned_and_it_says_what_it_can_do(prompt: str, first: str) -> None:
    """And what it is: nobody shall take it for a model."""
    said = told(prompt)
    assert said.content.startswith(first)
    assert "beyond" not in said.content
    assert all(part in said.content for part in ("scripted model", "count to 20", "OPENAI_API_KEY"))
    assert not said.calls


@given(st.text("0123456789.+-*/() ", max_size=60) | st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_prompt_breaks_the_script(text: str) -> None:
    """Whatever is asked, something is said, and said again from the middle."""
    said = told(text, tools={}).content
    assert said
    assert said[:7] + told(text, Message("assistant", said[:7]), tools={}).content == said


def test_the_weather_comes_from_the_table_without_a_tool() -> None:
    for city in templates.WEATHER:
        assert told(f"weather in {city.lower()}?", tools={}).content.startswith(f"In {city} it is")
    assert "In Oslo it is 4 °C, light snow" in told("What's the weather in Rome and Oslo?", tools={}).content
    assert told("weather in Trondheim tomorrow", tools={}).content.startswith("Trondheim is not in the small table")


def test_the_weather_tool_is_called_once_per_city_and_its_result_told() -> None:
    asked = "What is the weather in Oslo and Rome?"
    first = told(asked)
    assert first.thought
    assert first.content == "Let me look up Oslo and Rome:"
    assert called(first) == [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})]
    oslo, rome = ran(first.calls[0], '{"celsius": 4, "sky": "snow"}'), ran(first.calls[1], "18 degrees.")
    after = told(asked, Message("assistant", first.content), oslo, rome)
    assert after.content == "The tool says about Oslo: celsius 4, sky snow. The tool says about Rome: 18 degrees."
    assert not after.calls
    assert called(told(asked, oslo)) == [("get_weather", {"city": "Rome"})]


def test_a_missing_city_is_asked_for_and_the_answer_taken_up() -> None:
    """With the tool `ask` through it, and then through the weather tool; without it in plain text."""
    asked = told("How is the weather?")
    assert called(asked) == [("ask", {"text": "Which city?", "choices": ["Oslo", "Berlin", "Paris", "London"]})]
    for answer in ("Rome", "Trondheim"):
        assert called(told("How is the weather?", ran(asked.calls[0], answer))) == [("get_weather", {"city": answer})]
    plain = Message("assistant", told("How is the weather?", tools={}).content)
    assert plain.text.startswith("Which city?")
    assert told("How is the weather?", plain, Message("user", "Cairo"), tools={}).content.startswith("In Cairo it is 28 °C")
    assert told("bo: weather?", plain, Message("user", "ann: Trondheim"), tools={}).content.startswith("Trondheim is not")
    assert told("How is the weather?", plain, Message("user", "count to 2"), tools={}).content == "1 2"


@pytest.mark.parametrize(
    ("prompt", "name", "arguments"),
    [
        ("Please set the theme to dark", "set_theme", {"theme": "dark"}),
        ("get my selection", "get_selection", {}),
        ('show a note "hi 3 there" for 5 seconds', "show_note", {"text": "hi 3 there", "seconds": 5}),
        ("show a note", "show_note", {"text": "show a note"}),
    ],
)
def test_a_tool_that_the_prompt_names_is_called_and_its_result_told(prompt: str, name: str, arguments: dict[str, Any]) -> None:
    first = told(prompt)
    assert called(first) == [(name, arguments)]
    after = told(prompt, ran(first.calls[0], "ok"))
    assert (after.content, after.calls) == (f"I called {name}, and it answered: ok.", [])
    assert not told(prompt, tools={}).calls
    assert not told("what is a theme").calls


def test_code_is_written_into_a_document_where_there_is_a_tool_for_it() -> None:
    tools = {"write_document": Schema()}
    first = told("write a function for fibonacci into fib.py", tools=tools)
    ((name, arguments),) = called(first)
    assert (name, arguments["name"]) == ("write_document", "fib.py")
    assert "def fibonacci" in arguments["text"]
    after = told("write a function for fibonacci into fib.py", ran(first.calls[0], "written"), tools=tools)
    assert (after.content, after.calls) == ("The function for fibonacci, into fib.py: written.", [])
    assert "```python" in told("write a function for fibonacci into fib.py").content


@pytest.mark.parametrize(
    ("wanted", "name", "argument", "value"),
    [
        ("fibonacci numbers", "fibonacci", 8, [0, 1, 1, 2, 3, 5, 8, 13]),
        ("prime numbers", "is_prime", 91, False),
        ("a prime test", "is_prime", 97, True),
    ],
)
def test_the_code_that_it_writes_runs_and_is_right(wanted: str, name: str, argument: Any, value: Any) -> None:
    answer = told(f"Write a function for {wanted}").content
    space: dict[str, Any] = {}
    exec(answer.partition("```python\n")[2].partition("```")[0], space)
    assert space[name](argument) == value


def test_code_and_plans_ask_back_too() -> None:
    """The answer is read as if it stood at the prompt's end."""
    assert told("Plan a trip to Rome").content.startswith("A plan for a trip to Rome:\n\n1. ")
    for prompt, answer, said in (("make a plan", "a talk", "A plan for a talk:"), ("write some code", "prime", "Here it is:")):
        asked = told(prompt)
        assert called(asked)[0][1]["text"] in QUESTIONS
        assert told(prompt, ran(asked.calls[0], answer)).content.startswith(said)


def test_the_last_prompt_decides_whoever_speaks() -> None:
    """A steer makes the half-said answer context; where several people share a session, each prompt says whose it is."""
    assert told("count to 9", Message("assistant", "1 2 3"), Message("user", "what is 2 + 2")).content == "2 + 2 is 4."
    assert told("ann: what is 2 + 2").content == "2 + 2 is 4."


# ---- half-said answers ----


def conversations() -> dict[str, list[Item]]:
    look = told("weather in Oslo")
    prompts = ["count to 30", "what is 17 * 23", "weather in Oslo", "write a function for primes", "plan a talk", "frogs?", "count to 1"]
    after: list[Item] = [Message("user", "weather in Oslo"), Message("assistant", look.content), ran(look.calls[0], "snow")]
    return {prompt: [Message("user", prompt)] for prompt in prompts} | {"after the tool": after}


@pytest.mark.parametrize("name", conversations())
def test_a_half_said_answer_is_continued_exactly_at_every_cut(name: str) -> None:
    """Cut at any character, whole tokens or not, in one message or two: the rest, no thought again, and the same calls."""
    asked = conversations()[name]
    whole = reply(asked, TOOLS)
    for cut in range(1, len(whole.content) + 1):
        for parts in ((whole.content[:cut],), (whole.content[: cut // 2], whole.content[cut // 2 : cut])):
            rest = reply([*asked, *(Message("assistant", part) for part in parts)], TOOLS)
            assert whole.content[:cut] + rest.content == whole.content
            assert (rest.thought, rest.calls) == ("", whole.calls)


def test_a_call_has_the_same_id_on_every_instance_and_another_in_another_place() -> None:
    """The id is what makes a tool run once, so it must survive a crash and not be reused later in the conversation."""
    first = told("get my selection")
    assert told("get my selection").calls == first.calls
    again = told("get my selection", ran(first.calls[0], "a"), Message("assistant", "Done."), Message("user", "get my selection"))
    assert again.calls[0].name == "get_selection"
    assert again.calls[0].call != first.calls[0].call
    two = told("weather in Oslo and Rome").calls
    assert two[0].call != two[1].call


async def test_both_dialects_continue_a_half_said_answer(client: AsyncOpenAI) -> None:
    text = " ".join(map(str, range(1, 13)))
    for cut in range(1, len(text) + 1):
        asked: Any = [{"role": "user", "content": "count to 12"}, {"role": "assistant", "content": text[:cut]}]
        chat = await client.chat.completions.create(model="m", messages=asked)
        assert text[:cut] + (chat.choices[0].message.content or "") == text
        response = await client.responses.create(model="m", input=asked)
        assert text[:cut] + response.output_text == text
        assert [item.type for item in response.output] == (["message"] if cut < len(text) else [])


async def test_two_servers_say_the_same(server: model.Server, client: AsyncOpenAI) -> None:
    """What is said depends on the conversation and on nothing that a process holds."""
    asked: Any = [{"role": "user", "content": "weather in Oslo"}]
    async with model.serve(pace=None) as other, client_of(other.url) as there:
        first, second = [await c.chat.completions.create(model="m", messages=asked, tools=FOR_CHAT) for c in (client, there)]
        assert first.choices[0].message.tool_calls
        assert first.choices == second.choices


# ---- Chat Completions ----


async def test_chat_streams_thought_then_one_token_a_number(client: AsyncOpenAI) -> None:
    chunks = await chat_chunks(client, [{"role": "user", "content": "count to 200"}])
    choices = [c.choices[0] for c in chunks if c.choices]
    said = [c.delta.content for c in choices if c.delta.content]
    assert said == ["1", *(f" {i}" for i in range(2, 201))]
    thought = [t for c in choices if (t := getattr(c.delta, "reasoning_content", None))]
    assert "".join(thought) == "The person wants me to count to 200."
    assert [c.finish_reason for c in choices][-2:] == [None, "stop"]


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
    assert after.choices[0].message.content == "The tool says about Oslo: snow. The tool says about Rome: sun."


# ---- Responses ----


async def test_every_event_has_the_shape_of_its_type_and_the_next_number(client: AsyncOpenAI) -> None:
    """Held strictly against the types of the installed package, which the client itself does not check."""
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    seen = await events(client, "weather in Oslo", tools=FOR_RESPONSES)
    assert [e.sequence_number for e in seen] == list(range(len(seen)))
    for event in seen:
        checked = adapter.validate_python(event.to_dict())
        assert checked.type == event.type
        assert checked.model_extra in (None, {})
    assert list(dict.fromkeys(e.type for e in seen)) == [
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


async def test_responses_tool_loop_takes_back_what_was_said(client: AsyncOpenAI) -> None:
    """The items of an answer, thoughts included, are part of the next request."""
    asked: Any = [{"role": "user", "content": "How is the weather?"}]
    first = await client.responses.create(model="whatever", input=asked, tools=FOR_RESPONSES)
    call = next(item for item in first.output if item.type == "function_call")
    assert (first.model, call.name, json.loads(call.arguments)["text"]) == ("whatever", "ask", "Which city?")
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Oslo"}
    again: Any = [*asked, *(item.to_dict() for item in first.output), output]
    second = await client.responses.create(model="m", input=again, tools=FOR_RESPONSES)
    call = next(item for item in second.output if item.type == "function_call")
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Oslo"})


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


async def test_background_without_a_stream_is_asked_for_its_status() -> None:
    gate = Gate(3)
    async with model.serve(sleep=gate) as server, client_of(server.url) as client:
        begun = await client.responses.create(model="m", input="what is 6 * 7", background=True)
        assert (begun.status, begun.output) == ("in_progress", [])
        gate.open()
        follow = await client.responses.retrieve(begun.id, stream=True)
        assert [e async for e in follow][-1].type == "response.completed"
        assert (await client.responses.retrieve(begun.id)).output_text == "6 * 7 is 42."


async def test_only_the_last_background_responses_are_kept(client: AsyncOpenAI) -> None:
    made = [(await client.responses.create(model="m", input="1 + 1", background=True)).id for _ in range(201)]
    foreground = await client.responses.create(model="m", input="1 + 1")
    for forgotten in (made[0], foreground.id):
        with pytest.raises(openai.NotFoundError, match="not found"):
            await client.responses.retrieve(forgotten)
    assert (await client.responses.retrieve(made[1])).status == "completed"


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
        assert (record.outcome, record.body["model"]) == ("left", "m")
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("any other request")
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


async def test_a_client_that_leaves_before_it_has_asked_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """It hangs up in the middle of its request's body: recorded, and nothing is logged."""
    async with model.serve() as server:
        address = urlsplit(server.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        record = await server.ended(1)
    assert (record.path, record.status, record.outcome) == ("/v1/responses", 0, "left")
    assert caplog.records == []


async def test_a_client_that_leaves_a_stream_is_written_to_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """Not in the step in which it goes either, though a whole run is there to be sent: asyncio logs the fifth such write."""
    async with model.serve(pace=None) as server, client_of(server.url) as client:
        made = await client.responses.create(model="m", input="count to 100", background=True)
        while made.status == "in_progress":
            made = await client.responses.retrieve(made.id)
        address = urlsplit(server.url)
        for steps in range(40):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(f"GET /v1/responses/{made.id}?stream=true HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            for _ in range(steps):
                await asyncio.sleep(0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await client.responses.retrieve(made.id)  # meanwhile the server sees it
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


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
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        server.pace = 10.0 if len(slept) < 20 else 100.0 if len(slept) < 30 else None

    async with model.serve(pace=10.0, sleep=sleep) as server, client_of(server.url) as client:
        await client.responses.create(model="m", input="count to 32")
        assert slept == [0.1] * 20 + [0.01] * 10 + [0.0] * (len(slept) - 30)
        assert len(slept) == server.tokens_made == 32 + len(tokens("The person wants me to count to 32."))


# ---- faults ----


async def test_refusals_look_like_the_real_ones(server: model.Server, client: AsyncOpenAI) -> None:
    server.fail_next(model.rate_limited(0.5), model.Refuse(500, "It broke.", "server_error"))
    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "1 + 1"}], stream=True)
    assert (limited.value.response.headers["retry-after"], limited.value.code) == ("0.5", "rate_limit_exceeded")
    with pytest.raises(openai.InternalServerError):
        await client.responses.retrieve("any")
    assert (await client.responses.create(model="m", input="1 + 1")).output_text == "1 + 1 is 2."
    assert [(r.status, r.outcome) for r in server.requests] == [(429, "answered"), (500, "answered"), (200, "answered")]


async def test_the_clients_own_retries_get_through(server: model.Server, client: AsyncOpenAI) -> None:
    server.fail_next(model.rate_limited(0.001), model.rate_limited(0.001))
    patient = client.with_options(max_retries=2)
    assert (await patient.responses.create(model="m", input="1 + 1")).output_text == "1 + 1 is 2."
    assert [r.status for r in server.requests] == [429, 429, 200]


async def test_a_key_that_is_not_the_servers_is_refused() -> None:
    async with model.serve(pace=None, key="right") as server:
        async with client_of(server.url, "wrong-secret") as client:
            with pytest.raises(openai.AuthenticationError, match=r"wron\*\*\*") as wrong:
                await client.responses.create(model="m", input="1 + 1")
        assert (wrong.value.code, "secret" in str(wrong.value)) == ("invalid_api_key", False)
        async with client_of(server.url, "right") as client:
            assert (await client.responses.create(model="m", input="1 + 1")).output_text == "1 + 1 is 2."


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
    assert (record.outcome, server.tokens_sent, server.tokens_made) == ("left", 0, 0)


# ---- bad requests ----

CALL: Any = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
SCHEMA: Any = {"type": "function", "name": "f", "parameters": {"properties": 3}}
BAD: list[tuple[str, Any, str | None]] = [
    ("/responses", {"input": "x"}, "model"),
    ("/responses", {"model": "m"}, None),
    ("/responses", {"model": "m", "input": 3}, "input"),
    ("/responses", {"model": "m", "input": [{"role": "king", "content": ""}]}, "input[0].role"),
    ("/responses", {"model": "m", "input": [{"type": "nonsense"}]}, "input[0].type"),
    ("/responses", {"model": "m", "input": "x", "previous_response_id": "resp_any"}, "previous_response_id"),
    ("/responses", {"model": "m", "input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}, None),
    ("/responses", {"model": "m", "input": [CALL]}, None),
    ("/responses", {"model": "m", "input": "x", "tools": [SCHEMA]}, "tools[0].parameters.properties"),
    ("/chat/completions", {"model": 3, "messages": []}, "model"),
    ("/chat/completions", {"model": "m", "messages": []}, None),
    ("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ("/chat/completions", {"model": "m", "messages": [{"role": "tool", "tool_call_id": "c", "content": ""}]}, None),
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
    made = await client.responses.create(model="m", input="1 + 1", background=True)
    with pytest.raises(openai.BadRequestError) as bad:
        await client.responses.retrieve(made.id, stream=True, extra_query={"starting_after": "x"})
    assert bad.value.param == "starting_after"
    assert [e async for e in await client.responses.retrieve(made.id, stream=True, starting_after=10**6)] == []
