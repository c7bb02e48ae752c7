"""OpenAI: an agent on any server that speaks OpenAI's Responses or Chat Completions, by the official client.

`kit/agents/answer.py` is what the agent does; here is whom it asks: the settings, one connection per round, and what can go wrong with
it in sentences for the person. The only file that imports openai, which takes most of a second: import this one where it is used.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import cache, partial
from json import JSONDecodeError
from ssl import SSLContext
from types import MappingProxyType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import httpx2
import openai

from kit.agents import chat, responses
from kit.agents.answer import answer
from kit.agents.conversation import Event, Failed, Function, Item
from kit.agents.settings import OPENAI, Settings, environment, is_loopback, usable_key
from kit.agents.tools import ToolFunction, Tools
from kit.history import Agent
from kit.packets import At

MODEL = "gpt-5.4-mini"
INSTRUCTIONS = "You are a helpful assistant. Answer briefly."
CONTINUE = (
    "If the conversation ends with your own unfinished message, go on exactly after its last character:"
    " do not repeat it, do not start again, do not mention the interruption."
)
CANCEL_WITHIN = 0.8
"""Seconds that a stop may take to cancel a response at the provider: less than a turn gives its agent to obey."""


def openai_agent(
    *,
    model: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    dialect: Literal["responses", "chat"] | None = None,
    tools: Iterable[ToolFunction] = (),
    client_tools: Iterable[ToolFunction | Mapping[str, Any]] = (),
    approve: Iterable[str] = (),
    ask: bool = True,
    instructions: str = INSTRUCTIONS,
    background: bool | None = None,
    max_rounds: int = 8,
    reasoning: Mapping[str, Any] | None = MappingProxyType({"summary": "auto"}),
    extra: Mapping[str, Any] = MappingProxyType({}),
    stall: float = 120.0,
    tries: int = 5,
    patience: float = 30.0,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    jitter: Callable[[], float] = random.random,
) -> Agent:
    """An agent that answers with a model. The key, the address and the model's name come from the environment where they are not given.

    `dialect`: Responses for OpenAI itself and Chat Completions for other servers, unless said. `background` (Responses only, and its
    default there): the provider keeps the response, and another instance goes on at its cursor; else the model is asked to continue.
    `tools` run here, `client_tools` (functions of which only the signature counts, or schemas) on a client, those named in `approve`
    once a person said yes; `ask` lets the model ask back. After `max_rounds` of calls the model must have answered.
    `reasoning` is dropped for a model that does not take it; `extra` goes into each request as it is. `stall`: seconds without an
    event until a stream counts as cut. `tries`: attempts without progress; `patience`: the longest Retry-After to sit out, in seconds.

    Raises AgentError, a sentence for the person: here without a usable key, later where the provider refuses.
    """
    env = environment()
    url = (base_url or env.base_url or OPENAI).rstrip("/")
    spoken = dialect or ("responses" if url == OPENAI else "chat")
    if background and spoken == "chat":
        raise ValueError("only the Responses dialect has background responses")
    settings = Settings(
        url=url,
        key=usable_key(api_key if api_key is not None else env.api_key, url),
        model=model or env.model or MODEL,
        dialect=spoken,
        background=spoken == "responses" if background is None else background,
        instructions=f"{instructions}\n{CONTINUE}",
        reasoning=reasoning,
        extra=extra,
        stall=stall,
        patience=patience,
    )

    async def wait(failures: int, least: float) -> None:
        # Full jitter: agents that lost the same server must not come back together; and never before the provider allows it.
        await sleep(least + jitter() * min(8.0, 0.5 * 2**failures))

    return partial(answer, partial(Model, settings), Tools(tools, client_tools, approve, ask_back=ask), max_rounds, tries, wait)


class Model:
    """A model for one round: `async with Model(settings) as model`, then `model.events(...)` for each of its runs.

    A client of its own for each round: the HTTP client drops an idle connection after 5 s, so a longer life would save little.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reasoning = settings.reasoning
        self.opening: asyncio.Task[_Opened] | None = None
        """A background response that was asked for, until its id is known."""
        self.running: str | None = None
        """The background response that goes on unless it is cancelled."""

    async def __aenter__(self) -> Self:
        settings = self.settings
        self.client = openai.AsyncOpenAI(
            api_key=settings.key,
            base_url=settings.url,
            timeout=openai.Timeout(settings.stall, connect=10.0),
            max_retries=0,  # `answer` tries again: it knows what has been said by then
            # No proxy can reach this machine's loopback.
            http_client=openai.DefaultAsyncHttpxClient(verify=_tls(), trust_env=not is_loopback(settings.url)),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.opening:
            self.opening.cancel()
        await self.client.close()

    async def events(self, items: Sequence[Item], functions: Sequence[Function], cursor: At | None) -> AsyncGenerator[Event, None]:
        """The events of a run: a new one, or the rest of the background response at `cursor`. The last has `calls`; or it raises Failed."""
        background = self.settings.background
        self.running = cursor.response if cursor else None
        try:
            stream, first = await self._opened(items, functions, cursor)
            async with stream, aclosing(self._read(_chain(first, stream), cursor)) as events:
                async for event in events:
                    self.running = event.at.response if background and event.calls is None else None
                    self.opening = None
                    yield event if background else event._replace(at=At(event.at.response))
                    if event.calls is not None:
                        return
            await self._explain_cut()
        except JSONDecodeError as error:
            raise Failed("The model's server sent half an event.", again=True) from error
        except openai.APIError as error:
            raise self._failed(error, cursor) from error

    async def cancel(self) -> None:
        """Cancel the background response that is running, if there is one. Returns within CANCEL_WITHIN, even if cancelled itself."""
        if self.opening or self.running:
            task = asyncio.ensure_future(self._cancel())
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(task)

    async def _cancel(self) -> None:
        with suppress(openai.APIError, JSONDecodeError, TimeoutError):
            async with asyncio.timeout(CANCEL_WITHIN):
                if self.opening:
                    stream, first = await self.opening
                    await stream.close()
                    self.running = first.response.id if first and first.type == "response.created" else None
                if self.running:
                    await self.client.responses.cancel(self.running)

    async def _opened(self, items: Sequence[Item], functions: Sequence[Function], cursor: At | None) -> _Opened:
        opening = asyncio.ensure_future(self._open(items, functions, cursor))
        if cursor or not self.settings.background:
            return await opening
        # Shielded: the provider goes on without a reader, and only who has read the first event knows what to cancel.
        self.opening = opening
        return await asyncio.shield(opening)

    async def _open(self, items: Sequence[Item], functions: Sequence[Function], cursor: At | None) -> _Opened:
        """A stream and its first event.

        What is asked goes as `extra_body`: the client's own way through its unions takes 10 ms a turn, in which no other stream moves.
        """
        settings, client = self.settings, self.client
        stream: openai.AsyncStream[Any]
        if cursor and cursor.sequence is not None:
            stream = await client.responses.retrieve(cursor.response, stream=True, starting_after=cursor.sequence)
        elif settings.dialect == "chat":
            body = chat.request(items, functions, settings.instructions) | dict(settings.extra)
            stream = await client.chat.completions.create(model=settings.model, stream=True, messages=[], extra_body=body)
        else:
            body = responses.request(items, functions, settings.instructions) | dict(settings.extra)
            if self.reasoning:
                body["reasoning"] = dict(self.reasoning)
            stream = await client.responses.create(model=settings.model, stream=True, background=settings.background, extra_body=body)
        try:
            return stream, await anext(stream, None)
        except BaseException:
            await stream.close()
            raise

    def _read(self, events: AsyncIterator[Any], cursor: At | None) -> AsyncGenerator[Event, None]:
        return chat.read(events) if self.settings.dialect == "chat" else responses.read(events, cursor.response if cursor else "")

    async def _explain_cut(self) -> None:
        """A stream ended without a last event, and raised nothing: it was cut, or the response was cancelled (there is no such event)."""
        response = await self.client.responses.retrieve(self.running) if self.running else None
        gone = response is not None and response.status not in ("queued", "in_progress", "completed")
        raise Failed("The model's server ended its stream in the middle of an answer.", again=True, gone=gone)

    def _failed(self, error: openai.APIError, cursor: At | None) -> Failed:
        """What an error of the client means: whether, when and how to try again, and a sentence."""
        settings = self.settings
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if status in (400, 404, 410) and (cursor or self.running):
            self.running = None
            return Failed("The provider no longer has the response.", again=True, gone=True)
        if status == 400 and self.reasoning and str(error.param).startswith("reasoning"):
            self.reasoning = None  # not every model thinks, and the only way to know is to ask
            return Failed("The model takes no reasoning.", again=True)
        wait = _retry_after(error)
        passes = (status is None or status in (408, 409, 429) or status >= 500) and error.code != "insufficient_quota"
        return Failed(_sentence(error, status, settings), again=passes and wait <= settings.patience, wait=wait)


@cache
def _tls() -> SSLContext:
    """Read once: the certificates take 30 ms, in which no stream of the instance would move."""
    return httpx2.create_ssl_context()


_Opened = tuple[openai.AsyncStream[Any], Any]


async def _chain(first: Any, rest: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    if first is not None:
        yield first
        async for event in rest:
            yield event


def _sentence(error: openai.APIError, status: int | None, settings: Settings) -> str:
    server = urlsplit(settings.url).netloc.rpartition("@")[2] or settings.url
    match status:
        case 401:
            return f"{server} refuses the API key (401): check OPENAI_API_KEY."
        case 403:
            return f"{server} does not let this API key use the model {settings.model} (403)."
        case 404:
            return f"{server} has no model {settings.model} (404): check KIT_MODEL and OPENAI_BASE_URL."
        case 429 if error.code == "insufficient_quota":
            return f"The account's quota at {server} is used up (429): check its plan and billing."
        case 429:
            return f"{server} has too many requests (429): try again in a minute."
        case None if isinstance(error, openai.APITimeoutError):
            return f"{server} was silent for {settings.stall:g} s: try again later."
        case None if isinstance(error, openai.APIConnectionError):
            return f"{server} cannot be reached: check the network and OPENAI_BASE_URL."
        case None:
            return f"{server} broke off: {error.message}"
        case _ if status >= 500:
            return f"{server} failed ({status}): try again later."
        case _:
            return f"{server} does not accept the request ({status}): {error.message.removeprefix(f'Error code: {status} - ')}"


def _retry_after(error: openai.APIError) -> float:
    """Seconds that the provider wants to be left alone: Retry-After (RFC 9110 section 10.2.3), here always in seconds; else 0."""
    if not isinstance(error, openai.APIStatusError):
        return 0.0
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "0")))
    except ValueError:  # a date: the full jitter has to do
        return 0.0
