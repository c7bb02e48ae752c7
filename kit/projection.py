"""Projection: what a log means so far: which turns are open, which calls wait, and what a word comes to.

It is a fold over the entries, in order, and nothing else: two instances that read the same log know the same. The outcome of a word
is therefore a function of the log before it, and can be told again after any crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, assert_never

from kit.document import Text
from kit.packets import (
    START,
    Action,
    Answer,
    AnyPacket,
    AnyWord,
    Ask,
    Claim,
    Document,
    Edit,
    End,
    EntryId,
    Packet,
    Patch,
    Prompt,
    Result,
    Said,
    Stop,
    Takeover,
    ToolResult,
    Word,
    Write,
    decode_entry,
    frame_of,
)

Outcome = Literal["applied", "too_late"]
_TEXT = (b'{"type":"content"', b'{"type":"thought"')


def opening(turn: str) -> EntryId:
    """The id of the word that opened a turn, which a turn's own id begins with; raises ValueError where this is none."""
    return EntryId.parse(turn.partition("/")[0])


@dataclass(slots=True)
class Turn:
    """One agent's answer to one prompt. `place` is its place in the agent's queue: an edit keeps the place of what it replaces."""

    id: str
    agent: str
    place: EntryId
    fate: Literal["open", "stopped", "replaced"] = "open"
    taken: EntryId | None = None
    """The latest takeover of it; whoever said that word runs it."""
    fed: EntryId = START
    """The latest answer or result for it."""

    @property
    def opened(self) -> EntryId:
        """The word that opened it."""
        return opening(self.id)

    @property
    def live(self) -> bool:
        """Not told to end."""
        return self.fate == "open"


@dataclass(slots=True)
class Call:
    """An ask, or an action: where it runs, who claimed it, whether it has its answer or result."""

    turn: str
    kind: Literal["ask", "server", "client", "approve"]
    claimed_by: str | None = None
    done: bool = False


