"""Model: the embedded OpenAI-compatible server, on loopback, that the kit talks to where there is no key.

    async with model.serve(pace=50.0) as server:
        client = AsyncOpenAI(base_url=server.url, api_key="none")

Chat Completions and Responses, streamed or not, tools, reasoning, background runs that are re-attached to or cancelled, and the
faults of a real provider. What is said is decided in embedded/replies.py; here is only how it travels. It listens on 127.0.0.1 and
nowhere else, installs no signal handlers, and runs in whichever thread's loop it is started.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from kit.agents.embedded.delivery import Delivery, Record, body_of, failing, no_route, refused
from kit.agents.embedded.events import chat_completion, chat_events, limited, response_events, response_head
from kit.agents.embedded.faults import Cut, Fail, Fault, Refuse, Refused, Stall, rate_limited, server_error, wrong_key
from kit.agents.embedded.replies import reply
from kit.agents.embedded.requests import BadRequest, ChatRequest, Json, ResponsesRequest, as_items, parse
from kit.agents.embedded.runs import Run

__all__ = ["NAME", "Cut", "Fail", "Fault", "Record", "Refuse", "Server", "Stall", "rate_limited", "serve", "server_error", "wrong_key"]

NAME = "kit-scripted"
"""The model that GET /models lists; any other name is answered, too."""


class Server(Delivery):
    """The API. `url` is the client's `base_url`."""

    def __init__(
        self, pace: float | None, key: str | None, keep: int, sleep: Callable[[float], Awaitable[object]], clock: Callable[[], float]
    ) -> None:
        super().__init__(pace, key, sleep, clock)
        self.url = ""
        self._keep = keep
        self._runs: dict[str, Run] = {}
        routes = [
            Route("/v1/models", self.route(self._models)),
            Route("/v1/chat/completions", self.route(self._chat), methods=["POST"]),
            Route("/v1/responses", self.route(self._respond), methods=["POST"]),
            Route("/v1/responses/{id}", self.route(self._retrieve)),
            Route("/v1/responses/{id}/cancel", self.route(self._cancel), methods=["POST"]),
        ]
        errors: Any = {Refused: refused, HTTPException: no_route}
        self._routes = Starlette(routes=routes, exception_handlers=errors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application that uvicorn runs."""
        await self.watch(self._routes, scope, receive, send)

    async def _models(self, request: Request, fault: Fault | None) -> Response:
        model = {"id": NAME, "object": "model", "created": 0, "owned_by": "kit"}
        return await self.whole(request, fault, _value({"object": "list", "data": [model]}))

    async def _chat(self, request: Request, fault: Fault | None) -> Response:
        asked = parse(await body_of(request), ChatRequest)
        conversation = asked.conversation()
        said, cut = limited(reply(conversation), asked.limit)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        events = self.paced(failing(chat_events(head, conversation, said, cut, usage), fault))
        if asked.stream:
            return self.stream(request, fault, events, b"data: [DONE]\n\n")
        return await self.whole(request, fault, lambda: self.last(events, lambda: chat_completion(head, conversation, said, cut)))

    async def _respond(self, request: Request, fault: Fault | None) -> Response:
        body = await body_of(request)
        if "input" in body:
            body = {**body, "input": as_items(body["input"])}
        parse(body, ResponsesRequest)  # before what was said earlier is put in front: paths are those of the client's own body
        items = self._earlier(body.get("previous_response_id")) + body["input"]
        asked = parse({**body, "input": items}, ResponsesRequest)
        if asked.background and asked.store is False:
            raise BadRequest("Background mode requires store to be true.", "background")
        conversation = asked.conversation()
        said, cut = limited(reply(conversation), asked.max_output_tokens)
        head = response_head(f"resp_{uuid.uuid4().hex}", time.time(), asked, body.get("tools"))
        events = self.paced(failing(response_events(head, conversation, said, cut), fault))
        run = self._keep_run(Run(head, items), asked.store is not False)
        if asked.background:
            run.task = asyncio.create_task(run.background(events))
            if not asked.stream:
                return await self.whole(request, fault, _value(run.response))
            return self.stream(request, fault, run.follow(-1))
        if asked.stream:
            return self.stream(request, fault, run.foreground(events))
        return await self.whole(request, fault, lambda: self.last(run.foreground(events), lambda: run.response))

    async def _retrieve(self, request: Request, fault: Fault | None) -> Response:
        run = self._run(request)
        if request.query_params.get("stream", "false").lower() != "true":
            return await self.whole(request, fault, _value(run.response))
        after = request.query_params.get("starting_after", "-1")
        if not after.lstrip("-").isdecimal() or len(after) > 18:
            raise BadRequest(f"Invalid value: {after!r} is no sequence number.", "starting_after")
        if not run.task:
            raise BadRequest("Only a response made in background mode can be streamed again.", "stream")
        return self.stream(request, fault, run.follow(int(after)))

    async def _cancel(self, request: Request, fault: Fault | None) -> Response:
        run = self._run(request)
        if not run.task:
            raise BadRequest("Only a response made in background mode can be cancelled.", "response_id")
        run.task.cancel()
        await asyncio.wait([run.task])
        return await self.whole(request, fault, _value(run.response))

    # ---- what is kept ----

    def _run(self, request: Request) -> Run:
        wanted = request.path_params["id"]
        if wanted not in self._runs:
            raise Refused(Refuse(404, f"Response with id '{wanted}' not found.", param="response_id"))
        return self._runs[wanted]

    def _keep_run(self, run: Run, keep: bool) -> Run:
        if keep:
            self._runs[run.response["id"]] = run
            over = [old.response["id"] for old in self._runs.values() if old.over]
            for old in over[: max(len(over) - self._keep, 0)]:
                del self._runs[old]
        return run

    def _earlier(self, id: str | None) -> list[Any]:
        """The items of an earlier response and what it said."""
        if id is None:
            return []
        if id not in self._runs:
            refuse = Refuse(400, f"Previous response with id '{id}' not found.", "previous_response_not_found", "previous_response_id")
            raise Refused(refuse)
        return [*self._runs[id].items, *self._runs[id].response["output"]]

    async def close(self) -> None:
        """Drop every connection and run, as a machine that dies does."""
        runs = [run.task for run in self._runs.values() if run.task]
        for task in runs:
            task.cancel()
        # Dropped, not cancelled: uvicorn logs a cancelled request as an error, and one whose client is gone not at all.
        for connection in list(self.state.connections):
            if isinstance(connection, H11Protocol):
                connection.transport.abort()
        await asyncio.gather(*runs, *self.state.tasks, return_exceptions=True)


@asynccontextmanager
async def serve(
    *,
    port: int = 0,
    pace: float | None = 50.0,
    key: str | None = None,
    keep: int = 200,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Server]:
    """An embedded model while the block runs.

    `pace` is in tokens per second; with a `key`, any other is answered 401; the last `keep` finished responses can be retrieved.
    Raises OSError where the port is taken.
    """
    server = Server(pace, key, keep, sleep, clock)
    # Not `uvicorn.Server.serve`: it takes the signals of the main thread, and needs 0.1 s and more to notice that it should stop.
    config = uvicorn.Config(server, http="h11", ws="none", lifespan="off", log_config=None, timeout_keep_alive=60)
    config.load()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: H11Protocol(config, server.state, {}), "127.0.0.1", port)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        await server.close()


def _value(value: Json) -> Callable[[], Awaitable[Json]]:
    async def known() -> Json:
        return value

    return known
