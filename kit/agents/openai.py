"""OpenAI: an agent on any server that speaks OpenAI's Responses or Chat Completions, by the official client.

`kit/agents/answer.py` is what the agent does; here is whom it asks: one connection per round, and what can go wrong with it in
sentences for the person. Until a stream is open the client itself tries again, with a growing delay or the one that the provider asks
for (Retry-After); from there on `answer` does, which knows what has been said. The only file that imports openai, which takes most of a
second: import this one where it is used.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import cache, partial
from json import JSONDecodeError
from ssl import SSLContext
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import httpx2
import openai

from kit.agents import chat, responses
from kit.agents.answer import answer
from kit.agents.conversation import Event, Failed, Function, Item
from kit.agents.settings import OPENAI, environment, is_openai, usable_key
from kit.agents.tape import Run, Tape
from kit.agents.tools import ToolFunction, Tools
from kit.ending import finish
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
    client_tools: Iterable[ToolFunction] = (),
    approve: Iterable[str] = (),
    documents: bool = False,
    instructions: str = INSTRUCTIONS,
    background: bool | None = None,
    max_rounds: int = 8,
    stall: float = 120.0,
    tries: int = 5,
    tape: Tape | None = None,
) -> Agent:
    """An agent that answers with a model. The key, the address and the model's name come from the environment where they are not given.

    `dialect`: Responses for OpenAI itself and Chat Completions for other servers, unless said. `background` (Responses only, and its
    default there): the provider keeps the response, and another instance goes on at its cursor; else the model is asked to continue.
    `tools` run here, `client_tools` (only their signature counts) on a client, those named in `approve` once a person said yes: anybody
    in the session, also who asked. What a tool raises is told, with its text, to the model and in the log: it should hold no secret.
    With `documents` it reads those of the session, and writes them by a tool `write_document`. After `max_rounds` of calls the model
    must have answered. `stall`: seconds without an event until a stream counts as cut. `tries`: attempts without progress; a turn that
    says nothing for the instance's `patience` (300 s) is given up before all of them are made. `tape`: what the model says is written
    down on it.

    Raises AgentError, a sentence for the person: here without a usable key, later where the provider refuses.
    """
    env = environment()
    url = (base_url or env.base_url or OPENAI).rstrip("/")
    spoken = dialect or ("responses" if is_openai(url) else "chat")
    if background and spoken == "chat":
        raise ValueError("only the Responses dialect has background responses")
    connect = partial(
        Model,
        url=url,
        key=usable_key(api_key if api_key is not None else env.api_key, url),
        name=model or env.model or MODEL,
        dialect=spoken,
        background=spoken == "responses" if background is None else background,
        instructions=f"{instructions}\n{CONTINUE}",
        stall=stall,
        tries=tries,
        tape=tape,
    )
    return partial(answer, connect, Tools(tools, client_tools, approve, documents=documents), max_rounds, tries)


@dataclass(kw_only=True, eq=False)
class Model:
    """A model for one round: `async with Model(...) as model`, then `model.events(...)` for each of its runs.

    A client of its own for each round: the HTTP client drops an idle connection after 5 s, so a longer life would save little.
    """

    url: str
    key: str
    name: str
    dialect: Literal["responses", "chat"]
    background: bool
    instructions: str
    stall: float
    tries: int
    tape: Tape | None = None
    thinks: bool = True
    """Not every model does, and the only way to know is to ask."""
    opening: asyncio.Task[_Opened] | None = None
    """A background response that was asked for, until its id is known."""
    running: str | None = None
    """The background response that goes on unless it is cancelled."""
    stream: openai.AsyncStream[Any] | None = None
    """The last one that was opened, whether or not somebody was there to take it: a stop may come in the step in which it opens."""

    async def __aenter__(self) -> Self:
        loopback = urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")  # no proxy can reach this machine's
        self.client = openai.AsyncOpenAI(
            api_key=self.key,
            base_url=self.url,
            timeout=openai.Timeout(self.stall, connect=10.0),
            max_retries=self.tries - 1,
            http_client=openai.DefaultAsyncHttpxClient(verify=_tls(), trust_env=not loopback),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.opening:
            self.opening.cancel()
        await finish(self._leave())

    async def _leave(self) -> None:
        if self.stream:
            await _close(self.stream)
        await self.client.close()

    async def events(self, items: Sequence[Item], functions: Sequence[Function], cursor: At | None) -> AsyncGenerator[Event, None]:
        """The events of a run: a new one, or the rest of the background response at `cursor`. The last has `calls`; or it raises Failed."""
        self.running = cursor.response if cursor else None
        asked, began = self._body(items, functions), time.monotonic()
        try:
            stream, first = await self._opened(asked, cursor)
            async with (
                aclosing(_chain(first, stream)) as chain,
                aclosing(self._taped(chain, asked, began, cursor)) as heard,
                aclosing(self._read(heard, cursor)) as events,
            ):
                async for event in events:
                    self.running = event.at.response if self.background and event.calls is None else None
                    self.opening = None
                    yield event if self.background else event._replace(at=At(event.at.response))
                    if event.calls is not None:
                        return
            await self._explain_cut()
        except JSONDecodeError as error:
            raise Failed("The model's server sent half an event.", again=True) from error
        except openai.APIError as error:
            raise Failed(self._sentence(error), again=True) from error

    async def cancel(self) -> None:
        """Cancel the background response that is running, if there is one. Returns within CANCEL_WITHIN, even if cancelled itself."""
        if self.opening or self.running:
            await finish(self._cancel())

    async def _cancel(self) -> None:
        with suppress(openai.APIError, Failed, JSONDecodeError, TimeoutError):
            async with asyncio.timeout(CANCEL_WITHIN):
                if self.opening:
                    stream, first = await self.opening
                    await _close(stream)
                    self.running = first.response.id if first and first.type == "response.created" else None
                if self.running:
                    await self.client.responses.cancel(self.running)

    async def _opened(self, asked: dict[str, Any], cursor: At | None) -> _Opened:
        opening = asyncio.ensure_future(self._open(asked, cursor))
        if cursor or not self.background:
            return await opening
        # Shielded: the provider goes on without a reader, and only who has read the first event knows what to cancel.
        self.opening = opening
        return await asyncio.shield(opening)

    async def _open(self, asked: dict[str, Any], cursor: At | None) -> _Opened:
        """A stream and its first event."""
        try:
            self.stream = await self._request(asked, cursor)
        except openai.APIError as error:
            raise self._refused(error, cursor) from error
        return self.stream, await anext(self.stream, None)

    def _body(self, items: Sequence[Item], functions: Sequence[Function]) -> dict[str, Any]:
        """What is asked."""
        if self.dialect == "chat":
            return chat.request(items, functions, self.instructions)
        return responses.request(items, functions, self.instructions) | ({"reasoning": {"summary": "auto"}} if self.thinks else {})

    async def _request(self, asked: dict[str, Any], cursor: At | None) -> openai.AsyncStream[Any]:
        """What is asked goes as `extra_body`: through its unions the client takes 10 ms a turn, in which no other stream moves."""
        if cursor and cursor.sequence is not None:
            return await self.client.responses.retrieve(cursor.response, stream=True, starting_after=cursor.sequence)
        if self.dialect == "chat":
            return await self.client.chat.completions.create(model=self.name, stream=True, messages=[], extra_body=asked)
        return await self.client.responses.create(model=self.name, stream=True, background=self.background, extra_body=asked)

    def _taped(
        self, events: AsyncGenerator[Any, None], asked: dict[str, Any], began: float, cursor: At | None
    ) -> AsyncGenerator[Any, None]:
        if self.tape is None:
            return events
        return self.tape.record(events, Run(self.dialect, self.name, asked), began, cursor.response if cursor else None)

    def _read(self, events: AsyncIterator[Any], cursor: At | None) -> AsyncGenerator[Event, None]:
        return chat.read(events) if self.dialect == "chat" else responses.read(events, cursor.response if cursor else "")

    async def _explain_cut(self) -> None:
        """A stream ended without a last event, and raised nothing: it was cut, or the response was cancelled (there is no such event)."""
        response = await self.client.responses.retrieve(self.running) if self.running else None
        gone = response is not None and response.status not in ("queued", "in_progress", "completed")
        raise Failed("The model's server ended its stream in the middle of an answer.", again=True, gone=gone)

    def _refused(self, error: openai.APIError, cursor: At | None) -> Failed:
        """What it means that the provider opened no stream, though the client tried again wherever that could help."""
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if cursor and status in (400, 404, 410):
            self.running = None
            return Failed("The provider no longer has the response.", again=True, gone=True)
        if self.thinks and status == 400 and str(error.param).startswith("reasoning"):
            self.thinks = False
            return Failed("The model takes no reasoning.", again=True)
        return Failed(self._sentence(error), again=False)

    def _sentence(self, error: openai.APIError) -> str:
        server = urlsplit(self.url).netloc.rpartition("@")[2] or self.url
        match error:
            case openai.APITimeoutError():
                return f"{server} was silent for {self.stall:g} s: try again later."
            case openai.APIConnectionError():
                return f"{server} cannot be reached: check the network and OPENAI_BASE_URL."
            case openai.APIStatusError(status_code=401):
                return f"{server} refuses the API key (401): check OPENAI_API_KEY."
            case openai.APIStatusError(status_code=403):
                return f"{server} does not let this API key use the model {self.name} (403)."
            case openai.APIStatusError(status_code=404):
                return f"{server} has no model {self.name} (404): check KIT_MODEL and OPENAI_BASE_URL."
            case openai.APIStatusError(status_code=429, code="insufficient_quota"):
                return f"The account's quota at {server} is used up (429): check its plan and billing."
            case openai.APIStatusError(status_code=429):
                seconds = error.response.headers.get("Retry-After", "")
                return f"{server} has too many requests (429): try again {f'in {int(seconds):,} s' if seconds.isdecimal() else 'later'}."
            case openai.APIStatusError(status_code=status) if status >= 500:
                return f"{server} failed ({status}): try again later."
            case openai.APIStatusError(status_code=status):
                return f"{server} does not accept the request ({status}): {error.message.removeprefix(f'Error code: {status} - ')}"
            case _:
                return f"{server} broke off: {error.message}"


@cache
def _tls() -> SSLContext:
    """Read once: the certificates take 30 ms, in which no stream of the instance would move."""
    return httpx2.create_ssl_context()


@cache
def warm_up() -> None:
    """Do now, on any thread, what the first answer would wait for: the client builds its types at the first event, which takes 0.3 s."""
    event = {"type": "response.output_text.delta", "delta": "", "item_id": "", "output_index": 0, "content_index": 0}
    event |= {"sequence_number": 0, "logprobs": []}  # with a field less, other types would be built as well, for another 0.5 s
    provider = httpx2.MockTransport(lambda _: httpx2.Response(200, content=f"data: {json.dumps(event)}\n\n"))  # nothing is sent
    with (
        openai.DefaultHttpxClient(verify=_tls(), trust_env=False, transport=provider) as http,
        openai.OpenAI(base_url="http://nobody.invalid", api_key="none", http_client=http).responses.create(stream=True) as stream,
    ):
        for _ in stream:
            pass


_Opened = tuple[openai.AsyncStream[Any], Any]


async def _chain(first: Any, rest: openai.AsyncStream[Any]) -> AsyncGenerator[Any, None]:
    try:
        if first is not None:
            yield first
            async for event in rest:
                yield event
    finally:
        await finish(_close(rest))


async def _close(stream: openai.AsyncStream[Any]) -> None:
    """Close a stream, and read it to its end, which is near then.

    Left before its end, it is a chain of ten suspended generators in a cycle (the client's stream and its iterator hold each other). The
    garbage collector would close all of them at once, at some later moment: "asynchronous generator is already executing".
    """
    await stream.close()
    with suppress(openai.APIError, JSONDecodeError):
        async for _ in stream:
            pass
