"""Exercises of chapter 04: a stream that is closed, the outcome of a stop, an action that runs once."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from msgspec import UNSET
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from kit.agents import model
from kit.agents.scripted import scripted
from kit.client import Session, connect
from kit.lab.check import Attempt, Exercise
from kit.packets import Action, Content, End, Prompt, Result, Stop
from kit.server import serve

Ask = Callable[..., Awaitable[Any]]
Texts = Callable[[Ask, str], AsyncGenerator[str, None]]
PACE = 1000.0


@asynccontextmanager
async def asking() -> AsyncIterator[tuple[model.Server, Ask]]:
    """A model of the check's own, which nobody else asks, and the way to ask it.

    Meanwhile no garbage is collected: that would close, now and then, what the learner's code has left open.
    """
    gc.disable()
    try:
        async with (
            model.serve(pace=PACE) as server,
            AsyncOpenAI(base_url=server.url, api_key="none", http_client=DefaultAsyncHttpxClient(trust_env=False)) as client,
        ):
            yield server, partial(client.responses.create, model="kit-scripted", stream=True)
    finally:
        gc.enable()


async def check_texts(texts: Texts, attempt: Attempt) -> None:
    attempt.step("it gives the model's text, piece by piece")
    async with asking() as (server, ask):
        said = texts(ask, "count to 5")
        if not inspect.isasyncgen(said):
            _close(said)
            attempt.fail("it is no async generator: an `async def` with a `yield` in it")
        pieces = [piece async for piece in said]
        if other := [piece for piece in pieces if not isinstance(piece, str)]:
            attempt.fail(f"it yields a {type(other[0]).__name__}, which is no text: yield its `delta`")
        attempt.equal("".join(pieces), "1 2 3 4 5")

        attempt.step("the first piece comes before the last one is made")
        said = texts(ask, "count to 60")
        await anext(said)
        if server.tokens_made >= 60:
            attempt.fail("it waited for the whole answer: yield each piece when it comes")

        attempt.step("closed at its yield, it closes the model's stream")
        await said.aclose()
        await _left(server, 2, attempt)

        attempt.step("cancelled while it waits for the model, it closes the stream and lets the cancellation through")
        server.fail_next(model.Stall(after=30))  # it has begun to count, and is silent then
        begun = asyncio.Event()
        waiting = asyncio.create_task(_listen(texts(ask, "count to 60"), begun))
        await begun.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        if not waiting.cancelled():
            attempt.fail("it kept the cancellation for itself: whoever cancelled the task believes that it went on to its end")
        await _left(server, 3, attempt)


def _close(said: object) -> None:
    if inspect.iscoroutine(said):
        said.close()


async def _listen(said: AsyncGenerator[str, None], begun: asyncio.Event) -> None:
    async for _ in said:
        begun.set()


async def _left(server: model.Server, count: int, attempt: Attempt) -> None:
    """The request was given up, and not heard to its end."""
    made = server.tokens_made
    if (await server.ended(count)).outcome != "left":
        attempt.fail(f"the stream stayed open: the model made {server.tokens_made - made} more tokens, for nobody")


def check_outcome(outcome: Callable[[list[Any], Stop], str], attempt: Attempt) -> None:
    one, two = Prompt(id="1-0", text="count", to="agent"), Prompt(id="2-0", text="and you", to="waiter")
    said = Content("1", id="1-1", turn="1-0/agent")
    ended = End(id="1-2", turn="1-0/agent", reason="done")
    every, first, second = Stop(), Stop(turn="1-0/agent"), Stop(turn="2-0/waiter")
    cases: list[tuple[str, list[Any], Stop, str]] = [
        ("a stop in the middle of an answer", [one, said], first, "applied"),
        ("a stop of all, in the middle of an answer", [one, said], every, "applied"),
        ("a stop of all, where nothing was said yet", [], every, "too_late"),
        ("a stop after the end", [one, said, ended], first, "too_late"),
        ("a stop of all after the end", [one, said, ended], every, "too_late"),
        ("two turns, one has ended: the other can be stopped", [one, two, ended], second, "applied"),
        ("two turns, one has ended: stopping that one is too late", [one, two, ended], first, "too_late"),
        ("two turns, one has ended: a stop of all finds the other", [one, two, ended], every, "applied"),
        ("a second stop, said before the first one's `end` is there", [one, said, Stop(id="2-0", turn="1-0/agent")], first, "too_late"),
        ("a second stop of all, before the first one's `end` is there", [one, said, Stop(id="2-0")], every, "too_late"),
        ("a stop of the other turn leaves this one alone", [one, two, Stop(id="3-0", turn="2-0/waiter")], first, "applied"),
        ("what is asked after a stop of all is not stopped by it", [Stop(id="1-0"), two], second, "applied"),
    ]
    for what, log, stop, expected in cases:
        attempt.step(what, given=f"outcome([{', '.join(map(_shown, log))}], {_shown(stop)})")
        attempt.equal(outcome(list(log), stop), expected)


def _shown(entry: Any) -> str:
    """An entry by what counts here."""
    names = ["id", *(["to"] if isinstance(entry, Prompt) else ["turn"])]
    fields = [f"{name}={value!r}" for name in names if (value := getattr(entry, name))]
    return f"{type(entry).__name__}({', '.join(fields)})"


Run = Callable[[Session, Action, Callable[..., Any]], Awaitable[bool]]


async def check_run_once(run_once: Run, attempt: Attempt) -> None:
    action = Action(call="pay-1", name="pay", arguments={"amount": 5}, on="client")
    async with serve(scripted([action, Content("Thank you.")])) as server:
        for session, step in (("pays", _two_tabs), ("fails", _failing)):
            tab = partial(connect, server.url, session=session, token=server.token("ann"))
            async with tab() as one, tab() as two:
                await one.prompt("I would like to pay")
                await step(run_once, one, two, attempt)


async def _two_tabs(run_once: Run, one: Session, two: Session, attempt: Attempt) -> None:
    attempt.step("two tabs see the same action, and it runs once")
    paid: list[int] = []

    def pay(amount: int) -> str:
        paid.append(amount)
        return "a receipt"

    actions = [await _action(tab) for tab in (one, two)]
    here = await asyncio.gather(*(run_once(tab, action, pay) for tab, action in zip((one, two), actions, strict=True)))
    if len(paid) > 1:
        attempt.fail("it was paid twice: claim it, and run it only where the receipt says `applied`", seen=paid, expected=[5])
    if not paid:
        attempt.fail(
            "nobody paid: one of two claims has a receipt whose `status` is `applied`, and that tab runs it", seen=paid, expected=[5]
        )
    attempt.equal(paid, [5])
    attempt.step("it says whether it ran here: True in the one tab, False in the other")
    for told in here:
        attempt.equal(told, bool(told))
    attempt.equal(sorted(here), [False, True])
    attempt.step("the agent gets the result")
    attempt.equal((await _result(one, attempt)).value, "a receipt")


async def _failing(run_once: Run, one: Session, two: Session, attempt: Attempt) -> None:
    attempt.step("the card is refused: the agent is told so, in words")

    def pay(amount: int) -> str:
        raise ValueError("the card was refused")

    try:
        ran = await run_once(one, await _action(one), pay)
    except ValueError:
        attempt.fail("the function raised, and nobody told the agent: it waits for a result for ever")
    told = await _result(one, attempt)
    if told.error is UNSET:
        attempt.fail("the agent was told a value, and takes it for success: say `error=...`", seen=told.value)
    attempt.equal(told.error, "the card was refused")
    attempt.step("it was run here all the same: no other tab will try")
    attempt.equal(ran, True)


async def _action(tab: Session) -> Action:
    return await anext(entry async for entry in tab if isinstance(entry, Action))


async def _result(tab: Session, attempt: Attempt) -> Result:
    """What the agent was told, after all that this client has said has its receipt."""
    try:
        async with asyncio.timeout(0.5):
            return await anext(entry async for entry in tab if isinstance(entry, Result))
    except TimeoutError:
        attempt.fail("no result stands in the log, and the agent waits for one for ever: `await session.result(...)`")


EXERCISES = {
    "4.1": Exercise(
        "texts",
        check_texts,
        hints=(
            "What must happen after the last line that runs, whichever line that is? Python has a block for this, and the stream is one.",
            "`async with await ask(input=prompt) as stream:`, and in it `async for event in stream:`. Catch nothing.",
        ),
    ),
    "4.2": Exercise(
        "outcome",
        check_outcome,
        hints=(
            "Keep the turns that are live while you go through the log. Which entries add one, and which take one away?",
            "A Prompt adds `f'{entry.id}/{entry.to}'`. An End takes its turn away, and so does a Stop: the one it names, or (None) all.",
        ),
    ),
    "4.3": Exercise(
        "run_once",
        check_run_once,
        hints=(
            "Both tabs may claim. Only the receipt tells them apart; and whoever runs it owes the agent a result, whatever happens.",
            'Only go on where `(await session.claim(action.call)).status == "applied"`. Put the function into `try`: say value or error.',
        ),
    ),
}
