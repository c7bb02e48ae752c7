"""The exercises of chapter 08, Real model: an answer that survives cuts, a call out of many pieces. The model is the check's own."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, NotFoundError

from kit.agents import model
from kit.agents.model import Cut
from kit.lab.check import Attempt, Exercise

TWENTY = " ".join(map(str, range(1, 21)))


@asynccontextmanager
async def asking() -> AsyncIterator[tuple[model.Server, AsyncOpenAI]]:
    """A model that nobody else asks, and a client that never tries again by itself."""
    http = DefaultAsyncHttpxClient(trust_env=False)
    async with (
        model.serve(pace=2000) as server,
        AsyncOpenAI(base_url=server.url, api_key="none", http_client=http, max_retries=0) as client,
    ):
        yield server, client


async def check_resumes(resumes: Callable[[AsyncOpenAI, str], AsyncIterator[str]], attempt: Attempt) -> None:
    attempt.step("where nothing is cut, it gives the answer, piece by piece")
    async with asking() as (server, client):
        said = resumes(client, "count to 20")
        if not inspect.isasyncgen(said):
            if inspect.iscoroutine(said):
                said.close()
            attempt.fail("it is no async generator: an `async def` with a `yield` in it")
        attempt.equal("".join([piece async for piece in said]), TWENTY)
        attempt.step("the first piece comes before the last one is made")
        said = resumes(client, "count to 60")
        await anext(said)
        await said.aclose()
        if server.tokens_made > 60:
            attempt.fail("it waited for the whole answer: yield each piece when it comes")
    for what, cut in (("ends without `response.completed`", Cut(26, clean=True)), ("breaks with an APIConnectionError", Cut(26))):
        async with asking() as (server, client):
            attempt.step(f"the stream {what}: each piece comes once")
            server.fail_next(cut)
            attempt.equal(await _said(resumes(client, "count to 20"), attempt), TWENTY)
            _asked_once(server, attempt)
    async with asking() as (server, client):
        attempt.step("it is cut every few events, in the thought, in the text, and before its very last event")
        server.fail_next(Cut(5), Cut(7, clean=True), Cut(9), Cut(4, clean=True), Cut(6))
        attempt.equal(await _said(resumes(client, "count to 20"), attempt), TWENTY)
        _asked_once(server, attempt)


async def _said(pieces: AsyncIterator[str], attempt: Attempt) -> str:
    try:
        return "".join([piece async for piece in pieces])
    except NotFoundError:
        attempt.fail("`retrieve` found no such response (404): the provider keeps only what was created with `background=True`")


def _asked_once(server: model.Server, attempt: Attempt) -> None:
    if (posts := sum(request.method == "POST" for request in server.requests)) > 1:
        attempt.fail("the model was asked anew, and paid again: `retrieve` the response that it is already making", seen=posts, expected=1)


def check_assembled(assembled: Callable[[list[Any]], Any], attempt: Attempt) -> None:
    def piece(index: int, text: str | None = None, **more: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": text}, **more}

    def first(index: int, id: str | None, name: str, text: str | None = "") -> dict[str, Any]:
        return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": text}}

    def expect(step: str, pieces: list[dict[str, Any]], calls: list[tuple[str, str, str]]) -> None:
        attempt.step(step, given=f"assembled({pieces})")
        attempt.equal(assembled(pieces), calls)

    expect("no pieces, no calls", [], [])
    three = [first(0, "a", "pay"), piece(0, '{"amount"'), piece(0, ": 1"), piece(0, "00}")]
    expect("one call whose arguments come in three pieces", three, [("a", "pay", '{"amount": 100}')])
    two = [first(0, "a", "pay", '{"to":'), first(1, "b", "look", '{"at":'), piece(0, ' "ann"}'), piece(1, ' "oslo"}')]
    both = [("a", "pay", '{"to": "ann"}'), ("b", "look", '{"at": "oslo"}')]
    expect("two calls in turns: `index` says which one a piece belongs to", two, both)
    expect("the second call's pieces come first: the calls are in the order of their index", [two[1], two[3], two[0], two[2]], both)
    nulls = {"index": 0, "id": None, "function": {"name": None, "arguments": "}"}}
    expect("a server repeats the keys with null: what is known stays", [first(0, "a", "now", "{"), nulls], [("a", "now", "{}")])
    empty = [first(0, "a", "now", None), {"index": 0}]
    expect("a call without arguments: null from its first piece on, and a piece without a function", empty, [("a", "now", "")])


EXERCISES = {
    "8.1": Exercise(
        "resumes",
        check_resumes,
        hints=(
            "What must you know to take the stream up again, and which events tell you? Which event says that it is really over?",
            "A loop: `create` while there is no id, else `retrieve`. Set `last` at every event; go round again on APIConnectionError, too.",
        ),
        seconds=10.0,
    ),
    "8.2": Exercise(
        "assembled",
        check_assembled,
        hints=(
            "Keep what you know of each index. Of the three fields, two come once, and one grows. What does a null mean for each?",
            "A dict from index to (id, name, arguments). `piece.get('id') or id` keeps what is known; arguments are added, None as ''.",
        ),
    ),
}
