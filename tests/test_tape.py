"""Tapes: a model is recorded, and played to the real client: same words, same calls, same time, and nothing that should not be there."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError

from kit.agents import model, openai
from kit.agents.model import Cut, Server
from kit.agents.tape import BadTape, NotSaved, Run, Tape
from kit.history import HAND_OVER, AgentError
from kit.packets import Action, Content, Prompt
from tests import test_model, test_openai
from tests.fake_turn import FakeTurn, Killed
from tests.test_model import client_of, deltas, events
from tests.test_openai import TWO_CALLS, agent_on, count_events, over, ran, survives_each_kill

no_environment = test_openai.no_environment  # autouse: no key, no address, a proxy that leads nowhere
server, client, mode = test_model.server, test_model.client, test_openai.mode


async def recorded(server: Server, mode: str, *prompts: str, **options: Any) -> tuple[Tape, FakeTurn]:
    """A tape of a session, and the session."""
    tape, turn = Tape(**options), FakeTurn()
    for prompt in prompts:
        await turn.prompt(prompt).run(agent_on(server, mode, tape=tape))
    return tape, turn


def through_a_file(tape: Tape, folder: Path) -> Tape:
    tape.save(folder / "a.tape")
    return Tape.load(folder / "a.tape")


# ---- what is played ----


async def test_a_tape_is_played_with_the_same_text_calls_and_order(server: Server, mode: str, tmp_path: Path) -> None:
    """Saved, loaded, and asked in other words: the model that says it now never knew any of it."""
    tape, turn = await recorded(server, mode, TWO_CALLS, "count to 5")
    tools = list(ran)
    ran.clear()
    async with model.serve(pace=None) as another:
        another.play(through_a_file(tape, tmp_path), pace=None)
        again = FakeTurn()
        for prompt, then in (("?", TWO_CALLS), ("??", "count to 5")):
            await again.prompt(prompt).run(agent_on(another, mode))
            turn.turn = next(f"{entry.id}/agent" for entry in turn.entries if isinstance(entry, Prompt) and entry.text == then)
            assert again.story() == turn.story()
    assert ran == tools


async def test_every_event_is_played_as_it_came(server: Server, client: AsyncOpenAI, mode: str) -> None:
    """All fields but those that name this response: also those that the kit itself does not read."""
    tape, _ = await recorded(server, mode, "weather in Oslo")
    server.play(tape, pace=None)
    if mode == "chat":
        asked: Any = [{"role": "user", "content": "?"}]
        stream: Any = await client.chat.completions.create(model="m", messages=asked, stream=True)
    else:
        stream = await client.responses.create(model="m", input="?", stream=True)
    seen = [event.to_dict() async for event in stream]
    assert [bare(data) for data in seen] == [bare(moment.data) for moment in tape.runs[0].moments]


def bare(data: dict[str, Any]) -> dict[str, Any]:
    """An event without the id of its response."""
    data = {name: value for name, value in data.items() if name != "id"}
    if "response" in data:
        data["response"] = {n: v for n, v in data["response"].items() if n not in ("id", "background", "tools")}
    return data


async def test_it_is_played_in_its_own_time_or_at_a_given_pace(server: Server, tmp_path: Path) -> None:
    """The waits of the tape, to a tenth of a millisecond; or so many tokens a second."""
    now = [0.0]
    tape = Tape(clock=lambda: now[0])

    async def source() -> AsyncIterator[Any]:
        for at, data in enumerate(CHUNKS):
            now[0] = at**2 / 10  # 0, 0.1, 0.4, 0.9 ...
            yield Raw(data)

    async with aclosing(tape.record(source(), Run("chat", "m"), 0.0)) as passing:
        assert [event async for event in passing]
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 4))

    async with model.serve(sleep=sleep) as another, client_of(another.url) as client:
        for pace, expected in (("tape", [0.1, 0.3, 0.5, 0.7]), (40.0, [0.025] * 3)):
            slept.clear()
            another.play(through_a_file(tape, tmp_path), pace=pace)  # type: ignore[arg-type]  # mypy joins the two
            chunks = [c async for c in await client.chat.completions.create(model="m", messages=ASK, stream=True)]
            assert "".join(c.choices[0].delta.content or "" for c in chunks) == "In Oslo it snows."
            assert slept == expected


async def test_without_a_tape_the_script_is_back(server: Server, client: AsyncOpenAI) -> None:
    tape, _ = await recorded(server, "foreground", "count to 3")
    server.play(tape, pace=None)
    assert "".join(deltas(await events(client, "1 + 1"))) == "1 2 3"
    server.play(None)
    assert "".join(deltas(await events(client, "1 + 1"))) == "1 + 1 is 2."


# ---- resuming, stopping, steering ----


async def test_killed_at_any_event_of_a_played_tape_a_turn_ends_as_if_nothing_had_happened(
    server: Server, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the scripted model: text exact, each tool run once, at the provider's cursor or from what was said."""
    with monkeypatch.context() as patch:
        seen = count_events(patch)
        tape, turn = await recorded(server, mode, "weather in Oslo")
    expected, tools = turn.story(), list(ran)
    server.play(tape, pace=None)
    await survives_each_kill(server, mode, "?", seen[0], expected, tools, monkeypatch)


