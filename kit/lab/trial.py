"""Trial: one story: a client under test, two instances, a witness who misses nothing, and the faults of a schedule.

A fault's place is counted in frames here, that came down the client's own line: so a schedule names every point where it can be cut, also
in the handshake (0), between hello and the first entry, and between a word and its receipt.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from websockets.frames import Opcode

from kit.ending import end
from kit.history import History
from kit.lab import served
from kit.lab.chaos import Fault, Schedule, Witness, play, strike, witness
from kit.lab.framed import FramedLine, line_to
from kit.lab.hurry import HurriedLoop
from kit.lab.instances import instances
from kit.lab.records import Frame
from kit.lab.story import Broken, Lane, Story, View, judge
from kit.lab.table import shorten
from kit.lab.where import where
from kit.packets import AnyPacket, Content, End, Entry, FromServer, Gap, Prompt, decode_sent
from kit.store import open_store

Client = Callable[[str, str, dict[str, Any]], AsyncGenerator[Any, None]]
SAYS = 4
"""Pieces in each answer."""
PATIENCE = 120
"""Seconds of the story's clock without any news after which what is missing counts as lost; a half-open line is noticed sooner."""
LEASE = 20.0
"""Of a turn, in seconds. The store's clock is real, so nobody waits for it: a lease is over `LATE` seconds after its owner has stopped."""
LATE = 2.0
SHUT = 16
"""Connections in a row that are accepted, then closed."""
STORM, WITHIN = 14, 10.0
"""So many dials in so many seconds are a storm; with full jitter from half a second on there are about six."""
STUCK, LONG = 5.0, 60.0
"""Real seconds in which the loop has not come by, and in which a story has not ended: its client never waits for anything."""
TOLD: dict[str, tuple[Lane, str]] = {
    "cut": ("client", "the line is cut"),
    "shut": ("client", f"cut, and the next {SHUT} connections are accepted, then closed"),
    "vanish": ("client", "half-open: what is sent vanishes, and nobody is told"),
    "linger": ("client", "cut, and the instance does not notice"),
    "receipt": ("client", "the person says something, and the line is cut"),
    "reload": ("client", "reload (F5): only the shelf is left"),
    "stop": ("instance", "an instance is stopped"),
    "freeze": ("instance", "an instance freezes"),
    "leave": ("instance", "an instance leaves"),
    "flush": ("store", "emptied"),
    "trim": ("store", "while the client is away, the log loses its beginning"),
}


async def numbers(history: History) -> AsyncIterator[AnyPacket]:
    """The agent of the stories: `1 2 ... `, a piece a number; it goes on where the history ends."""
    for i in range(history.pieces + 1, SAYS + 1):
        await asyncio.sleep(0.05)
        yield Content(f"{i} ")


ANSWER = "".join(f"{i} " for i in range(1, SAYS + 1))


def _decoded(payload: bytes) -> dict[str, Any]:
    """A frame's JSON object; empty where it is something else."""
    with suppress(ValueError):
        if isinstance(sent := json.loads(payload), dict):
            return sent
    return {}


class Blocks(Exception):
    """Raised in the middle of a client that is stuck."""

    broken = Broken("P2 exactly once", "a client that waits for what comes", "it keeps the loop for itself")


