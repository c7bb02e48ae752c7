"""The resume checker: who keeps the promises passes, and who breaks one is told the shortest story in which it does."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from websockets import ConnectionClosed, InvalidHandshake
from websockets.asyncio.client import connect

from kit.client import Backoff, Session
from kit.client import connect as connect_session
from kit.ending import end
from kit.lab.chaos import Fault
from kit.lab.resume import NotKept, Verdict, check_resume, on_a_thread, replay
from kit.lab.thread import raise_in
from kit.lab.trial import Blocks, Client
from kit.packets import Prompt

ERRORS = (OSError, ConnectionClosed, InvalidHandshake, EOFError)


def client(bug: str = "") -> Client:
    """A client with nothing but `websockets`, as a learner writes it; or with one bug planted."""

    async def my_client(url: str, token: str, shelf: dict[str, Any]) -> AsyncGenerator[Any, None]:
        tries = 0
        while True:
            where = "" if bug == "replays from 0" else urlencode({key: shelf[key] for key in ("after", "log") if key in shelf})
            headers = {"Authorization": f"Bearer {token}"}
            try:
                async with connect(f"{url}?{where}", additional_headers=headers, subprotocols=["kit.v1"]) as socket:  # type: ignore[list-item]
                    if bug == "resets its backoff at the handshake":
                        tries = 0
                    async for text in socket:
                        frame = json.loads(text)
                        match frame["type"]:
                            case "hello":
                                shelf.setdefault("log", frame["log"])
                                for word in shelf["words"].values():
                                    again = {**word, "ref": f"{random.getrandbits(128):032x}"} if bug == "new refs" else word
                                    await socket.send(json.dumps(again))
                            case "receipt":
                                ref = next(iter(shelf["words"]), "") if bug == "new refs" else frame["ref"]
                                shelf["words"].pop(ref, None)
                            case "gap":
                                shelf["after"] = frame["after"]
                                if bug != "keeps the cursor of the wrong log":
                                    shelf["log"] = frame["log"]
                                if bug != "keeps a gap to itself":
                                    yield frame
                            case _ if "id" in frame:
                                tries = 0
                                if bug == "gives before it notes":
                                    yield frame
                                    shelf["after"] = frame["id"]
                                else:
                                    shelf["after"] = frame["id"]
                                    yield frame
            except ERRORS:
                pass
            await asyncio.sleep(random.uniform(0, min(30, 0.5 * 2**tries)) if tries else 0)
            tries += 1

    return my_client


async def kit_client(url: str, token: str, shelf: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """kit.client as a client under test."""
    base, _, name = url.rpartition("/s/")
    backoff = Backoff(rng=random.Random(0))
    async with connect_session(base, session=name, token=token, after=shelf.get("after"), log=shelf.get("log"), backoff=backoff) as session:
        said: dict[str, asyncio.Task[None]] = {}

        def look(_: str) -> None:
            """What has been put on the shelf since; whatever is under way the session repeats by itself."""
            if session.state != "closed":
                said.update({ref: asyncio.create_task(say(session, shelf, ref)) for ref in shelf["words"] if ref not in said})

        session.on_state = look
        try:
            async for entry in session:
                shelf |= {"after": session.after, "log": session.log}
                yield msgspec.to_builtins(entry)
        finally:
            await end(said.values())


async def say(session: Session, shelf: dict[str, Any], ref: str) -> None:
    await session.say(Prompt(text=shelf["words"][ref]["text"], ref=ref))
    del shelf["words"][ref]


@pytest.mark.parametrize("good", [client(), kit_client], ids=["plain", "kit"])
def test_a_client_that_keeps_its_promises_passes(good: Client) -> None:
    """In every story that was drawn."""
    verdict = check_resume(good, examples=30, seconds=60)
    assert verdict.passed, verdict
    assert verdict.stories == 30


@pytest.mark.parametrize(
    ("bug", "promise"),
    [
        ("replays from 0", "P2 exactly once"),
        ("keeps the cursor of the wrong log", "P2 exactly once"),
        ("resets its backoff at the handshake", "backoff"),
        ("keeps a gap to itself", "P7 honest gap"),
        ("gives before it notes", "P2 exactly once"),
        ("new refs", "P4 receipts"),
    ],
)
def test_a_broken_client_is_told_its_shortest_story(bug: str, promise: str) -> None:
    """One or two faults, and the same ones tell the same story again."""
    verdict = check_resume(client(bug), seconds=60)
    print(verdict)
    assert verdict.trial
    assert verdict.trial.broken
    assert verdict.trial.broken.promise == promise
    assert len(verdict.trial.happened) <= 2
    assert len(repr(verdict).splitlines()) < 45
    again = replay(client(bug), *verdict.trial.happened)
    assert again.trial
    assert repr(again.trial.broken) == repr(verdict.trial.broken)
    assert again._repr_html_().count("<svg") == 1
    assert repr(again).startswith("✗ a promise was broken in this story\n")  # which is not the shortest of one


async def ends(url: str, token: str, shelf: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """A first attempt: one connection and no more."""
    async with connect(url, additional_headers={"Authorization": f"Bearer {token}"}, subprotocols=["kit.v1"]) as socket:  # type: ignore[list-item]
        async for text in socket:
            if "id" in (frame := json.loads(text)) and frame["type"] != "receipt":
                yield frame


async def raises(url: str, token: str, shelf: dict[str, Any]) -> AsyncGenerator[Any, None]:
    raise ZeroDivisionError("a learner's")
    yield


async def nothing(url: str, token: str, shelf: dict[str, Any]) -> AsyncGenerator[Any, None]:
    await asyncio.Event().wait()
    yield


async def blocks(url: str, token: str, shelf: dict[str, Any]) -> AsyncGenerator[Any, None]:
    while True:
        pass
    yield


ATTEMPTS = [ends, raises, nothing, blocks, None, lambda url: None]


@pytest.mark.parametrize("bad", ATTEMPTS, ids=["ends", "raises", "nothing", "blocks", "None", "lambda"])
def test_whatever_it_is_the_checker_answers(bad: Any) -> None:
    """In a cell there is never a traceback."""
    verdict = check_resume(bad, examples=10, seconds=3)
    assert not verdict.passed
    assert "✗" in repr(verdict)
    assert ("keeps the loop for itself" in repr(verdict)) == (bad is blocks)


def test_however_short_the_time_is_one_story_is_played() -> None:
    """On a machine that is too busy for more, too, nobody passes unseen."""
    verdict = check_resume(ends, seconds=0)
    assert (verdict.passed, verdict.stories) == (False, 1)


def test_under_kit_strict_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests of the chapters."""
    monkeypatch.setenv("KIT_STRICT", "1")
    with pytest.raises(NotKept, match="P4 receipts"):
        check_resume(ends, examples=10)


async def test_it_works_in_a_cell() -> None:
    """Where a loop is running in this thread."""
    verdict: Verdict = replay(kit_client, Fault(3, "cut", "line"))
    assert verdict.passed, verdict


def test_who_is_interrupted_while_stories_are_played_leaves_none_that_goes_on() -> None:
    """By a learner, or by the time limit of the check that has them played: nobody else would end that thread."""
    began, ended = threading.Event(), threading.Event()

    def stories() -> None:
        try:
            while True:
                began.set()
                time.sleep(0.01)
        except Blocks:
            ended.set()

    def wait() -> None:
        with suppress(KeyboardInterrupt):
            on_a_thread(stories, lambda: False)

    waiting = threading.Thread(target=wait)
    waiting.start()
    began.wait()
    raise_in(waiting, KeyboardInterrupt)
    waiting.join()
    assert ended.is_set()
