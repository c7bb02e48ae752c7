"""Race: one answer told to several clients at the same time, each in its own way, over lines of the same length.

A way is a generator over the port that it dials. Its first `yield` says that it is ready: what it has opened by then costs no time. Then it
asks, and yields for each token that has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from kit.asgi import UVICORN
from kit.lab.line import line
from kit.lab.timeline import Run, Timeline
from kit.listening import listening

Way = Callable[[int], Iterator[object]]
Clock = Callable[[], float]
ANSWER = ("A", "socket", "that", "stays", "open", "can", "speak", "at", "any", "time", ".")
DUE = tuple(0.1 + 0.03 * n for n in range(len(ANSWER)))
"""Seconds from the question to each token: a quick model."""


async def race(ways: Mapping[str, Way], round_trip: float) -> Timeline:
    """Run all ways at once, each in a thread and over a line of its own, which shakes hands as TCP and TLS do."""
    clock = asyncio.get_running_loop().time
    await run_in_threadpool(int)  # what starlette loads at the first use is on nobody's clock
    async with answering(clock) as port:
        runs = [_run(name, way, port, round_trip / 2, clock) for name, way in ways.items()]
        return Timeline(await asyncio.gather(*runs))


async def _run(name: str, way: Way, port: int, one_way: float, clock: Clock) -> Run:
    async with line(port, delay=one_way, setup=2) as wire:

        def run() -> Run:
            arrivals = way(wire.port)
            next(arrivals)
            asked, before = clock(), wire.bytes
            tokens = tuple(clock() - asked for _ in arrivals)
            trips = tuple(trip - asked for trip in wire.trips if asked <= trip <= asked + tokens[-1])
            return Run(name, trips, tokens, wire.bytes - before)

        return await asyncio.to_thread(run)


class Answers:
    """The server's four ways to give the same answer, whatever is asked. What has been said is a function of the time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[float] = []

    async def speak(self) -> AsyncIterator[str]:
        asked = self.clock()
        for token, due in zip(ANSWER, DUE, strict=True):
            await asyncio.sleep(asked + due - self.clock())
            yield token

    async def begin(self, _: Request) -> Response:
        """`POST /answers`: begin one, and give its number."""
        self.asked.append(self.clock())
        return JSONResponse(len(self.asked) - 1)

    async def tokens(self, request: Request) -> Response:
        """`GET /answers/0?after=3`: what has been said after the third token; with `&wait=1` not before there is something."""
        asked, after = self.asked[request.path_params["number"]], int(request.query_params["after"])
        if "wait" in request.query_params:
            await asyncio.sleep(asked + DUE[after] - self.clock())
        said = sum(asked + due <= self.clock() for due in DUE)
        return JSONResponse(ANSWER[after:said])

    async def stream(self, _: Request) -> Response:
        """`POST /stream`: the answer as server-sent events."""
        return StreamingResponse((f"data: {token}\n\n" async for token in self.speak()), media_type="text/event-stream")

    async def socket(self, websocket: WebSocket) -> None:
        """`/socket`: an answer to each message, a frame for each token."""
        await websocket.accept()
        async for _ in websocket.iter_text():
            async for token in self.speak():
                await websocket.send_text(token)


@asynccontextmanager
async def answering(clock: Clock) -> AsyncIterator[int]:
    """The server, on a port of its own, while the block runs."""
    answers = Answers(clock)
    routes = [
        Route("/answers", answers.begin, methods=["POST"]),
        Route("/answers/{number:int}", answers.tokens),
        Route("/stream", answers.stream, methods=["POST"]),
        WebSocketRoute("/socket", answers.socket),
    ]
    async with listening(Starlette(routes=routes), **UVICORN) as listener:
        yield listener.sockets[0].getsockname()[1]
