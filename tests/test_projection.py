"""Projection: a log's meaning: what each word comes to, whose turn it is, what may be trimmed. Any log folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.packets import (
    START,
    Action,
    Answer,
    Ask,
    Claim,
    Content,
    Edit,
    End,
    EntryId,
    Prompt,
    Result,
    Stop,
    Takeover,
    ToolResult,
    Word,
    stored,
)
from kit.projection import Projection

A = "1-0/a"


def ids(entries: Sequence[Any]) -> list[EntryId]:
    """The ids that the store would give: a word opens an epoch, a packet follows in it."""
    last, given = START, []
    for entry in entries:
        last = EntryId(last.epoch + 1, 0) if isinstance(entry, Word) else EntryId(last.epoch, last.n + 1)
        given.append(last)
    return given


def folded(*entries: Any) -> Projection:
    projection = Projection()
    for id, entry in zip(ids(entries), entries, strict=True):
        projection.fold(id, stored(entry))
    return projection


def outcome(*entries: Any) -> str:
    """What the last of the entries, a word, comes to."""
    projection = folded(*entries)
    return "too_late" if projection.head in projection.late else "applied"


PROMPT = Prompt(text="hi", to="a", from_="ann")
END = End(reason="done", turn=A)
ASK = Ask(call="q", text="?", turn=A)
RUN = Action(call="c", name="f", arguments={}, on="client", turn=A)

# ---- what a word comes to ----


@pytest.mark.parametrize(
    ("before", "word", "expected"),
    [
        ([], PROMPT, "applied"),
        ([PROMPT], Stop(), "applied"),
        ([PROMPT], Stop(turn=A), "applied"),
        ([], Stop(), "too_late"),
        ([PROMPT, END], Stop(), "too_late"),
        ([PROMPT, END], Stop(turn=A), "too_late"),
        ([PROMPT, Stop()], Stop(turn=A), "too_late"),
        ([PROMPT], Stop(turn="2-0/a"), "too_late"),
        ([PROMPT, PROMPT, END], Stop(), "applied"),
        ([PROMPT], Edit(turn=A, text="x"), "applied"),
        ([PROMPT, END], Edit(turn=A, text="x"), "too_late"),
        ([PROMPT, Stop()], Edit(turn=A, text="x"), "too_late"),
        ([PROMPT, Edit(turn=A, text="x")], Edit(turn=A, text="y"), "too_late"),
        ([PROMPT, Edit(turn=A, text="x")], Edit(turn="2-0/a", text="y"), "applied"),
        ([PROMPT, ASK], Answer(call="q", text="x"), "applied"),
        ([PROMPT, ASK, Answer(call="q", text="x")], Answer(call="q", text="y"), "too_late"),
        ([PROMPT, ASK, Stop()], Answer(call="q", text="x"), "too_late"),
        ([PROMPT, ASK, END], Answer(call="q", text="x"), "too_late"),
        ([PROMPT], Answer(call="q", text="x"), "too_late"),
        ([PROMPT, RUN], Claim(call="c"), "applied"),
        ([PROMPT, RUN, Claim(call="c")], Claim(call="c"), "too_late"),
        ([PROMPT, RUN, Claim(call="c")], Result(call="c", value=1), "applied"),
        ([PROMPT, RUN], Result(call="c", value=1), "applied"),
        ([PROMPT, RUN, Result(call="c", value=1)], Claim(call="c"), "too_late"),
        ([PROMPT, RUN, Result(call="c", error="x")], Result(call="c", value=1), "too_late"),
        ([PROMPT, RUN, ToolResult(call="c", value=1, turn=A)], Result(call="c", value=2), "too_late"),
        ([PROMPT, END], Takeover(turn=A, by="me"), "applied"),
    ],
    ids=str,
)
def test_the_outcome_of_a_word(before: list[Any], word: Word, expected: str) -> None:
    """`applied`: it opened, ended or fed something; `too_late`: nothing was left."""
    assert outcome(*before, word) == expected


def test_a_stop_ends_what_is_open_at_its_id_and_no_later_turn() -> None:
    projection = folded(PROMPT, Prompt(text="x", to="b"), Stop(), PROMPT)
    assert {id: turn.fate for id, turn in projection.turns.items()} == {A: "stopped", "2-0/b": "stopped", "4-0/a": "open"}


def test_an_edit_replaces_in_place() -> None:
    """The new turn is before a prompt that came in between, as the edited one was."""
    log = (PROMPT, PROMPT, Edit(turn=A, text="x"))
    assert folded(*log).turns[A].fate == "replaced"
    projection = folded(*log, End(reason="replaced", turn=A))
    assert projection.is_next(projection.turns["3-0/a"])
    assert not projection.is_next(projection.turns["2-0/a"])


def test_an_agents_turns_queue_and_other_agents_do_not_wait() -> None:
    """A turn that waits for a person holds nobody up; one that is told to end does, until its `end` stands."""
    projection = folded(PROMPT, PROMPT, Prompt(text="x", to="b"))
    first, second, other = projection.turns.values()
    assert [projection.is_next(turn) for turn in (first, second, other)] == [True, False, True]
    asked = folded(PROMPT, PROMPT, ASK)
    assert asked.waits(asked.turns[A])
    assert asked.is_next(asked.turns["2-0/a"])
    stopped = folded(PROMPT, PROMPT, ASK, Stop(turn=A))
    assert not stopped.is_next(stopped.turns["2-0/a"])
    ended = folded(PROMPT, PROMPT, ASK, Stop(turn=A), End(reason="stopped", turn=A))
    assert ended.is_next(ended.turns["2-0/a"])
    assert (list(ended.turns), ended.ended) == (["2-0/a"], {A})


def test_what_runs_on_the_server_makes_nobody_wait() -> None:
    projection = folded(PROMPT, Action(call="c", name="f", arguments={}, on="server", turn=A))
    assert not projection.waits(projection.turns[A])


def test_the_latest_takeover_counts() -> None:
    projection = folded(PROMPT, Takeover(turn=A, by="x"), Takeover(turn=A, by=None))
    assert projection.turns[A].taken == EntryId(3, 0)


def test_text_is_not_decoded() -> None:
    """It changes nothing: fold says so, for a body that could not even be read."""
    projection = folded(PROMPT)
    assert projection.fold(EntryId(1, 1), b'{"type":"content","text":broken') is False
    assert projection.head == EntryId(1, 1)
    assert stored(Content("x")).startswith(b'{"type":"content"'), "the test in fold rests on the order of the fields"


# ---- any log ----

TURNS = st.sampled_from([A, "2-0/a", "3-0/b", "9-0/a", "nonsense"])
CALLS = st.sampled_from(["q", "c", "d"])
NAMES = st.sampled_from(["ann", "bob"])
ENTRIES = st.one_of(
    st.builds(Prompt, text=st.just("x"), to=st.sampled_from(["a", "b", None]), from_=NAMES),
    st.builds(Stop, turn=st.none() | TURNS),
    st.builds(Edit, turn=TURNS, text=st.just("x")),
    st.builds(Answer, call=CALLS, text=st.just("x")),
    st.builds(Result, call=CALLS, value=st.just(1), from_=NAMES),
    st.builds(Claim, call=CALLS, from_=NAMES),
    st.builds(Takeover, turn=TURNS, by=st.none() | st.just("me")),
    st.builds(Content, text=st.just("x"), turn=TURNS),
    st.builds(Ask, call=CALLS, text=st.just("?"), turn=TURNS),
    st.builds(
        Action, call=CALLS, name=st.just("f"), arguments=st.just({}), on=st.sampled_from(["server", "client", "approve"]), turn=TURNS
    ),
    st.builds(ToolResult, call=CALLS, value=st.just(1), turn=TURNS),
    st.builds(End, reason=st.just("done"), turn=TURNS),
)
LOGS = st.lists(ENTRIES, max_size=25).map(lambda entries: [PROMPT, *entries])


@given(LOGS)
def test_any_log_folds(log: list[Any]) -> None:
    """Whatever stands in it: unknown turns, calls that are answered twice, ends without a beginning."""
    projection = folded(*log)
    assert projection.head == ids(log)[-1]
    assert sum(projection.sizes.values()) == len(log)
    assert projection.first == EntryId(1, 0)
    for turn in projection.turns.values():
        projection.is_next(turn)
        projection.waits(turn)


@given(LOGS, ENTRIES.filter(lambda entry: isinstance(entry, Word) and not isinstance(entry, Takeover)))
def test_any_word_has_a_reason_or_an_outcome(log: list[Any], word: Any) -> None:
    """A refusal is a sentence; a word that is not refused folds to one of the two outcomes."""
    reason = folded(*log).refusal(word)
    assert reason is None or len(reason) > 20
    assert outcome(*log, word) in ("applied", "too_late")


@given(LOGS)
def test_after_a_stop_of_all_nothing_is_live(log: list[Any]) -> None:
    """And it was too late exactly where nothing had been."""
    live = any(turn.live for turn in folded(*log).turns.values())
    assert outcome(*log, Stop()) == ("applied" if live else "too_late")
    assert not any(turn.live for turn in folded(*log, Stop()).turns.values())


@given(LOGS)
def test_at_most_one_turn_of_an_agent_speaks(log: list[Any]) -> None:
    """Of those that do not wait, one at most is next."""
    projection = folded(*log)
    speaking = [t for t in projection.turns.values() if projection.is_next(t) and not (projection.waits(t) and t.live)]
    assert len({turn.agent for turn in speaking}) == len(speaking)


# ---- trimming ----


@settings(max_examples=300)
@given(LOGS, st.integers(0, 10))
def test_who_comes_after_a_trim_knows_the_same(log: list[Any], keep: int) -> None:
    """What is open is the same for the instance that trimmed as for one that reads only what was kept; the last entry is always kept."""
    projection, fresh = folded(*log), Projection()
    before = projection.surplus(keep)
    if before is None:
        return
    kept = [(id, entry) for id, entry in zip(ids(log), log, strict=True) if id >= before]
    assert kept
    assert len(kept) + projection.sizes[before.epoch - 1] > keep, "no epoch goes that could have stayed"
    projection.forget(before)
    for id, entry in kept:
        fresh.fold(id, stored(entry))

    def open_turns(known: Projection) -> dict[str, Any]:
        return {turn.id: (turn, [call for call in known.calls.values() if call.turn == turn.id]) for turn in known.turns.values()}

    assert open_turns(projection) == open_turns(fresh)
    assert projection.sizes == fresh.sizes
    assert projection.first == fresh.first


def test_nothing_goes_while_a_turn_is_open() -> None:
    """Nor does the turn that an open one replaced: without it, its edit would mean nothing."""
    assert folded(PROMPT, PROMPT, PROMPT).surplus(0) is None
    assert folded(PROMPT, Edit(turn=A, text="x"), End(reason="replaced", turn=A)).surplus(0) is None
    ended = [PROMPT, END, PROMPT, End(reason="done", turn="2-0/a"), PROMPT]
    assert folded(*ended).surplus(0) == EntryId(3, 0)
    assert folded(*ended).surplus(3) == EntryId(2, 0)
    assert folded(*ended).surplus(5) is None


def test_a_turn_that_was_trimmed_is_not_unknown() -> None:
    """To stop it is too late; to stop one that never was is refused."""
    projection = folded(PROMPT, END, PROMPT)
    projection.forget(EntryId(2, 0))
    assert projection.refusal(Stop(turn=A)) is None
    assert "no turn" in (projection.refusal(Stop(turn="2-0/nobody")) or "")
    assert "no turn" in (projection.refusal(Stop(turn="0-0/a")) or "")
    assert "no turn" in (projection.refusal(Edit(turn="1-1/a", text="x")) or "")
