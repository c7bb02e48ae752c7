"""Client: a session seen from outside: `async for entry in session`, `await session.prompt(...)`.

It keeps a cursor and the words that have no receipt. Whatever happens to the socket, it comes back, says where it stands, and says those
words again; the server gives the log after the cursor, and applies each word once.

How it comes back: at once the first time; then after a delay with full jitter, so that clients that lost the same server don't come back
together. The delay is reset by the first entry or by 5 s of calm, not by the handshake: a server that accepts and closes would
otherwise be dialled without end. A server may name the delay itself, with a 503 or in a close with 1012: then it is a slot of this client's
own (kit/slots.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from websockets import ConnectionClosed, Headers, InvalidHandshake, InvalidStatus, Subprotocol
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket

from kit.ending import end, finish
from kit.packets import (
    MAX_FRAME,
    SUBPROTOCOL,
    Answer,
    Beat,
    Claim,
    CloseCode,
    Edit,
    Entry,
    EntryId,
    Error,
    Gap,
    Hello,
    Prompt,
    Receipt,
    Renew,
    Result,
    Said,
    Stop,
    Typing,
    Who,
    Word,
    decode_sent,
    encode,
    new_ref,
)

log = logging.getLogger("kit.client")
_quiet = logging.getLogger("kit.client.websocket")
_quiet.setLevel(logging.INFO)  # below, `websockets` logs every header and frame, and so the token
SILENCE = 25.0
"""Seconds without a frame (the server sends a beat every 10) after which the socket is taken for dead."""
CALM = 5.0
"""Seconds that a connection must last to count as a good one."""
SLOT, LONGEST = 0.1, 60.0
"""Seconds that a server may name as a delay: with less it would be dialled without end, and with more it may be mistaken."""
AHEAD = 10_000
"""Entries that may wait for their reader before the client stops reading the socket."""


_DIRECT: dict[str, dict[str, Any]] = {host: {"proxy": None} for host in ("127.0.0.1", "::1", "localhost")}
"""This machine is never asked for through HTTP_PROXY."""


class NotLetIn(Exception):
    """The server refused before the 101: `status` is 400, 401, 403 or 404; trying again as one is will not help."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the server refused the connection ({status}): {text}")
        self.status = status


