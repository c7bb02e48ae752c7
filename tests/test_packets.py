"""Packets: the table of the protocol, ids, and that what is encoded is decoded again."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.packets import (
    DOOR_FIELDS,
    MAX_BODY,
    START,
    Action,
    Answer,
    AnyPacket,
    AnyWord,
    Ask,
    At,
    Beat,
    BesideLog,
    Claim,
    CloseCode,
    Content,
    Document,
    Edit,
    End,
    EntryId,
    Error,
    FromClient,
    Gap,
    Hello,
    Over,
    Packet,
    Patch,
    Prompt,
    Receipt,
    Result,
    Splice,
    Stop,
    Takeover,
    Thought,
    ToolResult,
    Typing,
    Who,
    Word,
    Write,
    decode_entry,
    decode_sent,
    encode,
    frame_of,
    split,
    stored,
)

# The tables of the protocol's page.
FROM_SERVER = """
hello      session, log, after, head, status, reason?, ticket?
gap        log, after, reason
prompt     id, prev, from, ref, text, to?, re?
stop       id, prev, from, ref, turn?
edit       id, prev, from, ref, turn, text
answer     id, prev, from, ref, call, text
result     id, prev, from, ref, call, value?, error?
claim      id, prev, from, ref, call
patch      id, prev, from, ref, base, splices
takeover   id, prev, from, ref, turn, by
thought    id, from, turn, n, k?, text
content    id, from, turn, n, k?, text
action     id, from, turn, n, k?, call, name, arguments, on
result     id, from, turn, n, k?, call, value?, error?
ask        id, from, turn, n, k?, call, text, choices?
document   id, from, turn, n, k?, name, kind
write      id, from, turn, n, k?, name, text, over?
end        id, from, turn, n, k?, reason, text?
receipt    ref, status, id?, was?, reason?
error      code, text, at?
typing     on, from?
who        names, agents, by, fresh?
beat
"""
FROM_CLIENT = """
prompt     ref, text, to?
stop       ref, turn?
edit       ref, turn, text
answer     ref, call, text
result     ref, call, value?, error?
claim      ref, call
patch      ref, base, splices
renew      token
typing     on
"""


def table(text: str) -> Counter[tuple[str, frozenset[str]]]:
    rows = (line.partition(" ") for line in text.strip().splitlines())
    return Counter((name, frozenset(field for field in fields.strip().split(", ") if field)) for name, _, fields in rows)


# ---- the table ----


def row(kind: type[msgspec.Struct], without: tuple[str, ...] = ()) -> tuple[str, frozenset[str]]:
    """A frame's name and its fields (`?`: optional), but for those that a client can't write or that never leave the server."""
    always = {"id", "prev", "from", "ref"} if issubclass(kind, Word) else {"id", "from", "turn", "n"} if issubclass(kind, Packet) else set()
    names = {
        f.encode_name: "" if f.required or f.encode_name in always else "?"
        for f in msgspec.structs.fields(kind)
        if f.encode_name not in without and f.type != At | None
    }
    return str(kind.__struct_config__.tag), frozenset(name + mark for name, mark in names.items())


FROM = {"server": [*get_args(AnyWord), *get_args(AnyPacket), *get_args(BesideLog)], "client": get_args(FromClient)}


def test_the_types_are_the_table_of_the_protocol() -> None:
    """Every frame with its fields, in both directions: none missing, none more."""
    assert Counter(row(kind) for kind in FROM["server"]) == table(FROM_SERVER)
    assert Counter(row(kind, DOOR_FIELDS) for kind in FROM["client"]) == table(FROM_CLIENT)


def test_every_frame_is_explained_in_a_sentence() -> None:
    for kind in (*FROM["server"], *FROM["client"]):
        assert (kind.__doc__ or "").lstrip("'")[0].isupper(), kind


def test_the_values_of_the_protocol() -> None:
    """Reasons, statuses and close codes, as the page has them."""
    fields = {(kind, f.name): f.type for kind in (Hello, Gap, Receipt, End, Action) for f in msgspec.structs.fields(kind)}
    values = {key: set(getattr(type_, "__args__", ())) for key, type_ in fields.items()}
    assert values[Hello, "status"] == {"fresh", "resumed", "gap"}
    assert values[Gap, "reason"] == {"trimmed", "lost", "other log", "future"}
    assert values[Receipt, "status"] == {"applied", "duplicate", "too_late", "refused"}
    assert values[End, "reason"] == {"done", "stopped", "replaced", "failed"}
    assert values[Action, "on"] == {"server", "client", "approve"}
    assert [int(code) for code in CloseCode] == [1001, 1007, 1009, 1012, 4401, 4408]


# ---- ids ----

NUMBERS = st.integers(0, (1 << 64) - 1)
IDS = st.builds(EntryId, NUMBERS, NUMBERS)


@given(IDS)
def test_an_id_reads_back(id: EntryId) -> None:
    assert EntryId.parse(str(id)) == id
    assert EntryId.parse(str(id).encode()) == id


@given(IDS, IDS)
def test_ids_compare_in_log_order(one: EntryId, other: EntryId) -> None:
    """The epoch first, then the number; not as text, where 10-0 would be before 9-0."""
    assert (one < other) == (one.epoch < other.epoch or (one.epoch == other.epoch and one.n < other.n))
    assert EntryId.parse("9-0") < EntryId.parse("10-0") < EntryId.parse("10-2") < EntryId.parse("10-10")


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "1", "1-", "-1", "1-2-3", "1--2", "+1-0", "1-0 ", " 1-0", "1-0\n", "1-0\x00", "a-b", "1.0-0", "0x1-0", "1_0-0"),
        *("*", "1-*", "$", "(1-0", f"{1 << 64}-0", f"0-{1 << 64}", "9" * 21 + "-0", "\u0663-\u0663", "\ud800-0"),
    ],
    ids=ascii,
)
def test_what_is_no_id_raises(text: str) -> None:
    """Also digits of other scripts, which `int` would take, and what Redis would take for something else."""
    with pytest.raises(ValueError, match="no entry id"):
        EntryId.parse(text)


def test_a_words_id_ends_in_0() -> None:
    assert EntryId.parse("3-0").is_word
    assert not EntryId.parse("3-17").is_word
    assert START < EntryId.parse("0-1") < EntryId.parse("1-0")


# ---- encode and decode ----

TEXT = st.text(max_size=30)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PLACE = st.integers(0, 1 << 40)
DOOR = {"from_": TEXT, "ref": TEXT}
WORDS = st.one_of(
    st.builds(Prompt, text=TEXT, to=st.none() | TEXT, **DOOR),
    st.builds(Stop, turn=st.none() | TEXT, **DOOR),
    st.builds(Edit, turn=TEXT, text=TEXT, **DOOR),
    st.builds(Answer, call=TEXT, text=TEXT, **DOOR),
    st.builds(Result, call=TEXT, value=VALUES, **DOOR),
    st.builds(Result, call=TEXT, error=TEXT, **DOOR),
    st.builds(Claim, call=TEXT, **DOOR),
    st.builds(Patch, base=TEXT, splices=st.lists(st.builds(Splice, at=PLACE, delete=PLACE, insert=TEXT), max_size=3), **DOOR),
    st.builds(Takeover, turn=TEXT, by=st.none() | TEXT, **DOOR),
)
TURN = {"from_": TEXT, "turn": TEXT, "n": st.integers(1, 9), "k": st.integers(1, 9)}
PACKETS = st.one_of(
    st.builds(Thought, text=TEXT, **TURN),
    st.builds(Content, text=TEXT, **TURN),
    st.builds(
        Action, call=TEXT, name=TEXT, arguments=st.dictionaries(TEXT, VALUES, max_size=3), on=st.sampled_from(["server", "client"]), **TURN
    ),
    st.builds(ToolResult, call=TEXT, value=VALUES, **TURN),
    st.builds(ToolResult, call=TEXT, error=TEXT, **TURN),
    st.builds(Ask, call=TEXT, text=TEXT, choices=st.none() | st.lists(TEXT, max_size=3), **TURN),
    st.builds(Write, name=TEXT, text=TEXT, over=st.none() | st.builds(Over, base=TEXT, at=PLACE, delete=PLACE), **TURN),
    st.builds(Document, name=TEXT, kind=TEXT, **TURN),
    st.builds(End, reason=st.sampled_from(["done", "stopped", "replaced", "failed"]), text=st.none() | TEXT, **TURN),
)


@given(WORDS)
def test_a_word_is_read_back_from_its_stored_body(word: Any) -> None:
    """The body without id and prev, with both put before it: the same word, and JSON with `id` first."""
    frame = frame_of("7-0", stored(word), "6-12")
    assert decode_entry(frame) == decode_sent(frame) == msgspec.structs.replace(word, id="7-0", prev="6-12")
    assert next(iter(json.loads(frame))) == "id"


@given(PACKETS)
def test_a_packet_is_read_back_from_its_stored_body(packet: Any) -> None:
    frame = frame_of("7-3", stored(packet))
    assert decode_entry(frame) == decode_sent(frame) == msgspec.structs.replace(packet, id="7-3")


def test_the_id_tells_a_clients_result_from_a_servers() -> None:
    """Both are `result`: a word's id ends in 0."""
    body = b'{"type":"result","call":"c","value":1}'
    assert isinstance(decode_entry(frame_of("2-0", body, "1-5")), Result)
    assert isinstance(decode_entry(frame_of("2-1", body)), ToolResult)


