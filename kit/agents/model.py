"""Model: the embedded OpenAI-compatible server, on loopback, that the kit talks to where there is no key.

    async with model.serve(pace=50.0) as server:
        client = AsyncOpenAI(base_url=server.url, api_key="none")

Chat Completions and Responses, streamed or not, tools, reasoning, background runs that are re-attached to or cancelled, and the faults of
a real provider. What it says is a script's, or a tape's. It listens on 127.0.0.1 alone, installs no signal handlers, and runs in whichever
loop it is started.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kit.agents.embedded.delivery import Cut, Delivery, Fault, Record, Sleep, Stall
from kit.agents.embedded.events import Event, chat_answer, response_events, response_head
from kit.agents.embedded.player import play
from kit.agents.embedded.replies import reply
from kit.agents.embedded.requests import Json, Refuse, parse, rate_limited
from kit.agents.tape import Run as Taped
from kit.agents.tape import Tape
from kit.ending import end, stop_listening
from kit.listening import listening

UNDER_WAY = ("queued", "in_progress")
"""What the API calls a response that goes on; a tape of its own may begin with the first."""

__all__ = ["Cut", "Fault", "Record", "Refuse", "Server", "Stall", "rate_limited", "serve"]
DONE = b"data: [DONE]\n\n"
"""Ends a stream of Chat Completions."""


class Run:
    """A background response: made by a task of its own, its events kept for whoever comes back for them."""

    def __init__(self, head: Json, events: AsyncGenerator[Event, None]) -> None:
        self.response = head
        self.task = asyncio.create_task(self._make(events))
        self.task.add_done_callback(self._end)
        self._events: list[Event] = []
        self._news = asyncio.Event()

    async def follow(self, after: int = -1) -> AsyncGenerator[Event, None]:
        """The events with a sequence number above `after`, until the run is over."""
        at = max(after + 1, 0)
        while True:
            news = self._news
            while at < len(self._events):
                yield self._events[at]
                at += 1
            if self.response["status"] not in UNDER_WAY:
                return
            await news.wait()

    async def _make(self, events: AsyncGenerator[Event, None]) -> None:
        async for event in events:
            self._events.append(event)
            self.response = event.data.get("response", self.response)
            self._news.set()
            self._news = asyncio.Event()

    def _end(self, task: asyncio.Task[None]) -> None:
        if self.response["status"] in UNDER_WAY:
            self.response = {**self.response, "status": "cancelled"}
        self._news.set()


class Server(Delivery):
    """The API. `url` is the client's `base_url`."""

    def __init__(self, pace: float | None, key: str | None, sleep: Sleep) -> None:
        self._runs: dict[str, Run] = {}
        self._tape: Tape | None = None
        self._timed = True
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/responses", self._respond, methods=["POST"]),
            Route("/v1/responses/{id}", self._retrieve),
            Route("/v1/responses/{id}/cancel", self._cancel, methods=["POST"]),
        ]
        super().__init__(routes, pace, key, sleep)

    def play(self, tape: Tape | None, *, pace: float | Literal["tape"] | None = "tape") -> None:
        """From now on say what is on the tape; None: the script again.

        At the tape's own pace, or another, in tokens per second (None: as fast as it goes). Where the tape was left, it waits to be left;
        where it was cut, it cuts the connection.
        """
        self._tape, self._timed = tape, pace == "tape"
        if pace != "tape":
            self.pace = pace

    async def _chat(self, request: Request) -> Response:
        fault = self.admit(request)
        request.state.record.body, asked = parse(await request.body())
        if self._tape:
            run, events = play(self._tape, "chat", asked, {"id": f"chatcmpl-{uuid.uuid4().hex}"}, timed=self._timed)
            return self.answer(request, fault or _cut(run, events), self.paced(events, ends=run.ended != "left"), None, DONE)
        whole, events = chat_answer(asked.model, reply(asked.items(), asked.offered()))
        return self.answer(request, fault, self.paced(events), None if asked.stream else whole, DONE)

    async def _respond(self, request: Request) -> Response:
        fault = self.admit(request)
        request.state.record.body, asked = parse(await request.body())
        head = response_head(asked.model, bool(asked.background))
        if self._tape:
            taped, events = play(self._tape, "responses", asked, head, timed=self._timed)
            fault, paced = fault or _cut(taped, events), self.paced(events, ends=taped.ended != "left")
        else:
            events = response_events(head, reply(asked.items(), asked.offered()))
            paced = self.paced(events)
        if not asked.background:
            return self.answer(request, fault, paced, None if asked.stream else events[-1].data["response"])
        run = self._runs[head["id"]] = Run(head, paced)
        if len(self._runs) > 200:  # the oldest is forgotten
            self._runs.pop(next(iter(self._runs))).task.cancel()
        if asked.stream:
            return self.answer(request, fault, run.follow())
        return self.answer(request, fault, self.paced([]), head)

    async def _retrieve(self, request: Request) -> Response:
        fault, run = self.admit(request), self._run(request)
        if request.query_params.get("stream") != "true":
            return self.answer(request, fault, self.paced([]), run.response)
        after = request.query_params.get("starting_after", "-1")
        if not re.fullmatch(r"-?\d{1,18}", after):
            raise Refuse(400, f"Invalid value: {after!r} is no sequence number.", "invalid_value", "starting_after")
        return self.answer(request, fault, run.follow(int(after)))

    async def _cancel(self, request: Request) -> Response:
        fault, run = self.admit(request), self._run(request)
        run.task.cancel()
        await asyncio.wait([run.task])
        return self.answer(request, fault, self.paced([]), run.response)

    def _run(self, request: Request) -> Run:
        """The background response that the path names: others are not kept."""
        wanted = request.path_params["id"]
        if wanted not in self._runs:
            raise Refuse(404, f"Response with id '{wanted}' not found.", param="response_id")
        return self._runs[wanted]

    async def end_runs(self) -> None:
        """As a machine that dies does."""
        await end(run.task for run in self._runs.values())


def _cut(run: Taped, events: Sequence[Event]) -> Cut | None:
    return Cut(len(events)) if run.ended == "cut" else None


@asynccontextmanager
async def serve(*, port: int = 0, pace: float | None = 50.0, key: str | None = None, sleep: Sleep = asyncio.sleep) -> AsyncIterator[Server]:
    """An embedded model while the block runs.

    `pace` is in tokens per second; with a `key`, any other is answered 401. Raises OSError where the port is taken.
    """
    server = Server(pace, key, sleep)
    async with listening(server, port=port, state=server.state, ws="none", timeout_keep_alive=60) as listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        try:
            yield server
        finally:
            await stop_listening(listener)  # nobody new
            await server.end_runs()
