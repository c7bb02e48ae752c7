"""Document: whoever folds its log has the same text; nothing that is typed is lost; what a turn writes stands there once."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kit.document import HORIZON, MAX_TEXT, Text, document_session
from kit.packets import START, Document, Entry, EntryId, Over, Patch, Splice, Write
from kit.replica import Replica

OPENED = Document(name="main.py", kind="python", id="0-1", turn="1-0/coder", n=1)


def patch(base: str, *splices: Splice, ref: str = "") -> Patch:
    return Patch(base=base, splices=list(splices), ref=ref)


def write(text: str, n: int = 1, over: Over | None = None, turn: str = "1-0/coder") -> Write:
    return Write(name="main.py", text=text, turn=turn, n=n, over=over)


class Log:
    """A document's log: gives ids, as the store does, and folds."""

    def __init__(self, *entries: Patch | Write) -> None:
        self.text = Text()
        self.entries: list[Entry] = []
        self._add(EntryId(0, 1), OPENED)
        for entry in entries:
            self.say(entry)

    def say(self, entry: Patch | Write) -> str:
        last = self.text.head
        id = EntryId(last.epoch + 1, 0) if isinstance(entry, Patch) else EntryId(last.epoch, last.n + 1)
        self._add(id, entry)
        return str(id)

    def _add(self, id: EntryId, entry: Document | Patch | Write) -> None:
        self.entries.append(replace(entry, id=str(id)))
        self.text.take(self.entries[-1])


def text_of(*entries: Patch | Write) -> str:
    return Log(*entries).text.read()


# ---- the fold ----


def test_a_patch_changes_the_text_that_its_author_saw() -> None:
    """`base` says which: what others said since moves its places along."""
    assert text_of(patch("0-1", Splice(0, 0, "hello")), patch("1-0", Splice(0, 0, "oh, ")), patch("1-0", Splice(5, 0, "!"))) == "oh, hello!"


def test_what_comes_into_a_part_that_somebody_deletes_stays() -> None:
    """A keystroke is never lost, though what stood around it is deleted by somebody who had not seen it."""
    assert text_of(patch("0-1", Splice(0, 0, "abcdef")), patch("1-0", Splice(3, 0, "X")), patch("1-0", Splice(1, 4, ""))) == "aXf"


def test_what_two_delete_is_gone_once() -> None:
    log = Log(patch("0-1", Splice(0, 0, "abcdef")), patch("1-0", Splice(1, 3, "")), patch("1-0", Splice(2, 3, "")))
    assert log.text.read() == "af"
    assert log.text.read(EntryId(2, 0)) == "aef"
    assert log.text.read(EntryId(1, 0)) == "abcdef"


def test_what_comes_to_one_place_stands_in_the_order_of_the_log() -> None:
    assert text_of(*(patch("0-1", Splice(0, 0, letter)) for letter in "abc")) == "abc"


def test_several_places_of_one_patch_are_places_of_one_text() -> None:
    assert text_of(patch("0-1", Splice(0, 0, "one two")), patch("1-0", Splice(0, 3, "1"), Splice(4, 3, "2"))) == "1 2"


def test_an_agent_goes_on_where_it_wrote_wherever_people_move_that() -> None:
    said = [write("def f():\n"), patch("0-2", Splice(0, 0, "# by ann\n")), write("    return 1\n", 2), patch("1-0", Splice(18, 0, "# end"))]
    assert text_of(*said, write("f()\n", 3)) == "# by ann\ndef f():\n    return 1\nf()\n# end"


def test_agents_do_not_write_into_each_others_lines() -> None:
    first, second = "1-0/coder", "2-0/tester"
    said = [write("a1 ", 1, turn=first), write("b1 ", 1, turn=second), write("a2 ", 2, turn=first), write("b2 ", 2, turn=second)]
    assert text_of(*said) == "a1 a2 b1 b2 "


def test_an_agent_writes_over_what_it_saw_and_not_over_what_it_did_not() -> None:
    said = [write("a - b"), patch("0-2", Splice(2, 0, "/* minus? */ ")), write("+", 2, Over("0-2", 2, 1)), write("+", 3)]
    assert text_of(*said) == "a /* minus? */ ++ b"


