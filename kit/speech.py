"""Speech: what an agent says, checked, cut to size, joined with its neighbours and numbered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from kit.history import AgentError
from kit.packets import (
    MAX_WORD,
    Action,
    AnyPacket,
    Ask,
    At,
    Content,
    End,
    Packet,
    Prompt,
    Thought,
    Write,
    decode_entry,
    encode,
    frame_of,
    split,
    stored,
)
from kit.projection import Projection

JOINED = 10_000
"""Characters in one joined packet: even where JSON needs six bytes for each of them, its frame stays under the limit."""
TEXTS = (Thought, Content, Write)
"""A tuple: `isinstance` of a union makes that union anew for each token."""

_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no encoder takes it


class NoPacket(Exception):
    """An agent said something that is no packet; the sentence says what."""


def pieces(said: object, known: Projection, turn: str) -> Sequence[AnyPacket]:
    """What the agent said as pieces that fit into the log; raises NoPacket."""
    if type(said) in (Content, Thought) and said.at is None and _is_short_text(said.text):  # type: ignore[attr-defined]  # by type(), for speed
        return (said,)  # type: ignore[return-value]  # the same
    if not isinstance(said, Packet) or isinstance(said, End):
        raise NoPacket(f"agents say Thought, Content, Action, ToolResult, Ask, Document or Write, not {said!r:.80}")
    try:
        decode_entry(frame_of("1-1", stored(said)))  # type: ignore[arg-type]  # any Packet is one of the union
        if said.at is not None:
            msgspec.json.decode(encode(said.at), type=At)
        cut = tuple(split(said))  # type: ignore[arg-type]  # the same
    except (msgspec.MsgspecError, ValueError, TypeError, UnicodeError) as error:
        raise NoPacket(f"the agent's `{type(said).__name__.lower()}` is not valid: {error}") from None
    if isinstance(said, Ask | Action) and (call := known.calls.get(said.call)) and call.turn != turn:
        raise NoPacket(f"the call id {said.call!r:.60} belongs to the turn {call.turn}: call ids are unique in a session")
    return cut


def question(said: Prompt) -> Prompt:
    """What an agent asks others, as a word that everybody can read; raises NoPacket, and AgentError where it is too long."""
    try:
        body = stored(said)
        decode_entry(frame_of("1-0", body))
    except (msgspec.MsgspecError, ValueError, TypeError, UnicodeError) as error:
        raise NoPacket(f"the agent's `prompt` is not valid: {error}") from None
    if len(body) > MAX_WORD:
        raise AgentError(f"The agent asked another with {len(body)} bytes, which is too long: a prompt has at most {MAX_WORD}.")
    return said


def _is_short_text(text: object) -> bool:
    return isinstance(text, str) and len(text) <= JOINED and (text.isascii() or not _HALF.search(text))


def joined(said: Iterable[AnyPacket]) -> Iterator[tuple[AnyPacket, int]]:
    """Neighbouring pieces of the same kind as one packet, with the number of pieces in it; the last one's provider cursor counts."""
    run: list[Thought | Content | Write] = []
    kind, size = None, 0
    for piece in said:
        if type(piece) is kind and size + len(piece.text) <= JOINED and (kind is not Write or _goes_on(piece, run[-1])):
            run.append(piece)
            size += len(piece.text)
            continue
        if run:
            yield _join(run), len(run)
        if isinstance(piece, TEXTS):
            run, kind, size = [piece], type(piece), len(piece.text)
        else:
            yield piece, 1
            run, kind = [], None
    if run:
        yield _join(run), len(run)


def _goes_on(piece: AnyPacket, last: AnyPacket) -> bool:
    """Whether what is written stands right behind what was written before."""
    return isinstance(piece, Write) and isinstance(last, Write) and piece.name == last.name and piece.over is None


def _join(run: list[Thought | Content | Write]) -> AnyPacket:
    first, last = run[0], run[-1]
    if first is last:
        return last
    over = {"over": first.over} if isinstance(first, Write) else {}
    return msgspec.structs.replace(last, text="".join([piece.text for piece in run]), **over)


def numbered(said: Iterable[tuple[AnyPacket, int]], sender: str, turn: str, n: int) -> list[AnyPacket]:
    """The packets with their sender, their turn and their place in it, from ordinal `n`."""
    packets = []
    for packet, k in said:
        packets.append(msgspec.structs.replace(packet, id="", from_=sender, turn=turn, n=n, k=k))
        n += k
    return packets
