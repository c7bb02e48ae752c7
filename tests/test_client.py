"""Client: how it comes back, what it asks for then, and what its reader and its words see, against a server that follows a script."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from websockets import Headers, Request, Response
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

import kit.client
from kit.agents.scripted import scripted
from kit.client import Backoff, BadWord, NotLetIn, Session, SessionClosed, connect
from kit.packets import Beat, Content, End, Error, Gap, Hello, Prompt, Receipt, encode, frame_of, stored
from kit.server import serve

Turn = Callable[["Line"], Awaitable[None]]


class Line:
    """One connection, from the server's end."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def hello(self, after: str = "0-0", status: Any = "fresh", **fields: Any) -> None:
        await self.send(Hello(session="s", log="log", after=after, head=after, status=status, **fields))

    async def send(self, *frames: Any) -> None:
        for frame in frames:
            await self.socket.send(encode(frame), text=True)

    async def entry(self, id: str, text: str = "x") -> None:
        await self.socket.send(frame_of(id, stored(Content(text, turn="1-0/a", n=1))), text=True)

    async def word(self) -> dict[str, Any]:
        word: dict[str, Any] = json.loads(await self.socket.recv())
        return word

    async def until_closed(self) -> None:
        await self.socket.wait_closed()


class Script:
    """A server whose n-th connection takes the n-th turn, and the last one all that follow; `dials` are the queries it was asked with."""

    def __init__(self, *turns: Turn | HTTPStatus | Response) -> None:
        self.turns = turns
        self.dials: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self.url = ""
        self._dialled = asyncio.Condition()

    async def dialled(self, count: int) -> None:
        """Wait for so many connections."""
        async with self._dialled:
            await self._dialled.wait_for(lambda: len(self.dials) >= count)

    async def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        self.dials.append(dict(parse_qsl(urlsplit(request.path).query)))
        self.tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        async with self._dialled:
            self._dialled.notify_all()
        turn = self._turn(len(self.dials))
        if isinstance(turn, Response):
            return turn
        return socket.respond(turn, "because\n") if isinstance(turn, HTTPStatus) else None

    async def serve(self, socket: ServerConnection) -> None:
        turn = self._turn(len(self.dials))
        assert not isinstance(turn, HTTPStatus | Response)
        await turn(Line(socket))

    def _turn(self, n: int) -> Turn | HTTPStatus | Response:
        return self.turns[min(n, len(self.turns)) - 1]


@asynccontextmanager
async def scripted_server(*turns: Turn | HTTPStatus | Response) -> AsyncIterator[Script]:
    script = Script(*turns)
    options: dict[str, Any] = {"process_request": script.admit, "subprotocols": ["kit.v1"], "close_timeout": 0.1}
    async with serve_websocket(script.serve, "127.0.0.1", 0, **options) as server:
        script.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield script


class Dice(random.Random):
    """Chance that always throws the low end (or the `high` one), and remembers what it was asked for."""

    def __init__(self, *, high: bool = False) -> None:
        super().__init__(0)
        self.high = high
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return b if self.high else a


async def idle(line: Line) -> None:
    await line.hello()
    await line.until_closed()


def to(script: Script, **options: Any) -> Any:
    options.setdefault("backoff", Backoff(base=0.001, rng=Dice()))
    return connect(script.url, session="s", **{"token": "t", **options})


async def take(session: Session, count: int) -> list[str]:
    """The ids of the next entries."""
    ids: list[str] = []
    async for entry in session:
        assert not isinstance(entry, Gap)
        ids.append(entry.id)
        if len(ids) == count:
            break
    return ids


# ---- backoff ----


def test_the_first_retry_is_at_once_then_full_jitter_up_to_a_limit() -> None:
    """Uniform in 0..cap, with caps 0, base, 2 base, 4 base ... limit."""
    dice = Dice()
    backoff = Backoff(base=0.5, limit=3.0, rng=dice)
    for _ in range(6):
        backoff.next()
    assert dice.asked == [(0, 0), (0, 0.5), (0, 1.0), (0, 2.0), (0, 3.0), (0, 3.0)]
    backoff.reset()
    backoff.next()
    assert dice.asked[-1] == (0, 0)


