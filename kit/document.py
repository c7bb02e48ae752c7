"""Document: a text that people and agents write at the same time: a fold over a log of its own.

A document of a session stands in the log of another session, so that typing in it fences nobody who speaks elsewhere. Its first entry is
the `document` that opened it; then come people's words, `patch`, and what agents `write`.

**A place is found again, not computed.** A patch says its places in the text that its author saw: as it stood at the id `base`. Each piece
of text knows the id it came with and the id it went with (a tombstone), so the text at any id can still be counted through, and a place
in it is a place between two pieces, whatever has come there since. No operations are transformed against each other (address space
transformation: Gu, Yang, Zhang, "Consistency maintenance based on the mark & retrace technique", GROUP 2005). As the log gives all patches
one order, whoever folds the same log has the same text. What came to the same place stands there in the order of the log.

An agent writes at a cursor of its turn: at the end first, then behind what it wrote, wherever people's patches move that. What a turn
writes is taken in once, by its ordinal `n`, though it may stand in the log twice.

Places are counted in code points. (A string of JavaScript counts UTF-16 units: kit/widgets/document.js counts through it.)
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence

from kit.packets import START, Document, Entry, EntryId, Over, Patch, Splice, Write

HORIZON = 1_000
"""How many entries a patch may be behind. What went before them is forgotten; an author who was away longer says it again from here."""
MAX_TEXT = 100_000
"""Code points in a document."""
NEVER = EntryId(1 << 65, 0)
SENT, TYPED = EntryId(1 << 64, 0), EntryId(1 << 64, 1)
"""Ids to come: what a replica has sent, and what it will send next. They are above all ids of a log (kit/replica.py)."""


def is_document(session: str) -> bool:
    """Whether a session is a document of another one."""
    return "--" in session


def document_session(session: str, name: str) -> str:
    """The session in whose log a document of `session` stands; raises ValueError where the name is too long for one.

    >>> document_session("war", "main.py")
    'war--main_2e_py'
    """
    slug = re.sub(r"[^A-Za-z0-9]", lambda other: f"_{ord(other[0]):x}_", name)
    if not slug or len(whole := f"{session}--{slug}") > 64:
        raise ValueError(f"a document of session {session!r} has a name of 1 to about {62 - len(session)} characters; not {name!r:.80}")
    return whole


class Piece:
    """A run of text with the id it came with and the id it went with; or, with a `turn` and no text, where that turn's agent writes."""

    __slots__ = ("came", "text", "turn", "went")

    def __init__(self, text: str, came: EntryId, went: EntryId = NEVER, turn: str = "") -> None:
        self.text, self.came, self.went, self.turn = text, came, went, turn

    def stands(self, at: EntryId) -> bool:
        """Whether it is in the text at that id."""
        return self.came <= at < self.went

    def settled(self, horizon: EntryId) -> bool:
        """Whether it is text that has stood since that id, or before."""
        return self.came <= horizon and self.went == NEVER and not self.turn