class BadWord(Exception):
    """The server could not read what was said: a fault of the program, not of the person."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.text} (at `{error.at}`)" if error.at else error.text)
        self.error = error


class SessionClosed(Exception):
    """The block that held the session has ended; no receipt will come, and no entry."""

    def __init__(self, name: str) -> None:
        super().__init__(f"session {name!r} was closed: connect again, with its `after` and `log` to go on where it stood")


class Backoff:
    """Full jitter (delay uniform in 0..cap, the cap doubling): the first retry at once, then from `base` up to `limit` seconds.

    Why 15 s: of 2,000 clients that lost their host for 20 s half are back within 4.2 s, at most 37 in 100 ms, as even as chance gets at
    that median. With 30 s it is 8.3 s and 24, 9 % above chance; and clients that knock that rarely leave slots unused (kit/slots.py).
    kit/lab/herd.py measures all of it.
    """

    def __init__(self, base: float = 0.5, limit: float = 15.0, rng: random.Random | None = None) -> None:
        self.base, self.limit, self.rng = base, limit, rng or random.Random()
        self.tries = 0

    def next(self) -> float:
        """Seconds to wait before the next try."""
        cap = 0.0 if self.tries == 0 else min(self.limit, self.base * 2 ** min(self.tries - 1, 64))  # 2**1024 is more than a float holds
        self.tries += 1
        return self.rng.uniform(0, cap)

    def reset(self) -> None:
        self.tries = 0


class Session:
    """One session. Iterate over it for its entries in order, each once; a `Gap` among them says that what was seen before is void."""

    def __init__(
        self, url: str, name: str, token: str | Callable[[], Awaitable[str]], after: str | None, log: str | None, **options: Any
    ) -> None:
        self.name = name
        self.after = after
        """The cursor: the id of the last entry that was taken from the iterator; with `log`, it is all that is needed to come back."""
        self.log = log
        self.state = "connecting"
        """In words: connecting, connected, resumed after 3-17, gap: trimmed, reconnecting in 1.2 s, closed."""
        self.on_state: Callable[[str], None] = lambda _: None
        self.on_aside: Callable[[Typing | Who], None] = lambda _: None
        self._url, self._token = url.rstrip("/"), token
        self._backoff: Backoff = options.pop("backoff", None) or Backoff()
        self._silence: float = options.pop("silence", SILENCE)
        self._options = options
        self._read = EntryId.parse(after) if after else None  # what has arrived; `after` is what was taken
        self._log_read = log
        self._entries: deque[Entry | Gap] = deque()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._words: dict[str, tuple[Said, asyncio.Future[Receipt]]] = {}
        self._here: dict[str, tuple[float, list[str]]] = {}
        self._socket: ClientConnection | None = None
        self._failure: Exception | None = None

    # ---- reading ----

    async def __aiter__(self) -> AsyncIterator[Entry | Gap]:
        while True:
            while self._entries:
                entry = self._entries.popleft()
                self._taken.set()
                if isinstance(entry, Gap):
                    self.after, self.log = entry.after, entry.log
                else:
                    self.after = entry.id
                yield entry
            if self._failure:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()

    # ---- words ----

    async def prompt(self, text: str, to: str | None = None) -> Receipt:
        """Ask an agent (the session's default one, without `to`). A receipt that is `refused` says why: then nobody will answer."""
        return await self.say(Prompt(text=text, to=to))

    async def stop(self, turn: str | None = None) -> Receipt:
        """Stop a turn, or all."""
        return await self.say(Stop(turn=turn))

    async def edit(self, turn: str, text: str) -> Receipt:
        """Replace a turn by one with another text, which knows what was said."""
        return await self.say(Edit(turn=turn, text=text))

    async def answer(self, call: str, text: str) -> Receipt:
        """Answer an `ask`, or approve (`yes`) or decline an action."""
        return await self.say(Answer(call=call, text=text))

    async def claim(self, call: str) -> Receipt:
        """Claim an action that a client is to run; run it only where the receipt says `applied`.

        It says so as well where the claim was repeated on another connection, as the first receipt was lost.
        """
        receipt = await self.say(Claim(call=call))
        return msgspec.structs.replace(receipt, status=receipt.was) if receipt.status == "duplicate" and receipt.was else receipt

    async def result(self, call: str, value: Any = msgspec.UNSET, *, error: str | msgspec.UnsetType = msgspec.UNSET) -> Receipt:
        """Give the result of an action, or the error in words."""
        return await self.say(Result(call=call, value=value, error=error))

    async def say(self, word: Said) -> Receipt:
        """Say a word until its receipt has come, over as many connections as that takes. Raises BadWord.

        Given up (a timeout, a cancellation) it may have been said: to say the same again, give it the same `ref` (`new_ref`).
        """
        word = new_ref(word)
        if (size := len(encode(word))) > MAX_FRAME:  # the server would close the connection, each time it is said
            raise BadWord(Error(code="too_large", text=f"a frame has at most {MAX_FRAME} bytes, this one {size}"))
        if self._failure:
            raise self._failure
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._words[word.ref] = word, receipt
        self._taken.set()  # whoever waits for a receipt must not wait for a reader
        try:
            await self._send(word)
            return await receipt
        finally:
            del self._words[word.ref]

    async def typing(self, on: bool = True) -> None:
        """Tell the others that somebody is typing; lost where there is no connection."""
        await self._send(Typing(on=on))

    async def renew(self, token: str) -> None:
        """Show a fresh token on the open socket, before the old one runs out."""
        if isinstance(self._token, str):
            self._token = token
        await self._send(Renew(token=token))

    async def _send(self, frame: Word | Typing | Renew) -> None:
        if self._socket is not None:
            with suppress(ConnectionClosed):  # the next connection says the words again
                await self._socket.send(encode(frame), text=True)

    @property
    def people(self) -> list[str]:
        """Who is in the room (`kit.presence`), by what its instances have told lately."""
        since = time.monotonic() - self._silence
        return sorted({name for heard, names in self._here.values() if heard > since for name in names})

    # ---- the connection ----

    async def _stay(self) -> None:
        """Be connected, again and again, until cancelled or not let in."""
        while True:
            asked: float | None = None
            why: Exception | None = None
            try:
                await self._converse(await self._dial())
            except NotLetIn as refused:
                return self._fail(refused)
            except ConnectionClosed as closed:
                asked = _asked_to_close(closed)
            except InvalidStatus as sent_away:
                asked = _asked_to_wait(sent_away.response.headers, self._backoff.rng)
            except SSLCertVerificationError as untrusted:  # an OSError, but no network is to blame
                return self._fail(untrusted)
            except (OSError, TimeoutError, InvalidHandshake, EOFError, msgspec.MsgspecError) as trouble:
                why = trouble
            except Exception as fault:  # noqa: BLE001  # a wrong address, a token that can't be had: whoever waits must hear of it
                return self._fail(fault)
            finally:
                self._socket = None
            delay = self._backoff.next()  # also where the server names one: it may close every connection that it accepts
            if asked is not None and asked >= SLOT:
                delay = min(asked, LONGEST)
            if why and self.state == "connecting":  # once: the address may be wrong, and nobody has seen an error
                log.warning("session %s: no answer at %s yet (%s); it is tried again", self.name, self._url, why)
            try:
                self._tell(f"reconnecting in {delay:.1f} s")
            except Exception as fault:  # noqa: BLE001  # what `on_state` raises: the same
                return self._fail(fault)
            await asyncio.sleep(delay)

    async def _dial(self) -> ClientConnection:
        token = self._token if isinstance(self._token, str) else await self._token()
        query = {} if self._read is None else {"after": str(self._read), **({"log": self._log_read} if self._log_read else {})}
        address = f"{self._url}/s/{self.name}" + (f"?{urlencode(query)}" if query else "")
        try:
            return await connect_websocket(
                address,
                additional_headers={"Authorization": f"Bearer {token}"},
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=2 * MAX_FRAME,
                ping_interval=None,  # the server's beats tell as much, and a page can see them too
                **{"logger": _quiet, **_DIRECT.get(urlsplit(address).hostname or "", {}), **self._options},
            )
        except InvalidStatus as invalid:
            status = invalid.response.status_code
            if status in (400, 401, 403, 404):
                raise NotLetIn(status, (invalid.response.body or b"").decode(errors="replace").strip()) from None
            raise

    async def _converse(self, socket: ClientConnection) -> None:
        calm = asyncio.get_running_loop().call_later(CALM, self._backoff.reset)
        try:
            while True:
                async with asyncio.timeout(self._silence):
                    frame = await socket.recv()
                await self._hear(socket, decode_sent(frame))
                while len(self._entries) > AHEAD and not self._words:
                    self._taken.clear()
                    await self._taken.wait()
        except TimeoutError:
            socket.transport.abort()  # nobody is there, and nobody would answer a close
            raise
        finally:
            calm.cancel()
            try:
                await socket.close()
            finally:
                socket.transport.abort()  # a library that has stopped reading never hears the answer to its close

    async def _hear(self, socket: ClientConnection, frame: Any) -> None:
        match frame:
            case Hello():
                await self._greeted(socket, frame)
            case Gap():
                self._read, self._log_read = EntryId.parse(frame.after), frame.log
                self._arrive(frame)
                self._tell(f"gap: {frame.reason}")
            case Receipt(ref=ref):
                if ref in self._words and not (waiting := self._words[ref][1]).done():
                    waiting.set_result(frame)
            case Error(code="bad_token"):  # about a `renew`, which no word waits for; the old token counts until it expires
                log.warning("session %s: the server did not take the new token: %s", self.name, frame.text)
            case Error():
                self._blame(frame)
            case Who(names=names, by=by):
                self._here[by] = time.monotonic(), names
                self.on_aside(frame)
            case Typing():
                self.on_aside(frame)
            case Beat():
                pass
            case _:
                self._backoff.reset()
                self._take(frame)

    async def _greeted(self, socket: ClientConnection, hello: Hello) -> None:
        if hello.status != "gap":  # else a `gap` follows and gives cursor and log together; one of them alone would name another place
            self._log_read = hello.log
            self._read = self._read or EntryId.parse(hello.after)
            self.log = self.log or hello.log
        self._socket = socket
        self._here.clear()
        self._tell({"fresh": "connected", "resumed": f"resumed after {hello.after}", "gap": f"gap: {hello.reason}"}[hello.status])
        for word, receipt in list(self._words.values()):
            if not receipt.done():
                await self._send(word)

    def _take(self, entry: Entry) -> None:
        """Take the successor of the last entry; drop what was read before."""
        id = EntryId.parse(entry.id)
        if self._read is not None and id <= self._read:
            return
        self._read = id
        self._arrive(entry)

    def _arrive(self, entry: Entry | Gap) -> None:
        self._entries.append(entry)
        self._arrived.set()

    def _blame(self, error: Error) -> None:
        """An error names no word: the oldest that waits has it, as frames are answered in order."""
        for _, receipt in self._words.values():
            if not receipt.done():
                receipt.set_exception(BadWord(error))
                return

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._arrived.set()
        for _, receipt in self._words.values():
            if not receipt.done():
                receipt.set_exception(failure)
        try:
            self._tell("closed")
        except Exception:  # `on_state` is anybody's code; whoever waits has been told
            log.exception("session %s: `on_state` failed at its end", self.name)

    def _tell(self, state: str) -> None:
        self.state = state
        self.on_state(state)


def _asked_to_close(closed: ConnectionClosed) -> float | None:
    """The seconds in the reason of a close with 1012, which is for this client alone."""
    if closed.rcvd and closed.rcvd.code == CloseCode.RESTART:
        return _number(closed.rcvd.reason, 0.001)
    return None


def _asked_to_wait(headers: Headers, rng: random.Random) -> float | None:
    """The seconds in a refusal: `retry-after-ms`, for this client alone, else `Retry-After`, which many may have been told alike."""
    if slot := _number(",".join(headers.get_all("retry-after-ms")), 0.001):
        return max(slot, SLOT)
    seconds = _number(",".join(headers.get_all("Retry-After")), 1.0)
    return None if seconds is None else seconds + rng.uniform(0, 1)


def _number(text: str, unit: float) -> float | None:
    return int(text) * unit if re.fullmatch(r"[0-9]{1,9}", text) else None


@asynccontextmanager
async def connect(
    url: str, *, session: str, token: str | Callable[[], Awaitable[str]], after: str | None = None, log: str | None = None, **options: Any
) -> AsyncIterator[Session]:
    """A session at `url` (`ws://host:port`), reconnecting by itself while the block runs.

    `token`: a JWT, or an async function that gives one for each dial; `after` and `log`: where an earlier client stood. Options:
    `backoff`, `silence` (seconds), and whatever `websockets` connect takes. A network's errors (OSError; raise one in `token` for what
    may pass) are tried again. The iterator and the words raise NotLetIn, SSLCertVerificationError, what else `token` raises, and
    SessionClosed once the block has ended.
    """
    one = Session(url, session, token, after, log, **options)
    task = asyncio.create_task(one._stay(), name=f"session {session}")
    try:
        yield one
    finally:
        try:
            await finish(end({task}))
        finally:
            one._fail(one._failure or SessionClosed(session))
