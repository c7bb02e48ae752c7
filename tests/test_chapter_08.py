"""Chapter 08: each draft fails for the reason that the chapter gives, and what it ends with does not, whatever the fault."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial

import pytest
from openai import APIConnectionError, AsyncOpenAI

from kit.agents import model
from kit.agents.demo import get_weather
from kit.agents.model import Cut
from kit.agents.tape import Tape
from kit.agents.tools import Tools
from kit.lab.check import NOTEBOOKS
from tests import test_model
from tests.notebooks import chapters
from tests.notebooks.chapters import cells

defined = partial(chapters.defined, cells("08"), json=json, get_weather=get_weather, APIConnectionError=APIConnectionError)
TWENTY = " ".join(map(str, range(1, 21)))


server, client = test_model.server, test_model.client  # a model without pauses, and the real client of it


async def shown(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


ASK = {"model": "m", "stream": True}


async def test_the_loop_runs_a_tool_and_answers(client: AsyncOpenAI) -> None:
    (weather, *_) = Tools([get_weather]).functions
    loops = defined("loops", client=client)["loops"]
    schema = {"type": "function", "name": weather.name, "parameters": weather.parameters}
    assert await loops("What is the weather in Oslo?", schema) == "In Oslo it is 4 °C with light snow, and the wind blows at 3 m/s."


@pytest.mark.parametrize("after", range(14, 30, 5))
async def test_a_clean_cut_is_half_an_answer_and_no_error(server: model.Server, client: AsyncOpenAI, after: int) -> None:
    """Wherever the body ends: that is what the first draft cannot see."""
    streams = defined("cut", client=client, ask=ASK)["streams"]
    server.fail_next(Cut(after, clean=True))
    await streams("count to 20", screen := [])
    half = "".join(screen)
    assert half != TWENTY
    assert TWENTY.startswith(half)


async def test_to_ask_again_says_and_pays_the_beginning_twice(server: model.Server, client: AsyncOpenAI) -> None:
    retries = defined("retries", client=client, ask=ASK)["retries"]
    server.fail_next(Cut(26, clean=True))
    await retries("count to 20", screen := [])
    text = "".join(screen)
    assert text.endswith(TWENTY)
    assert len(text) > len(TWENTY)
    assert server.tokens_made > 28  # twenty numbers and the eight words of the thought


@pytest.mark.parametrize("clean", [True, False])
async def test_at_the_cursor_any_cut_is_invisible(server: model.Server, client: AsyncOpenAI, clean: bool) -> None:
    """After each event of the stream; the model makes every token once."""
    resumes = defined("resumes")["resumes"]
    assert await shown(resumes(client, "count to 5")) == "1 2 3 4 5"
    whole = server.tokens_made
    for after in range(1, 26):
        before = server.tokens_made
        server.fail_next(Cut(after, clean=clean))
        assert await shown(resumes(client, "count to 5")) == "1 2 3 4 5", f"cut after event {after}"
        assert server.tokens_made - before == whole


def test_the_tape_of_the_real_model_that_comes_with_the_chapter_is_one() -> None:
    """A thought, a call of the tool with its city, and an answer, by a model that nobody scripted; no prompt is on it."""
    tape = Tape.load(NOTEBOOKS / "tapes" / "smollm2.tape")
    assert [(run.model, run.dialect, run.ended, run.asked) for run in tape.runs] == [("smollm2-135m", "chat", "whole", None)] * len(
        tape.runs
    )
    assert tape.runs[0].calls == ["get_weather"]
    assert "".join(heard.thought for heard in tape.runs[0].heard)
    assert "Oslo" in "".join(heard.arguments for heard in tape.runs[0].heard)
    assert tape.runs[-1].text