def test_a_herd_spreads_over_the_whole_time() -> None:
    """A thousand clients at their fifth try: each tenth of the cap gets its share, the first one too."""
    delays = []
    for seed in range(1000):
        backoff = Backoff(base=1.0, limit=8.0, rng=random.Random(seed))
        for _ in range(4):
            backoff.next()
        delays.append(backoff.next())
    tenths = [sum(i * 0.8 <= delay < (i + 1) * 0.8 for delay in delays) for i in range(10)]
    assert sum(tenths) == 1000
    assert min(tenths) > 50


def test_a_hundred_tries_do_not_overflow() -> None:
    backoff = Backoff(rng=random.Random(0))
    backoff.tries = 5000
    assert 0 <= backoff.next() <= 30


@pytest.mark.parametrize(("code", "reason"), [(1001, ""), (1011, ""), (1012, "0"), (1012, ""), (4401, "")])
async def test_a_server_that_accepts_and_closes_is_not_dialled_in_a_storm(code: int, reason: str) -> None:
    """The handshake and the hello reset nothing: the caps grow, also where the server says `come back at once`."""

    async def closes(line: Line) -> None:
        await line.hello()
        await line.socket.close(code, reason)

    loop = asyncio.get_running_loop()
    dice = Dice(high=True)
    async with scripted_server(closes) as script, to(script, backoff=Backoff(base=0.01, rng=dice)):
        begin = loop.time()
        await script.dialled(6)
        assert loop.time() - begin > 0.01 + 0.02 + 0.04 + 0.08 - 0.001
    assert [cap for _, cap in dice.asked if cap][:4] == [0.01, 0.02, 0.04, 0.08]


async def test_the_first_entry_resets_the_delay() -> None:
    """A connection that brought something was a good one: the next retry is at once again."""

    async def brings(line: Line) -> None:
        await line.hello()
        await line.entry(f"1-{len(script.dials)}")

    dice = Dice()
    async with scripted_server(brings) as script, to(script, backoff=Backoff(base=1.0, rng=dice)) as session:
        assert await take(session, 5) == ["1-1", "1-2", "1-3", "1-4", "1-5"]
    assert set(dice.asked) == {(0, 0.0)}


async def test_calm_resets_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that lasted was a good one though nothing was said; one that did not last was not."""

    async def token() -> str:
        monkeypatch.setattr(kit.client, "CALM", 3600.0 if backoff.tries < 3 else 0.02)
        return "t"

    async def lasts(line: Line) -> None:
        await line.hello()
        if len(script.dials) > 3:
            await backoff.was_reset.wait()

    class Watched(Backoff):
        def __init__(self) -> None:
            super().__init__(base=0.001, rng=Dice())
            self.was_reset = asyncio.Event()

        def reset(self) -> None:
            super().reset()
            self.was_reset.set()

    backoff = Watched()
    async with scripted_server(lasts) as script, to(script, backoff=backoff, token=token):
        await script.dialled(4)
        assert (backoff.tries, backoff.was_reset.is_set()) == (3, False)
        await script.dialled(5)
        assert backoff.tries == 1


# ---- the delay that a server names ----


def closes(code: int, reason: str) -> Turn:
    async def turn(line: Line) -> None:
        await line.hello()
        await line.socket.close(code, reason)

    return turn


def sent_away(*headers: tuple[str, str]) -> Response:
    return Response(503, "Service Unavailable", Headers([("Content-Length", "0"), *headers]), b"")


async def first_wait(turn: Turn | Response) -> str:
    """What the client says that it waits after such a connection."""
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def listen(state: str) -> None:
        if state.startswith("reconnecting") and not said.done():
            said.set_result(state.removeprefix("reconnecting in "))

    async with scripted_server(turn, idle) as script, to(script, backoff=Backoff(rng=Dice(high=True))) as session:
        session.on_state = listen
        return await said


@pytest.mark.parametrize("always", [False, True])
async def test_what_on_state_raises_is_raised_where_somebody_waits(always: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Such as a pipe that nobody reads any more: it is no network's trouble, and it ends the session."""

    def listen(state: str) -> None:
        if always or state.startswith("reconnecting"):
            raise BrokenPipeError("the test reads no more")

    async with asyncio.timeout(10), scripted_server(closes(1001, ""), idle) as script, to(script) as session:
        session.on_state = listen
        with pytest.raises(BrokenPipeError, match="reads no more"):
            await anext(aiter(session))
        with pytest.raises(BrokenPipeError, match="reads no more"):
            await session.prompt("hi")
    assert ("`on_state` failed at its end" in caplog.text) is always


