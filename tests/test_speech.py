"""Speech: what an agent says is checked, cut to size, joined with its neighbours and numbered; nothing is lost or reordered."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.packets import MAX_BODY, Action, AnyPacket, Ask, At, Content, Document, End, EntryId, Prompt, Thought, ToolResult, stored
from kit.projection import Projection
from kit.speech import JOINED, NoPacket, joined, numbered, pieces

TEXTS = st.text(max_size=12)
PIECES = st.one_of(
    st.builds(Content, text=TEXTS, at=st.none() | st.builds(At, response=TEXTS, sequence=st.integers(0, 9))),
    st.builds(Thought, text=TEXTS),
    st.builds(Ask, call=TEXTS, text=TEXTS),
)


def checked(said: object, known: Projection | None = None) -> list[AnyPacket]:
    return list(pieces(said, known or Projection(), "1-0/a"))


def story(packets: list[AnyPacket]) -> list[Any]:
    """What was said, apart from how it is cut: neighbouring texts of a kind as one."""
    return [
        (kind, "".join(packet.text for packet in run if isinstance(packet, Content | Thought))) if kind in (Content, Thought) else kind
        for kind, run in ((kind, list(run)) for kind, run in groupby(packets, type))
    ]


# ---- pieces ----


@pytest.mark.parametrize(
    "said",
    [None, "text", 7, {"type": "content", "text": "x"}, Prompt(text="x"), End(reason="done"), Content, [Content("x")], b"x"],
    ids=str,
)
def test_what_is_no_packet_is_named(said: object) -> None:
    """A word, an `end` and a dict are none either; the sentence says what agents may say."""
    with pytest.raises(NoPacket, match="agents say Thought, Content, Action"):
        checked(said)


@pytest.mark.parametrize(
    "said",
    [
        Content(7),  # type: ignore[arg-type]  # agents without types may say anything
        Content(None),  # type: ignore[arg-type]
        Ask(call=1, text="x"),  # type: ignore[arg-type]
        Ask(call="c", text="x", choices=[1]),  # type: ignore[list-item]
        Action(call="c", name="f", arguments={"x": object()}, on="server"),
        Action(call="c", name="f", arguments=[], on="server"),  # type: ignore[arg-type]
        Action(call="c", name="f", arguments={}, on="moon"),  # type: ignore[arg-type]
        ToolResult(call="c", value={1: "\ud800"}),
        Ask(call="\ud800", text="x"),
        Ask(call="c", text="x" * MAX_BODY),
        Document(name="n" * MAX_BODY, kind="text"),
    ],
    ids=lambda said: ascii(said)[:60],
)
def test_a_packet_that_no_client_could_read_is_refused(said: object) -> None:
    with pytest.raises(NoPacket, match="is not valid"):
        checked(said)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d" * 9], ids=ascii)
def test_half_of_a_surrogate_pair_is_refused(text: str) -> None:
    """The fast path for text must not let it through: the encoder would raise when it is too late."""
    for kind in (Content, Thought):
        with pytest.raises(NoPacket):
            checked(kind(text))


def test_a_call_id_of_another_turn_is_refused() -> None:
    """Call ids are unique in a session: an answer names only the call."""
    known = Projection()
    known.fold(EntryId(1, 0), stored(Prompt(text="x", to="b")))
    known.fold(EntryId(1, 1), stored(Ask(call="q", text="?", turn="other")))
    with pytest.raises(NoPacket, match="belongs to the turn other"):
        checked(Ask(call="q", text="?"), known)
    assert checked(Ask(call="new", text="?"), known)


@pytest.mark.parametrize("letter", ["x", "\x01", "\U0001f600"], ids=ascii)
def test_a_long_text_comes_in_pieces_that_fit(letter: str) -> None:
    said = checked(Content(letter * 3 * MAX_BODY))
    assert "".join(p.text for p in said if isinstance(p, Content)) == letter * 3 * MAX_BODY
    assert max(len(stored(p)) for p in said) <= MAX_BODY


# ---- joined ----


@given(st.lists(PIECES, max_size=30))
def test_joining_changes_nothing_but_the_cuts(said: list[AnyPacket]) -> None:
    """The same story, every piece counted, no two neighbours left of one kind."""
    packets = list(joined(said))
    assert story([packet for packet, _ in packets]) == story(said)
    assert sum(k for _, k in packets) == len(said)
    kinds = [type(packet) for packet, _ in packets]
    assert not any(a == b and a in (Content, Thought) for a, b in pairwise(kinds))


@given(st.lists(st.builds(Content, text=TEXTS, at=st.none() | st.builds(At, response=TEXTS)), min_size=1, max_size=9))
def test_the_last_pieces_cursor_counts(said: list[Content]) -> None:
    """Going on at an earlier one would say what follows it again."""
    ((packet, _),) = joined(said)
    assert packet.at == said[-1].at


@given(st.lists(st.integers(1, JOINED), max_size=9))
def test_a_joined_packet_has_a_bound(sizes: list[int]) -> None:
    packets = [packet for packet, _ in joined([Content("\x01" * size) for size in sizes])]
    assert all(len(packet.text) <= JOINED and len(stored(packet)) <= MAX_BODY for packet in packets if isinstance(packet, Content))


# ---- numbered ----


@given(st.lists(PIECES, max_size=20), st.integers(1, 1000))
def test_each_packet_begins_where_the_last_one_ended(said: list[AnyPacket], n: int) -> None:
    """`n` is the ordinal of its first piece; the next is `n + k`; sender and turn are filled in, whatever the agent wrote there."""
    packets = numbered(joined(said), "a", "1-0/a", n)
    for packet in packets:
        assert (packet.n, packet.from_, packet.turn, packet.id) == (n, "a", "1-0/a", "")
        n += packet.k


def test_what_an_agent_writes_over_itself_does_not_count() -> None:
    forged = Content("x", from_="admin", turn="9-0/admin", n=99, k=99, id="9-9")
    assert numbered(joined([forged]), "a", "1-0/a", 1) == [Content("x", from_="a", turn="1-0/a", n=1, k=1)]