def test_the_providers_cursor_never_leaves_the_server() -> None:
    """`at` is not in what is stored as the frame."""
    said = Content("x", at=At(response="resp_1", sequence=3))
    assert b"resp_1" not in stored(said)


@pytest.mark.parametrize(
    "frame",
    [
        Hello(session="s", log="l", after="0-0", head="3-1", status="gap", reason="lost", ticket="t"),
        Gap(log="l", after="0-0", reason="trimmed"),
        Receipt(ref="r", status="duplicate", id="1-0", was="applied"),
        Receipt(ref="r", status="refused", reason="why"),
        Error(code="bad_field", text="t", at="a.b"),
        Typing(on=True, from_="ann"),
        Who(names=["ann"], agents=["coder"], by="x", fresh=True),
        Beat(),
    ],
    ids=str,
)
def test_what_travels_beside_the_log_is_read_back(frame: Any) -> None:
    """A receipt has an id too: it is the word's, and makes it no entry."""
    assert decode_sent(encode(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        *(b"", b"[]", b"{}", b"\xff", b'{"type":"shout"}', b'{"id":"x","type":"content","text":"x"}'),
        *(b'{"id":"1-0","type":"content","text":"x"}', b'{"id":"1-1","type":"prompt","text":"x"}'),
        b'{"id":"1-1","type":"content","text":"x","colour":"red"}',
    ],
    ids=ascii,
)
def test_a_frame_of_another_protocol_raises(frame: bytes) -> None:
    """A word with a packet's id, a packet with a word's, unknown fields and types."""
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        decode_sent(frame)