NAMED: dict[str, tuple[Turn | Response, str]] = {
    "1012 with ms": (closes(1012, "1200"), "1.2 s"),
    "1012 at once": (closes(1012, "0"), "0.0 s"),
    "less than a slot": (closes(1012, "99"), "0.0 s"),
    "an hour": (closes(1012, "3600000"), "60.0 s"),
    "a word": (closes(1012, "soon"), "0.0 s"),
    "a digit that is no number": (closes(1012, "\u00b2"), "0.0 s"),
    "too many digits": (closes(1012, "9" * 120), "0.0 s"),
    "another code": (closes(1001, "1200"), "0.0 s"),
    "503 with ms": (sent_away(("Retry-After", "7"), ("retry-after-ms", "1200")), "1.2 s"),
    "503 with less than a slot": (sent_away(("retry-after-ms", "3")), "0.1 s"),
    "503 at once": (sent_away(("retry-after-ms", "0")), "0.0 s"),
    "503 with seconds": (sent_away(("Retry-After", "7")), "8.0 s"),
    "503 for an hour": (sent_away(("Retry-After", "3600")), "60.0 s"),
    "503 with a date": (sent_away(("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT")), "0.0 s"),
    "503 with two opinions": (sent_away(("Retry-After", "7"), ("Retry-After", "8")), "0.0 s"),
    "503 with too many digits": (sent_away(("retry-after-ms", "9" * 5000)), "0.0 s"),
    "503 and no more": (sent_away(), "0.0 s"),
}
"""How a first connection ends, and what a client then waits; its own first delay would be 0."""


@pytest.mark.parametrize("how", NAMED)
async def test_the_delay_that_a_server_names_is_kept_within_bounds(how: str) -> None:
    """A slot to the millisecond; whole seconds and up to one more by chance, as many were told the same; nonsense is passed over."""
    turn, waited = NAMED[how]
    assert await first_wait(turn) == waited


async def test_a_slot_is_taken_as_it_was_told() -> None:
    """No chance is added: the server has spread its clients already."""
    loop = asyncio.get_running_loop()
    dice = Dice(high=True)
    async with (
        scripted_server(closes(1012, "120"), sent_away(("retry-after-ms", "110")), idle) as script,
        to(script, backoff=Backoff(rng=dice)),
    ):
        await script.dialled(1)
        begin = loop.time()
        await script.dialled(3)
        assert loop.time() - begin >= 0.229
    assert dice.asked == [(0, 0), (0, 0.5)]  # its own delays, which grow all the same


# ---- not let in ----


@pytest.mark.parametrize("status", [HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND])
async def test_who_is_not_let_in_is_told_and_does_not_try_again(status: HTTPStatus) -> None:
    """The iterator and the words raise it, those that wait and those that come later."""
    async with scripted_server(status) as script, to(script) as session:
        waiting = asyncio.create_task(session.prompt("hi"))
        for attempt in (take(session, 1), waiting, session.prompt("ho"), take(session, 1)):
            with pytest.raises(NotLetIn, match=f"{int(status)}.*because") as caught:
                await attempt
            assert caught.value.status == status
        assert session.state == "closed"
    assert len(script.dials) == 1


@pytest.mark.parametrize("status", [HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS])
async def test_a_server_in_trouble_is_tried_again(status: HTTPStatus) -> None:
    async def one(line: Line) -> None:
        await line.hello()
        await line.entry("1-1")
        await line.until_closed()

    async with scripted_server(status, status, one) as script, to(script) as session:
        assert await take(session, 1) == ["1-1"]
    assert len(script.dials) == 3