@dataclass(slots=True)
class Projection:
    """The state that a log folds to, up to and including `head`."""

    head: EntryId = START
    first: EntryId = START
    """The first entry that is kept."""
    turns: dict[str, Turn] = field(default_factory=dict)
    """Those that have not ended, by id."""
    ended: set[str] = field(default_factory=set)
    """Those that have: of each no more than its id, as a log holds many of them."""
    calls: dict[str, Call] = field(default_factory=dict)
    late: set[EntryId] = field(default_factory=set)
    """The words that found nothing left to act on."""
    text: Text = field(default_factory=Text)
    """What stands in it, where it is the log of a document: one that an agent opened before anybody said anything."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Entries in each epoch."""

    def fold(self, id: EntryId, body: bytes) -> bool:
        """Take in the next entry; False where it is a piece of text, which changes nothing here (and is not even decoded)."""
        if self.first == START:
            self.first = id
        self.head = id
        self.sizes[id.epoch] = self.sizes.get(id.epoch, 0) + 1
        if body.startswith(_TEXT):
            return False
        match entry := decode_entry(frame_of(str(id), body)):
            case Word():
                if self._word(entry, id) == "too_late":
                    self.late.add(id)
            case Packet():
                self._packet(entry, id)
        return True

    def surplus(self, keep: int) -> EntryId | None:
        """The word before which all may go so that about `keep` entries stay; None where there is nothing to trim."""
        # By place: an open turn that an edit began stands or falls with the turn that was edited, back to the prompt.
        bound = min((turn.place for turn in self.turns.values()), default=self.head)
        total, cut = sum(self.sizes.values()), None
        for epoch in sorted(self.sizes):
            if total <= keep or epoch >= bound.epoch:
                break
            total -= self.sizes[epoch]
            cut = epoch + 1
        return None if cut is None else EntryId(cut, 0)

    def forget(self, before: EntryId) -> None:
        """What was trimmed away."""
        self.first = before
        self.sizes = {epoch: size for epoch, size in self.sizes.items() if epoch >= before.epoch}
        self.turns = {id: turn for id, turn in self.turns.items() if turn.opened >= before}
        self.ended = {id for id in self.ended if opening(id) >= before}
        self.calls = {id: call for id, call in self.calls.items() if self.knows(call.turn)}
        self.late = {id for id in self.late if id >= before}

    def _packet(self, packet: AnyPacket, id: EntryId) -> None:
        match packet:
            case Ask(call=call):
                self.calls[call] = Call(packet.turn, "ask")
            case Action(call=call, on=on):
                self.calls[call] = Call(packet.turn, on)
            case ToolResult(call=call) if call in self.calls:
                self.calls[call].done = True
            case Document() if id.epoch == 0:
                self.text.open(id, packet)
            case Write() if self.text.opened:
                self.text.write(id, packet)
            case End() if packet.turn in self.turns:
                self.ended.add(self.turns.pop(packet.turn).id)

    def _word(self, word: AnyWord, id: EntryId) -> Outcome:
        match word:
            case Prompt():
                for agent in word.addressed:
                    self._open(id, agent, id)
            case Stop():
                stopped = [t for t in self.turns.values() if t.live and word.turn in (None, t.id)]
                for turn in stopped:
                    turn.fate = "stopped"
                return "applied" if stopped else "too_late"
            case Edit():
                if not (old := self.turns.get(word.turn)) or not old.live:
                    return "too_late"
                old.fate = "replaced"
                self._open(id, old.agent, old.place)
            case Answer() | Result():
                if not (call := self._waiting(word.call)):
                    return "too_late"
                call.done = True
                self.turns[call.turn].fed = id
            case Claim():
                if not (call := self._waiting(word.call)) or call.claimed_by is not None:
                    return "too_late"
                call.claimed_by = word.from_
            case Patch():
                return "applied" if self.text.patch(id, word) else "too_late"
            case Takeover():
                if taken := self.turns.get(word.turn):
                    taken.taken = id
            case _:
                assert_never(word)
        return "applied"

    def _open(self, id: EntryId, agent: str, place: EntryId) -> None:
        turn = Turn(f"{id}/{agent}", agent, place)
        self.turns[turn.id] = turn

    def knows(self, turn: str) -> bool:
        """Whether it was opened in what is kept of the log."""
        return turn in self.turns or turn in self.ended

    def _waiting(self, id: str) -> Call | None:
        call = self.calls.get(id)
        turn = self.turns.get(call.turn) if call else None
        return call if call and not call.done and turn and turn.live else None

    def is_next(self, turn: Turn) -> bool:
        """Whether the turn may speak: no earlier turn of its agent is still speaking (one that waits for a person holds nobody up)."""
        earlier = (t for t in self.turns.values() if t.agent == turn.agent and t is not turn and t.place <= turn.place)
        return all(self.waits(t) and t.live for t in earlier)

    def waits(self, turn: Turn) -> bool:
        """Whether a question or an action of the turn is open that only a person or a client can close."""
        return any(c.turn == turn.id and not c.done and c.kind != "server" for c in self.calls.values())

    def refusal(self, word: Said) -> str | None:
        """Why the word can't even be logged, as a sentence that says what to do; None where it can."""
        match word:
            case Stop(turn=str(turn)) | Edit(turn=turn):
                return self._refuse_turn(turn)
            case Answer(call=id) | Result(call=id) | Claim(call=id):
                return self._refuse_call(word, id)
            case Patch():
                return self.text.refusal(word)
            case _:
                return None

    def _refuse_turn(self, turn: str) -> str | None:
        try:
            opened = opening(turn)
        except ValueError:
            return f"`turn` is <prompt id>/<agent>, such as 3-0/agent; not {turn!r:.60}"
        if self.knows(turn) or (START < opened < self.first and opened.is_word):  # what is trimmed away has ended: too late, not unknown
            return None
        return f"there is no turn {turn!r:.60} in this session: name one that was opened here"

    def _refuse_call(self, word: Answer | Result | Claim, id: str) -> str | None:
        if not (call := self.calls.get(id)):
            return f"there is no call {id!r:.60} in this session: name one that an `ask` or `action` opened"
        match word, call.kind:
            case (Answer(), "ask" | "approve") | (Claim(), "client"):
                return None
            case Result(), "client":
                if call.claimed_by not in (None, word.from_):
                    return f"the call {id!r:.60} was claimed by {call.claimed_by!r}: only its client gives the result"
                return None
            case _, "ask":
                return f"the call {id!r:.60} is a question: `answer` it"
            case _, "approve":
                return f"the call {id!r:.60} waits for approval: `answer` it with yes or no; it runs on the server"
            case _, "client":
                return f"the call {id!r:.60} runs on a client: `claim` it, then give its `result`"
            case _:
                return f"the call {id!r:.60} runs on the server: its result is not the client's to give"
