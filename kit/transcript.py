"""Transcript: the log of a session: say a word, append what an agent says, read, follow, trim.

The rules that hold here, by the store's own hand and not by a lock or a clock:

- A word gets the id `<e+1>-0` from one script, which also remembers its `ref`: said again, it is found and not said twice.
- A packet gets the id `<e>-*`, where `e` is the epoch that the agent has heard. Redis refuses an id that is not above the last one,
  so no agent ever speaks past a word it has not heard (`Unheard`).
- Only a script begins a stream, and only for a new log. A stream that is gone is not begun again by accident (`Gone`).

Keys carry their shard's hash tag, so that on a cluster one command may name a log with all that belongs to it, and one server keeps them.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from kit.commits import Commits, load
from kit.ending import settle
from kit.log import Gone, Log, Opened, Spoken, Stored, Unheard, WrongShards, unpacked
from kit.packets import START, AnyWord, At, EntryId, stored
from kit.scripts import FORK, OPEN, RELEASE, RENEW, SAY, TAKE
from kit.store import Store, StoreError

DAY = 24 * 3600.0


class Transcript:
    """The logs of one store. `lease` and `ttl` in seconds."""

    def __init__(self, store: Store, *, shards: int = 1, lease: float = 2.0, ttl: float = DAY) -> None:
        self.store = store
        self.shards = shards
        self.lease = lease
        self.ttl = ttl
        self._open = store.redis.register_script(OPEN)
        self._fork = store.redis.register_script(FORK)
        self._say = store.redis.register_script(SAY)
        self._renew = store.redis.register_script(RENEW)
        self._release = store.redis.register_script(RELEASE)
        self._take = store.redis.register_script(TAKE)
        self._commits: dict[Store, Commits] = {}

    async def _ask(self, script: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script on the server that keeps its keys."""
        return await script(keys=keys, args=args, client=self._line(keys[0]))

    def _check(self, log: Log) -> None:
        """Raises Gone where the store was restarted since: what is known of the log may be lost."""
        if log.run != self.run_id(log.shard):
            raise Gone(log.session)

    def _line(self, key: str) -> Any:
        return self.store.of(key).redis

    def run_id(self, shard: int) -> str:
        """Which server keeps a shard, and since which of its starts."""
        return self.store.of(self.open_key(shard)).run_id

    # ---- sessions ----

    async def agree(self) -> None:
        """Agree with the store on the number of shards; raises WrongShards."""
        line = self._line("kit:shards")
        await line.set("kit:shards", self.shards, nx=True)
        if (stored := int(await line.get("kit:shards") or 0)) != self.shards:
            raise WrongShards(self.shards, stored)

    async def prepare(self) -> None:
        """Have each server know the scripts, over as many connections: or the first who come at once would wait for either.

        What fails here is done when it is needed.
        """
        scripts, servers = (OPEN, FORK, SAY, RENEW, RELEASE, TAKE), self.store.servers
        loading = [server.redis.script_load(script) for server in servers for script in scripts]
        await asyncio.gather(*loading, *map(load, servers), return_exceptions=True)

    def shard(self, session: str) -> int:
        return zlib.crc32(session.encode()) % self.shards

    async def open(self, session: str) -> Opened:
        """The session's current log. A new session gets one; one whose store restarted or was emptied gets another name."""
        shard = self.shard(session)
        owner = f"{{{shard}}}:{session}"
        while True:
            if not (run := self.run_id(shard)):
                await self._line(owner).execute_command("PING")
                continue
            keys = [owner, self.wake_key(shard)]
            name, last, was = await self._ask(self._open, keys, [run, secrets.token_urlsafe(6), self._ttl])
            if run == self.run_id(shard):  # else the store was restarted meanwhile
                return Opened(Log(session, name.decode(), shard, run), EntryId.given(last), was.decode())

    async def begin(self, log: Log, entries: Sequence[Stored]) -> bool:
        """Give a log its first entries, all at once, under the ids they have; False where something stands in it. Raises Gone."""
        fields = [field for e in entries for field in (str(e.id), e.body, "" if e.prev is None else str(e.prev))]
        done = await self._ask(self._fork, [log.owner, log.stream], [self.run_id(log.shard), log.name, self._ttl, *fields])
        if done < 0:
            raise Gone(log.session)
        return bool(done)

    # ---- words and packets ----

    async def say(
        self, log: Log, word: AnyWord, *, agents: Sequence[str] = (), wakes: Sequence[str] = (), by: str = "", heard: int | None = None
    ) -> Spoken:
        """Add a word whose `from_` and `ref` are filled in; raises Gone.

        `agents`: it opens a turn of each; `wakes`: these turns have something to do now, if only to end. All of them are listed as
        open, and a lease that is free goes to `by`. With `heard`: only where no later word has been said; raises Unheard.
        """
        return await self._add(log, word, agents, wakes, by, "", heard)

    async def give(self, log: Log, word: AnyWord, turn: str, by: str) -> None:
        """Add a `takeover` by nobody, free the lease and wake the other instances: all or, where the lease is not `by`'s, nothing."""
        await self._add(log, word, (), (), by, turn)

    async def _add(
        self, log: Log, word: AnyWord, agents: Sequence[str], wakes: Sequence[str], by: str, gives: str, heard: int | None = None
    ) -> Spoken:
        body = stored(word)
        digest = _digest(body)
        shard = [self.open_key(log.shard), self.wake_key(log.shard), self.around_key(log.shard)]
        keys = [log.owner, log.stream, log.refs, *shard]
        args = [self.run_id(log.shard), log.name, f"{word.from_}\0{word.ref}", digest, body, self._ttl, ",".join(agents), self._lease]
        answer = await self._ask(self._say, keys, [*args, by, gives, "" if heard is None else heard, *wakes])
        match answer:
            case [b"gone", *_]:
                raise Gone(log.session)
            case [b"unheard", *_]:
                raise Unheard(heard or 0)
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
        known = await self._line(log.refs).hget(log.refs, f"{word.from_}\0{word.ref}")
        return None if known is None else _known(known, _digest(stored(word)))

    async def settle(self, log: Log, word: AnyWord, spoken: Spoken, outcome: str) -> None:
        """Keep with a word's ref what it came to: what it was about may be trimmed away before it is repeated. Raises Gone."""
        self._check(log)
        await self._line(log.refs).hset(log.refs, f"{word.from_}\0{word.ref}", f"{spoken.id} {_digest(stored(word))} {outcome}")

    async def append(self, log: Log, heard: int, bodies: Sequence[tuple[bytes, At | None]]) -> list[Stored]:
        """Add what an agent says in the epoch it has heard, all or nothing; raises Unheard, Gone, or the store's own error."""
        answered: asyncio.Future[list[Stored]] = asyncio.get_running_loop().create_future()
        self.send(log, heard, bodies, partial(settle, answered))
        return await answered

    def send(
        self, log: Log, heard: int, bodies: Sequence[tuple[bytes, At | None]], told: Callable[[list[Stored] | Exception], None]
    ) -> None:
        """The same, without waiting: `told` is called with what `append` gives or raises."""
        try:
            server = self.store.of(log.stream)
        except StoreError as error:
            told(error)
            return
        if server not in self._commits:
            self._commits[server] = Commits(server)
        self._commits[server].add(log, heard, bodies, partial(_told_entries, told, bodies))

    # ---- reading ----

    async def read(self, log: Log, after: EntryId, count: int = 200) -> list[Stored]:
        """What follows an id, in order: `count` entries of the stream, so more where several packets stand together."""
        found = await self._line(log.stream).xrange(log.stream, f"({after}", "+", count)
        return [entry for id, fields in found for entry in unpacked(id, fields, after)]

    async def read_to(self, log: Log, end: EntryId) -> list[Stored]:
        """All that is kept up to an id, in order."""
        return [entry async for batch in self.batches(log, START, 1000) for entry in batch if entry.id <= end]

    async def batches(self, log: Log, after: EntryId, count: int = 200) -> AsyncIterator[list[Stored]]:
        """All that follows an id, in reads of `count` entries of the stream: where one gave fewer, nothing more was there."""
        more = True
        while more and (batch := await self.read(log, after, count)):
            yield batch
            after, more = batch[-1].id, len(batch) >= count

    async def follow(
        self, after: Mapping[str, EntryId], block: float, heard: Callable[[], Mapping[str, EntryId]] = dict
    ) -> dict[str, list[Stored]]:
        """Wait up to `block` seconds for entries after the given ids of several streams of one shard, by stream.

        `heard` is asked when something has come: what was heard meanwhile by other ways, such as one's own, is not even decoded.
        """
        ids: dict[Any, Any] = {stream: str(id) for stream, id in after.items()}
        found: Any = await self.store.of(next(iter(after))).ears.xread(ids, count=1000, block=int(block * 1000))
        start = {**after, **heard()}
        named = ((stream.decode(), entries) for stream, entries in found or [])
        return {stream: [e for id, fields in entries for e in unpacked(id, fields, start[stream])] for stream, entries in named}

    async def last(self, stream: str) -> EntryId:
        """Where one of a shard's own streams stands."""
        found = await self._line(stream).xrevrange(stream, count=1)
        return EntryId.given(found[0][0]) if found else START

    def around_key(self, shard: int) -> str:
        """What is told around the logs of a shard: `<session> <frame>`, and of each word `<session> <id>`."""
        return f"{{{shard}}}:around"

    async def tell(self, log: Log, frame: bytes) -> None:
        """Send a frame around the log to whoever follows the shard: it is not kept."""
        fields = {"f": log.session.encode() + b" " + frame}
        await self._line(log.stream).xadd(self.around_key(log.shard), fields, maxlen=256, approximate=False)

    async def ring(self, bell: str) -> None:
        """Wake whoever follows this stream."""
        pipe = self._line(bell).pipeline(transaction=False)
        pipe.xadd(bell, {"f": ""}, maxlen=1, approximate=False)
        pipe.pexpire(bell, self._ttl)
        await pipe.execute()

    async def trim(self, log: Log, before: EntryId) -> None:
        """Forget the epochs before this word's. Raises Gone."""
        self._check(log)
        await self._line(log.stream).xtrim(log.stream, minid=f"{before.epoch}-0", approximate=False)

    async def keep(self, log: Log) -> None:
        """Have it live on as if a word had been said."""
        pipe = self._line(log.stream).pipeline(transaction=False)
        for key in (log.owner, log.stream, log.refs):
            pipe.pexpire(key, self._ttl)
        await pipe.execute()

    # ---- leases ----

    def open_key(self, shard: int) -> str:
        return f"{{{shard}}}:open"

    def wake_key(self, shard: int) -> str:
        return f"{{{shard}}}:wake"

    async def open_turns(self, shard: int) -> list[tuple[str, str]]:
        """(session, turn) of every turn of the shard that may be open; some have ended since."""
        members = await self._line(self.open_key(shard)).smembers(self.open_key(shard))
        return [(owner.partition("}:")[2], turn) for owner, _, turn in (m.decode().partition(" ") for m in members)]

    async def time_left(self, turns: Sequence[tuple[str, str]]) -> list[float]:
        """Seconds that the lease of each (session, turn) of one shard still holds, negative where there is none."""
        owners = [f"{{{self.shard(session)}}}:{session}" for session, _ in turns]
        if not owners:
            return []
        pipe = self._line(owners[0]).pipeline(transaction=False)
        for owner in owners:
            pipe.hget(owner, "log")
        for owner, (_, turn), name in zip(owners, turns, await pipe.execute(), strict=True):
            pipe.pttl(f"{owner}:{(name or b'').decode()}:lease:{turn}")
        return [left / 1000 for left in await pipe.execute()]

    async def take(self, log: Log, turn: str, by: str) -> bool:
        """Take a free lease of a turn that is listed as open."""
        keys = [log.lease(turn), self.open_key(log.shard)]
        return bool(await self._ask(self._take, keys, [by, f"{log.owner} {turn}", self._lease]))

    async def renew(self, held: Sequence[tuple[Log, str, str]]) -> list[EntryId]:
        """Keep the leases (log, turn, by) of one shard for another `lease` seconds; gives where each log stands."""
        keys = [key for log, turn, _ in held for key in (log.owner, log.stream, log.refs, log.lease(turn))]
        heads = await self._ask(self._renew, keys, [self._lease, self._ttl, *(by for _, _, by in held)])
        return [EntryId.given(head) for head in heads]

    async def release(self, log: Log, turn: str, by: str, *, heard: int | None = None, open: bool = False) -> bool:
        """Give a lease back; the turn is listed as open no more, unless `open`. With `heard`: only if no later word has been said.

        Raises Gone: where a store came back without the tail in which a turn ended, the turn is open, and stays listed.
        """
        member = "" if open else f"{log.owner} {turn}"
        keys = [log.owner, log.stream, log.lease(turn), self.open_key(log.shard)]
        done = await self._ask(self._release, keys, [self.run_id(log.shard), log.name, by, member, "" if heard is None else heard])
        if done < 0:
            raise Gone(log.session)
        return bool(done)

    # ---- single-use tickets ----

    async def put_ticket(self, ticket: str, value: bytes, ttl: float) -> None:
        await self._line(f"kit:ticket:{ticket}").set(f"kit:ticket:{ticket}", value, px=int(ttl * 1000))

    async def take_ticket(self, ticket: str) -> bytes | None:
        """The value of a ticket, once."""
        value: bytes | None = await self._line(f"kit:ticket:{ticket}").getdel(f"kit:ticket:{ticket}")
        return value

    @property
    def _ttl(self) -> int:
        return int(self.ttl * 1000)

    @property
    def _lease(self) -> int:
        return int(self.lease * 1000)


def _told_entries(
    told: Callable[[list[Stored] | Exception], None], bodies: Sequence[tuple[bytes, At | None]], ids: list[EntryId] | Exception
) -> None:
    told(ids if isinstance(ids, Exception) else [Stored(id, body) for id, (body, _) in zip(ids, bodies, strict=True)])


def _known(known: bytes, digest: str) -> Spoken:
    id, seen, *outcome = known.split()
    return Spoken(EntryId.parse(id), None, True, seen.decode() == digest, outcome=b"".join(outcome).decode())


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