async def test_each_dial_asks_for_a_token() -> None:
    """An async function gives a fresh one; where it fails, whoever waits hears its own error."""
    tokens = iter(["one", "two"])

    async def token() -> str:
        try:
            return next(tokens)
        except StopIteration:
            raise LookupError("no more tokens") from None

    async def closes(line: Line) -> None:
        await line.hello()

    backoff = Backoff(base=0.001, rng=Dice())
    async with scripted_server(closes) as script, connect(script.url, session="s", token=token, backoff=backoff) as session:
        with pytest.raises(LookupError, match="no more tokens"):
            async with asyncio.timeout(5.0):
                await take(session, 1)
    assert script.tokens == ["one", "two"]


async def test_a_token_that_is_shown_is_no_other_way_to_get_one() -> None:
    """The next dial asks the function again: what was shown may have run out by then."""
    tokens = iter(["one", "two"])

    async def token() -> str:
        return next(tokens)

    async def renewed(line: Line) -> None:
        await line.hello()
        await line.word()

    async def again(line: Line) -> None:
        await line.hello()
        await line.entry("1-1")
        await line.until_closed()

    backoff = Backoff(base=0.001, rng=Dice())
    async with scripted_server(renewed, again) as script, connect(script.url, session="s", token=token, backoff=backoff) as session:
        while session.state != "connected":  # noqa: ASYNC110  # it is told by a function, once
            await asyncio.sleep(0)
        await session.renew("shown")
        await take(session, 1)
    assert script.tokens == ["one", "two"]


async def test_a_server_that_is_not_there_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again without end, and whoever mistyped the port should not wait in silence."""
    async with connect("ws://127.0.0.1:1", session="s", token="t", backoff=Backoff(base=0.001, limit=0.001)) as session:
        states: list[str] = []
        session.on_state = states.append
        while len(states) < 5:  # noqa: ASYNC110  # the same
            await asyncio.sleep(0.001)
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING" and record.name == "kit.client"]
    assert "no answer at ws://127.0.0.1:1 yet" in told


async def test_a_certificate_that_does_not_verify_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def untrusted(*_: Any, **__: Any) -> None:
        raise SSLCertVerificationError(1, "certificate verify failed: certificate has expired")

    monkeypatch.setattr("kit.client.connect_websocket", untrusted)
    async with connect("wss://127.0.0.1:1", session="s", token="t") as session:
        with pytest.raises(SSLCertVerificationError, match="has expired"):
            await session.prompt("hi")


async def test_a_wrong_address_is_told() -> None:
    """Not a scheme of WebSocket: there is nothing to wait for."""
    async with connect("http://127.0.0.1:1", session="s", token="t") as session:
        with pytest.raises(Exception, match=r"http://127\.0\.0\.1:1"):
            async with asyncio.timeout(5.0):
                await session.prompt("hi")


# ---- the cursor ----


async def test_it_comes_back_with_what_arrived_and_shows_what_was_taken() -> None:
    """`after` is the reader's: it survives the program. The redial asks after what has arrived, so nothing comes twice."""

    async def three(line: Line) -> None:
        await line.hello()
        for id in ("1-1", "1-2", "1-3"):
            await line.entry(id)

    async def more(line: Line) -> None:
        await line.hello("1-3", "resumed")
        await line.entry("1-4")
        await line.until_closed()

    async with scripted_server(three, more) as script, to(script) as session:
        await script.dialled(2)
        assert script.dials == [{}, {"after": "1-3", "log": "log"}]
        untaken = session.after
        assert untaken is None
        assert await take(session, 1) == ["1-1"]
        assert (session.after, session.log) == ("1-1", "log")
        assert await take(session, 3) == ["1-2", "1-3", "1-4"]
        assert session.after == "1-4"


async def test_it_goes_on_where_an_earlier_program_stood() -> None:
    async with scripted_server(idle) as script, to(script, after="7-3", log="old"):
        await script.dialled(1)
    assert script.dials == [{"after": "7-3", "log": "old"}]


async def test_what_comes_twice_is_taken_once() -> None:
    """A server that repeats itself does not make the reader see double."""

    async def repeats(line: Line) -> None:
        await line.hello()
        for id in ("1-1", "1-2", "1-1", "1-2", "1-3"):
            await line.entry(id)
        await line.until_closed()

    async with scripted_server(repeats) as script, to(script) as session:
        assert await take(session, 3) == ["1-1", "1-2", "1-3"]


