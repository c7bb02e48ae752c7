"""Transcript: the log of a session: say a word, append what an agent says, read, follow, trim.

The rules that hold here, by the store's own hand and not by a lock or a clock:

- A word gets the id `<e+1>-0` from one script, which also remembers its `ref`: said again, it is found and not said twice.
- A packet gets the id `<e>-*`, where `e` is the epoch that the agent has heard. Redis refuses an id that is not above the last one,
  so no agent ever speaks past a word it has not heard (`Unheard`).
- Only the script begins a stream, and only for a new log. A stream that is gone is not begun again by accident (`Gone`).
- What a turn says at once is one entry of the stream, a line for each packet (JSON as it is written here holds no line break). It has
  the id of its last packet, and the ids of the others lie before it: to whoever reads, each packet is an entry of its own.

Keys carry their shard's hash tag, so that on a cluster one command may name a log with all that belongs to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import Any, NamedTuple

from kit.packets import START, AnyWord, At, EntryId, encode, frame_of, stored
from kit.store import Refusal, Store, StoreError, is_refused_id, is_unknown_script

DAY = 24 * 3600.0
ENTRY = 8 * 1024
"""Bytes from which on packets that are said at once become another entry of the stream."""
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


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
    generation: int
    """Which start of the store it was opened in."""

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


# KEYS owner, wake; ARGV run_id, fresh name, ttl ms. -> name, last id, the name before; name '' for a caller that still names the server
# that was there before: the log has moved already, and must not move back.
_OPEN = """
local log, run, was, ran = unpack(redis.call('HMGET', KEYS[1], 'log', 'run', 'was', 'ran'))
if log and run ~= ARGV[1] and ran == ARGV[1] then return {'', '', ''} end
local begun = redis.call('HGET', KEYS[1], 'begun')
local last = '0-0'
local function stream(name) return KEYS[1] .. ':' .. name end
if log and (run ~= ARGV[1] or (begun and redis.call('EXISTS', stream(log)) == 0)) then
  was = log
  log = false
  for _, tail in ipairs({'', ':refs'}) do
    if redis.call('EXISTS', stream(was) .. tail) == 1 then redis.call('RENAME', stream(was) .. tail, stream(ARGV[2]) .. tail) end
  end
  if redis.call('EXISTS', stream(ARGV[2])) == 0 then
    redis.call('HDEL', KEYS[1], 'begun')
    redis.call('DEL', stream(ARGV[2]) .. ':refs')
    begun = false
  end
