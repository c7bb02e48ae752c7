"""Said: a client's frame, read with suspicion.

`decode_said` accepts exactly the client's types of packets.py. Everything else becomes a `BadFrame` that names the field, whatever
corner it hides in: a key that stands twice, half a surrogate pair (it would crash the next encoder), a number that 64 bits cannot
hold, nesting that would exhaust a recursive reader.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, get_args

import msgspec

from kit.packets import DOOR_FIELDS, MAX_WORD, Error, ErrorCode, FromClient, Result, Word, encode

MAX_DEPTH = 32
_KINDS = {t.__name__.lower(): t for t in get_args(FromClient)}
_HALF = re.compile("[\ud800-\udfff]")


class BadFrame(Exception):
    """A client's frame that breaks the protocol; `error` is the frame that tells it so."""

    def __init__(self, code: ErrorCode, text: str, at: str | None = None) -> None:
        super().__init__(text)
        # A field's name may be as long as the frame; what is told about it must fit into one itself.
        self.error = Error(code=code, text=text if len(text) <= 500 else text[:497] + "...", at=at and at[:200])


def decode_said(frame: str | bytes) -> FromClient:
    """One frame of a client; raises BadFrame, which names the field and says what is wrong with it."""
    if isinstance(frame, bytes):
        raise BadFrame("binary", "frames are JSON text; this one is binary")
    fields = _parse(frame)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise BadFrame("unknown_type", f"`type` is one of {', '.join(_KINDS)}; not {_brief(kind)}", "type")
    for name in DOOR_FIELDS:
        if name in fields:
            raise BadFrame("bad_field", f"`{name}` is not the client's to write: leave it out", name)
    if issubclass(_KINDS[kind], Word):
        _check_word(fields, len(frame.encode()))
    try:
        said: FromClient = msgspec.convert(fields, _KINDS[kind])
    except msgspec.ValidationError as error:
        raise BadFrame("bad_field", str(error), _path(str(error), _KINDS[kind])) from None
    if isinstance(said, Word):
        _check_size(fields, len(encode(said)))  # again, as it will be stored: `1e15` becomes 1000000000000000.0
    return said


def _parse(frame: str) -> dict[str, Any]:
    try:
        fields = json.loads(frame, object_pairs_hook=_unique, parse_int=_whole)
        if not isinstance(fields, dict):
            raise BadFrame("not_an_object", f"a frame is a JSON object, not {_brief(fields)}")
    except RecursionError:  # of either: one that can just be read is too deep to be shown
        raise BadFrame("too_deep", f"a frame nests at most {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise BadFrame("not_json", f"the frame is no JSON: {error}") from None
    _check_value(fields, "", MAX_DEPTH)
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1).encode(errors="replace").decode()
        raise BadFrame("duplicate_key", f"the field `{twice[:60]}` stands twice in one object", twice[:60])
    return fields


def _whole(digits: str) -> float:
    """A whole number; one that is longer than any of 64 bits is not even computed, and refused with its path later."""
    return int(digits) if len(digits) <= 20 else math.inf


def _check_value(value: object, path: str, depth: int) -> None:
    if depth == 0:
        raise BadFrame("too_deep", f"a frame nests at most {MAX_DEPTH} levels", path)
    match value:
        case str() if _HALF.search(value):
            raise BadFrame("bad_field", f"`{path}` holds half of a surrogate pair, which is no text", path)
        case int() if not -(1 << 63) <= value < 1 << 64:
            raise BadFrame("bad_field", f"`{path}` is a number that 64 bits cannot hold", path)
        case float() if not math.isfinite(value):
            raise BadFrame("bad_field", f"`{path}` is a number that JSON or 64 bits cannot hold", path)
        case dict():
            for name, inner in value.items():
                _check_value(name, path or "a field's name", depth)
                # No more of a path is told; built whole for each value below it, a long name would take quadratic time.
                _check_value(inner, f"{path[:200]}.{name[:200]}" if path else name[:200], depth - 1)
        case list():
            for i, inner in enumerate(value):
                _check_value(inner, f"{path}[{i}]", depth - 1)


def _check_word(fields: dict[str, Any], size: int) -> None:
    _check_size(fields, size)
    ref = fields.get("ref")
    if not isinstance(ref, str) or not re.fullmatch(r"[A-Za-z0-9_-]{16,64}", ref):
        raise BadFrame("bad_field", f"`ref` is 16 to 64 random characters of A-Z a-z 0-9 _ -, new for each word; not {_brief(ref)}", "ref")


def _check_size(fields: dict[str, Any], size: int) -> None:
    if size > MAX_WORD:
        largest = max(fields, key=lambda name: len(json.dumps(fields[name])))
        raise BadFrame("too_large", f"a word has at most {MAX_WORD} bytes, this one {size}: shorten `{largest}`", largest)


def _path(message: str, kind: type) -> str:
    """The path a sentence of msgspec's is about: `$.a.b` at its end, or a field in backticks where one is missing or unknown."""
    path = found[1] if (found := re.search(r"`\$\.?([^`]*)`$", message)) else ""
    named = re.search(r"(?:required|unknown) field `([^`]*)`", message)
    if named:
        return f"{path}.{named[1]}" if path else named[1]
    return path or ("value" if kind is Result else "type")


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