def test_what_a_turn_wrote_is_taken_in_once() -> None:
    """After a takeover or a lost reply it may stand in the log again, even behind what came later."""
    assert text_of(write("a"), write("b", 2), write("a"), write("b", 2), write("c", 3), write("b", 2)) == "abc"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (patch("no id"), "last id that you have seen"),
        (patch("7-0"), "in the future"),
        (patch("1-0", Splice(4, 0, "x")), "ends at 4, but the text at `base` has 3"),
        (patch("1-0", Splice(2, 2)), "ends at 4"),
        (patch("1-0", Splice(2, 1), Splice(1, 1)), "in order"),
        (patch("1-0", Splice(0, 2), Splice(1, 1)), "none within another"),
        (patch("1-0", Splice(0, 0, "x" * MAX_TEXT)), "full"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_patch_is_refused_with_the_reason_and_changes_nothing(bad: Patch, reason: str) -> None:
    """And where one stands in a log all the same, everybody folds it to nothing."""
    log = Log(patch("0-1", Splice(0, 0, "abc")))
    assert reason in (log.text.refusal(bad) or "")
    log.say(bad)
    assert log.text.read() == "abc"


def test_a_patch_that_is_too_far_behind_is_refused_and_what_is_forgotten_changes_nothing() -> None:
    """Memory is bounded: tombstones go, and old text is joined; a patch within the horizon finds its place all the same."""
    log = Log(patch("0-1", Splice(0, 0, "begin end")))
    for i in range(HORIZON + 600):
        log.say(patch(str(log.text.head), Splice(6, 1 if i % 2 else 0, "" if i % 2 else "x")))
    assert "too long ago" in (log.text.refusal(patch("1-0", Splice(0, 0, "y"))) or "")
    assert len(log.text._pieces) < HORIZON + 600
    recent = EntryId(log.text.head.epoch - HORIZON + 301, 0)
    assert log.text.read(recent) == "begin xend"
    log.say(patch(str(recent), Splice(7, 0, "!")))
    assert log.text.read() == "begin !end"


def test_a_document_has_a_session_of_its_own() -> None:
    """Each name another one, in letters that a session's name may have, and no dash: what stands before the last `--` is the room."""
    names = ["main.py", "main_py", "main-py", "main_2e_py", "_", "é", "日"]
    sessions = {document_session("war", name) for name in names}
    assert len(sessions) == len(names)
    assert all(session.rpartition("--")[0] == "war" for session in sessions)
    with pytest.raises(ValueError, match="a name of 1 to"):
        document_session("war", "x" * 80)
    with pytest.raises(ValueError, match="a name of 1 to"):
        document_session("war", "")


# ---- replicas ----


def test_what_was_typed_before_something_that_goes_meanwhile_stands_where_the_log_puts_it() -> None:
    """On the page it must not jump when it arrives, and it arrives though nothing stands where it was typed."""
    log, ann = Log(patch("0-1", Splice(0, 0, "abc"))), Replica()
    for entry in log.entries:
        ann.take(entry)
    ann.type(1, insert="X")
    log.say(patch("1-0", Splice(1, 1)))
    log.say(patch("1-0", Splice(2, 0, "Y")))
    for entry in log.entries[2:]:
        ann.take(entry)
    seen = ann.text
    said = ann.send()
    assert said is not None
    log.say(said)
    ann.take(log.entries[-1])
    assert (log.text.read(), ann.text, ann.unsettled) == (seen, seen, False)


@dataclass
class Person:
    """A replica, how much of the log it has read, and the patch that has no receipt."""

    replica: Replica = field(default_factory=Replica)
    read: int = 0
    said: Patch | None = None


STEPS = ["type", "type", "type", "send", "deliver", "read", "read", "write", "write", "again", "over", "cut"]
STORIES = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(0, 10**6), st.integers(0, 6)), max_size=80)


