"""The exercises of chapter 05, State: a lease, a fence, a hole in a log. All on a store of their own, in this process's memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fakeredis import FakeAsyncRedis
from redis.exceptions import ResponseError

from kit.lab.check import Attempt, Exercise

Hold = Callable[[Any, str, str, int], Awaitable[Any]]
Append = Callable[[Any, str, int, str], Awaitable[Any]]


@asynccontextmanager
async def empty_store() -> Any:
    store = FakeAsyncRedis(single_connection_client=True)
    try:
        yield store
    finally:
        await store.aclose()


class Interrupted:
    """A store on which a lease becomes somebody else's once we have looked at it, by any command: as if we had been frozen then."""

    def __init__(self, store: FakeAsyncRedis, key: str, mine: bytes) -> None:
        self._store, self._key, self._mine = store, key, mine
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        command = getattr(self._store, name)
        if name in ("set", "eval", "pipeline", "register_script"):  # what is done in one piece, or begins it
            return command

        async def interrupted(*args: Any, **options: Any) -> Any:
            answer = await command(*args, **options)
            if await self._store.get(self._key) == self._mine:
                await self._store.set(self._key, "somebody else", px=500)
                self.lost = True
            return answer

        return interrupted


async def check_hold(hold: Hold, attempt: Attempt) -> None:
    async with empty_store() as store:
        attempt.step("a lease that is free is taken")
        attempt.equal(await hold(store, "lease", "me", 10_000), True)
        if await store.get("lease") is None:
            attempt.fail("it says True, and the store holds no lease: is each command awaited?")
        attempt.equal(await store.get("lease"), b"me")
        attempt.step("it ends by itself after `ms` milliseconds: a holder that dies can't give it back")
        if not 9_000 < (left := await store.pttl("lease")) <= 10_000:
            attempt.fail("PX is in milliseconds, EX in seconds; a key without either stays for ever", seen=left, expected=10_000)
        attempt.step("somebody else's is left alone")
        attempt.equal(await hold(store, "lease", "you", 60_000), False)
        attempt.equal(await store.get("lease"), b"me")
        if (left := await store.pttl("lease")) > 10_000:
            attempt.fail("it was refused, and yet the other's lease was made longer", seen=left, expected=10_000)
        attempt.step("our own is renewed")
        attempt.equal(await hold(store, "lease", "me", 60_000), True)
        if (left := await store.pttl("lease")) <= 10_000:
            attempt.fail("it still ends when it would have ended anyway", seen=left, expected=60_000)
        attempt.step("twenty want a free lease at once: one gets it")
        got = await asyncio.gather(*(hold(store, "another", f"instance {i}", 10_000) for i in range(20)))
        attempt.equal(got.count(True), 1)
        attempt.step("we renew; between two of our commands we are frozen, and our lease becomes somebody else's")
        await store.set("third", "me", px=500)
        frozen = Interrupted(store, "third", b"me")
        await hold(frozen, "third", "me", 60_000)
        if frozen.lost and await store.get("third") == b"me":
            attempt.fail("it was somebody else's by then, and we took it from them: compare and renew in one script")
        if await store.get("third") != b"me" and (left := await store.pttl("third")) > 500:
            attempt.fail(
                "the lease that was made longer was somebody else's by then: compare and renew in one script", seen=left, expected=500
            )


async def check_append(append: Append, attempt: Attempt) -> None:
    async with empty_store() as store:
        await store.xadd("log", {"f": "prompt"}, id="1-0")
        attempt.step("what is said in the epoch of the last word gets the next id")
        for text, id in (("a", "1-1"), ("b", "1-2")):
            attempt.equal(await append(store, "log", 1, text), id)
        attempt.step("another instance takes over (the word 2-0): who has heard only epoch 1 is refused, and gets None")
        await store.xadd("log", {"f": "takeover"}, id="2-0")
        attempt.equal(await append(store, "log", 1, "late"), None)
        attempt.equal([id for id, _ in await store.xrange("log")], [b"1-0", b"1-1", b"1-2", b"2-0"])
        attempt.step("the heir is in epoch 2")
        attempt.equal(await append(store, "log", 2, "c"), "2-1")
        attempt.step("the zombie again, after the heir has spoken")
        attempt.equal(await append(store, "log", 1, "late"), None)
        attempt.equal([fields[b"f"] for _, fields in await store.xrange("log", "2-0")], [b"takeover", b"c"])
        attempt.step("a log that is gone is not begun again")
        await store.delete("log")
        attempt.equal(await append(store, "log", 2, "d"), None)
        attempt.equal(await store.exists("log"), 0)
        attempt.step("another error of the store, here of a key that is no stream, is raised: it must not look like a refusal")
        await store.set("text", "no stream")
        try:
            told = await append(store, "text", 1, "e")
        except ResponseError:
            return
        attempt.fail("the error was swallowed: only `equal or smaller` is a refusal", seen=told)


def check_first_gap(first_gap: Callable[[str, list[dict[str, str]]], Any], attempt: Attempt) -> None:
    def log(*ids: str, prev: str = "") -> list[dict[str, str]]:
        return [{"id": id} | ({"prev": prev} if id.endswith("-0") else {}) for id in ids]

    def expect(step: str, cursor: str, entries: list[dict[str, str]], gap: str | None) -> None:
        attempt.step(step, given=f"first_gap({cursor!r}, {entries})")
        attempt.equal(first_gap(cursor, entries), gap)

    expect("nothing came, nothing is missing", "3-4", [], None)
    expect("each follows the one before, and the first the cursor; 3-10 comes after 3-9", "3-8", log("3-9", "3-10", "3-11"), None)
    expect("an entry is missing between two others: the one behind the hole is told", "3-8", log("3-9", "3-11", "3-12"), "3-11")
    expect("the first one does not follow the cursor", "3-4", log("3-6"), "3-6")
    expect("a word follows its `prev`, whatever number that has", "3-17", [*log("4-0", prev="3-17"), *log("4-1")], None)
    expect("a word whose `prev` we have never seen: the end of the epoch before is missing", "3-15", log("4-0", prev="3-17"), "4-0")
    expect("an entry that was there before comes again", "3-4", log("3-5", "3-5"), "3-5")
    expect("a whole epoch is missing", "3-4", log("5-1"), "5-1")


EXERCISES = {
    "5.1": Exercise(
        "hold",
        check_hold,
        hints=(
            "Taking is one command. For renewing: what may happen between GET and PEXPIRE, if you are frozen there?",
            "First `store.set(key, by, nx=True, px=ms)`. Where that gives None, a script: GET, compare with ARGV[1], then PEXPIRE.",
        ),
    ),
    "5.2": Exercise(
        "append",
        check_append,
        hints=(
            "The store compares for you: which id says 'in the epoch that I have heard'? And which of its two answers is a refusal?",
            "`id=f'{heard}-*'` and `nomkstream=True`. Catch ResponseError: None where it says `equal or smaller`, else `raise`.",
        ),
    ),
    "5.3": Exercise(
        "first_gap",
        check_first_gap,
        hints=(
            "Each entry says what must come before it: what is that for `3-9`, and what for `4-0`? Compare it with what did come before.",
            "Split the id at `-`. Before `e-0` comes its `prev`, before `e-n` comes `e-(n-1)`. Then this entry is the cursor.",
        ),
    ),
}
