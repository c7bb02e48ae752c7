"""Fork: what a session's log holds up to an id becomes the beginning of another session, under the same ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from itertools import takewhile

from kit.document import document_session
from kit.log import Log, Opened, Stored, session_name
from kit.packets import Document, End, EntryId, Packet, Write, stored
from kit.projection import Projection
from kit.transcript import Transcript


class NotKept(Exception):
    """There is nothing to fork at: the id was never given, or has been trimmed away."""

    def __init__(self, log: Log, at: EntryId) -> None:
        super().__init__(f"the log of session {log.session!r} holds no {at}: name an id that stands in it")


class Taken(Exception):
    """Something has been said in the session that the fork was to begin."""

    def __init__(self, session: str) -> None:
        super().__init__(f"session {session!r} has a log of its own already: give the fork a name that nobody has used")


async def fork(transcript: Transcript, log: Log, at: EntryId, name: str) -> Opened:
    """Begin the session `name` with the entries of `log` up to and including `at`; raises NotKept, Taken, ValueError, Gone.

    A turn that is open at `at` ends there as `stopped` (or as the word had it that ended it): to run it on would ask the model and start
    tools a second time, though nobody asked for it. One that waits for the answer to a question goes on waiting, which costs nothing:
    another answer is what many forks are for. These ends stand behind `at`; up to there the two logs are the same.

    Copied are the entries, not the refs (the same word may be said here, too) and not the provider's cursors (what one session stops
    there, the other may still need). The two may lie in different shards: it is read here, and written there in one piece.

    The documents of the session are forked with it, each to where an agent wrote into it after `at` (what people typed by then is kept).
    """
    session_name(name)
    entries = await transcript.read_to(log, at)
    said = [entry.entry() for entry in entries]
    documents = {e.name: document_session(name, e.name) for e in said if isinstance(e, Document | Write)}
    if not entries or entries[-1].id != at:
        raise NotKept(log, at)
    ends = _ends(entries)
    opened = await transcript.open(name)
    if not await transcript.begin(opened.log, [*entries, *ends]):
        raise Taken(name)
    written = {(e.turn, e.n) for e in said if isinstance(e, Write)}
    for document, copy in documents.items():
        await _fork_document(transcript, document_session(log.session, document), written, copy)
    return opened._replace(head=[*entries, *ends][-1].id)


async def _fork_document(transcript: Transcript, name: str, written: Container[tuple[str, int]], copy: str) -> None:
    """A document up to the first thing in it that is not among those `written`, which are a turn and its ordinal."""

    def stood(entry: Stored) -> bool:
        packet = entry.entry()
        return not isinstance(packet, Write) or (packet.turn, packet.n) in written

    document = await transcript.open(name)
    if entries := list(takewhile(stood, await transcript.read_to(document.log, document.head))):
        await transcript.begin((await transcript.open(copy)).log, entries)


def _ends(entries: Sequence[Stored]) -> list[Stored]:
    """The last packets of the turns that are open after these entries, and wait for nobody's answer."""
    projection, pieces = Projection(), Counter[str]()
    for entry in entries:
        projection.fold(entry.id, entry.body)
        if isinstance(packet := entry.entry(), Packet):
            pieces[packet.turn] += packet.k
    asking = {call.turn for call in projection.calls.values() if call.kind == "ask" and not call.done}
    cut = [turn for turn in projection.turns.values() if not (turn.live and turn.id in asking)]
    return [
        Stored(
            EntryId(projection.head.epoch, projection.head.n + i),
            stored(End(reason="stopped" if turn.fate == "open" else turn.fate, from_=turn.agent, turn=turn.id, n=pieces[turn.id] + 1)),
        )
        for i, turn in enumerate(cut, 1)
    ]