async def test_a_gap_is_told_and_moves_the_cursor() -> None:
    """Back, too: ids of a new log are lower. What was drawn before is void."""

    async def gap(line: Line) -> None:
        await line.hello("0-0", "gap", reason="other log")
        await line.send(Gap(log="new", after="0-0", reason="other log"))
        await line.entry("1-1")
        await line.until_closed()

    async with scripted_server(gap) as script, to(script, after="9-9", log="old") as session:
        seen = []
        async for entry in session:
            seen.append(entry)
            if len(seen) == 2:
                break
        assert isinstance(seen[0], Gap)
        assert (session.after, session.log) == ("1-1", "new")
        assert session.state == "gap: other log"


async def test_silence_is_a_dead_socket() -> None:
    """A server that hangs without closing: after `silence` it is dialled again; a beat is a sign of life."""
    beaten = asyncio.Event()

    async def hangs(line: Line) -> None:
        await line.hello()
        for _ in range(5):
            await line.send(Beat())
        beaten.set()
        await line.until_closed()

    async with scripted_server(hangs, idle) as script, to(script, silence=0.05):
        await script.dialled(2)
        assert beaten.is_set()


async def test_a_server_that_is_frozen_is_left_at_once() -> None:
    """It answers no close either: the client does not wait for that."""

    async def freezes(line: Line) -> None:
        await line.hello()
        line.socket.transport.pause_reading()
        await line.until_closed()

    async with scripted_server(freezes, idle) as script, to(script, silence=0.05):
        async with asyncio.timeout(5.0):  # to wait for the close would take the library's ten
            await script.dialled(2)


async def test_the_states_are_told_in_words() -> None:
    states: list[str] = []

    async def once(line: Line) -> None:
        await line.hello()
        await line.entry("1-1")

    async def again(line: Line) -> None:
        await line.hello("1-1", "resumed")
        await line.entry("1-2")
        await line.until_closed()

    async with scripted_server(once, again) as script, to(script) as session:
        assert session.state == "connecting"
        session.on_state = states.append
        await take(session, 2)
    assert states == ["connected", "reconnecting in 0.0 s", "resumed after 1-1", "closed"]


# ---- words ----


async def test_a_word_without_a_receipt_is_said_again_with_the_same_ref() -> None:
    """On the next connections, until one answers; the receipt that it gets is the word's."""
    heard: list[str] = []

    async def drops(line: Line) -> None:
        await line.hello()
        heard.append((await line.word())["ref"])

    async def answers(line: Line) -> None:
        await line.hello()
        word = await line.word()
        heard.append(word["ref"])
        await line.send(Receipt(ref=word["ref"], status="duplicate", id="1-0", was="applied"))
        await line.until_closed()

    async with scripted_server(drops, drops, answers) as script, to(script) as session:
        receipt = await session.prompt("hi")
    assert (receipt.status, receipt.id) == ("duplicate", "1-0")
    assert len(heard) == 3
    assert len(set(heard)) == 1
    assert len(heard[0]) >= 16


async def test_a_claim_whose_receipt_was_lost_is_told_as_what_it_was() -> None:
    """Whoever runs only what was `applied` would else leave an action that is its own, and nobody else's, for ever."""

    async def drops(line: Line) -> None:
        await line.hello()
        await line.word()

    async def answers(line: Line) -> None:
        await line.hello()
        await line.send(Receipt(ref=(await line.word())["ref"], status="duplicate", id="2-0", was="applied"))
        await line.send(Receipt(ref=(await line.word())["ref"], status="duplicate", id="3-0", was="too_late"))
        await line.until_closed()

    async with scripted_server(drops, answers) as script, to(script) as session:
        assert (await session.claim("call-1")).status == "applied"
        assert (await session.claim("call-2")).status == "too_late"


async def test_a_word_with_a_receipt_is_not_said_again() -> None:
    async def answers(line: Line) -> None:
        await line.hello()
        word = await line.word()
        await line.send(Receipt(ref=word["ref"], status="applied", id="1-0"))

    later: list[dict[str, Any]] = []

    async def listens(line: Line) -> None:
        await line.hello()
        later.append(await line.word())
        await line.send(Receipt(ref=later[-1]["ref"], status="applied", id="2-0"))
        await line.until_closed()

    async with scripted_server(answers, listens) as script, to(script) as session:
        await session.prompt("first")
        await script.dialled(2)
        await session.prompt("second")
    assert [word["text"] for word in later] == ["second"]


