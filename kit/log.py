"""Log: one log of a session: its keys, its entries, and what it refuses.

What a turn says at once is one entry of the stream, a line for each packet (JSON as it is written here holds no line break). It has the
id of its last packet, and the ids of the others lie before it: to whoever reads, each packet is an entry of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import msgspec

from kit.packets import At, Entry, EntryId, decode_entry, encode, frame_of

SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
ENTRY = 8 * 1024
"""Bytes from which on packets that are said at once become another entry of the stream."""


def session_name(name: str) -> str:
    """The name, if a session may have it; raises ValueError, which says what one looks like."""
    if not SESSION.fullmatch(name):
        raise ValueError(f"a session's name has 1 to 64 characters of A-Z a-z 0-9 _ -; not {name!r}")
    return name


class Unheard(Exception):
    """An append was refused: a word newer than `heard` stands in the log."""

    def __init__(self, heard: int) -> None:
        super().__init__(f"heard epoch {heard}, but a later word has been said: read it, then append again")


class Gone(Exception):
    """The log is no longer the session's: the store was emptied or restarted, and a new log has its place."""

    def __init__(self, session: str) -> None:
        super().__init__(f"the log of session {session!r} was replaced: open the session again")


class WrongShards(Exception):
    """The instance and its store disagree about the number of shards."""

    def __init__(self, here: int, stored: int) -> None:
        super().__init__(f"this instance was started with {here} shards, but the store's sessions are spread over {stored}: start it so")


@dataclass(frozen=True)
class Log:
    """One log of a session, by its keys."""

    session: str
    name: str
    shard: int
    run: str
    """The run id of the server that it was opened on."""

    @property
    def owner(self) -> str:
        return f"{{{self.shard}}}:{self.session}"

    @property
    def stream(self) -> str:
        return f"{self.owner}:{self.name}"

    @property
    def refs(self) -> str:
        return f"{self.stream}:refs"

    def lease(self, turn: str) -> str:
        return f"{self.stream}:lease:{turn}"


class Stored(NamedTuple):
    """An entry as it stands in the log: its body is the frame without id and prev."""

    id: EntryId
    body: bytes
    prev: EntryId | None = None
    """The last id before a word; a packet's is the number before its own."""
    at: bytes | None = None

    @property
    def before(self) -> EntryId:
        """The id that this entry follows."""
        return self.prev if self.prev is not None else EntryId(self.id.epoch, self.id.n - 1)

    def frame(self) -> bytes:
        return frame_of(str(self.id), self.body, "" if self.prev is None else str(self.prev))

    def entry(self) -> Entry:
        """As the server reads it: with the provider's cursor, which no frame carries."""
        entry = decode_entry(self.frame())
        if self.at is None:
            return entry
        return msgspec.structs.replace(entry, at=msgspec.json.decode(self.at, type=At))


class Opened(NamedTuple):
    """A session as `Transcript.open` found or made it; `was` is the log whose place this one took."""

    log: Log
    head: EntryId
    was: str


class Spoken(NamedTuple):
    """A word in the log. `known`: it was said before; `same`: with the same body; `leased`: the turns that the caller is to run now."""

    id: EntryId
    entry: Stored | None
    known: bool
    same: bool
    leased: tuple[str, ...] = ()
    outcome: str = ""
    """What it came to when it was said before, `applied` or `too_late`, where that is known."""


# ---- several packets in one entry of the stream ----


class Packed(NamedTuple):
    """An entry of the stream: how many packets it holds, a line for each, and (or empty) a line for each one's provider's cursor."""

    packets: int
    body: bytes
    at: bytes


def packed(bodies: Sequence[tuple[bytes, At | None]]) -> Iterator[Packed]:
    """As few entries as hold the packets. They are bounded, as whoever reads counts entries."""
    begin = size = 0
    for i, (body, _) in enumerate(bodies):
        if i > begin and size + len(body) > ENTRY:
            yield _pack(bodies[begin:i])
            begin, size = i, 0
        size += len(body)
    yield _pack(bodies[begin:])


def _pack(bodies: Sequence[tuple[bytes, At | None]]) -> Packed:
    cursors = b"\n".join(encode(at) if at else b"" for _, at in bodies)
    return Packed(len(bodies), b"\n".join([body for body, _ in bodies]), cursors if cursors.strip() else b"")


def ids_of(last: bytes, packets: int) -> list[EntryId]:
    """The ids of the packets in an entry."""
    epoch, n = EntryId.given(last)
    return [EntryId(epoch, i) for i in range(n - packets + 1, n + 1)]


def unpacked(id: bytes, fields: dict[bytes, bytes], after: EntryId) -> list[Stored]:
    """What stands in an entry of the stream and follows the id `after`."""
    if EntryId.given(id) <= after:
        return []
    if (prev := fields.get(b"prev")) is not None:
        return [Stored(EntryId.given(id), fields[b"f"], EntryId.given(prev))]
    bodies = fields.get(b"f", b"").split(b"\n")
    cursors = fields[b"at"].split(b"\n") if b"at" in fields else repeat(None)
    stored = [Stored(id, body, None, at or None) for id, body, at in zip(ids_of(id, len(bodies)), bodies, cursors, strict=False)]
    return stored if stored[0].id > after else [entry for entry in stored if entry.id > after]
