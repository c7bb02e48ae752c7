"""Async generators that nobody holds any more: closed on the lab's thread, whichever thread found them."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from kit.lab.thread import loop, run


class Slow:
    """Its end takes a moment, in which the other threads go on."""

    def __del__(self) -> None:
        time.sleep(0.05)


class Chain:
    """A generator in another, in a cycle; closing the inner one takes longer than a `Slow`'s end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed: list[tuple[str, str]] = []
        self.over = threading.Event()
        self.error = error
        self.outer = self._outer()

    async def _inner(self) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            time.sleep(0.1)  # noqa: ASYNC251  the loop is busy while the collector goes on
            await asyncio.sleep(0.01)
            self.closed.append(("inner", threading.current_thread().name))
            self.over.set()
            if self.error:
                raise self.error

    async def _outer(self) -> AsyncIterator[int]:
        _ = Slow()
        inner: Any = self._inner()
        try:
            async for number in inner:
                yield number
        finally:
            await inner.aclose()
            self.closed.append(("outer", threading.current_thread().name))


async def left(chain: Chain) -> None:
    async for _ in chain.outer:
        return


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the interpreter could only print."""
    seen: list[Any] = []
    gc.collect()  # before: what other tests have left is theirs
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    gc.disable()
    yield seen
    gc.enable()


def test_a_chain_that_another_thread_collects_is_closed_in_peace(unraisable: list[Any]) -> None:
    """The outer one is not begun to be closed while the collector is on its way to the inner one."""
    chain = Chain()
    closed, over = chain.closed, chain.over
    run(left(chain))
    del chain
    assert closed == []
    gc.collect()
    assert over.wait(5)
    run(asyncio.sleep(0.05))
    assert closed == [("inner", "kit"), ("outer", "kit")]
    assert unraisable == []


def test_one_that_is_dropped_is_closed_without_the_collector(unraisable: list[Any]) -> None:
    """Here by a thread that is not the lab's."""
    closed = threading.Event()

    async def words() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    async def begun() -> AsyncIterator[int]:
        one = words()
        await anext(one)
        return one

    held = run(begun())
    assert not closed.is_set()
    del held
    assert closed.wait(5)
    assert unraisable == []


def test_what_goes_wrong_while_one_is_closed_is_told_to_the_loop(unraisable: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(loop(), "call_exception_handler", told.append)
    chain = Chain(OSError("no network"))
    over = chain.over
    run(left(chain))
    del chain
    gc.collect()
    assert over.wait(5)
    run(asyncio.sleep(0.05))
    assert [str(each["exception"]) for each in told] == ["no network"]
    assert unraisable == []