async def test_words_in_flight_each_get_their_own_receipt() -> None:
    """In whatever order the receipts come."""

    async def reversed_(line: Line) -> None:
        await line.hello()
        words = [await line.word() for _ in range(5)]
        for word in reversed(words):
            await line.send(Receipt(ref=word["ref"], status="applied", id=f"{word['text']}-0"))
        await line.until_closed()

    async with scripted_server(reversed_) as script, to(script) as session:
        receipts = await asyncio.gather(*(session.prompt(str(i)) for i in range(1, 6)))
    assert [receipt.id for receipt in receipts] == ["1-0", "2-0", "3-0", "4-0", "5-0"]


async def test_a_word_that_the_server_cannot_read_raises() -> None:
    """The oldest that waits has the error; a refused renewal is no word's, and the other words get their receipts."""

    async def reads(line: Line) -> None:
        await line.hello()
        await line.word()
        second = await line.word()
        await line.send(Error(code="bad_token", text="the token has expired", at="token"))
        await line.send(Error(code="bad_field", text="no such field", at="text"))
        await line.send(Receipt(ref=second["ref"], status="applied", id="1-0"))
        await line.until_closed()

    async with scripted_server(reads) as script, to(script) as session:
        first = asyncio.create_task(session.prompt("bad"))
        second = asyncio.create_task(session.prompt("good"))
        with pytest.raises(BadWord, match=r"no such field \(at `text`\)"):
            await first
        assert (await second).status == "applied"


async def test_a_word_larger_than_any_frame_is_not_sent() -> None:
    """The server would close the connection with 1009, each time that it is said again."""
    async with scripted_server(idle) as script, to(script) as session:
        with pytest.raises(BadWord, match="at most 65536 bytes"):
            await session.prompt("x" * 70_000)
    assert len(script.dials) <= 1


async def test_a_word_that_is_given_up_is_forgotten() -> None:
    """Cancelled, it is not said again on the next connection."""
    heard: list[str] = []
    first, given_up = asyncio.Event(), asyncio.Event()

    async def hears(line: Line) -> None:
        await line.hello()
        heard.append((await line.word())["text"])
        first.set()
        await given_up.wait()

    async def listens(line: Line) -> None:
        await line.hello()
        word = await line.word()
        heard.append(word["text"])
        await line.send(Receipt(ref=word["ref"], status="applied", id="1-0"))
        await line.until_closed()

    async with scripted_server(hears, listens) as script, to(script) as session:
        waiting = asyncio.create_task(session.prompt("never mind"))
        await first.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        given_up.set()
        await script.dialled(2)
        await session.prompt("this")
    assert heard == ["never mind", "this"]


# ---- a reader that does not read ----


async def test_a_reader_that_does_not_read_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client stops reading its socket at AHEAD entries, so that the server's sends block; then all come, in order."""
    monkeypatch.setattr(kit.client, "AHEAD", 20)
    count, sent, stuck = 2_000, [0], asyncio.Event()

    async def pours(line: Line) -> None:
        await line.hello()
        for n in range(1, count + 1):
            sending = asyncio.ensure_future(line.entry(f"1-{n}", "x" * 20_000))
            if sending not in (await asyncio.wait({sending}, timeout=0.2))[0]:
                stuck.set()
            await sending
            sent[0] = n
        await line.until_closed()

    async with scripted_server(pours) as script, to(script) as session:
        await stuck.wait()
        assert sent[0] < count
        assert await take(session, count) == [f"1-{n}" for n in range(1, count + 1)]


