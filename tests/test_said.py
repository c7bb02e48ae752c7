"""Said: what a client may write is read as the type it is; everything else is a BadFrame, and nothing raises anything else.

tests/promises/test_p10_bad_input.py has the table of malformed frames; here are the properties.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.packets import (
    Answer,
    Claim,
    Edit,
    Error,
    FromClient,
    Prompt,
    Renew,
    Result,
    Stop,
    Typing,
    Word,
    decode_entry,
    encode,
    frame_of,
    stored,
)
from kit.said import MAX_DEPTH, MAX_WORD, BadFrame, decode_said

REF = "r" * 16
LEAVES = (
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(st.characters(exclude_categories=[]), max_size=8)
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=10
)


def outcome(frame: str | bytes) -> FromClient | Error:
    """What a frame is read as, or the error that answers it."""
    try:
        return decode_said(frame)
    except BadFrame as bad:
        return bad.error


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "prompt", "ref": REF, "text": "hi"}, Prompt(text="hi", ref=REF)),
        ({"type": "prompt", "ref": REF, "text": "", "to": "bo"}, Prompt(text="", to="bo", ref=REF)),
        ({"type": "stop", "ref": REF}, Stop(ref=REF)),
        ({"type": "stop", "ref": REF, "turn": None}, Stop(ref=REF)),
        ({"type": "stop", "ref": REF, "turn": "1-0/a"}, Stop(turn="1-0/a", ref=REF)),
        ({"type": "edit", "ref": REF, "turn": "1-0/a", "text": "x"}, Edit(turn="1-0/a", text="x", ref=REF)),
        ({"type": "answer", "ref": REF, "call": "c", "text": "x"}, Answer(call="c", text="x", ref=REF)),
        ({"type": "result", "ref": REF, "call": "c", "value": None}, Result(call="c", value=None, ref=REF)),
        ({"type": "result", "ref": REF, "call": "c", "error": "x"}, Result(call="c", error="x", ref=REF)),
        ({"type": "claim", "ref": "-_" * 32, "call": "c"}, Claim(call="c", ref="-_" * 32)),
        ({"type": "typing", "on": False}, Typing(on=False)),
        ({"type": "renew", "token": "x"}, Renew(token="x")),
    ],
    ids=str,
)
def test_what_a_client_may_write_is_read(fields: dict[str, Any], said: object) -> None:
    """In any order of the fields, and with white space."""
    assert decode_said(json.dumps(fields)) == said
    assert decode_said(json.dumps(dict(reversed(fields.items())), indent=2)) == said


@given(JSON)
@example({"a": 10**4000})
def test_a_value_comes_back_as_it_was_or_is_refused(value: Any) -> None:
    """What 64 bits, UTF-8 and JSON can hold is stored and read again unchanged; the rest names its path."""
    frame = json.dumps({"type": "result", "ref": REF, "call": "c", "value": value})
    said = outcome(frame)
    if isinstance(said, Error):
        assert said.code in ("bad_field", "too_deep")
        assert (said.at or "").startswith("value")
        assert not fits(value)
        return
    assert fits(value)
    assert isinstance(said, Result)
    assert said.value == value
    again = decode_entry(frame_of("1-0", stored(said), "0-0"))
    assert isinstance(again, Result)
    assert again.value == value


def fits(value: Any) -> bool:
    match value:
        case bool() | None:
            return True
        case str():
            return not any("\ud800" <= c <= "\udfff" for c in json.loads(json.dumps(value)))
        case int():
            return -(1 << 63) <= value < 1 << 64
        case float():
            return math.isfinite(value)
        case list():
            return all(map(fits, value))
        case dict():
            return all(fits(name) and fits(inner) for name, inner in value.items())
    raise AssertionError(value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.binary(max_size=80) | JSON.map(json.dumps))
@example('{"type":"prompt","ref":"' + REF + '","text":"\\u0000"}')
@example("[" * 20_000)
@example("9" * 5_000)
@example('{"a":' * 10_000 + "1")
def test_anything_is_read_or_is_a_bad_frame_that_can_be_sent(frame: str | bytes) -> None:
    """No other exception; and the error itself is JSON of a moderate size."""
    said = outcome(frame)
    if isinstance(said, Error):
        assert len(encode(said)) < 5_000
        json.loads(encode(said))
    elif isinstance(said, Word):
        assert len(encode(said)) <= MAX_WORD


@pytest.mark.parametrize(("value", "path"), [([1, {"a": [math.nan]}], "value[1].a[0]"), ({"x": {"y": "\ud800"}}, "value.x.y")])
def test_the_path_of_what_is_wrong(value: Any, path: str) -> None:
    with pytest.raises(BadFrame) as caught:
        decode_said(json.dumps({"type": "result", "ref": REF, "call": "c", "value": value}))
    assert caught.value.error.at == path


@pytest.mark.parametrize("levels", [1, MAX_DEPTH - 1, MAX_DEPTH, 900, 5_000])
def test_depth_has_one_limit(levels: int) -> None:
    """Not the interpreter's recursion limit, which depends on who calls: `MAX_DEPTH` levels, the frame's own object being one."""
    said = outcome(f'{{"type":"result","ref":"{REF}","call":"c","value":{"[" * levels}{"]" * levels}}}')
    if levels < MAX_DEPTH:
        assert isinstance(said, Result)
    else:
        assert isinstance(said, Error)
        assert said.code == "too_deep"


def test_what_can_just_be_read_is_not_too_deep_to_be_told_of() -> None:
    """Reading and writing JSON nest differently; near the interpreter's limit one of them may still be able to."""
    for levels in range(300, 1_100):
        said = outcome("[" * levels + "]" * levels)
        assert isinstance(said, Error)
        assert said.code in ("not_an_object", "too_deep")


@pytest.mark.parametrize("filler", ["1e15,", "1E5,", "0.0000001,", '"\\u0001",', "[],", '"\U0001f600",'])
def test_what_is_stored_fits_though_it_is_written_longer(filler: str) -> None:
    """A number may grow on its way through; the log's entry is what counts."""
    for count in (100, 3_000, 5_000, 9_000):
        said = outcome(f'{{"type":"result","ref":"{REF}","call":"c","value":[{filler * count}0]}}')
        if isinstance(said, Error):
            assert (said.code, said.at) == ("too_large", "value")
            assert count > 100
        else:
            assert len(encode(said)) <= MAX_WORD


def test_the_error_is_one_that_a_client_can_read() -> None:
    with pytest.raises(BadFrame) as caught:
        decode_said('{"type":"prompt"}')
    assert msgspec.json.decode(encode(caught.value.error))["type"] == "error"
    assert "ref" in str(caught.value)


def test_a_long_name_costs_no_more_than_it_is_long() -> None:
    """What is told of a field's path is short; built whole for each of its values, it would hold up the loop that everybody shares."""

    def seconds(name: str) -> float:
        frame = json.dumps({"type": "stop", "ref": REF, "a": {f"\U0001f600{name}": [0] * 15_000}}, separators=(",", ":"))
        begin = time.process_time()
        assert isinstance(outcome(frame), Error)
        return time.process_time() - begin

    short, long = (min(seconds("x" * length) for _ in range(5)) for length in (1, 30_000))
    assert long < 2.5 * short
