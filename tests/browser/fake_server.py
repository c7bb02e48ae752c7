"""A stand-in for an instance: a log in a list for each session, the wire of the protocol in front of it, and faults on request.

The pages under test do not know it from the real one. What an agent would say, the test says: `say`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Struct
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from kit.packets import (
    START,
    SUBPROTOCOL,
    Answer,
    AnyPacket,
    AnyWord,
    Claim,
    Edit,
    End,
    Entry,
    EntryId,
    Gap,
    Hello,
    Prompt,
    Receipt,
    Result,
    Stop,
    Typing,
    Word,
    encode,
)
from kit.said import BadFrame, decode_said

AGENT = "scripted"


@dataclass
class Log:
    """What one session has said so far."""

    name: str = field(default_factory=lambda: secrets.token_hex(4))
    entries: list[Entry] = field(default_factory=list)
    begins_after: EntryId = START
    dropped: int = 0
    last: EntryId = START
    open_turns: list[str] = field(default_factory=list)
    outcomes: dict[str, Receipt] = field(default_factory=dict)
    pieces: dict[str, int] = field(default_factory=dict)
    answered: set[tuple[str, str]] = field(default_factory=set)
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)


@dataclass(eq=False)
class Visit:
    """One handshake: what the page asked for."""

    session: str
    after: str | None
    socket: ServerConnection


class FakeServer:
    """Serves any session. `visits` are the handshakes that were let in, `refusals` counts the others."""

    def __init__(self) -> None:
        self.url = ""
        self.visits: list[Visit] = []
        self.refusals = 0
        self.refuse_next = 0
        self.drop_receipts = 0
        self._logs: dict[str, Log] = {}
        self._tickets: dict[str, tuple[str, str]] = {}
        self._arrived = asyncio.Condition()
        self._live: set[Visit] = set()

    # ---- what a test does ----

    def ticket(self, session: str, origin: str) -> str:
        """A single-use ticket, bound to session and Origin."""
        ticket = secrets.token_urlsafe(16)
        self._tickets[ticket] = (session, origin)
        return ticket

    def redeem(self, ticket: str) -> tuple[str, str] | None:
        """The session and Origin that a ticket is for; it is spent."""
        return self._tickets.pop(ticket, None)

    def spend_tickets(self) -> None:
        """Every ticket that was given out is worth nothing now."""
        self._tickets.clear()

    async def say(self, session: str, *packets: AnyPacket, turn: str | None = None) -> list[str]:
        """An agent says something in the newest open turn, or in `turn`; the ids."""
        log = self.log(session)
        for packet in packets:
            name = turn or log.open_turns[-1]
            n = log.pieces.get(name, 0) + 1
            log.pieces[name] = n + packet.k - 1
            id = EntryId(log.last.epoch, log.last.n + 1)
            log.entries.append(msgspec.structs.replace(packet, id=str(id), from_=name.partition("/")[2], turn=name, n=n))
            if isinstance(packet, End):
                log.open_turns.remove(name)
            log.last = id
        async with log.grown:
            log.grown.notify_all()
        return [e.id for e in log.entries[-len(packets) :]]

    async def hear(self, session: str, word: AnyWord, by: str = "ann") -> Receipt:
        """A word of somebody, as if it had come over a socket."""
        log = self.log(session)
        if known := log.outcomes.get(word.ref):
            return Receipt(ref=word.ref, status="duplicate", id=known.id, was="applied" if known.status == "applied" else "too_late")
        if isinstance(word, Prompt):
            word = msgspec.structs.replace(word, to=word.to or AGENT)
        id = EntryId(log.last.epoch + 1, 0)
        status, ends = _outcome(log, word, id)
        log.entries.append(msgspec.structs.replace(word, id=str(id), prev=str(log.last), from_=by))
        log.last = id
        receipt = log.outcomes[word.ref] = Receipt(ref=word.ref, status=status, id=str(id))
        for turn in ends:
            await self.say(session, End(reason="replaced" if isinstance(word, Edit) else "stopped"), turn=turn)
        async with log.grown:
            log.grown.notify_all()
        return receipt

    async def wait_for(self, session: str, what: Callable[[Log], bool]) -> Log:
        """The log, as soon as it is so."""
        log = self.log(session)
        async with log.grown:
            await log.grown.wait_for(lambda: what(log))
        return log

    async def wait_for_visits(self, count: int) -> None:
        """Until that many handshakes were let in."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.visits) >= count)

    def trim(self, session: str, before: str) -> None:
        """Forget everything before this word."""
        log = self.log(session)
        cut = next(i for i, e in enumerate(log.entries) if e.id == before)
        log.begins_after = EntryId.parse(log.entries[cut - 1].id)
        log.dropped += cut
        del log.entries[:cut]

    def log(self, session: str) -> Log:
        return self._logs.setdefault(session, Log())

    async def cut(self, session: str, code: int | None = None, reason: str = "") -> None:
        """Lose every socket of the session: with a close frame if there is a `code`, else without a word."""
        for visit in [v for v in self._live if v.session == session]:
            if code is None:
                visit.socket.transport.abort()
                await visit.socket.wait_closed()
            else:
                await visit.socket.close(code, reason)

    async def beside(self, session: str, frame: Struct) -> None:
        """Send a frame that is not in the log to every page of the session."""
        for visit in [v for v in self._live if v.session == session]:
            await visit.socket.send(encode(frame), text=True)

    # ---- the wire ----

    async def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        ticket = next((o.removeprefix("ticket.") for o in offered if o.startswith("ticket.")), "")
        bound = self.redeem(ticket)
        session = urlsplit(request.path).path.removeprefix("/s/")
        if self.refuse_next or bound != (session, request.headers.get("Origin")):
            self.refuse_next = max(0, self.refuse_next - 1)
            self.refusals += 1
            return socket.respond(HTTPStatus.UNAUTHORIZED, "no such ticket\n")
        return None

    async def attend(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        path = urlsplit(socket.request.path)
        asked = {name: values[0] for name, values in parse_qs(path.query).items()}
        visit = Visit(path.path.removeprefix("/s/"), asked.get("after"), socket)
        self.visits.append(visit)
        async with self._arrived:
            self._arrived.notify_all()
        cursor, hello = self._greet(visit.session, asked, socket.request.headers["Origin"])
        await socket.send(encode(hello), text=True)
        self._live.add(visit)
        telling = asyncio.create_task(self._tell(visit, cursor))
        try:
            async for frame in socket:
                await self._listen(visit, frame)
        except ConnectionClosed:
            pass
        finally:
            telling.cancel()
            self._live.discard(visit)

    def _greet(self, session: str, asked: dict[str, str], origin: str) -> tuple[EntryId, Hello]:
        log = self.log(session)
        after, status, reason = log.begins_after, "fresh", None
        if "after" in asked:
            wanted = EntryId.parse(asked["after"])
            if asked.get("log") != log.name:
                status, reason = "gap", "other log"
            elif wanted < log.begins_after:
                status, reason = "gap", "trimmed"
            else:
                after, status = wanted, "resumed"
        elif log.begins_after > START:
            status, reason = "gap", "trimmed"
        return after, msgspec.convert(
            {
                "type": "hello", "session": session, "log": log.name, "after": str(after), "head": str(log.last),
                "status": status, "reason": reason, "ticket": self.ticket(session, origin),
            },
            Hello,
        )  # fmt: skip

    async def _tell(self, visit: Visit, cursor: EntryId) -> None:
        log = self.log(visit.session)
        told = log.dropped + sum(EntryId.parse(e.id) <= cursor for e in log.entries)
        while True:
            async with log.grown:
                while told >= log.dropped + len(log.entries):
                    await log.grown.wait()
            if told < log.dropped:
                told = log.dropped
                await visit.socket.send(encode(Gap(log=log.name, after=str(log.begins_after), reason="trimmed")), text=True)
            for entry in log.entries[told - log.dropped :]:
                await visit.socket.send(encode(entry), text=True)
                told += 1

    async def _listen(self, visit: Visit, frame: str | bytes) -> None:
        try:
            said = decode_said(frame)
        except BadFrame as bad:
            return await visit.socket.send(encode(bad.error), text=True)
        if isinstance(said, Typing):
            return await self.beside(visit.session, Typing(on=said.on, from_="ann"))
        if not isinstance(said, Word):
            return None
        receipt = await self.hear(visit.session, said)
        if self.drop_receipts:
            self.drop_receipts -= 1
            return visit.socket.transport.abort()
        return await visit.socket.send(encode(receipt), text=True)


def _outcome(log: Log, word: AnyWord, id: EntryId) -> tuple[Literal["applied", "too_late"], list[str]]:
    """What becomes of a word, and the turns that it ends."""
    match word:
        case Prompt():
            log.open_turns.append(f"{id}/{AGENT}")
            return "applied", []
        case Stop(turn=turn):
            ends = [t for t in log.open_turns if turn in (None, t)]
            return ("applied" if ends else "too_late"), ends
        case Edit(turn=turn):
            if turn not in log.open_turns:
                return "too_late", []
            log.open_turns.insert(0, f"{id}/{AGENT}")
            return "applied", [turn]
        case Answer(call=call) | Result(call=call) | Claim(call=call):
            kind = (type(word).__name__, call)
            first = kind not in log.answered
            log.answered.add(kind)
            return ("applied" if first else "too_late"), []
        case _:
            return "applied", []


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    """A server on a free port of loopback."""
    fake = FakeServer()
    async with serve(
        fake.attend, "127.0.0.1", 0, process_request=fake.admit, subprotocols=[SUBPROTOCOL], compression=None, close_timeout=1  # type: ignore[list-item]  # a plain str is a Subprotocol
    ) as server:  # fmt: skip
        fake.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield fake