async def test_whoever_waits_for_a_receipt_need_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that only says words is not stuck behind entries that nobody takes."""
    monkeypatch.setattr(kit.client, "AHEAD", 5)

    async def pours(line: Line) -> None:
        await line.hello()
        for n in range(1, 200):
            await line.entry(f"1-{n}")
        word = await line.word()
        await line.send(Receipt(ref=word["ref"], status="applied", id="2-0"))
        await line.until_closed()

    async with scripted_server(pours) as script, to(script) as session:
        await script.dialled(1)
        async with asyncio.timeout(5.0):
            assert (await session.prompt("hi")).status == "applied"


# ---- the end ----


async def test_the_end_of_the_block_is_clean() -> None:
    """No task is left, the server sees a proper close, and who still waits or comes later is told."""
    code: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def notes(line: Line) -> None:
        await line.hello()
        assert (await line.word())["text"] == "hi"
        await line.until_closed()
        code.set_result(line.socket.close_code)

    async with scripted_server(notes) as script:
        before = asyncio.all_tasks()
        async with to(script) as session:
            connected = asyncio.Event()
            session.on_state = lambda _: connected.set()
            waiting = asyncio.create_task(session.prompt("hi"))
            reading = asyncio.create_task(take(session, 1))
            await connected.wait()
        for attempt in (waiting, reading, session.prompt("late"), take(session, 1)):
            with pytest.raises(SessionClosed, match="connect again"):
                await attempt
        assert await code == 1000
        assert not {task for task in asyncio.all_tasks() - before if task.get_name() == "session s"}


@pytest.mark.parametrize("frame", [b"{", b'{"type":"shout"}', b'{"type":"content","id":"nonsense","text":"x"}', b"\xff"])
async def test_a_server_of_another_protocol_does_not_leave_anybody_waiting(frame: bytes) -> None:
    """It is dialled again, or its fault is told: never silence."""

    async def strange(line: Line) -> None:
        await line.hello()
        await line.socket.send(frame)
        await line.until_closed()

    async with scripted_server(strange) as script, to(script) as session:
        reading = asyncio.create_task(take(session, 1))
        redialled = asyncio.create_task(script.dialled(2))
        async with asyncio.timeout(5.0):
            done, _ = await asyncio.wait({reading, redialled}, return_when=asyncio.FIRST_COMPLETED)
        assert done
        for task in (reading, redialled):
            task.cancel()
        await asyncio.gather(reading, redialled, return_exceptions=True)


# ---- with the real server ----


async def test_a_session_lives_through_cuts(store: str) -> None:
    """The socket is cut after each few entries: every entry comes once, in order, and the prompt is answered once."""
    text = [Content(str(n)) for n in range(200)]
    async with serve(scripted(text, pace=2000), store=store, join=False) as server:
        backoff = Backoff(base=0.001, rng=random.Random(1))
        async with connect(server.url, session="s", token=server.token("ann"), backoff=backoff) as session:
            await session.prompt("go")
            said: list[str] = []
            async for entry in session:
                match entry:
                    case Content(text=piece):
                        said.append(piece)
                        if len(said) % 20 == 0:
                            await server.cut("s")
                    case End():
                        break
                    case Prompt():
                        assert not said
            assert said == [str(n) for n in range(200)]


async def test_the_end_of_the_block_leaves_no_socket_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the library has stopped reading: then it never hears that its close was answered."""
    monkeypatch.setattr(kit.client, "AHEAD", 5)
    poured: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def pours(line: Line) -> None:
        await line.hello()
        for n in range(1, 200):
            await line.entry(f"1-{n}")
        poured.set_result(None)
        await line.until_closed()

    async with scripted_server(pours) as script:
        async with to(script) as session:
            await poured
            assert await take(session, 1) == ["1-1"]
            socket = session._socket
        assert socket is not None
        assert socket.transport.is_closing()


async def test_a_block_that_is_cancelled_while_it_ends_tells_who_waits() -> None:
    """Its server answers no close, and nobody has the time to wait for that: the socket is dropped, and no receipt is waited for."""

    async def freezes(line: Line) -> None:
        await line.hello()
        line.socket.transport.pause_reading()
        await line.until_closed()

    async with scripted_server(freezes) as script:
        connected: asyncio.Future[Session] = asyncio.get_running_loop().create_future()

        async def visit() -> None:
            async with to(script) as session:
                session.on_state = lambda _: connected.done() or connected.set_result(session)
                await asyncio.Event().wait()  # cancelled

        visiting = asyncio.create_task(visit())
        socket = (await connected)._socket
        waiting = asyncio.create_task((await connected).prompt("hi"))
        visiting.cancel()
        await asyncio.sleep(0.01)
        visiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await visiting
        with pytest.raises(SessionClosed):
            await waiting
        assert socket is not None
        assert socket.transport.is_closing()
