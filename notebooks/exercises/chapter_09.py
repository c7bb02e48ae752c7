"""The exercises of chapter 09, Ship it: where a key lives and what a server-sent event looks like."""

from __future__ import annotations

import random
from binascii import crc32
from collections.abc import Callable
from typing import Any

from redis.crc import key_slot

from kit.lab.check import Attempt, Exercise
from kit.lab.events import event as right_event


def check_slot(slot: Callable[[str], Any], attempt: Attempt) -> None:
    for what, keys in (
        ("a key without braces: CRC16 of all of it, modulo 16,384", ("123456789", "kit:shards", "user")),
        ("with a tag, only what stands between the braces counts", ("{3}:ann", "log:{3}:bob", "{user}")),
        ("the tag is between the first `{` and the first `}` after it", ("{a}{b}", "a}b{c}d", "{a{b}c}")),
        ("nothing between the braces, or no second brace: the whole key counts", ("{}ann", "ann{", "ann{3", "{}{3}")),
        ("bytes are hashed, not letters", ("{é}", "ß:👋")),
    ):
        for key in keys:
            attempt.step(f"{what}: slot({key!r})")
            _lands(attempt, slot, key)
    rng = random.Random(9)
    attempt.step("a hundred keys by chance")
    for key in ("".join(rng.choices("abc{}éß👋:", k=8)) for _ in range(100)):
        attempt.steps[-1] = f"a hundred keys by chance: slot({key!r})"
        _lands(attempt, slot, key)


def _lands(attempt: Attempt, slot: Callable[[str], Any], key: str) -> None:
    seen, expected = slot(key), key_slot(key.encode())
    if seen == crc32(key.encode()) % 16_384 != expected:
        attempt.fail("that is CRC-32; a cluster takes CRC16, which is `crc_hqx(data, 0)`", seen=seen, expected=expected)
    if isinstance(seen, int) and seen != expected and seen % 16_384 == expected:
        attempt.fail("there are 16,384 slots: take it modulo 16,384", seen=seen, expected=expected)
    attempt.equal(seen, expected)


def check_event(event: Callable[[str, str], Any], attempt: Attempt) -> None:
    for what, id, data in (
        ("an id, a line of data, and the empty line that ends an event", "L/1-0", "hello"),
        ("without an id there is no id line: the place of the client stays where it was", "", "beat"),
        ("a text of several lines: each line is one of data; else the second line would be a field of its own", "1", "one\ntwo\n\nfour"),
        ("the standard ends a line at \\r\\n and at \\r, too", "1", "one\r\ntwo\rthree"),
        ("and nowhere else: U+2028 ends a line for `str.splitlines`, not for an event", "1", "one\u2028still one\x0band still"),
        ("an empty text is an event all the same", "1", ""),
    ):
        attempt.step(f"{what}: event({id!r}, {data!r})")
        attempt.equal(event(id, data), right_event(id, data))


EXERCISES = {
    "9.1": Exercise(
        "slot",
        check_slot,
        hints=(
            "Hash only what is between the first `{` and the first `}` after it, where there is something; else the whole key.",
            "`binascii.crc_hqx(data, 0)` is the CRC16 that Redis means (XMODEM). `key.partition('{')`, then `partition('}')` of the rest.",
        ),
    ),
    "9.2": Exercise(
        "event",
        check_event,
        hints=(
            "`id: ...` where there is an id, `data: ...` for each line, then an empty line. Which characters end a line?",
            r"`re.split(r'\r\n|\r|\n', data)` splits where the standard does. Join all lines with `\n`, with two of them at the end.",
        ),
    ),
}
