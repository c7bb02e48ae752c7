"""Packets: everything that travels, as one table of types.

A **word** is what a person (or an instance, with `takeover`) says; it opens an epoch and stands in the log with an id `e-0`.
A **packet** is what an agent says in the epoch it has heard; its id is `e-n` with n > 0.
Everything else (`hello`, `receipt`, `error`, ...) travels beside the log and has no id.

The types below are the protocol: tests are made from them, and said.py accepts from a client exactly what they allow.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from enum import IntEnum
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

SUBPROTOCOL = "kit.v1"
MAX_FRAME = 64 * 1024
"""Bytes in one frame; a larger one closes the connection with 1009."""
MAX_BODY = 60 * 1024
"""Bytes in one word or packet as it is stored, so that the frame that carries it down stays under MAX_FRAME."""
MAX_WORD = MAX_BODY - 1024
"""Bytes in one word as it is said; the door, the turn and the log fill in the rest."""


MAX_SPLICES = 16
"""Places at which one patch changes its document; each costs an instance a walk through the text."""


class CloseCode(IntEnum):
    """Why a connection ended (RFC 6455 section 7.4; 4000-4999 are the application's own)."""

    GOING_AWAY = 1001
    NOT_UTF8 = 1007
    TOO_LARGE = 1009
    RESTART = 1012
    EXPIRED = 4401
    FLOODING = 4408


class EntryId(NamedTuple):
    """The id `e-n`: the n-th thing said after the e-th word. Ids compare in log order."""

    epoch: int
    n: int

    @classmethod
    def parse(cls, text: str | bytes) -> EntryId:
        """Read `3-17`; raises ValueError for anything that is no id of 64-bit parts."""
        match = re.fullmatch(rb"(\d{1,20})-(\d{1,20})", text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
        if not match or max(parts := (int(match[1]), int(match[2]))) >= 1 << 64:
            raise ValueError(f"{text!r} is no entry id: expected two 64-bit numbers such as 3-17")
        return cls(*parts)

    @classmethod
    def given(cls, id: bytes) -> EntryId:
        """Read an id that the store itself made."""
        epoch, _, n = id.partition(b"-")
        return cls(int(epoch), int(n))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.n}"

    @property
    def is_word(self) -> bool:
        return self.n == 0


START = EntryId(0, 0)
"""The cursor of somebody who has seen nothing."""


class Word(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower):
    """What opens an epoch. A client writes the word's own fields and `ref`; the door adds `from`, the log `id` and `prev`."""

    id: str = ""
    prev: str = ""
    from_: str = field(name="from", default="")
    ref: str = ""


class Prompt(Word, frozen=True):
    """Ask an agent, several (`coder,tester`) or `all`; opens the turn `<id>/<agent>` of each, of the default agent where `to` is missing.

    An agent says it, too, to ask another one: then `re` names the turn that it comes out of.
    """

    text: str
    to: str | None = None
    re: str | None = None

    @property
    def addressed(self) -> list[str]:
        """The agents that it asks, once it stands in the log."""
        return (self.to or "").split(",")


class Stop(Word, frozen=True):
    """End one turn, or every turn that is open or queued."""

    turn: str | None = None


class Edit(Word, frozen=True):
    """End a turn as `replaced` and open a new one with this text, which knows what was said."""

    turn: str
    text: str


class Answer(Word, frozen=True):
    """Answer an `ask`, or approve (`yes`) or decline (anything else) an action that waits for approval."""

    call: str
    text: str


class Result(Word, frozen=True):
    """What came of an action that the client ran: a value, or an error in words."""

    call: str
    value: Any = UNSET
    error: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        _one_of(self)


class Claim(Word, frozen=True):
    """'I run this action': only the client whose claim is `applied` may."""

    call: str


class Splice(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """At a place of a text (in code points), delete so many and insert these."""

    at: Annotated[int, Meta(ge=0)]
    delete: Annotated[int, Meta(ge=0)] = 0
    insert: str = ""


class Patch(Word, frozen=True):
    """Change a document, in its own log: `splices` in order, all in the text as it stood at the entry `base`."""

    base: str
    splices: Annotated[list[Splice], Meta(max_length=MAX_SPLICES)]


class Takeover(Word, frozen=True):
    """An instance takes a turn over, or (`by` is null) gives it away."""

    turn: str
    by: str | None


class At(Struct, frozen=True, omit_defaults=True):
    """Where the provider's own stream stood: its response id and its sequence number. Never leaves the server."""

    response: str
    sequence: int | None = None


class Packet(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower):
    """What an agent says. The agent writes the packet's own fields (and `at`); turn and log fill in the rest.

    `n` is the ordinal in its turn, from 1, of the first of the `k` pieces joined here; the next packet's is `n + k`.
    """

    id: str = ""
    from_: str = field(name="from", default="")
    turn: str = ""
    n: int = 0
    k: int = 1
    at: At | None = None


class Thought(Packet, frozen=True, kw_only=False):
    """A piece of reasoning."""

    text: str


class Content(Packet, frozen=True, kw_only=False):
    """A piece of the answer."""

    text: str


class Action(Packet, frozen=True):
    """A call of a tool: on the `server`, on a `client` that claims it, or on the server once a person approves."""

    call: str
    name: str
    arguments: dict[str, Any]
    on: Literal["server", "client", "approve"]


class ToolResult(Packet, frozen=True, tag="result"):
    """What came of an action that ran on the server."""

    call: str
    value: Any = UNSET
    error: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        _one_of(self)


class Ask(Packet, frozen=True):
    """A question to the person; the stream may go on meanwhile."""

    call: str
    text: str
    choices: list[str] | None = None


class Document(Packet, frozen=True):
    """A document that lives in a transcript of its own."""

    name: str
    kind: str


class Over(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an agent writes over: `delete` characters from `at` of the text as it stood at the entry `base` of the document's log."""

    base: str
    at: Annotated[int, Meta(ge=0)]
    delete: Annotated[int, Meta(ge=0)] = 0


class Write(Packet, frozen=True):
    """A piece of text for a document, behind what the turn wrote there before; or `over` a part of it, and from there on."""

    name: str
    text: str
    over: Over | None = None


class End(Packet, frozen=True):
    """The one last packet of a turn; `text` is a sentence for the person where it failed."""

    reason: Literal["done", "stopped", "replaced", "failed"]
    text: str | None = None


class Hello(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """First on every connection: where it starts (`after`), where the log stands (`head`), and the next single-use ticket."""

    session: str
    log: str
    after: str
    head: str
    status: Literal["fresh", "resumed", "gap"]
    reason: Literal["trimmed", "lost", "other log", "future"] | None = None
    ticket: str | None = None


class Gap(Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """The cursor could not be served: what is kept begins after `after`, in `log`. Forget what was drawn before."""

    log: str
    after: str
    reason: Literal["trimmed", "lost", "other log", "future"]


class Receipt(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """What became of a word: `applied`, `duplicate` of `id` (which `was`), `too_late` (logged, nothing left to act on), `refused`."""

    ref: str
    status: Literal["applied", "duplicate", "too_late", "refused"]
    id: str | None = None
    was: Literal["applied", "too_late"] | None = None
    reason: str | None = None


ErrorCode = Literal[
    "binary", "not_json", "not_an_object", "unknown_type", "bad_field", "duplicate_key", "too_deep", "too_large", "bad_token"
]


class Error(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """A frame was not understood; `at` is the path of the field. The connection goes on."""

    code: ErrorCode
    text: str
    at: str | None = None


class Typing(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower):
    """Somebody is typing; sent around the log, not into it."""

    on: bool
    from_: str = field(name="from", default="")


class Who(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """The people whom the instance `by` serves in a room (those of all instances are in it), and the agents that answer there.

    `fresh`: one of them has just come, and wants to hear of the others. A list is void 25 s after it was last heard.
    """

    names: list[str]
    agents: list[str]
    by: str
    fresh: bool = False


class Renew(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower):
    """A fresh token for this connection, before the old one expires."""

    token: str


class Beat(Struct, frozen=True, tag_field="type", tag=str.lower):
    """'I am here', every 10 s: page script cannot see pings."""


Said = Prompt | Stop | Edit | Answer | Result | Claim | Patch
"""The words of a client."""
AnyWord = Said | Takeover
AnyPacket = Thought | Content | Action | ToolResult | Ask | Document | Write | End
Entry = AnyWord | AnyPacket
"""What stands in a log."""
FromClient = Said | Renew | Typing
BesideLog = Hello | Gap | Receipt | Error | Typing | Who | Beat
FromServer = Entry | BesideLog

DOOR_FIELDS = ("id", "prev", "from", "re")
"""What the door and the log write; a client that writes one of them is told so."""


def _one_of(result: Result | ToolResult) -> None:
    if (result.value is UNSET) == (result.error is UNSET):
        raise ValueError("a result has either `value` or `error`")


# ---- encode ----

_encoder = msgspec.json.Encoder()


def encode(frame: Struct) -> bytes:
    """One frame as JSON bytes."""
    return _encoder.encode(frame)


def stored(entry: Entry) -> bytes:
    """An entry as the log keeps it: without id, prev and the provider's cursor, which stand beside it."""
    match entry:
        case Word():
            return _encoder.encode(msgspec.structs.replace(entry, id="", prev=""))
        case Packet():
            return _encoder.encode(msgspec.structs.replace(entry, id="", at=None) if entry.id or entry.at else entry)


W = TypeVar("W", bound=Word)


def new_ref(word: W) -> W:
    """The word with a `ref`, which makes it this word and no other, however often it is sent."""
    return word if word.ref else msgspec.structs.replace(word, ref=secrets.token_urlsafe(16))


def frame_of(id: str, body: bytes, prev: str = "") -> bytes:
    """The frame that carries a stored body down, made without decoding it."""
    head = f'{{"id":"{id}","prev":"{prev}",' if prev else f'{{"id":"{id}",'
    return head.encode() + body[1:]


def split(packet: AnyPacket, limit: int = MAX_BODY) -> Iterator[AnyPacket]:
    """The packet as pieces that fit into one entry. Text is cut between characters; anything else too large raises ValueError."""
    size = len(_encoder.encode(packet)) + 256  # room for what turn and log fill in
    if size <= limit:
        yield packet
    elif isinstance(packet, Thought | Content | Write) and len(packet.text) > 1:
        half = len(packet.text) // 2
        rest = {"over": None} if isinstance(packet, Write) else {}  # the second half goes on behind the first
        yield from split(msgspec.structs.replace(packet, text=packet.text[:half], at=None), limit)
        yield from split(msgspec.structs.replace(packet, text=packet.text[half:], **rest), limit)
    else:
        kind = type(packet).__name__.lower()
        raise ValueError(f"a packet `{kind}` of {size} bytes is over {limit}: put large values elsewhere and say where")


# ---- decode ----

_words: msgspec.json.Decoder[AnyWord] = msgspec.json.Decoder(AnyWord)
_packets: msgspec.json.Decoder[AnyPacket] = msgspec.json.Decoder(AnyPacket)
_beside: msgspec.json.Decoder[BesideLog] = msgspec.json.Decoder(BesideLog)


class _Head(Struct):
    id: str = ""
    type: str = ""


_head = msgspec.json.Decoder(_Head)


def decode_entry(frame: bytes | str) -> Entry:
    """One entry of a log, id included."""
    if EntryId.parse(_head.decode(frame).id).is_word:
        return _words.decode(frame)
    return _packets.decode(frame)


def decode_sent(frame: bytes | str) -> FromServer:
    """Any frame of a server. Raises msgspec.ValidationError where it speaks another protocol."""
    head = _head.decode(frame)
    return decode_entry(frame) if head.id and head.type != "receipt" else _beside.decode(frame)