async def test_a_crash_between_two_calls_asks_for_the_other_one_only(server: Server, mode: str) -> None:
    tape, turn = await recorded(server, mode, TWO_CALLS)
    first = next(i for i, packet in enumerate(turn.history.said, 1) if isinstance(packet, Action))
    tools, text = [city for _, city in ran], turn.story()[-1]
    ran.clear()
    server.play(tape, pace=None)
    turn = FakeTurn().prompt("?")
    with pytest.raises(Killed):
        await turn.run(agent_on(server, mode), None, first)
    await turn.run(agent_on(server, mode))
    assert [city for _, city in ran] == tools
    assert turn.story()[-1] == text


async def test_a_played_response_is_re_attached_at_any_cursor(server: Server, client: AsyncOpenAI) -> None:
    """`starting_after`, as on the script; and each time that a tape is played it is another response."""
    tape, _ = await recorded(server, "background", "count to 5")
    server.play(tape, pace=None)
    seen = await events(client, "?", background=True)
    again = await events(client, "?", background=True)
    assert again[0].response.id != seen[0].response.id
    for after in range(len(seen)):
        later = await client.responses.retrieve(seen[0].response.id, stream=True, starting_after=after)
        assert [e async for e in later] == seen[after + 1 :]
    assert (await client.responses.retrieve(seen[0].response.id)).output_text == "1 2 3 4 5"


async def test_a_stop_ends_a_played_tape(server: Server, mode: str) -> None:
    """The stream is closed, and a background response cancelled: no token more is made."""
    tape, _ = await recorded(server, mode, "count to 1000")
    made = server.tokens_made
    server.play(tape)
    await test_openai.stopped(server, mode)
    requests = (await over(server, 3 if mode == "background" else 2))[1:]
    assert [r.outcome for r in requests if r.method == "POST" and not r.path.endswith("cancel")] == ["left"]
    assert [r.path.rpartition("/")[2] for r in requests[1:]] == (["cancel"] if mode == "background" else [])
    assert server.tokens_made - made < 1000


async def test_a_tape_that_was_stopped_waits_to_be_stopped_and_goes_on(server: Server, mode: str) -> None:
    """Stop and steer are the person's, then and now: wherever they say it, the next run follows."""
    tape, server.pace = Tape(), 200
    turn = FakeTurn().prompt("count to 1000")
    await half(turn, agent_on(server, mode, tape=tape))
    server.pace = None
    await turn.prompt("what is 2 + 2").run(agent_on(server, mode, tape=tape))
    assert [run.ended for run in tape.runs] == ["left", "whole"]
    told = len(tape.runs[0].text)
    assert told
    server.play(tape, pace=None)
    for most in (1, told):
        again = FakeTurn().prompt("?")
        await half(again, agent_on(server, mode), most)
        await again.prompt("no").run(agent_on(server, mode))
        assert again.story()[-1] == ("Content", "2 + 2 is 4.")


