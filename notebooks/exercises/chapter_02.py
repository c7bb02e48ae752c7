"""Exercises of chapter 02: a token, an Origin, a ticket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
from fakeredis import FakeAsyncRedis

from kit.lab.check import Attempt, Exercise

SECRET = "the secret of this check: as long as the strongest of its algorithms wants it"
STRANGER = "a secret that somebody else has thought of"
THEN, LATE = 1_700_000_000, 4_000_000_000  # seconds since the epoch: 2023 and 2096


def check_safe_claims(safe_claims: Callable[[str, str], dict[str, Any]], attempt: Attempt) -> None:
    good = {"iss": "kit", "aud": "kit", "sub": "ann", "nbf": THEN, "exp": LATE}
    attempt.step("a good token, for the audience 'kit', gives its claims")
    try:
        attempt.equal(safe_claims(jwt.encode(good, SECRET), SECRET), good)
    except jwt.InvalidAudienceError as error:
        attempt.fail(f"PyJWT says {str(error)!r}: it was not told that tokens for the audience 'kit' are meant for it")
    bad = {
        "a token signed with another secret": jwt.encode(good, STRANGER),
        "a token that says alg: none": jwt.encode(good, None, algorithm="none"),
        "a token that says alg: HS512, where HS256 is agreed on": jwt.encode(good, SECRET, algorithm="HS512"),
        "a token whose claims were exchanged": _exchanged(jwt.encode(good, SECRET), jwt.encode(good | {"sub": "admin"}, STRANGER)),
        "a token for another service (aud)": jwt.encode(good | {"aud": "billing"}, SECRET),
        "a token of another issuer (iss)": jwt.encode(good | {"iss": "staging"}, SECRET),
        "a token that has expired": jwt.encode(good | {"exp": THEN + 1}, SECRET),
        "a token that is not valid yet": jwt.encode(good | {"nbf": LATE - 1}, SECRET),
        "a token without an expiry": jwt.encode({name: good[name] for name in good if name != "exp"}, SECRET),
        "no token at all": "nonsense",
    }
    for what, token in bad.items():
        attempt.step(what)
        try:
            claims = safe_claims(token, SECRET)
        except jwt.PyJWTError:
            continue
        except Exception as error:  # noqa: BLE001  # a learner's own
            attempt.fail(f"it raised {type(error).__name__}, where an error of PyJWT's should come out: {error}")
        if claims is None:
            attempt.fail("it gave None, where an error should come out: let PyJWT's own through")
        attempt.fail("this token was believed: PyJWT raises an error for it, if you tell it enough", seen=claims)


def _exchanged(good: str, bad: str) -> str:
    """The claims of one token between the header and the signature of another."""
    header, _, signature = good.split(".")
    return f"{header}.{bad.split('.')[1]}.{signature}"


def check_may_connect(may_connect: Callable[[str | None, set[str]], bool], attempt: Attempt) -> None:
    allowed = {"https://good.example", "http://127.0.0.1:8888"}
    cases = {
        "an allowed page": ("https://good.example", True),
        "another allowed page": ("http://127.0.0.1:8888", True),
        "a program sends no Origin": (None, True),
        "a page elsewhere": ("https://evil.example", False),
        "a host that begins like a good one": ("https://good.example.evil.example", False),
        "a host that ends like a good one": ("https://not-good.example", False),
        "a host below a good one": ("https://blog.good.example", False),
        "the same host without TLS": ("http://good.example", False),
        "the same host on another port: another origin": ("http://127.0.0.1:9999", False),
        "a scheme that ends like a good one": ("not-https://good.example", False),
        "a sandboxed frame, whose Origin is the word null": ("null", False),
        "an empty Origin": ("", False),
    }
    for what, (origin, expected) in cases.items():
        attempt.step(f"{what}: {origin!r}")
        attempt.equal(may_connect(origin, set(allowed)), expected)


class _Distant(FakeAsyncRedis):
    """A store whose answer takes a moment, as over a network: others are served meanwhile. Fakeredis's takes none from Python 3.12 on."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = await super().execute_command(*args, **options)
        await asyncio.sleep(0)
        return answer


class _Crowded(FakeAsyncRedis):
    """A store in which another instance takes the ticket, too, as soon as a first command was served; what it got is in `elsewhere`."""

    other: FakeAsyncRedis
    elsewhere: bytes | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        served = await super().execute_command(*args, **options)
        self.elsewhere = self.elsewhere or await self.other.getdel("three")
        return served


async def check_take_once(take_once: Callable[[FakeAsyncRedis, str], Awaitable[bytes | None]], attempt: Attempt) -> None:
    # The client of redis-py, on a store of its own in this process's memory. One line for all: whoever asks again stands behind the others.
    store = _Distant(single_connection_client=True)
    try:
        attempt.step("a ticket gives its value")
        await store.set("one", b"ann")
        attempt.equal(await take_once(store, "one"), b"ann")
        attempt.step("a second time it gives None")
        attempt.equal(await take_once(store, "one"), None)
        attempt.step("an unknown ticket gives None")
        attempt.equal(await take_once(store, "no such ticket"), None)
        attempt.step("twenty bring the same ticket at once: one gets it")
        await store.set("two", b"ann")
        taken = await asyncio.gather(*(take_once(store, "two") for _ in range(20)))
        if (winners := len(taken) - taken.count(None)) != 1:
            attempt.fail(f"{winners} of them got its value: between two commands others are served", seen=winners, expected=1)
        attempt.step("another instance, with a memory of its own, finds the ticket no more")
        attempt.equal(await store.get("two"), None)
        attempt.step("two instances, two processes, bring the same ticket at once: one gets it")
        await store.set("three", b"ann")
        crowded = _Crowded(connection_pool=store.connection_pool)
        crowded.other = store
        here = await take_once(crowded, "three")
        if here and crowded.elsewhere:
            attempt.fail(
                "the other came between two commands of this one; a lock or a set in this process does not stop it", seen=2, expected=1
            )
    finally:
        await store.aclose()


EXERCISES = {
    "2.1": Exercise(
        "safe_claims",
        check_safe_claims,
        hints=(
            "Whatever the token may choose for itself, an attacker chooses. What does `jwt.decode` let you pin down beforehand?",
            'Give it `algorithms=["HS256"]`, `audience`, `issuer`, and `options={"require": [...]}` for the claims that must be there.',
        ),
    ),
    "2.2": Exercise(
        "may_connect",
        check_may_connect,
        hints=(
            "An origin is a scheme, a host and a port, and the browser always writes it in the same way. What would you need to parse?",
            "Nothing: it is in the set, or it is not. And a program, which sends no Origin, is stopped by the want of a token.",
        ),
    ),
    "2.3": Exercise(
        "take_once",
        check_take_once,
        hints=(
            "Looking and removing must be one thing to the store. Which commands of Redis give a value *and* change it?",
            "GETDEL: `await store.getdel(ticket)`. (DELETE tells how many keys it removed: with GET before it, that decides too.)",
        ),
    ),
}
