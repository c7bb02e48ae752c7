"""Chapter 04: each draft fails for the reason that the chapter gives, and what it ends with does not.

The model makes a token only when the test lets it, so nothing here depends on how long anything takes.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen

from kit.agents import model
from kit.agents.demo import default_agent
from kit.client import connect
from kit.packets import Content, End, EntryId
from kit.server import serve
from tests.notebooks import chapters
from tests.notebooks.chapters import cells

CELLS = cells("04")
defined = partial(chapters.defined, CELLS)
TEXT = "response.output_text.delta"
ALL = 88
"""Tokens of the answer to `count to 80`, the thought included."""


class Valve:
    """The model's clock: each token waits until it is let through."""

    def __init__(self) -> None:
        self._let = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        await self._let.acquire()

    def let(self, tokens: int) -> None:
        for _ in range(tokens):
            self._let.release()


class Lesson:
    """A model behind a valve, and the drafts on it."""

    def __init__(self, server: model.Server, valve: Valve, client: AsyncOpenAI) -> None:
        self.model, self.valve = server, valve
        self.ask: Any = partial(client.responses.create, model="kit-scripted", stream=True)
        given: dict[str, Any] = {"asyncio": asyncio, "ask": self.ask, "TEXT": TEXT}
        self.drafts = defined("speaks", "hides", "polls", "end", "cancels", "ex1", **given)

    async def made(self, tokens: int) -> None:
        """The model has made so many."""
        self.valve.let(tokens - self.model.tokens_made)
        while self.model.tokens_made < tokens:  # noqa: ASYNC110  # the model has no event for it
            await asyncio.sleep(0)

    async def first_of(self, said: AsyncGenerator[str, None]) -> None:
        """Take the first piece of an answer, and close it there."""
        self.valve.let(20)
        assert await anext(said) == "1"
        await said.aclose()

    async def rest(self) -> model.Record:
        """Let the model make the rest, slowly enough that it would notice a client that has left; what it says of its one request."""
        over = asyncio.create_task(self.model.ended(1))
        while not over.done():
            self.valve.let(1)
            await asyncio.sleep(0.001)
        return await over


@pytest.fixture
async def lesson() -> AsyncIterator[Lesson]:
    valve = Valve()
    async with (
        model.serve(sleep=valve.sleep) as server,
        AsyncOpenAI(base_url=server.url, api_key="none", http_client=DefaultAsyncHttpxClient(trust_env=False)) as client,
    ):
        yield Lesson(server, valve, client)