async def test_a_tape_that_was_left_stays_silent_after_its_last_event(server: Server, client: AsyncOpenAI) -> None:
    """It does not end as if all had been said, which would be another answer."""
    run = Run("chat", "m", ended="left")
    for at, chunk in enumerate(CHUNKS[:3]):
        run.add(at, chunk)
    tape = Tape()
    tape.runs.append(run)
    server.play(tape, pace=None)
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    assert [(await anext(stream)).choices[0].delta.content for _ in range(3)] == ["", "In Oslo", " it"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(stream)


@pytest.mark.parametrize("mode", ["foreground", "chat"], indirect=True)
async def test_a_half_told_run_is_continued_at_any_character_without_its_thought(server: Server, client: AsyncOpenAI, mode: str) -> None:
    """As the script does; numbered from 0, and with the calls that are left."""
    tape, _ = await recorded(server, mode, "weather in Oslo")
    said = tape.runs[0].text
    server.play(tape, pace=None)
    for cut in range(1, len(said) + 1):
        asked: Any = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said[:cut]}]
        if mode == "chat":
            chunks = [c.choices[0].delta async for c in await client.chat.completions.create(model="m", messages=asked, stream=True)]
            text = "".join(delta.content or "" for delta in chunks)
            assert not any(getattr(delta, "reasoning_content", None) for delta in chunks)
            assert [call.function.name for delta in chunks for call in delta.tool_calls or () if call.function.name] == ["get_weather"]
        else:
            seen = await events(client, asked)
            text = "".join(deltas(seen))
            assert not deltas(seen, "response.reasoning_summary_text.delta")
            assert [event.sequence_number for event in seen] == list(range(len(seen)))
            assert [item.name for item in seen[-1].response.output if item.type == "function_call"] == ["get_weather"]
        assert said[:cut] + text == said


async def half(turn: FakeTurn, agent: Any, most: int = 8) -> None:
    """An answer that is stopped after so many characters, while the agent waits for more."""
    some = asyncio.Event()

    async def answering() -> None:
        said = 0
        async for packet in agent(turn.history):
            turn.store(packet)
            said += len(packet.text) if isinstance(packet, Content) else 0
            if said >= most:
                some.set()

    task = asyncio.create_task(answering())
    await some.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cut_is_on_the_tape_and_happens_again(server: Server) -> None:
    """So the bug that it led to can be repeated; who asks again gets what the model said then."""
    tape, turn = Tape(), FakeTurn().prompt("count to 12")
    server.fail_next(Cut(20))
    await turn.run(agent_on(server, "chat", tape=tape))
    assert [run.ended for run in tape.runs] == ["cut", "whole"]
    server.play(tape, pace=None)
    again = FakeTurn().prompt("?")
    await again.run(agent_on(server, "chat"))
    assert again.story() == turn.story()
    assert [r.outcome for r in (await over(server, 4))[2:]] == ["cut", "answered"]


async def test_what_was_attached_to_again_is_one_run(server: Server) -> None:
    """Cut in background mode, or handed to an instance with the same tape; one that has only the end of a run keeps none of it."""
    tape, turn, elsewhere = Tape(), FakeTurn().prompt("count to 12"), Tape()
    server.fail_next(Cut(20), Cut(9))
    await turn.run(agent_on(server, "background", tape=tape))
    assert [(run.ended, run.text) for run in tape.runs] == [("whole", turn.story()[-1][1])]
    handed = await test_openai.stopped(server, "background", HAND_OVER)
    server.pace = None
    await handed.run(agent_on(server, "background", tape=elsewhere))
    assert elsewhere.runs == []


async def test_a_run_that_was_lost_in_its_thoughts_is_passed_over(server: Server) -> None:
    tape = Tape()
    server.fail_next(Cut(3))
    await FakeTurn().prompt("count to 3").run(agent_on(server, "chat", tape=tape))
    assert [(run.ended, run.text) for run in tape.runs] == [("cut", ""), ("whole", "1 2 3")]
    server.play(tape, pace=None)
    again = FakeTurn().prompt("?")
    await again.run(agent_on(server, "chat"))
    assert again.story()[-1] == ("Content", "1 2 3")


async def test_a_tape_can_begin_in_the_middle_of_a_session(server: Server, mode: str) -> None:
    """What the agent said before is in the conversation and not on the tape: it is passed over."""
    tape, turn = await recorded(server, mode, "count to 3")
    server.play(tape, pace=None)
    again = FakeTurn().prompt("what is 1 + 1")
    again.store(Content("1 + 1 is 2."))
    await again.prompt("?").run(agent_on(server, mode))
    assert again.story() == turn.story()


# ---- what is not on it ----

SECRETS = ("prompt-of-mine", "rule-of-mine", "tool-of-mine", "result-of-mine")


async def get_weather(city: str) -> str:
    """tool-of-mine"""
    return "result-of-mine"


