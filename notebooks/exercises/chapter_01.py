"""The exercises of chapter 01, The upgrade."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from kit.lab.check import Attempt, Exercise

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def check_accept_key(accept_key: Callable[[str], Any], attempt: Attempt) -> None:
    key, expected = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    attempt.step(f"the example of RFC 6455 section 1.3: accept_key({key!r})")
    mistakes = {
        hashed(f"{key}{GUID}", hexadecimal=True): "base64 takes the digest's 20 bytes; here it got their hexadecimal letters",
        hashed(f"{GUID}{key}"): "GUID stands before the key; it belongs behind it",
        hashed(key): "GUID is missing behind the key",
        hashlib.sha1(f"{key}{GUID}".encode(), usedforsecurity=False).hexdigest(): "that is the hash; base64 is missing, of its 20 bytes",
        hashed(base64.b64decode(key) + GUID.encode()): "the key was read as base64; its text is hashed as it stands",
        hashed(f"{key}{GUID}", algorithm="sha256"): "that is SHA-256; the RFC wants SHA-1",
        str(expected.encode()): "`str()` of bytes shows them, with b and quotes; `.decode()` makes them text",
    }
    seen = accept_key(key)
    if isinstance(seen, str) and seen in mistakes:
        attempt.fail(mistakes[seen], seen=seen, expected=expected)
    attempt.equal(seen, expected)
    attempt.step("another key")
    attempt.equal(accept_key("x" * 22 + "=="), hashed("x" * 22 + "==" + GUID))


def hashed(text: str | bytes, *, algorithm: str = "sha1", hexadecimal: bool = False) -> str:
    digest = hashlib.new(algorithm, text.encode() if isinstance(text, str) else text, usedforsecurity=False)
    return base64.b64encode(digest.hexdigest().encode() if hexadecimal else digest.digest()).decode()


def check_text_frame(text_frame: Callable[[str, bytes], Any], attempt: Attempt) -> None:
    attempt.step("text_frame('Hi', bytes(4)): two letters under a mask of zeros, which changes nothing")
    attempt.equal(text_frame("Hi", bytes(4)), bytes.fromhex("81 82 00 00 00 00 48 69"))
    attempt.step("the example of RFC 6455 section 5.7: five letters, so the mask begins anew with the fifth")
    attempt.equal(text_frame("Hello", bytes.fromhex("37 fa 21 3d")), bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58"))
    attempt.step("no text at all: a frame that is only a header")
    attempt.equal(text_frame("", b"mask"), b"\x81\x80mask")
    attempt.step("'Grüße' has five letters and seven bytes: the length counts bytes")
    attempt.equal(text_frame("Grüße", bytes(4)), b"\x81\x87\0\0\0\0" + "Grüße".encode())
    for count, header, why in (
        (125, "81 fd", "the last that seven bits hold"),
        (126, "81 fe 00 7e", "the first that stands in two bytes more, the high one first"),
        (65_535, "81 fe ff ff", "the last that stands in two bytes"),
        (65_536, "81 ff 00 00 00 00 00 01 00 00", "the first that stands in eight bytes"),
    ):
        attempt.step(f"{count:,} bytes: {why}")
        attempt.equal(text_frame("x" * count, bytes(4)), bytes.fromhex(header) + bytes(4) + b"x" * count)


EXERCISES = {
    "1.1": Exercise(
        "accept_key",
        check_accept_key,
        (
            "Three steps: put two texts together, hash them, write the hash in base64. Which of them work on text, and which on bytes?",
            "`.encode()` the text for `hashlib.sha1`; its `.digest()` (not the hexdigest) goes into `base64.b64encode`; `.decode()` that.",
        ),
    ),
    "1.2": Exercise(
        "text_frame",
        check_text_frame,
        (
            "Read the reader: each line of `read_frame` says what its writer does. What stands before the payload, and in which order?",
            "Byte `0b1000_0001`. Then `0b1000_0000 |` the length (or 126 and 2 bytes, 127 and 8), the mask, byte i XOR `mask[i % 4]`.",
        ),
    ),
}