@asynccontextmanager
async def stopped(lesson: Lesson, draft: str) -> AsyncIterator[ClientConnection]:
    """A page that has said stop when twenty tokens were made. The word has arrived at the server, and the model is held."""

    async def connection(socket: ServerConnection) -> None:
        async for frame in socket:
            if frame == "stop":
                await socket.send("stopped")
            else:
                await lesson.drafts[draft](socket, frame)

    async with listen(connection, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with dial(f"ws://127.0.0.1:{port}", max_queue=None, proxy=None) as page:
            await page.send("count to 80")
            await lesson.made(20)
            await page.send("stop")
            await (await page.ping())  # answered in order: what was sent before it has been read off the line
            yield page


async def until_stopped(page: ClientConnection) -> list[str]:
    """What comes before the receipt."""
    frames = []
    while (frame := await page.recv()) != "stopped":
        frames.append(str(frame))
    return frames


# ---- the drafts ----


async def test_the_loop_of_these_tests_is_the_chapters() -> None:
    """The instrument's own is inside of it, where a test cannot get at it."""
    loop = next(n for n in ast.walk(ast.parse(CELLS["interrupted"])) if isinstance(n, ast.AsyncFunctionDef) and n.name == "connection")
    here = next(
        n for n in ast.walk(ast.parse(inspect.getsource(stopped))) if isinstance(n, ast.AsyncFunctionDef) and n.name == "connection"
    )
    shown = ast.unparse(here.body[0]).replace("lesson.drafts[draft]", "draft")
    assert ast.unparse(loop.body[0]) == shown


async def test_a_server_that_awaits_the_answer_hears_the_stop_after_it(lesson: Lesson) -> None:
    """The word has long arrived; the whole answer comes before its receipt."""
    async with stopped(lesson, "speaks") as page:
        assert lesson.model.requests == []
        assert (await lesson.rest()).outcome == "answered"
        assert "".join(await until_stopped(page)) == " ".join(map(str, range(1, 81)))
    assert lesson.model.tokens_made == ALL


async def test_a_page_that_hides_is_told_at_once_and_the_model_goes_on(lesson: Lesson) -> None:
    """The receipt comes while the model is held in the middle of its answer, of which then nothing is left out."""
    async with stopped(lesson, "hides") as page:
        await until_stopped(page)
        assert (lesson.model.requests, lesson.model.tokens_made) == ([], 20)
        assert (await lesson.rest()).outcome == "answered"
    assert lesson.model.tokens_made == ALL


async def test_a_flag_is_not_seen_from_inside_a_call(lesson: Lesson) -> None:
    """It works in the end (nothing is said), when all is made and paid for."""
    async with stopped(lesson, "polls") as page:
        frames = asyncio.create_task(until_stopped(page))
        await lesson.made(ALL - 1)
        for _ in range(5):  # time for a flag that is looked at between tokens
            await (await page.ping())
        assert not frames.done()
        assert (await lesson.rest()).outcome == "answered"
        assert await frames == []


async def test_a_cancelled_answer_ends_at_the_model(lesson: Lesson) -> None:
    """The receipt comes while the model is held, its request is given up, and no further token is made."""
    async with stopped(lesson, "cancels") as page:
        await until_stopped(page)
        assert (await lesson.model.ended(1)).outcome == "left"
        lesson.valve.let(1000)
    assert lesson.model.tokens_made == 20


# ---- what must be done right about cancelling ----


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The garbage collector may come by and close what was left open: at any time, and so never when it counts."""
    gc.disable()
    yield
    gc.enable()


class Clogged:
    """A page that reads nothing: what is sent to it never ends."""

    def __init__(self) -> None:
        self.sending = asyncio.Event()

    async def send(self, frame: str) -> None:
        self.sending.set()
        await asyncio.Event().wait()


@pytest.mark.usefixtures("no_collector")
async def test_cancelled_elsewhere_the_first_draft_leaves_its_stream_open(lesson: Lesson) -> None:
    """It waits for the page and not for the model: the HTTP client does not notice, and the model makes all that is left."""
    socket = Clogged()
    answer = asyncio.create_task(lesson.drafts["speaks"](socket, "count to 80"))
    await lesson.made(20)
    await socket.sending.wait()
    answer.cancel()
    await asyncio.wait({answer})
    assert (await lesson.rest()).outcome == "answered"
    assert lesson.model.tokens_made == ALL


@pytest.mark.usefixtures("no_collector")
async def test_a_generator_without_a_block_leaves_its_stream_open(lesson: Lesson) -> None:
    """Closed at its `yield`, it goes away, and the model makes all that is left."""

    async def careless(prompt: str) -> AsyncGenerator[str, None]:
        async for event in await lesson.ask(input=prompt):
            if event.type == TEXT:
                yield event.delta

    await lesson.first_of(careless("count to 80"))
    assert (await lesson.rest()).outcome == "answered"
    assert lesson.model.tokens_made == ALL


async def test_the_exercises_generator_closes_it(lesson: Lesson) -> None:
    """The same with `async with`: the request is given up while the model is held."""
    await lesson.first_of(lesson.drafts["texts"](lesson.ask, "count to 80"))
    assert (await lesson.model.ended(1)).outcome == "left"


async def test_one_cancel_may_be_swallowed() -> None:
    """A task that has an `except` too many goes on after it; the kit's `end` asks again."""

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    end = defined("interrupted", "end")["end"]
    once, asked = tasks = [asyncio.create_task(stubborn()) for _ in range(2)]
    await asyncio.sleep(0)  # both have begun
    once.cancel()
    await end({asked}, again=0.01)
    assert asked.cancelled()
    assert not once.done()
    await end(tasks, again=0.01)


async def test_in_background_hanging_up_is_only_hiding(lesson: Lesson) -> None:
    """Such a response is made to its end though nobody reads it."""
    async with await lesson.ask(input="count to 80", background=True):
        await lesson.made(20)
    assert (await lesson.model.ended(1)).outcome == "left"
    await lesson.made(ALL)


async def test_the_kits_stop_reaches_a_model_in_background(lesson: Lesson) -> None:
    """Nothing but the end follows the receipt's id, and the response is cancelled: not one more token is made."""
    async with (
        serve(default_agent(lesson.model.url)) as server,
        connect(server.url, session="s", token=server.token("ann")) as session,
    ):
        await session.prompt("count to 80")
        await lesson.made(20)
        await anext(entry async for entry in session if isinstance(entry, Content))
        receipt = await session.stop()
        ends = [entry async for entry in _after(session, receipt.id or "")]
        assert [type(entry) for entry in ends] == [End]
        assert receipt.status == "applied"
        hung_up, cancelled = [await lesson.model.ended(n) for n in (1, 2)]
    assert hung_up.outcome == "left"
    assert cancelled.path.endswith("/cancel")
    lesson.valve.let(1000)
    assert lesson.model.tokens_made == 20


async def _after(session: Any, id: str) -> AsyncIterator[Any]:
    """The packets after an id, up to the end."""
    async for entry in session:
        if EntryId.parse(entry.id) > EntryId.parse(id):
            yield entry
        if isinstance(entry, End):
            return


# ---- the fence ----


async def test_looking_first_is_too_late_and_the_store_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """The cell as it stands: the naive log has a token after its stop, the transcript has none, and says why."""
    names: dict[str, Any] = {}
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    await eval(compile(CELLS["fence"], "fence", "exec", flags=flags), names)
    naive, refused, ids = capsys.readouterr().out.splitlines()
    assert ast.literal_eval(naive) == [b"stop", b"one more token"]
    assert refused.startswith("heard epoch 1, but a later word has been said")
    assert ast.literal_eval(ids) == ["1-0", "1-1", "2-0"]