class Trial:
    """How a client fared. `broken`: the promise that it broke, `happened`: the faults until then, `story`: what was to be seen."""

    def __init__(self, client: Client, faults: Sequence[Fault]) -> None:
        self.client, self.faults = client, list(faults)
        self.happened: list[Fault] = []
        self.story, self.view = Story(), View()
        self.log: list[Entry] = []
        """What the witness has seen since the last gap."""
        self.words: list[str] = []
        self.shelf: dict[str, Any] = {"words": {}}
        self.broken: Broken | None = None
        self.began = self._came_by = time.monotonic()
        self._played = False
        self._frames = 0
        self._reloads = self._loses_receipt = False
        self._dialled: list[float] = []
        self._logs: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._store = f"fake://trial-{secrets.token_hex(8)}"
        self._line: FramedLine
        self._witness: Witness
        self._stage: Mapping[str, Any]

    @property
    def stuck(self) -> bool:
        """Whether the client keeps the loop for itself, or the story from its end; asked from another thread."""
        now = time.monotonic()
        return not self._played and (now - self._came_by > STUCK or now - self.began > LONG)

    async def run(self) -> None:
        """Raises Broken."""
        async with (
            AsyncExitStack() as stack,
            instances(numbers, 2, store=self._store, join=False, lease=LEASE) as (one, other),
            line_to((one, other), self._heard) as self._line,
            witness(other.url, "s", other.token("witness")) as self._witness,
        ):
            stack.push_async_callback(end, self._tasks)
            self._stage = {"line": self._line, "client": self, "one": one, "store": self}
            self.say("hello")
            self._soon(self._watch())
            life = self._soon(self._live(other.token("ann")))
            await self._over()
            await end({life})
            judge(self.view.entries, self.log, self.words, ANSWER)

    def play(self) -> None:
        """Play the story to its end, on a loop of its own."""
        state = random.getstate()
        random.seed(0)  # a learner's jitter is the same in every run
        with asyncio.Runner(loop_factory=HurriedLoop) as runner:
            try:
                runner.run(self.run())
            except Broken as broken:
                self.broken = broken
            except Blocks:
                self.broken = Blocks.broken
        self._played = True
        random.setstate(state)

    async def _over(self) -> None:
        """Wait until every fault has happened and the client has seen and said all. Raises Broken."""
        quiet = 0
        while not self.broken:
            self._came_by = time.monotonic()
            asked, ends = (sum(isinstance(e, kind) for e in self.log) for kind in (Prompt, End))
            idle = self.log and asked == ends and str(self.view.last) == self.log[-1].id and not self.shelf["words"]
            if quiet and idle and not self.faults:
                return
            if quiet >= PATIENCE:
                raise self._missing()
            if quiet and idle:
                await self._witness.session.prompt(f"and then {len(self.log)}")  # so that more comes, for the faults that are to happen
            self._changed.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
                    quiet = 0
            except TimeoutError:
                quiet += 1
        raise self.broken

    def _missing(self) -> Broken:
        head = self.log[-1].id if self.log else "0-0"
        if self.shelf["words"]:
            text = next(iter(self.shelf["words"].values()))["text"]
            return Broken("P4 receipts", f"a receipt for “{text}”, and that it is taken off the shelf", f"none {PATIENCE} s later")
        said = {entry.text for entry in self.log if isinstance(entry, Prompt)}
        if not self.view.lost and (missing := [text for text in self.words if text not in said]):
            return Broken(
                "P4 receipts", f"“{missing[0]}” in the log: a word stays on the shelf until its receipt comes", "it never arrived"
            )
        if str(self.view.last) == head:
            return Broken("P6 survives", "every turn comes to its end", f"the log stands still at {head} for {PATIENCE} s")
        return Broken("P2 exactly once", f"all up to {head}", f"the client stands at {self.view.last}, {PATIENCE} s later")

    async def _watch(self) -> None:
        """See what the witness sees."""
        told = 0
        while True:
            await self._witness.until(lambda w: len(w.seen) > told)  # noqa: B023  # it is awaited at once
            for entry in self._witness.seen[told:]:
                if not isinstance(entry, Gap):
                    self.story.tell("instance", "store", f"{entry.id} {type(entry).__name__.lower()}", "says")
            told, self.log = len(self._witness.seen), self._witness.log
            self._changed.set()

    # ---- the client's life ----

    async def _live(self, token: str) -> None:
        """Take what the client gives; where it is reloaded, begin it anew with what is on the shelf."""
        try:
            while True:
                self._reloads = False
                self.shelf = json.loads(json.dumps(self.shelf))
                async with aclosing(self.client(f"ws://127.0.0.1:{self._line.port}/s/s", token, self.shelf)) as entries:
                    async for entry in entries:
                        self._take(decode_sent(msgspec.json.encode(entry)))
                        self._changed.set()
                        if self._reloads:
                            break
                if not self._reloads:
                    raise Broken("P2 exactly once", "a client that goes on", "its generator came to an end")
        except Broken as broken:
            self._break(broken)
        except Blocks:
            self._break(Blocks.broken)
        except Exception as error:  # noqa: BLE001  # a learner's
            raised, at = f"it raised {type(error).__name__}: {error}", where(self.client, error)
            self._break(Broken("P2 exactly once", "a client that goes on", f"{raised} ({at})" if at else raised))

    def _take(self, entry: FromServer) -> None:
        if not isinstance(entry, Entry | Gap):
            raise Broken("P2 exactly once", "entries and gaps", f"a frame `{type(entry).__name__.lower()}`, which is neither")
        self.view.take(entry)

    def _break(self, broken: Broken) -> None:
        self.broken = self.broken or broken
        self._changed.set()

    # ---- what its line carries ----

    def _heard(self, frame: Frame | bytes, up: bool) -> None:
        """A frame, or (as bytes) the head of a handshake, has come through."""
        if isinstance(frame, bytes):
            if up:
                self._dial(dict(parse_qsl(urlsplit(frame.split(b" ")[1].decode("latin-1")).query)))
            elif self.faults and not self.faults[0].after:
                self._happen(self.faults.pop(0))
            return
        sent = _decoded(frame.payload) if frame.opcode == Opcode.TEXT else {"type": frame.name}
        if "type" not in sent:  # it comes from the client: a server's frame has one
            self._break(
                Broken(
                    "P4 receipts",
                    "words as they stand on the shelf: JSON objects with a `type`",
                    shorten(frame.payload.decode(errors="replace"), 60),
                )
            )
            return
        self._frames += not up
        if sent["type"] not in ("beat", "ping", "pong", "close"):
            self._tell(sent, up)
            self._changed.set()
        if up and self._loses_receipt:
            self._loses_receipt = False
            self.story.tell("client", "client", "the line is cut before the receipt")
            self._line.cut()
        elif self.faults and self.faults[0].after <= self._frames:
            self._happen(self.faults.pop(0))

    def _tell(self, sent: Mapping[str, Any], up: bool) -> None:
        is_entry = "id" in sent and sent["type"] != "receipt"
        about = " ".join(str(sent[key]) for key in ("status", "reason", "text") if sent.get(key))
        about += f", {self._log_number(sent['log'])}" if "log" in sent else ""
        text = shorten(f"{sent.get('id', '')} {sent['type']} {about}".strip(), 40)
        self.story.tell("client" if up else "instance", "instance" if up else "client", text, "entries" if is_entry else "")

    def _log_number(self, name: str) -> str:
        """Logs have random names; a story counts them."""
        return f"log {self._logs.setdefault(name, len(self._logs) + 1)}"

    def _dial(self, cursor: Mapping[str, str]) -> None:
        now = asyncio.get_running_loop().time()
        self._dialled = [then for then in self._dialled if then > now - WITHIN] + [now]
        of = f" of {self._log_number(cursor['log'])}" if "log" in cursor else ""
        self.story.tell("client", "instance", f"dials: after {cursor['after']}{of}" if "after" in cursor else "dials", "dials")
        self._changed.set()
        if len(self._dialled) > STORM:
            self._break(
                Broken("backoff", f"at most {STORM} dials in {WITHIN:.0f} s", "more: a server in need would be dialled without end")
            )

    # ---- faults ----

    def _happen(self, fault: Fault) -> None:
        self.happened.append(fault)
        self.story.tell(TOLD[fault.what][0], *TOLD[fault.what])
        if fault.where in ("line", "client"):  # at once, before the next frame
            strike(self._stage[fault.where], fault)
        else:
            self._soon(play(Schedule((msgspec.structs.replace(fault, after=0),)), self._witness, self._stage))
        if fault.what in ("stop", "freeze"):
            self._soon(self._end_leases())
        self._changed.set()

    async def _end_leases(self) -> None:
        await asyncio.sleep(LATE)
        async with open_store(self._store) as store:
            await served.end_leases(store)

    def say(self, text: str = "") -> None:
        """The person says something: it stands on the shelf until its receipt has come, and is said at each hello."""
        text, ref = text or f"word {len(self.words) + 1}", secrets.token_urlsafe(16)
        self.words.append(text)
        self.shelf["words"][ref] = {"type": "prompt", "text": text, "ref": ref}

    def receipt(self) -> None:
        """A word gets through, and its receipt does not."""
        self.say()
        self._loses_receipt = True
        self._line.cut()

    def reload(self) -> None:
        """With the next entry."""
        self._reloads = True

    async def flush(self, away: float = 0) -> None:
        """All is lost; then somebody says something, so that there is a new log.

        `away`: meanwhile the client's line is shut, for so many dials at most. When it comes back the new log is as long as the old one.
        """
        self.view.lost += 1
        if away:
            self.story.tell(TOLD["shut"][0], *TOLD["shut"])
            self._line.shut(away)
        await served.flush(self._store)
        asked = await self._witness.session.prompt("a new log")
        if away:
            await self._ended(asked.id)
            self._line.shut(0)

    async def trim(self, session: str) -> None:
        self.view.lost += 1
        self._line.shut(6)
        asked = await self._witness.session.prompt("while you were away")
        await self._ended(asked.id)
        await served.trim(self._store, session)

    async def _ended(self, prompt: str | None) -> None:
        """The witness has seen the whole answer to it."""
        await self._witness.until(lambda w: any(isinstance(e, End) and e.turn == f"{prompt}/agent" for e in w.seen))

    def _soon(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        return task