def test_a_result_is_a_value_or_an_error() -> None:
    """Neither is nothing, both are a contradiction; null is a value."""
    for kind in (Result, ToolResult):
        with pytest.raises(ValueError, match="either"):
            kind(call="c")
        with pytest.raises(ValueError, match="either"):
            kind(call="c", value=1, error="e")
        assert b'"value":null' in encode(kind(call="c", value=None))


# ---- split ----


@given(st.text(max_size=300), st.integers(400, 700))
def test_text_is_split_between_characters(text: str, limit: int) -> None:
    """The pieces are the text again, each fits, and only the last has the provider's cursor: no other is the end of its event."""
    pieces = list(split(Content(text, at=At(response="r")), limit))
    assert "".join(piece.text for piece in pieces if isinstance(piece, Content)) == text
    assert all(len(stored(piece)) + 256 <= limit or len(piece.text) == 1 for piece in pieces if isinstance(piece, Content))
    assert [piece.at is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", "\x01", '"'])
def test_a_piece_fits_whatever_json_makes_of_it(letter: str) -> None:
    pieces = list(split(Thought(letter * 100_000)))
    assert max(len(stored(piece)) for piece in pieces) <= MAX_BODY
    assert sum(len(piece.text) for piece in pieces if isinstance(piece, Thought)) == 100_000


@pytest.mark.parametrize(
    "packet",
    [
        Action(call="c", name="f", arguments={"x": "y" * MAX_BODY}, on="server"),
        Ask(call="c", text="y" * MAX_BODY),
        ToolResult(call="c", value=["y"] * MAX_BODY),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_anything_else_too_large_says_what_to_do(packet: AnyPacket) -> None:
    with pytest.raises(ValueError, match="put large values elsewhere"):
        list(split(packet))


def test_entries_are_frozen() -> None:
    entry = Prompt(text="hi")
    with pytest.raises(AttributeError):
        entry.text = "ho"  # type: ignore[misc]  # the point of it
