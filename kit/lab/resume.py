"""Resume checker: does a client lose nothing, double nothing and say nothing twice, whatever its line and its server do to it?

A client under test is an async generator:

    async def my_client(url, token, shelf):
        '''Give every entry and every gap of the session, in order, each once, for as long as somebody asks for more.'''

- `url`: `ws://127.0.0.1:PORT/s/NAME`; it adds `?after=<id>&log=<log>` by itself. `token` goes into `Authorization: Bearer`, the
  subprotocol is `kit.v1`.
- It yields what stands in the log and each `gap`, as the frame's JSON decoded (a dict). Whatever else comes it keeps to itself.
- `shelf`: a dict that survives a reload, as `localStorage` does: what JSON can hold. It is empty in the beginning, but for
  `shelf["words"]`: what the person says, `{ref: {"type": "prompt", "text": ..., "ref": ref}}`. At every hello the client sends all of
  them; it removes one when its `receipt` comes. A reload throws the generator away where it stands (at its `yield`, too: what is to be
  remembered of an entry must be on the shelf before the entry is given), and calls the function again with what is on the shelf.

`check_resume(my_client)` plays stories with it: hypothesis draws faults, shrinks what fails to the shortest story, and that story is
told as a drawing of client, instance and store. Time is not waited for (hurry.py), so a client may be as patient as it should be.

>>> check_resume(kit_client, examples=5)  # doctest: +ELLIPSIS
✓ kept its promises in 5 stories ...
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, TypeVar, get_args

import msgspec

from kit.client import Backoff, Session, connect
from kit.ending import end
from kit.history import History
from kit.lab.finish import is_strict
from kit.lab.hurry import HurriedLoop
from kit.lab.line import Line
from kit.lab.records import Frame, lengths
from kit.lab.story import Broken, Story, View, judge
from kit.lab.table import as_html, as_text, shorten
from kit.packets import AnyPacket, Content, End, Entry, Gap, Prompt, decode_sent
from kit.server import Server, serve
from kit.store import open_store

Client = Callable[[str, str, dict[str, Any]], AsyncGenerator[Any, None]]
T = TypeVar("T")
What = Literal["cut", "receipt", "shut", "vanish", "linger", "reload", "flush"]
SAYS = 4
"""Pieces in each answer."""
PATIENCE = 120
"""Seconds of the story's clock within which a client must have come back, and a half-open connection be noticed."""
STORM = 20
"""Dials within `SHUT` seconds from which on they are a storm; full jitter from half a second on needs about six."""
SHUT = 10.0


@dataclass(frozen=True)
class Fault:
    """`what` happens after so many frames came down the client's line (0: in the handshake)."""

    after: int
    what: What
    word: bool = False
    """The person says something just then."""


async def numbers(history: History) -> AsyncIterator[AnyPacket]:
    """The agent of the stories: `1 2 ... `, a piece a number; it goes on where the history ends."""
    for i in range(history.pieces + 1, SAYS + 1):
        await asyncio.sleep(0.05)
        yield Content(f"{i} ")


ANSWER = "".join(f"{i} " for i in range(1, SAYS + 1))


# ---- clients ----


