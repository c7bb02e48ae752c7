"""The agent on a model, against the embedded model over real HTTP: at every crash point, stopped, and when the provider fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from kit.agents import HAND_OVER, AgentError, model, openai
from kit.agents.model import Cut, Fail, Refuse, Server, Stall, rate_limited, server_error
from kit.agents.openai import openai_agent
from kit.history import Agent
from kit.packets import Action, AnyPacket, Ask, Content, Prompt, Thought, ToolResult
from tests.fake_turn import FakeTurn, Killed, replies

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


ANSWERS = {"Which city?": "Rome", "set_theme": "done", "send_mail": "yes"}
STORIES = {
    "two calls in one run": "What is the weather in Oslo and Paris?",
    "asks back, then calls": "What is the weather?",
    "a client's action, then one that wants approval": "Set theme dark and send mail",
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test talks to a real provider, and a proxy in the environment must not matter."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    ran.clear()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with model.serve(pace=None) as server:
        yield server


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def no_sleep(_: float) -> None: ...


def agent_on(server: Server, mode: str, **options: Any) -> Agent:
    tools = {"tools": [get_weather, send_mail], "client_tools": [set_theme], "approve": ["send_mail"]}
    return openai_agent(base_url=server.url, api_key="k", **{"sleep": no_sleep, **tools, **MODES[mode], **options})


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


@pytest.mark.parametrize("story", STORIES)
async def test_killed_after_any_packet_it_ends_as_if_nothing_had_happened(server: Server, mode: str, story: str) -> None:
    """Another instance goes on from whichever prefix stands in the log: text exact, each tool run once."""
    expected, total, tools = await whole(server, mode, story)
    for kill_after in range(1, total + 1):
        ran.clear()
        turn = FakeTurn(joins=random.Random(kill_after)).prompt(STORIES[story])
        with pytest.raises(Killed):
            await turn.run(agent_on(server, mode), replies(ANSWERS), kill_after)
        await turn.run(agent_on(server, mode), replies(ANSWERS))
        assert turn.story() == expected, f"killed after packet {kill_after}"
        assert ran == tools, f"killed after packet {kill_after}"


@pytest.mark.parametrize("story", STORIES)
async def test_killed_at_any_event_it_ends_as_if_nothing_had_happened(
    server: Server, mode: str, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the provider said and nobody told is asked for again, or attached to."""
    with monkeypatch.context() as patch:
        events = count_events(patch)
        expected, _, tools = await whole(server, mode, story)
    for kill_at in range(1, events[0] + 1):
        ran.clear()
        turn = FakeTurn(joins=random.Random(kill_at)).prompt(STORIES[story])
        with monkeypatch.context() as patch, pytest.raises(Killed):
            count_events(patch, kill_at)
            await turn.run(agent_on(server, mode), replies(ANSWERS))
        await turn.run(agent_on(server, mode), replies(ANSWERS))
        assert turn.story() == expected, f"killed at event {kill_at}"
        assert ran == tools, f"killed at event {kill_at}"


async def whole(server: Server, mode: str, story: str) -> tuple[list[tuple[Any, ...]], int, list[tuple[str, str]]]:
    """An uncrashed run: what happened, in how many packets, and which tools ran."""
    turn = FakeTurn().prompt(STORIES[story])
    total = await turn.run(agent_on(server, mode), replies(ANSWERS))
    assert sum(isinstance(packet, Action) for packet in turn.history.said) >= 1
    assert not turn.open() and ran
    return turn.story(), total, list(ran)
