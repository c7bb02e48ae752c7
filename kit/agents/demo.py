"""Demo: the agent that the kit starts with: a model with two tools, so that a first prompt shows thought, action and content."""

from __future__ import annotations

from typing import Any, Literal

from kit.agents.embedded.templates import WEATHER
from kit.agents.settings import environment
from kit.history import Agent, History
from kit.packets import Prompt


async def get_weather(city: str) -> dict[str, Any]:
    """The weather in a city, out of a small table: degrees Celsius, the sky, wind in metres per second."""
    known = {name.casefold(): name for name in WEATHER}
    if (name := known.get(city.strip().casefold())) is None:
        raise LookupError(f"{city} is not in the table; it knows {', '.join(WEATHER)}")
    celsius, sky, wind = WEATHER[name]
    return {"city": name, "celsius": celsius, "sky": sky, "wind": wind}


async def set_theme(theme: Literal["light", "dark"]) -> None:
    """Switch the person's screen to a light or dark theme."""
    raise NotImplementedError("it runs on the client: only its signature is told to the model")


def default_agent(embedded: str, **options: Any) -> Agent:
    """What the environment names (OPENAI_API_KEY or OPENAI_BASE_URL), else the embedded model at the URL `embedded`.

    `options` go to `openai_agent`, in place of the two tools.
    """
    from kit.agents.openai import openai_agent  # here, not above: it takes most of a second

    options = options or {"tools": [get_weather], "client_tools": [set_theme]}
    if (env := environment()).api_key or env.base_url:
        return openai_agent(**options)
    return openai_agent(base_url=embedded, dialect="responses", model="kit-scripted", **options)


async def warm_up(agent: Agent) -> None:
    """Ask the embedded model once: openai builds its types at the first use, and no turn that is taken over should wait for it."""
    prompt = Prompt(text="count to 1", to="agent", id="1-0", prev="0-0", from_="kit", ref="before-the-first-prompt")
    async for _ in agent(History((prompt,), "1-0/agent")):
        pass