class Story:
    """3 people and 2 agents on one document; each character that is ever typed or written is another one, so that each can be followed."""

    def __init__(self) -> None:
        self.log = Log()
        self.people = [Person() for _ in range(3)]
        self.known: set[str] = set()
        self.said: list[set[str]] = []
        self.ordinals = [0, 0]
        self.typed = self.deleted = ""
        self._next = 0x4E00

    def fresh(self, count: int) -> str:
        self._next += count
        self.typed += (new := "".join(map(chr, range(self._next - count, self._next))))
        return new

    def step(self, what: str, who: int, where: int, size: int) -> None:
        person, agent = self.people[who], who % 2
        match what:
            case "type":
                text = person.replica.text
                at = where % (len(text) + 1)
                gone = text[at : at + size // 2]
                self.deleted += gone
                person.replica.type(at, len(gone), self.fresh(size % 4))
                assert person.replica.text == text[:at] + self.typed[len(self.typed) - size % 4 :] + text[at + len(gone) :]
            case "send":
                person.said = person.said or person.replica.send()
            case "deliver":
                self.deliver(person)
            case "read":
                self.read(person, 1 + size)
            case "write":
                self.ordinals[agent] += 1
                self.log.say(write(self.fresh(size % 3), self.ordinals[agent], turn=f"{agent}"))
            case "again":  # two runs bring the same piece, or one brings it twice
                old = [e for e in self.log.entries if isinstance(e, Write)]
                if old:
                    self.log.say(old[where % len(old)])
            case "over":
                base = EntryId.parse(self.log.entries[where % len(self.log.entries)].id)
                seen = self.log.text.read(base)
                at = where % (len(seen) + 1)
                gone = seen[at : at + size]
                self.deleted += gone
                self.ordinals[agent] += 1
                over = Over(str(base), at, len(gone))
                self.log.say(write(self.fresh(size % 3), self.ordinals[agent], over, turn=f"{agent}"))
            case "cut":  # what it said may have arrived, but no receipt comes back: it is said again, and found by its ref
                if person.said and where % 2:
                    self.add(person.said)

    def add(self, said: Patch) -> bool:
        if said.ref not in self.known:
            if self.log.text.refusal(said):
                return False
            self.known.add(said.ref)
            self.log.say(said)
        return True

    def deliver(self, person: Person) -> None:
        if person.said:
            if not self.add(person.said):
                person.replica.refused(person.said.ref)
            person.said = None

    def read(self, person: Person, count: int) -> None:
        for entry in self.log.entries[person.read : person.read + count]:
            before, own = person.replica.text, isinstance(entry, Patch) and entry.ref == person.replica._sent
            person.replica.take(entry)
            assert not own or person.replica.text == before, "a patch of one's own changes nothing that is seen when it arrives"
            person.read += 1

    def end(self) -> None:
        """Everybody says what is left and reads what there is."""
        while any(p.said or p.replica.unsettled or p.read < len(self.log.entries) for p in self.people):
            for person in self.people:
                self.deliver(person)
                self.read(person, len(self.log.entries))
                person.said = person.replica.send()


def converges(steps: list[tuple[str, int, int, int]]) -> None:
    story = Story()
    for step in steps:
        story.step(*step)
    story.end()
    text = story.log.text.read()
    assert [person.replica.text for person in story.people] == [text] * 3
    late = Text()
    for entry in story.log.entries:
        late.take(entry)
    assert late.read() == text
    assert sorted(text) == sorted(set(story.typed) - set(story.deleted)), "each character once, unless somebody who saw it deleted it"


@settings(max_examples=2000, deadline=None)
@given(STORIES)
def test_all_replicas_end_with_one_text_that_holds_all_that_was_typed(steps: list[tuple[str, int, int, int]]) -> None:
    """2,000 stories of 3 people and 2 agents, in any order, with cuts."""
    converges(steps)


@settings(max_examples=500, deadline=None)
@given(STORIES)
def test_what_is_typed_goes_in_several_patches_where_one_has_no_room_for_it(steps: list[tuple[str, int, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr("kit.replica.MAX_INSERT", 1)
        converges(steps)


def test_the_log_begins_with_the_document() -> None:
    """Before an agent has opened it, nothing is taken in: nobody can begin a log in an agent's place."""
    assert "an agent opens one" in (Text().refusal(patch(str(START), Splice(0, 0, "x"))) or "")
