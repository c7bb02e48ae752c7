"""Demo: the agent that the kit starts with: a model with two tools, so that a first prompt shows thought, action and content."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cache
from threading import Lock
from typing import Any, Literal

from kit.agents.embedded.templates import WEATHER
from kit.agents.settings import OPENAI, environment, usable_key
from kit.agents.tape import Tape
from kit.history import Agent, History
from kit.packets import AnyPacket, Prompt

_importing = Lock()


async def get_weather(city: str) -> dict[str, Any]:
    """The weather in a city, out of a small table: degrees Celsius, the sky, wind in metres per second."""
    cities = {name.casefold(): name for name in WEATHER}
    if (name := cities.get(city.strip().casefold())) is None:
        raise LookupError(f"{city} is not in the table; it knows {', '.join(WEATHER)}")
    celsius, sky, wind = WEATHER[name]
    return {"city": name, "celsius": celsius, "sky": sky, "wind": wind}


async def set_theme(theme: Literal["light", "dark"]) -> None:
    """Switch the person's screen to a light or dark theme."""
    raise NotImplementedError("it runs on the client: only its signature is told to the model")


TOOLS: dict[str, Any] = {"tools": [get_weather], "client_tools": [set_theme]}
"""What `openai_agent` is given for the demo."""


def default_agent(embedded: str, *, tape: Tape | None = None, **options: Any) -> Agent:
    """What the environment names (OPENAI_API_KEY or OPENAI_BASE_URL), else the embedded model at the URL `embedded`.

    `tape` and `options` go to `openai_agent`, `options` in place of the two tools. The client is imported when the agent is first asked.
    Raises AgentError at once where the key is not usable.
    """
    env = environment()
    if env.api_key or env.base_url:
        usable_key(env.api_key, env.base_url or OPENAI)
        asked: dict[str, Any] = env._asdict()
    else:
        asked = {"base_url": embedded, "dialect": "responses", "model": "kit-scripted"}
    asked |= {"tape": tape} | (options or TOOLS)

    @cache
    def made() -> Any:
        return import_client().openai_agent(**asked)

    async def agent(history: History) -> AsyncGenerator[AnyPacket | Prompt, None]:
        async with aclosing((await asyncio.to_thread(made))(history)) as said:
            async for packet in said:
                yield packet

    return agent


def import_client() -> Any:
    """`kit.agents.openai`, warmed up. That takes a second, so do it on another thread than that of the loop, where streams go on."""
    with _importing:  # whoever comes meanwhile waits here
        collected = gc.isenabled()
        gc.disable()  # what it makes is there to stay: to look for garbage among it takes a sixth of the time
        try:
            from kit.agents import openai

            openai.warm_up()
        finally:
            if collected:
                gc.enable()
    return openai