end
if not log then
  log = ARGV[2]
  redis.call('HSET', KEYS[1], 'log', log, 'run', ARGV[1], 'was', was or '', 'ran', run or '')
  redis.call('XADD', KEYS[2], 'MAXLEN', 256, '*', 'f', KEYS[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if begun then
  local info = redis.call('XINFO', 'STREAM', stream(log))
  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
end
return {log, last, was or ''}
"""

# KEYS owner, stream, refs, open turns, wake; ARGV run_id, name, ref, digest, body, ttl ms, agent of the turn it opens,
# lease ms, by, turn given away, then the turns it concerns -> what, id (and digest), prev, then those whose lease it got
_SAY = """
local known = ARGV[3] ~= '' and redis.call('HGET', KEYS[3], ARGV[3])
local log, run, begun = unpack(redis.call('HMGET', KEYS[1], 'log', 'run', 'begun'))
if log ~= ARGV[2] or run ~= ARGV[1] or (begun and redis.call('EXISTS', KEYS[2]) == 0) then return {'gone', '', ''} end
if known then return {'known', known, ''} end
local given = KEYS[2] .. ':lease:' .. ARGV[10]
if ARGV[10] ~= '' and redis.call('GET', given) ~= ARGV[9] then return {'lost', '', ''} end
local last = '0-0'
if begun then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
else
  redis.call('HSET', KEYS[1], 'begun', '1')
end
local epoch = tonumber(string.match(last, '^(%d+)-')) + 1
local id = string.format('%.0f', epoch) .. '-0'
redis.call('XADD', KEYS[2], id, 'f', ARGV[5], 'prev', last)
if ARGV[3] ~= '' then redis.call('HSET', KEYS[3], ARGV[3], id .. ' ' .. ARGV[4]) end
local answer = {'new', id, last}
local turns = {unpack(ARGV, 11)}
if ARGV[7] ~= '' then turns[#turns + 1] = id .. '/' .. ARGV[7] end
for _, turn in ipairs(turns) do
  redis.call('SADD', KEYS[4], KEYS[1] .. ' ' .. turn)
  if redis.call('SET', KEYS[2] .. ':lease:' .. turn, ARGV[9], 'NX', 'PX', ARGV[8]) then answer[#answer + 1] = turn end
end
if ARGV[10] ~= '' then
  redis.call('DEL', given)
  redis.call('XADD', KEYS[5], 'MAXLEN', 256, '*', 'f', KEYS[1])
end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[6]) end
return answer
"""

# KEYS owner, stream, refs and lease of each; ARGV lease ms, ttl ms, then by of each: keep what is ours, and let its log live on.
# A lease that is free stays free: it ran out, or its run has just given it back.
_RENEW = """
for i = 1, #KEYS, 4 do
  if redis.call('GET', KEYS[i + 3]) == ARGV[(i - 1) / 4 + 3] then redis.call('PEXPIRE', KEYS[i + 3], ARGV[1]) end
  for j = 0, 2 do redis.call('PEXPIRE', KEYS[i + j], ARGV[2]) end
end
"""

# KEYS stream, lease, open turns; ARGV by, member, epoch heard or '' -> 1 where the turn was let go, -1 where there is no log
_RELEASE = """
if ARGV[3] ~= '' then
  if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' and string.match(info[i + 1], '^(%d+)-') ~= ARGV[3] then return 0 end
  end
end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
if ARGV[2] ~= '' then redis.call('SREM', KEYS[3], ARGV[2]) end
return 1
"""

# KEYS a stream for each entry; ARGV for each: epoch heard, number of packets, their bodies, their provider's cursors or ''
# -> for each its id, '' where there is no stream, or the error
_APPEND = """
local ids = {}
for i, stream in ipairs(KEYS) do
  local heard, packets, body, at = ARGV[4 * i - 3], tonumber(ARGV[4 * i - 2]), ARGV[4 * i - 1], ARGV[4 * i]
  local id = heard .. '-*'
  if packets > 1 then
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    local n = string.match(last and last[1] or '0-0', '-(%d+)$')
    id = heard .. '-' .. string.format('%.0f', n + packets)  -- after a later word, whatever n is, Redis refuses it
  end
  local added
  if at == '' then
    added = redis.pcall('XADD', stream, 'NOMKSTREAM', id, 'f', body)
  else
    added = redis.pcall('XADD', stream, 'NOMKSTREAM', id, 'f', body, 'at', at)
  end
  if type(added) == 'table' then added = added.err end
  ids[i] = added or ''
end
return ids
"""
_APPEND_SHA = hashlib.sha1(_APPEND.encode()).hexdigest()  # noqa: S324  # Redis' name for it, no protection


class Transcript:
    """The logs of one store. `lease` and `ttl` in seconds."""

    def __init__(self, store: Store, *, shards: int = 1, lease: float = 2.0, ttl: float = DAY) -> None:
        self.store = store
        self.shards = shards
        self.lease = lease
        self.ttl = ttl
        self._open = store.redis.register_script(_OPEN)
        self._say = store.redis.register_script(_SAY)
        self._renew = store.redis.register_script(_RENEW)
        self._release = store.redis.register_script(_RELEASE)
        self._commits = _Commits(store)

    # ---- sessions ----

    async def agree(self) -> None:
        """Agree with the store on the number of shards; raises WrongShards."""
        await self.store.redis.set("kit:shards", self.shards, nx=True)
        if (stored := int(await self.store.redis.get("kit:shards") or 0)) != self.shards:
            raise WrongShards(self.shards, stored)

    def shard(self, session: str) -> int:
        return zlib.crc32(session.encode()) % self.shards

    async def open(self, session: str) -> Opened:
        """The session's current log. A new session gets one; one whose store restarted or was emptied gets another name."""
        shard = self.shard(session)
        owner = f"{{{shard}}}:{session}"
        while True:
            generation, run = self.store.generation, self.store.run_id
            name, last, was = await self._open(keys=[owner, self.wake_key(shard)], args=[run, secrets.token_urlsafe(6), self._ttl])
            if name and run == self.store.run_id:  # else the store was restarted while the command waited for its connection
                return Opened(Log(session, name.decode(), shard, generation), EntryId.given(last), was.decode())

    # ---- words and packets ----

    async def say(self, log: Log, word: AnyWord, *, agent: str = "", wakes: Sequence[str] = (), by: str = "") -> Spoken:
        """Add a word whose `from_` and `ref` are filled in; raises Gone.

        `agent`: it opens a turn of this agent; `wakes`: these turns have something to do now, if only to end. All of them are listed as
        open, and a lease that is free goes to `by`.
        """
        return await self._add(log, word, agent, wakes, by, "")

    async def give(self, log: Log, word: AnyWord, turn: str, by: str) -> None:
        """Add a `takeover` by nobody, free the lease and wake the other instances: all or, where the lease is not `by`'s, nothing."""
        await self._add(log, word, "", (), by, turn)

    async def _add(self, log: Log, word: AnyWord, agent: str, wakes: Sequence[str], by: str, gives: str) -> Spoken:
        body = stored(word)
        digest = _digest(body)
        answer = await self._say(
            keys=[log.owner, log.stream, log.refs, self.open_key(log.shard), self.wake_key(log.shard)],
            args=[self.store.run_id, log.name, f"{word.from_}\0{word.ref}", digest, body, self._ttl, agent, self._lease, by, gives, *wakes],
        )
        match answer:
            case [b"gone", *_]:
                raise Gone(log.session)
            case [b"lost", *_]:
                return Spoken(START, None, True, True)
            case [b"known", known, *_]:
                return _known(known, digest)
            case [_, id, prev, *leased]:
                entry = Stored(EntryId.given(id), body, EntryId.given(prev))
                return Spoken(entry.id, entry, False, True, tuple(turn.decode() for turn in leased))
        raise AssertionError(answer)

    async def find(self, log: Log, word: AnyWord) -> Spoken | None:
        """The word as it was said before, by its ref; None where it was not."""
        known = await self.store.redis.hget(log.refs, f"{word.from_}\0{word.ref}")
        return None if known is None else _known(known, _digest(stored(word)))

    async def settle(self, log: Log, word: AnyWord, spoken: Spoken, outcome: str) -> None:
        """Keep with a word's ref what it came to: what it was about may be trimmed away before it is repeated."""
        await self.store.redis.hset(log.refs, f"{word.from_}\0{word.ref}", f"{spoken.id} {_digest(stored(word))} {outcome}")

    async def append(self, log: Log, heard: int, bodies: Sequence[tuple[bytes, At | None]]) -> list[Stored]:
        """Add what an agent says in the epoch it has heard, all or nothing; raises Unheard, Gone, or the store's own error."""
        if log.generation != self.store.generation:
            raise Gone(log.session)
        ids = await self._commits.add(log, heard, bodies)
        return [Stored(id, body) for id, (body, _) in zip(ids, bodies, strict=True)]

    # ---- reading ----

    async def read(self, log: Log, after: EntryId, count: int = 200) -> list[Stored]:
        """What follows an id, in order: `count` entries of the stream, so more where several packets stand together."""
        found = await self.store.redis.xrange(log.stream, f"({after}", "+", count)
        return [entry for id, fields in found for entry in _entries(id, fields, after)]

    async def follow(
        self, after: Mapping[str, EntryId], block: float, heard: Callable[[], Mapping[str, EntryId]] = dict
    ) -> dict[str, list[Stored]]:
        """Wait up to `block` seconds for entries after the given ids of several streams of one shard, by stream.

        `heard` is asked when something has come: what was heard meanwhile by other ways, such as one's own, is not even decoded.
        """
        ids: dict[Any, Any] = {stream: str(id) for stream, id in after.items()}
        found: Any = await self.store.ears.xread(ids, count=1000, block=int(block * 1000))
        start = {**after, **heard()}
        named = ((stream.decode(), entries) for stream, entries in found or [])
        return {stream: [e for id, fields in entries for e in _entries(id, fields, start[stream])] for stream, entries in named}

    async def last(self, stream: str) -> EntryId:
        """Where one of a shard's own streams stands."""
        found = await self.store.redis.xrevrange(stream, count=1)
        return EntryId.given(found[0][0]) if found else START

    def around_key(self, shard: int) -> str:
        return f"{{{shard}}}:around"

    async def tell(self, log: Log, frame: bytes) -> None:
        """Send a frame around the log to whoever follows the shard: it is not kept."""
        fields = {"f": log.session.encode() + b" " + frame}
        await self.store.redis.xadd(self.around_key(log.shard), fields, maxlen=256, approximate=False)

    async def ring(self, bell: str) -> None:
        """Wake whoever follows this stream."""
        pipe = self.store.redis.pipeline(transaction=False)
        pipe.xadd(bell, {"f": ""}, maxlen=1, approximate=False)
        pipe.pexpire(bell, self._ttl)
        await pipe.execute()

    async def trim(self, log: Log, before: EntryId) -> None:
        """Forget the epochs before this word's."""
        await self.store.redis.xtrim(log.stream, minid=f"{before.epoch}-0", approximate=False)

    # ---- leases ----

    def open_key(self, shard: int) -> str:
        return f"{{{shard}}}:open"

    def wake_key(self, shard: int) -> str:
        return f"{{{shard}}}:wake"

    async def open_turns(self, shard: int) -> list[tuple[str, str]]:
        """(session, turn) of every turn of the shard that may be open; some have ended since."""
        members = await self.store.redis.smembers(self.open_key(shard))
        return [(owner.partition("}:")[2], turn) for owner, _, turn in (m.decode().partition(" ") for m in members)]

    async def time_left(self, turns: Sequence[tuple[str, str]]) -> list[float]:
        """Seconds that the lease of each (session, turn) still holds, negative where there is none."""
        pipe = self.store.redis.pipeline(transaction=False)
        owners = [f"{{{self.shard(session)}}}:{session}" for session, _ in turns]
        for owner in owners:
            pipe.hget(owner, "log")
        for owner, (_, turn), name in zip(owners, turns, await pipe.execute(), strict=True):
            pipe.pttl(f"{owner}:{(name or b'').decode()}:lease:{turn}")
        return [left / 1000 for left in await pipe.execute()]

    async def take(self, log: Log, turn: str, by: str) -> bool:
        """Take a free lease."""
        return bool(await self.store.redis.set(log.lease(turn), by, nx=True, px=self._lease))

    async def renew(self, held: Sequence[tuple[Log, str, str]]) -> None:
        """Keep the leases (log, turn, by) of one shard for another `lease` seconds."""
        keys = [key for log, turn, _ in held for key in (log.owner, log.stream, log.refs, log.lease(turn))]
        await self._renew(keys=keys, args=[self._lease, self._ttl, *(by for _, _, by in held)])

    async def release(self, log: Log, turn: str, by: str, *, heard: int | None = None, open: bool = False) -> bool:
        """Give a lease back; the turn is listed as open no more, unless `open`.

        With `heard`: only if no later word has been said; raises Gone.
        """
        member = "" if open else f"{log.owner} {turn}"
        keys = [log.stream, log.lease(turn), self.open_key(log.shard)]
        done = await self._release(keys=keys, args=[by, member, "" if heard is None else heard])
        if done < 0:
            raise Gone(log.session)
        return bool(done)

    # ---- single-use tickets ----

    async def put_ticket(self, ticket: str, value: bytes, ttl: float) -> None:
        await self.store.redis.set(f"kit:ticket:{ticket}", value, px=int(ttl * 1000))

    async def take_ticket(self, ticket: str) -> bytes | None:
        """The value of a ticket, once."""
        value: bytes | None = await self.store.redis.getdel(f"kit:ticket:{ticket}")
        return value

    @property
    def _ttl(self) -> int:
        return int(self.ttl * 1000)

    @property
    def _lease(self) -> int:
        return int(self.lease * 1000)


class _Commit(NamedTuple):
    """What a turn says at once: the entries of the stream that hold it, and who waits for its ids."""

    log: Log
    heard: int
    entries: list[_Packed]
    ids: asyncio.Future[list[EntryId]]


class _Packed(NamedTuple):
    """An entry of the stream: how many packets it holds, a line for each, and (or empty) a line for each one's provider's cursor."""

    packets: int
    body: bytes
    at: bytes


class _Commits:
    """Group commit of an instance: while one append is under way, what all its turns say meanwhile gathers for the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Commit] = []
        self._busy: asyncio.Task[None] | None = None

    async def add(self, log: Log, heard: int, bodies: Sequence[tuple[bytes, At | None]]) -> list[EntryId]:
        ids: asyncio.Future[list[EntryId]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Commit(log, heard, list(_packed(bodies)), ids))
        if self._busy is None:
            self._busy = asyncio.create_task(self._work())
        return await ids

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                batch.sort(key=lambda commit: commit.log.shard)
                await self._send([list(share) for _, share in groupby(batch, lambda commit: commit.log.shard)])
        finally:
            self._busy = None

    async def _send(self, shares: list[list[_Commit]]) -> None:
        try:
            answers = await self._append(shares)
        except StoreError as error:
            answers = [error] * len(shares)
        for share, answer in zip(shares, answers, strict=True):
            each = iter(answer if isinstance(answer, list) else ())
            for commit in share:
                taken = answer if isinstance(answer, Exception) else [next(each) for _ in commit.entries]
                if not commit.ids.done():
                    _settle(commit, taken)

    async def _append(self, shares: list[list[_Commit]]) -> list[list[bytes] | Exception]:
        """One script for each shard: on a cluster a script may only name keys of one slot."""
        while True:
            pipe = self._store.commits.pipeline(transaction=False)
            for share in shares:
                keys = [commit.log.stream for commit in share for _ in commit.entries]
                args = [arg for commit in share for entry in commit.entries for arg in (commit.heard, *entry)]
                pipe.evalsha(_APPEND_SHA, len(keys), *keys, *args)
            answers: list[list[bytes] | Exception] = await pipe.execute(raise_on_error=False)
            if not all(is_unknown_script(answer) for answer in answers):
                return answers
            await self._store.commits.script_load(_APPEND)  # nothing was carried out, so it may be asked again


def _settle(commit: _Commit, answers: list[bytes] | Exception) -> None:
    """All entries of a commit were taken, or refused for one reason: they went in one script and share their epoch."""
    if isinstance(answers, Exception):
        commit.ids.set_exception(answers)
        return
    refused = next((answer for answer in answers if not answer[:1].isdigit()), None)
    if refused is None:
        commit.ids.set_result([id for answer, entry in zip(answers, commit.entries, strict=True) for id in _ids(answer, entry.packets)])
    elif refused == b"":
        commit.ids.set_exception(Gone(commit.log.session))
    elif is_refused_id(error := Refusal(refused.decode(errors="replace"))):
        commit.ids.set_exception(Unheard(commit.heard))
    else:
        commit.ids.set_exception(error)


def _packed(bodies: Sequence[tuple[bytes, At | None]]) -> Iterator[_Packed]:
    """As few entries as hold the packets. They are bounded, as whoever reads counts entries."""
    begin = size = 0
    for i, (body, _) in enumerate(bodies):
        if i > begin and size + len(body) > ENTRY:
            yield _pack(bodies[begin:i])
            begin, size = i, 0
        size += len(body)
    yield _pack(bodies[begin:])


def _pack(bodies: Sequence[tuple[bytes, At | None]]) -> _Packed:
    cursors = b"\n".join(encode(at) if at else b"" for _, at in bodies)
    return _Packed(len(bodies), b"\n".join([body for body, _ in bodies]), cursors if cursors.strip() else b"")


def _ids(last: bytes, packets: int) -> list[EntryId]:
    """The ids of the packets in an entry."""
    epoch, n = EntryId.given(last)
    return [EntryId(epoch, i) for i in range(n - packets + 1, n + 1)]


def _known(known: bytes, digest: str) -> Spoken:
    id, seen, *outcome = known.split()
    return Spoken(EntryId.parse(id), None, True, seen.decode() == digest, outcome=b"".join(outcome).decode())


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _entries(id: bytes, fields: dict[bytes, bytes], after: EntryId) -> list[Stored]:
    """What stands in an entry of the stream and follows the id `after`."""
    if EntryId.given(id) <= after:
        return []
    if (prev := fields.get(b"prev")) is not None:
        return [Stored(EntryId.given(id), fields[b"f"], EntryId.given(prev))]
    bodies = fields.get(b"f", b"").split(b"\n")
    cursors = fields[b"at"].split(b"\n") if b"at" in fields else repeat(None)
    stored = [Stored(id, body, None, at or None) for id, body, at in zip(_ids(id, len(bodies)), bodies, cursors, strict=False)]
    return stored if stored[0].id > after else [entry for entry in stored if entry.id > after]