@pytest.mark.parametrize("prompts", [False, True])
async def test_neither_key_nor_headers_nor_what_was_asked_is_on_a_tape(server: Server, mode: str, tmp_path: Path, prompts: bool) -> None:
    """But with `prompts=True` all that was asked, which is never the key; and always what the model itself says."""
    tape, path = Tape(prompts=prompts), tmp_path / "a.tape"
    agent = agent_on(server, mode, tape=tape, tools=[get_weather], approve=[], instructions="rule-of-mine", key="sk-secret")
    await FakeTurn().prompt("prompt-of-mine: weather in Oslo").run(agent)
    tape.save(path)
    asked = json.dumps([line.get("asked") for line in map(json.loads, path.read_text().splitlines())])
    assert [secret for secret in SECRETS if secret in asked] == [secret for secret in SECRETS if prompts]
    assert not any(secret in path.read_text() for secret in ("sk-secret", "127.0.0.1", "uthorization", *(() if prompts else SECRETS[:3])))
    assert "The tool says about Oslo: result-of-mine." in tape.runs[-1].text


class Raw:
    """An event of the openai package, as far as a tape uses it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        return self.data


async def source_of(*data: dict[str, Any]) -> AsyncIterator[Raw]:
    for each in data:
        yield Raw(each)


@pytest.mark.parametrize("prompts", [False, True])
async def test_what_a_provider_repeats_of_the_request_is_left_out(prompts: bool) -> None:
    """OpenAI's response holds instructions, tools and the user's id, its errors may name the organization; Azure's first chunk holds what
    its filter found in the prompt.
    """
    response = {"id": "r", "status": "completed", "output": [], "instructions": "secret", "user": "secret", "metadata": {"a": "secret"}}
    chunk = {"id": "c", "choices": [], "prompt_filter_results": "secret"}
    tape = Tape(prompts=prompts)
    created = {"type": "response.created", "response": response, "obfuscation": "secret"}
    blame = {"code": "server_error", "message": "secret"}
    failed = {"type": "response.failed", "response": {"id": "r", "status": "failed", "error": blame}}
    error = {"type": "error", "param": None, **blame}
    for dialect, data in (("responses", created), ("responses", failed), ("responses", error), ("chat", chunk)):
        async with aclosing(tape.record(source_of(data), Run(dialect, "m", {"input": "secret"}), 0.0)) as passing:  # type: ignore[arg-type]
            assert [event.data async for event in passing] == [data], "who listens gets all of it"
    assert ("secret" in b"".join(tape._lines()).decode()) is prompts


async def test_a_request_that_was_refused_is_not_kept(server: Server) -> None:
    """OpenAI's 401 quotes a part of the key."""
    tape = Tape()
    server.fail_next(model.Refuse(401, "Incorrect API key provided: sk-secret", "invalid_api_key"))
    with pytest.raises(AgentError, match="refuses the API key"):
        await FakeTurn().prompt("hello").run(agent_on(server, "chat", tape=tape))
    assert tape.runs == []