async def kit_client(url: str, token: str, shelf: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """kit.client as a client under test."""
    base, _, name = url.rpartition("/s/")
    backoff = Backoff(rng=random.Random(0))
    async with connect(base, session=name, token=token, after=shelf.get("after"), log=shelf.get("log"), backoff=backoff) as session:
        said: dict[str, asyncio.Task[None]] = {}

        def look(_: str) -> None:
            """What has been put on the shelf since; whatever is under way the session repeats by itself."""
            if session.state != "closed":
                said.update({ref: asyncio.create_task(_say(session, shelf, ref)) for ref in shelf["words"] if ref not in said})

        session.on_state = look
        try:
            async for entry in session:
                shelf |= {"after": session.after, "log": session.log}
                yield msgspec.to_builtins(entry)
        finally:
            await end(said.values())


async def _say(session: Session, shelf: dict[str, Any], ref: str) -> None:
    await session.say(Prompt(text=shelf["words"][ref]["text"], ref=ref))
    del shelf["words"][ref]


# ---- the line, frame by frame ----


class _Wire(Line):
    """The client's line, which tells of every frame that has come through: `heard(frame, connection)`."""

    heard: Callable[[Frame | None, bool], None]

    async def _carry(self, source: Any, sink: Any, connection: Any, *, up: bool) -> None:
        frames: Any = _Sink(sink, up, self.heard)
        await super()._carry(source, frames, connection, up=up)


class _Sink:
    """A stream's writer that passes on one frame at a time; the first thing to pass is the head of the handshake."""

    def __init__(self, sink: Any, up: bool, heard: Callable[[Frame | None, bool], None]) -> None:
        self._sink, self._up, self._heard = sink, up, heard
        self._head, self._passing = True, bytearray()

    def write(self, piece: bytes) -> None:
        self._passing += piece
        while length := self._next():
            part, frame = bytes(self._passing[:length]), None
            del self._passing[:length]
            if self._head:
                self._head = False
            else:
                frame = Frame(0.0, 0, "up" if self._up else "down", part)
            if not self._sink.is_closing():
                self._sink.write(part)
                self._heard(frame, self._up)

    def _next(self) -> int:
        if self._head:
            return self._passing.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in self._passing else 0
        needed = sum(lengths(self._passing))
        return needed if 0 < needed <= len(self._passing) else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


@asynccontextmanager
async def _line(to: int, heard: Callable[[Frame | None, bool], None]) -> AsyncIterator[_Wire]:
    wire = _Wire(to, 0.0, 0.0, None, 0, random.Random(0))
    wire.heard = heard
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        await end(wire.tasks)


# ---- one story ----


class Play:
    """One client, two instances, a witness who misses nothing, and the faults of a schedule."""

    def __init__(self, client: Client, faults: Sequence[Fault]) -> None:
        self.client, self.schedule = client, tuple(faults)
        self.faults = list(faults)
        self.happened: list[Fault] = []
        self.story, self.view = Story(), View()
        self.log: list[Entry] = []
        """What the witness has seen since the last gap."""
        self.words: list[str] = []
        self.shelf: dict[str, Any] = {"words": {}}
        self.broken: Broken | None = None
        self._frames = 0
        self._reload = self._loses_receipt = False
        self._dialled: list[float] = []
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wire: _Wire
        self._witness: Session
        self._servers: list[Server]
        self._store: Any

    async def run(self) -> None:
        """Raises Broken."""
        name = f"fake://{secrets.token_hex(8)}"
        async with AsyncExitStack() as stack:
            self._store = await stack.enter_async_context(open_store(name))
            options: Any = {"store": name, "join": False, "lease": 20.0, "secret": "the secret of the two instances of a story"}
            self._servers = [await stack.enter_async_context(serve(numbers, **options)) for _ in range(2)]
            self._wire = await stack.enter_async_context(_line(self._servers[0].port, self._heard))
            other = self._servers[1]
            self._witness = await stack.enter_async_context(connect(other.url, session="s", token=other.token("witness")))
            self._say("hello")
            try:
                self._soon(self._watch())
                life = self._soon(self._live())
                await self._over()
                await end({life})
                judge(self.view.entries, self.log, self.words, ANSWER)
            finally:
                await end(self._tasks)

    async def _over(self) -> None:
        """Wait until every fault has happened and the client has seen and said all; raises Broken where that takes too long."""
        quiet = 0
        while not self.broken:
            asked, ends = (sum(isinstance(e, kind) for e in self.log) for kind in (Prompt, End))
            idle = self.log and asked == ends and str(self.view.last) == self.log[-1].id and not self.shelf["words"]
            if quiet and idle and not self.faults:
                return
            if quiet >= PATIENCE:
                raise self._missing()
            if quiet and idle:
                await self._witness.prompt(f"and then {len(self.log)}")  # so that more comes, for the faults that are still to happen
            self._changed.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
                    quiet = 0
            except TimeoutError:
                quiet += 1
        raise self.broken  # what was seen first, also where more is missing since

    def _missing(self) -> Broken:
        head = self.log[-1].id if self.log else "0-0"
        if self.shelf["words"]:
            text = next(iter(self.shelf["words"].values()))["text"]
            return Broken("P4 receipts", f"a receipt for “{text}”, and that it is taken off the shelf", f"none {PATIENCE:.0f} s later")
        if str(self.view.last) == head:
            return Broken("P6 survives", "every turn comes to its end", f"the log stands still at {head} for {PATIENCE:.0f} s")
        return Broken("P2 exactly once", f"all up to {head}", f"the client stands at {self.view.last}, {PATIENCE:.0f} s later")

    async def _watch(self) -> None:
        async for entry in self._witness:
            if isinstance(entry, Gap):
                self.log = []
            else:
                self.log.append(entry)
                self.story.tell("instance", "store", f"{entry.id} {_kind(entry)}", "says")
            self._changed.set()

    # ---- the client's life ----

    async def _live(self) -> None:
        """Take what the client gives; where it is reloaded, begin it anew with what is on the shelf."""
        url, token = f"ws://127.0.0.1:{self._wire.port}/s/s", self._servers[0].token("ann")
        try:
            while True:
                self._reload = False
                self.shelf = json.loads(json.dumps(self.shelf))
                async with aclosing(self.client(url, token, self.shelf)) as entries:
                    async for entry in entries:
                        self._take(entry)
                        if self._reload:
                            break
                if not self._reload:
                    raise Broken("P2 exactly once", "a client that goes on", "its generator came to an end")
                self.story.tell("client", "client", "reloaded (F5)")
        except Broken as broken:
            self._break(broken)
        except Exception as error:  # noqa: BLE001  # a learner's
            self._break(Broken("P2 exactly once", "a client that goes on", f"it raised {type(error).__name__}: {error}"))

    def _take(self, frame: Any) -> None:
        entry = decode_sent(msgspec.json.encode(frame))
        self.view.take(entry)  # type: ignore[arg-type]  # whatever else it gives is told in the same way
        self._changed.set()

    def _break(self, broken: Broken) -> None:
        self.broken = self.broken or broken
        self._changed.set()

    def _say(self, text: str) -> None:
        """Put a word of the person on the shelf: it is said at the next hello."""
        ref = secrets.token_urlsafe(16)
        self.words.append(text)
        self.shelf["words"][ref] = {"type": "prompt", "text": text, "ref": ref}

    # ---- faults ----

    def _heard(self, frame: Frame | None, up: bool) -> None:
        """A frame, or the head of a handshake, has come through."""
        if frame is None:
            if up:
                self._dial()
            elif self.faults and not self.faults[0].after:
                self._happen(self.faults.pop(0))
            return
        sent = json.loads(frame.payload) if frame.opcode == 1 else {"type": frame.name}
        begin, to = ("client", "instance") if up else ("instance", "client")
        if sent["type"] not in ("beat", "ping", "pong", "close"):
            self.story.tell(begin, to, _brief(sent), "entries" if sent.get("id") and sent["type"] != "receipt" else "")  # type: ignore[arg-type]
        if not up:
            self._frames += 1
        if up and self._loses_receipt:
            self._loses_receipt = False
            self._cut("the line is cut before the receipt")
        elif self.faults and self.faults[0].after <= self._frames:
            self._happen(self.faults.pop(0))

    def _dial(self) -> None:
        now = asyncio.get_running_loop().time()
        self._dialled = [then for then in self._dialled if then > now - SHUT] + [now]
        self.story.tell("client", "instance", "dials", "dials")
        if len(self._dialled) > STORM:
            self._break(Broken("backoff", f"at most {STORM} dials in {SHUT:.0f} s", f"{len(self._dialled)}, and more"))

    def _happen(self, fault: Fault) -> None:
        self.happened.append(fault)
        if (fault.word and fault.what != "flush") or fault.what == "receipt":
            self._say(f"word {len(self.words) + 1}")
        match fault.what:
            case "cut":
                self._cut("the line is cut")
            case "receipt":
                self._loses_receipt = True
                self._cut("the line is cut")
            case "shut":
                self._wire.shut(1 << 30)
                asyncio.get_running_loop().call_later(SHUT, self._wire.shut, 0)
                self._cut(f"cut; for {SHUT:.0f} s the next are accepted, then closed")
            case "vanish":
                self.story.tell("client", "client", "half-open: what is sent vanishes, nobody is told")
                self._wire.vanish()
            case "linger":
                self.story.tell("client", "client", "cut, and the instance does not notice")
                self._wire.linger()
            case "reload":
                self._reload = True
            case "flush":
                self.view.lost += 1
                self.story.tell("store", "store", "emptied")
                self._soon(self._flush())
        self._changed.set()

    def _cut(self, text: str) -> None:
        self.story.tell("client", "client", text)
        self._wire.cut()

    async def _flush(self) -> None:
        await self._store.redis.flushall()
        await self._witness.prompt("a new log")

    def _soon(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        return task


def _kind(entry: Entry) -> str:
    return type(entry).__name__.lower()


def _brief(sent: Mapping[str, Any]) -> str:
    about = " ".join(str(sent[key]) for key in ("status", "reason", "text") if sent.get(key))
    return shorten(f"{sent.get('id', '')} {sent['type']} {about}".strip(), 40)


# ---- many stories ----


class Verdict:
    """What the checker says: how many stories a client survived, or the shortest one that it did not."""

    def __init__(self, stories: int, seed: int, play: Play | None) -> None:
        self.stories, self.seed = stories, seed
        self.play = play
        self.passed = play is None

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What was promised, expected and seen, and the faults of the shortest story, as they are written in a test."""
        if not self.play or not (broken := self.play.broken):
            return []
        faults = ", ".join(map(repr, self.play.happened)) or "none at all"
        return [("promise", broken.promise), ("expected", broken.expected), ("seen", broken.seen), ("faults", faults)]

    def __repr__(self) -> str:
        if not self.play:
            return f"✓ kept its promises in {self.stories} stories (seed {self.seed})"
        head = f"✗ a promise was broken; this is the shortest story in which it is (of {self.stories}, seed {self.seed})"
        return f"{head}\n\n{as_text(self.rows)}\n\n{self.play.story}"

    def _repr_html_(self) -> str:
        head = f"<p><strong>{escape(repr(self).partition(chr(10))[0])}</strong></p>"
        return head + as_html(self.rows) + self.play.story._repr_svg_() if self.play else head


class NotKept(AssertionError):
    """A client broke a promise; the text is its shortest story."""


class _Enough(BaseException):
    """So many stories were played. Not an Exception: hypothesis would take that for a failure, and try to make it smaller."""


def check_resume(client: Client, *, examples: int = 80, seed: int = 4, seconds: float = 10.0) -> Verdict:
    """Play stories with a client until one fails, and shrink that one: `examples` in all, for `seconds` at most.

    Never raises, but under KIT_STRICT=1 NotKept. The same seed draws the same stories.
    """
    verdict = _on_a_thread(lambda: _search(client, examples, seed, seconds))
    if is_strict() and not verdict.passed:
        raise NotKept(repr(verdict))
    return verdict


def replay(client: Client, *faults: Fault) -> Verdict:
    """One story again, by its faults."""
    play = _on_a_thread(lambda: _played(client, faults))
    return Verdict(1, 0, play if play.broken else None)


def _search(client: Client, examples: int, seed: int, seconds: float) -> Verdict:
    import hypothesis as h  # a quarter of a second that only who asks for it pays
    from hypothesis import strategies as st

    plays: dict[tuple[Fault, ...], Play] = {}
    until = time.monotonic() + seconds
    kinds = st.sampled_from(get_args(What))
    faults = st.lists(st.builds(Fault, st.integers(0, 16), kinds, st.booleans()), max_size=3)

    def fails(schedule: tuple[Fault, ...]) -> bool:
        if schedule not in plays:
            if len(plays) == examples or time.monotonic() > until:
                raise _Enough
            plays[schedule] = _played(client, schedule)
        return plays[schedule].broken is not None

    phases = (h.Phase.generate, h.Phase.shrink)  # `explain` would trace every line of every story: five times slower
    quick = h.settings(max_examples=examples, phases=phases, deadline=None, database=None, suppress_health_check=list(h.HealthCheck))
    with suppress(h.errors.NoSuchExample, _Enough):
        h.find(faults.map(_in_order), fails, settings=quick, random=random.Random(seed))
    failed = [play for play in plays.values() if play.broken]
    return Verdict(len(plays), seed, min(failed, key=lambda play: (len(play.happened), len(play.story)), default=None))


def _in_order(faults: list[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.after))


def _played(client: Client, faults: Sequence[Fault]) -> Play:
    play, state = Play(client, faults), random.getstate()
    random.seed(0)  # a learner's jitter is the same in every run
    with asyncio.Runner(loop_factory=HurriedLoop) as runner:
        try:
            runner.run(play.run())
        except Broken as broken:
            play.broken = broken
    random.setstate(state)
    return play


def _on_a_thread(work: Callable[[], T]) -> T:
    """A cell has a loop of its own in its thread; and what the instances warn of is the story's, not the cell's."""
    done: list[T] = []
    thread = threading.Thread(target=lambda: done.append(work()), name="check resume", daemon=True)
    quiet, loud = logging.NullHandler(), logging.getLogger("kit")
    loud.addHandler(quiet)  # else Python prints warnings where nobody has asked for them
    try:
        thread.start()
        thread.join()
    finally:
        loud.removeHandler(quiet)
    return done[0]
