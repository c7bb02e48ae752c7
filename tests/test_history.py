"""History: what an agent is given occupies what its text does, and says the same as the log."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeGuard

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kit.agents.conversation import conversation
from kit.agents.standing import due, left_of, rounds, thoughts
from kit.history import History, gathered
from kit.packets import Action, At, Content, Edit, Packet, Prompt, Takeover, Thought, Write

TURNS = st.sampled_from(["1-0/a", "1-0/b"])
CURSORS = st.none() | st.builds(At, response=st.sampled_from(["r1", "r2"]), sequence=st.integers(0, 9))
TEXTS = st.text(alphabet="xy ", max_size=3)
ENTRIES = st.one_of(
    st.builds(Content, text=TEXTS, turn=TURNS, k=st.integers(1, 3), at=CURSORS),
    st.builds(Thought, text=TEXTS, turn=TURNS, k=st.integers(1, 3), at=CURSORS),
    st.builds(Write, name=st.just("a.py"), text=TEXTS, turn=TURNS, k=st.integers(1, 3)),
    st.builds(Action, call=st.sampled_from("cd"), name=st.just("f"), arguments=st.just({}), on=st.just("server"), turn=TURNS, at=CURSORS),
    st.builds(Takeover, turn=TURNS, by=st.just("me")),
    st.builds(Edit, turn=TURNS, text=TEXTS),
)
LOGS = st.lists(ENTRIES, max_size=25)


def numbered(entries: list[Any]) -> tuple[Any, ...]:
    """The log of one prompt to two agents, with ids and ordinals."""
    log, said = [Prompt(id="1-0", text="go", to="a,b")], dict.fromkeys(("1-0/a", "1-0/b"), 1)
    for i, entry in enumerate(entries, 2):
        fields = {"n": said[entry.turn]} if isinstance(entry, Packet) else {}
        log.append(msgspec.structs.replace(entry, id=f"{i}-0", **fields))
        if isinstance(entry, Packet):
            said[entry.turn] += entry.k
    return tuple(log)


@given(LOGS, TURNS)
def test_gathered_it_says_the_same(entries: list[Any], turn: str) -> None:
    """To a model, and to an agent that goes on: text, calls, pieces, and where the provider's stream stood."""
    told, short = (History(log, turn) for log in (numbered(entries), tuple(gathered(numbered(entries)))))
    for ask in (conversation, left_of, due, rounds, thoughts):
        assert ask(told) == ask(short)
    assert told.pieces == short.pieces
    assert told.prompt == short.prompt


@given(LOGS)
def test_gathered_no_two_neighbours_could_be_one(entries: list[Any]) -> None:
    """Each packet says which pieces of its turn it holds, and has the id of the last; what is written into documents stays as it is."""
    log = numbered(entries)
    short = list(gathered(log))
    assert [entry for entry in short if not _is_text(entry)] == [entry for entry in log if not _is_text(entry)]
    assert short[-1].id == log[-1].id
    for turn in ("1-0/a", "1-0/b"):
        n = 1
        for packet in (entry for entry in short if isinstance(entry, Packet) and entry.turn == turn):
            assert packet.n == n
            n += packet.k
    for a, b in pairwise(short):
        alike = _is_text(a) and _is_text(b) and type(a) is type(b) and a.turn == b.turn
        assert not (alike and (a.at is None) == (b.at is None)), "these would fit into one"


def _is_text(entry: Any) -> TypeGuard[Content | Thought]:
    return isinstance(entry, Content | Thought)