# ---- the file ----


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """Files of this process may have so many bytes: the kernel refuses the rest, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("before", [b"an older tape", None])
async def test_a_full_disk_leaves_no_half_tape(server: Server, tmp_path: Path, before: bytes | None) -> None:
    """What stood there still does, nothing else is left, and the tape is still in memory."""
    tape, _ = await recorded(server, "chat", "count to 200")
    path = tmp_path / "a.tape"
    if before:
        path.write_bytes(before)
    with (
        full_disk(1000),
        pytest.raises(BadTape, match=r"a.tape: File too large. If something was said, it is still in memory"),
    ):
        tape.save(path)
    assert contents(tmp_path) == ({"a.tape": before} if before else {})
    assert through_a_file(tape, tmp_path).runs == tape.runs


async def test_a_folder_that_is_not_there_and_a_tape_that_is_empty(server: Server, tmp_path: Path) -> None:
    tape, _ = await recorded(server, "chat", "count to 2")
    with pytest.raises(BadTape, match=r"can't be saved to .*nowhere/a.tape: No such file or directory"):
        tape.save(tmp_path / "nowhere" / "a.tape")
    with pytest.raises(BadTape, match=r"the tape is empty. Give it to openai_agent\(tape=...\)"):
        Tape().save(tmp_path / "a.tape")
    with pytest.raises(BadTape, match=r"none.tape can't be read: No such file"):
        Tape.load(tmp_path / "none.tape")
    assert contents(tmp_path) == {}


def test_where_no_tape_can_be_saved_is_known_beforehand(tmp_path: Path) -> None:
    """A folder, what is no regular file, a folder that is not there, a name that is too long; what is there stays as it is."""
    (tmp_path / "a.tape").write_bytes(b"an older tape")
    Tape.check(tmp_path / "a.tape")
    Tape.check(tmp_path / "new.tape")
    assert contents(tmp_path) == {"a.tape": b"an older tape"}
    os.mkfifo(tmp_path / "pipe")
    bad = {"": "no regular", "pipe": "no regular", "nowhere/a.tape": "No such file", "a.tape/b": "Not a directory", "x" * 255: "too long"}
    for name, why in bad.items():
        with pytest.raises(NotSaved, match=f"can't be saved to .*{why}"):
            Tape.check(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tape", "pipe"}


HEAD, RUN, END = '{"type":"tape","version":1}', '{"type":"run","dialect":"chat","model":"m"}', '{"type":"end","how":"whole"}'
EVENT = '{"type":"event","at":1.0,"data":{"choices":[{"delta":{"content":"hi"}}]}}'
BAD = {
    "empty": ([], "line 1: Input data was truncated"),
    "no JSON": (["hello"], "line 1: JSON is malformed"),
    "not UTF-8": ([b"\xff"], "line 1: "),
    "deep": (["[" * 100_000], "line 1: "),
    "no tape": (["{}"], "line 1: Object missing required field `type`"),
    "another file": (['{"type":"notebook"}'], "line 1: Invalid value 'notebook' - at `$.type`"),
    "of tomorrow": (['{"type":"tape","version":2}'], "line 1: this is version 2, and version 1 is what this kit plays: update the kit"),
    "no head": ([RUN], "line 1: here should be the tape itself"),
    "nothing on it": ([HEAD], "there is no run on it. Was it cut off? Copy or record it again"),
    "two heads": ([HEAD, HEAD], "line 2: here should be a run - at `$.type`"),
    "an event outside": ([HEAD, EVENT], "line 2: here should be a run"),
    "an empty run": ([HEAD, RUN, END], "line 3: here should be an event or the run's end"),
    "a run in a run": ([HEAD, RUN, RUN], "line 3: here should be an event or the run's end"),
    "cut off between lines": ([HEAD, RUN, EVENT], "its last run has no end. Was it cut off?"),
    "cut off in a line": ([HEAD, RUN, EVENT[:30]], "line 3: Input data was truncated"),
    "no dialect": ([HEAD, RUN.replace("chat", "morse")], "line 2: Invalid enum value 'morse' - at `$.dialect`"),
    "a field too many": ([HEAD, RUN.replace("}", ',"key":"sk"}')], "line 2: Object contains unknown field `key`"),
    "no number": ([HEAD, RUN, EVENT.replace("1.0", '"1"')], "line 3: Expected `float`, got `str` - at `$.at`"),
    "before the beginning": ([HEAD, RUN, EVENT.replace("1.0", "-1")], "line 3: Expected `float` >= 0.0 - at `$.at`"),
    "next year": ([HEAD, RUN, EVENT.replace("1.0", "1e9")], "line 3: Expected `float` <= 86400.0 - at `$.at`"),
    "back in time": ([HEAD, RUN, EVENT, EVENT.replace("1.0", "0.5")], "line 4: at 0.5 s is before the event above it, at 1 s - at `$.at`"),
    "no chunk": ([HEAD, RUN, EVENT.replace("choices", "choice")], "line 3: Object missing required field `choices`"),
    "no text": ([HEAD, RUN, EVENT.replace('"hi"', "7")], "line 3: Expected `str | null`, got `int` - at `$.choices[0].delta.content`"),
    "no event of that dialect": ([HEAD, RUN.replace("chat", "responses"), EVENT], "line 3: Object missing required field `type`"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tape_is_told_where_and_what(name: str, tmp_path: Path) -> None:
    """The file, the line, the field."""
    lines, sentence = BAD[name]
    path = tmp_path / "bad.tape"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    with pytest.raises(BadTape) as error:
        Tape.load(path)
    assert str(error.value).startswith(f"{path} is no tape that can be played: ")
    assert sentence in str(error.value)


def test_a_tape_cut_off_anywhere_is_a_bad_tape(tmp_path: Path) -> None:
    """Never half a tape without a word: every prefix of a good one, byte by byte, but for the newline at its end."""
    whole = f"{HEAD}\n{RUN}\n{EVENT}\n{EVENT}\n{END}\n".encode()
    path = tmp_path / "cut.tape"
    for size in range(len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BadTape):
            Tape.load(path)
    path.write_bytes(whole)
    assert [run.text for run in Tape.load(path).runs] == ["hihi"]


# ---- asked for what is not there ----

CHUNKS: list[dict[str, Any]] = [
    {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    for delta in ({"role": "assistant", "content": ""}, {"content": "In Oslo"}, {"content": " it"}, {"content": " snows."})
]
CHUNKS += [{"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
ASK: Any = [{"role": "user", "content": "?"}]


async def test_a_tape_that_is_over_says_so(server: Server, mode: str) -> None:
    """Not the script, and not the last answer again."""
    tape, _ = await recorded(server, mode, "count to 2")
    server.play(tape, pace=None)
    turn = FakeTurn().prompt("?")
    await turn.run(agent_on(server, mode))
    with pytest.raises(AgentError, match=r"does not accept the request \(400\): The tape is over: its 1 answers were given. Begin a new"):
        await turn.prompt("and now?").run(agent_on(server, mode))


async def test_the_other_dialect_and_an_answer_in_one_piece_are_refused(server: Server, client: AsyncOpenAI) -> None:
    tape, _ = await recorded(server, "chat", "count to 2")
    server.play(tape, pace=None)
    with pytest.raises(BadRequestError, match=r"in the other dialect: ask it with dialect=.*chat"):
        await client.responses.create(model="m", input="?", stream=True)
    with pytest.raises(BadRequestError, match="stream=True"):
        await client.chat.completions.create(model="m", messages=ASK)


def test_a_tape_shows_what_is_on_it() -> None:
    tape = Tape()
    run = Run("chat", "m")
    for at, chunk in enumerate(CHUNKS):
        run.add(at / 10, chunk)
    run.ended = "whole"
    tape.runs.append(run)
    assert repr(tape) == "Tape of 1 run\n  m, chat: 5 events in 0.4 s, whole"


def test_an_agent_without_a_tape_records_nothing() -> None:
    """The default: nobody is recorded who did not ask for it."""
    assert openai.Model.tape is None


# ---- what went wrong while it was recorded ----


async def test_a_run_that_was_lost_in_its_calls_is_passed_over(server: Server) -> None:
    """Nobody was told of them: whoever plays the tape would stand before that run for ever."""
    lost, whole = Run("chat", "m"), Run("chat", "m", ended="whole")
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at'}}
    lost.add(0.0, CHUNKS[0])
    lost.add(0.0, {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]})
    for chunk in CHUNKS:
        whole.add(0.0, chunk)
    tape = Tape()
    tape.runs += [lost, whole]
    server.play(tape, pace=None)
    turn = FakeTurn().prompt("?")
    await turn.run(agent_on(server, "chat"))
    assert turn.story()[-1] == ("Content", "In Oslo it snows.")


@pytest.mark.parametrize("last", [{"type": "response.failed", "response": {"id": "r"}}, {"type": "error", "message": "no"}], ids=str)
async def test_a_run_that_the_provider_gave_up_is_as_good_as_cut(last: dict[str, Any]) -> None:
    """What it said stands, and the next run goes on with it."""
    tape = Tape()
    begun = {"type": "response.created", "response": {"id": "r"}, "sequence_number": 0}
    async with aclosing(tape.record(source_of(begun, last), Run("responses", "m"), 0.0)) as passing:
        assert len([event async for event in passing]) == 2
    assert [run.ended for run in tape.runs] == ["cut"]


async def test_what_two_instances_hear_of_one_response_is_on_the_tape_once() -> None:
    """One has lost its turn and hears on, beside the one that attached where the log ends."""
    said = [{"type": "response.output_text.delta", "delta": f"{n} ", "sequence_number": n} for n in range(1, 6)]
    begun = {"type": "response.created", "response": {"id": "r"}, "sequence_number": 0}
    tape = Tape()
    async with aclosing(tape.record(source_of(begun, *said), Run("responses", "m"), 0.0)) as frozen:
        for _ in range(4):
            await anext(frozen)
        async with aclosing(tape.record(source_of(*said[1:]), Run("responses", "m"), 0.0, "r")) as heir:
            assert len([event async for event in heir]) == 4, "who listens gets all of it"
        assert len([event async for event in frozen]) == 2
    (run,) = tape.runs
    assert run.text == "1 2 3 4 5 "


async def test_a_response_that_was_queued_first_is_waited_for(server: Server) -> None:
    """As OpenAI's background responses are: no end of the stream, though nothing is said yet."""
    tape, turn = await recorded(server, "background", "count to 5")
    for moment in tape.runs[0].moments[:1]:
        moment.data["response"]["status"] = "queued"
    for moment in tape.runs[0].moments[1:]:
        moment.at += 1.0
    server.play(tape)
    again = FakeTurn().prompt("?")
    await again.run(agent_on(server, "background"))
    assert again.story() == turn.story()