class Text:
    """The text of a document, folded up to `head`."""

    def __init__(self) -> None:
        self.head = START
        self.opened: Document | None = None
        self.written: dict[str, int] = {}
        """How far the turns' writing has been taken in."""
        self._entries = 0
        self._pieces: list[Piece] = []
        self._recent = deque([START], maxlen=HORIZON)

    def read(self, at: EntryId | None = None) -> str:
        """The text, at an id that is not too long ago (default: `head`)."""
        at = at or self.head
        return "".join(piece.text for piece in self._pieces if piece.stands(at))

    def __len__(self) -> int:
        return self._length(self.head)

    def refusal(self, patch: Patch) -> str | None:
        """Why a patch can't be taken in, as a sentence that says what to do; None where it can."""
        if self.opened is None:
            return "there is no document of that name in the room: an agent opens one"
        try:
            base = EntryId.parse(patch.base)
        except ValueError as error:
            return f"`base` is the last id that you have seen in the document: {error}"
        if base > self.head:
            return f"`base` {base} is in the future: the document stands at {self.head}"
        if base < self._recent[0]:
            return f"`base` {base} is too long ago: say it again in the text as it stands now"
        length = self._length(base)
        if reason := _disorder(patch.splices, length):
            return reason
        if (length if base == self.head else len(self)) + sum(len(splice.insert) for splice in patch.splices) > MAX_TEXT:
            return f"the document is full: it holds {MAX_TEXT} characters"
        return None

    # ---- the fold ----

    def take(self, entry: Entry) -> None:
        """Take in the next entry of the document's log."""
        id = EntryId.parse(entry.id)
        match entry:
            case Document():
                self.open(id, entry)
            case Patch():
                self.patch(id, entry)
            case Write():
                self.write(id, entry)

    def open(self, id: EntryId, document: Document) -> None:
        """Take in the document's first entry."""
        self.opened = self.opened or document
        self._reach(id)

    def patch(self, id: EntryId, patch: Patch) -> bool:
        """Take in a person's word; False where it came to nothing, which all who fold the log agree on."""
        refused = self.refusal(patch)
        if refused is None:
            self.splice(id, EntryId.parse(patch.base), patch.splices)
        self._reach(id)
        return refused is None

    def write(self, id: EntryId, said: Write) -> None:
        """Take in what an agent wrote, unless it was taken in before."""
        if said.n > self.written.get(said.turn, 0):
            self.written[said.turn] = said.n
            self._write(id, said)
        self._reach(id)

    def _write(self, id: EntryId, said: Write) -> None:
        cursor = next((piece for piece in self._pieces if piece.turn == said.turn), None)
        if said.over or cursor is None:
            if cursor:
                self._pieces.remove(cursor)
            base, at, delete = self._over(said.over)
            cursor = Piece("", id, turn=said.turn)
            self._insert(self._index(base, at), cursor)
            self.splice(id, base, [Splice(at, delete)])
        if said.text:
            self._pieces.insert(self._pieces.index(cursor), Piece(said.text, id))

    def _over(self, over: Over | None) -> tuple[EntryId, int, int]:
        """Where a turn begins to write, and over how much: at the end, over nothing, unless it says so."""
        if over is None:
            return self.head, len(self), 0
        base = min(max(EntryId.parse(over.base), self._recent[0]), self.head)
        return base, min(over.at, self._length(base)), over.delete

    def splice(self, id: EntryId, base: EntryId, splices: Iterable[Splice]) -> None:
        """Change the text at `base`, behind all that has come to its places since. What went before stays gone."""
        for splice in splices:
            begin = self._index(base, splice.at)
            over = self._pieces[begin : self._index(base, splice.at + splice.delete)] if splice.delete else []
            if splice.insert:
                self._insert(begin, Piece(splice.insert, id))
            for piece in over:
                if piece.text and piece.stands(base):  # a cursor stays, whatever goes around it
                    piece.went = min(piece.went, id)

    def _reach(self, id: EntryId) -> None:
        self.head = id
        self._recent.append(id)
        self._entries += 1
        if self._entries % 256 == 0:
            self._forget(self._recent[0])

    # ---- pieces ----

    def _length(self, at: EntryId) -> int:
        length = 0
        for piece in self._pieces:
            if piece.came <= at < piece.went:  # `stands`; this loop is most of what folding a log takes
                length += len(piece.text)
        return length

    def _index(self, base: EntryId, place: int) -> int:
        """Which piece begins at this place of the text at `base`; one that it lies within is cut."""
        for i, piece in enumerate(self._pieces):
            if piece.text and piece.stands(base):
                if place == 0:
                    return i
                if place < len(piece.text):
                    self._pieces[i : i + 1] = [
                        Piece(piece.text[:place], piece.came, piece.went),
                        Piece(piece.text[place:], piece.came, piece.went),
                    ]
                    return i + 1
                place -= len(piece.text)
        return len(self._pieces)

    def _insert(self, i: int, piece: Piece) -> None:
        """Put it right before the i-th, behind all that came to that place already, but before what has yet to come."""
        while piece.came < SENT and i > 0 and self._pieces[i - 1].came >= SENT:
            i -= 1
        self._pieces.insert(i, piece)

    def _forget(self, horizon: EntryId) -> None:
        """No text before `horizon` is asked for any more: drop what went by then, join what has stood since before."""
        kept: list[Piece] = []
        for piece in self._pieces:
            if piece.went <= horizon:
                continue
            if kept and kept[-1].settled(horizon) and piece.settled(horizon):
                kept[-1] = Piece(kept[-1].text + piece.text, kept[-1].came)
            else:
                kept.append(piece)
        self._pieces = kept


def _disorder(splices: Sequence[Splice], length: int) -> str | None:
    """What is wrong with the places of a patch in a text of that length."""
    end = 0
    for splice in splices:
        if splice.at < end:
            return "the splices of a patch stand in order, and none within another"
        end = splice.at + splice.delete
    return f"a splice ends at {end}, but the text at `base` has {length} characters" if end > length else None
