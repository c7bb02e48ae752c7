"""Picture: what the store holds of a session, and of the shard it is in, at one moment."""

from __future__ import annotations

from msgspec import Struct

from kit.lab.table import shorten
from kit.log import Log, unpacked
from kit.packets import START
from kit.text import text_of
from kit.transcript import Transcript

NEWEST = 8
"""Entries of the log in a picture."""


class Picture(Struct, frozen=True):
    """`keys`: (key, type, what it holds, expires in); `turns` that are open: (turn, who holds its lease, seconds left; "" and -1: nobody);
    `entries`: the newest, as (id, who, what, text).
    """

    keys: list[tuple[str, str, str, str]]
    turns: list[tuple[str, str, float]]
    entries: list[tuple[str, str, str, str]]


async def look(transcript: Transcript, session: str) -> Picture:
    """A few reads, which change nothing. By the line of the blocking reads: a trace that watches the store does not see who looks on."""
    shard, store = transcript.shard(session), transcript.store
    key = Log(session, "", shard, "").owner
    ears = store.of(key).ears
    wake, around, listed = transcript.wake_key(shard), transcript.around_key(shard), transcript.open_key(shard)
    asked = ears.pipeline(transaction=False).hgetall(key).smembers(listed).xlen(wake).xlen(around).pttl(around).pttl(key)
    fields, members, woken, told, told_kept, ttl = await asked.execute()
    shards = await store.of("kit:shards").ears.get("kit:shards")
    found = [await server.ears.scan(0, match="kit:ticket:*", count=500) for server in store.servers]
    more, tickets = any(rest for rest, _ in found), [key for _, keys in found for key in keys]
    open_turns = sorted(m.decode().partition(" ")[2] for m in members if m.startswith(f"{key} ".encode()))
    log = Log(session, fields.get(b"log", b"").decode(), shard, "")
    asked = ears.pipeline(transaction=False).xlen(log.stream).xrevrange(log.stream, count=NEWEST).hlen(log.refs)
    asked.pttl(log.stream).pttl(log.refs)
    for turn in open_turns:
        asked.get(log.lease(turn)).pttl(log.lease(turn))
    size, newest, refs, kept, refs_kept, *leases = await asked.execute()
    turns = [(t, (by or b"").decode(), ms / 1000 if by else -1.0) for t, by, ms in zip(open_turns, leases[::2], leases[1::2], strict=True)]
    entries = [e for id, found in reversed(newest) for e in unpacked(id, found, START)][-NEWEST:]
    last = str(entries[-1].id) if entries else "0-0"
    keys = [
        ("kit:shards", "string", (shards or b"").decode(), ""),
        ("kit:ticket:…", "string", f"tickets, not read: {len(tickets)}{' or more' if more else ''}", ""),
        (listed, "set", f"open turns: {len(members)}", ""),
        (wake, "stream", f"calls to look for turns: {woken}", ""),
        (around, "stream", f"beside the logs, frames and words: {told}", _span(told_kept)),
        (key, "hash", f"log = {log.name}", _span(ttl)),
        (log.stream, "stream", f"the log up to {last}, in appends: {size}", _span(kept)),
        (log.refs, "hash", f"words by their ref: {refs}", _span(refs_kept)),
        *((log.lease(turn), "string", by, f"{left:.1f} s") for turn, by, left in turns if by),
    ]
    if not log.name:
        keys = keys[:5]
    said = [entry.entry() for entry in entries]
    return Picture(keys, turns, [(e.id, e.from_, str(e.__struct_config__.tag), shorten(text_of(e))) for e in said])


def _span(ms: int) -> str:
    """Milliseconds in the largest fitting unit; negative where nothing expires."""
    hours = ms / 3_600_000
    return "" if ms < 0 else f"{hours:.0f} h" if hours >= 1 else f"{hours * 60:.0f} min" if hours >= 1 / 60 else f"{ms / 1000:.1f} s"
