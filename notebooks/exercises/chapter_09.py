"""The exercises of chapter 09, Ship it: where a key lives and what a server-sent event looks like."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from redis.crc import key_slot

from kit.lab.check import Attempt, Exercise
from kit.lab.events import event as right_event


def check_slot(slot: Callable[[str], Any], attempt: Attempt) -> None:
    attempt.step("a key without braces: CRC16 of all of it, modulo 16,384")
    attempt.equal(slot("123456789"), 12739)
    attempt.equal(slot("kit:shards"), key_slot(b"kit:shards"))
    attempt.step("with a tag, only what stands between the braces counts: `{3}:ann` and `{3}:bob` are neighbours")
    attempt.equal(slot("{3}:ann"), key_slot(b"3"))
    attempt.equal(slot("log:{3}:bob"), key_slot(b"3"))
    attempt.step("the tag is between the first `{` and the first `}` after it")
    for key in ("{a}{b}", "a}b{c}d", "{a{b}c}"):
        attempt.equal(slot(key), key_slot(key.encode()))
    attempt.step("nothing between the braces, or no second brace: the whole key counts")
    for key in ("{}ann", "ann{", "{}{3}"):
        attempt.equal(slot(key), key_slot(key.encode()))
    attempt.step("a hundred keys with letters beyond ASCII: bytes are hashed, not letters")
    rng = random.Random(9)
    for _ in range(100):
        key = "".join(rng.choices("abc{}éß👋:", k=8))
        if slot(key) != key_slot(key.encode()):
            attempt.fail(f"the key was {key!r}", seen=slot(key), expected=key_slot(key.encode()))


def check_event(event: Callable[[str, str], Any], attempt: Attempt) -> None:
    for what, id, data in (
        ("an id, a line of data, and the empty line that ends an event", "L/1-0", "hello"),
        ("without an id there is no id line: the place of the client stays where it was", "", "beat"),
        ("a text of several lines: each line is one of data; else the second line would be a field of its own", "1", "one\ntwo\n\nfour"),
        ("the standard ends a line at \\r\\n and at \\r, too", "1", "one\r\ntwo\rthree"),
        ("and nowhere else: U+2028 ends a line for `str.splitlines`, not for an event", "1", "one\u2028still one\x0band still"),
        ("an empty text is an event all the same", "1", ""),
    ):
        attempt.step(what)
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
