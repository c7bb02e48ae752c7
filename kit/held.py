"""Held: one connection to the store, on which nobody waits for an answer: it is told where it arrives.

redis-py has a task and a timeout wait for each, which takes nearly as long as all the rest of an append.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from hiredis import Reader, pack_command
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from kit.ending import end, finish, settle

Told = Callable[[list[Any] | Exception], None]
"""Told the answers to commands, or what became of the connection."""
ANSWER = 10.0
"""Seconds after which no answer comes any more: TCP would wait a quarter of an hour for a host that is gone."""
PORTION = 8192
"""Bytes that fakeredis is given at once: it copies all that it has been given, twice for each argument of a command."""


class Server(Protocol):
    """Who answers, as far as it is known; `run_id` is "" before the first command. `in_process`: it is a fakeredis."""

    run_id: str
    in_process: bool

    def restarted(self) -> Exception: ...


class _Asked(NamedTuple):
    """Commands that are sent together, as they are sent, the server that they were made for, and who is told."""

    commands: list[bytes]
    run_id: str
    told: Told
    due: float = 0.0
    """By the monotonic clock: when an answer must have come."""


class Held:
    """One connection of a line, held from one command to the next: for each, the pool's care for it takes as long as the command.

    What is asked of a connection that stands goes out in the same step of the loop, and who asked is told in the step in which the answer
    arrives (on fakeredis, in the next). One that the server closes in a pause is known to be gone before anything is asked of it.
    """

    def __init__(self, server: Server, pool: Any) -> None:
        self._server = server
        self._pool = pool
        self._connection: Any = None
        self._waiting: deque[_Asked] = deque()
        self._asked: deque[_Asked] = deque()
        self._answers: list[Any] = []
        self._sending: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._over = False

    async def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """The answers to commands that are sent together; a ResponseError is one. Raises what became of the connection: then they may or
        may not have been carried out.
        """
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.send(commands, partial(settle, answered))
        return await answered

    def send(self, commands: Sequence[Sequence[Any]], told: Told) -> None:
        """The same, without waiting: `told` is called with the answers, or with what `ask` raises, and must not raise."""
        asked = _Asked([pack_command(tuple(command)) for command in commands], self._server.run_id, told)
        if not self._waiting and self.ready():
            self._write(asked)
            return
        self._waiting.append(asked)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_waiting())

    def ready(self) -> bool:
        """Whether the connection stands, as far as anybody knows."""
        connection = self._connection
        return connection is not None and connection.is_connected and not connection._reader.at_eof()

    async def connect(self) -> None:
        """See to it that there is a connection."""
        if self._over:
            raise _closed()
        if not Held.ready(self):
            connection = self._connection = await self._pool.get_connection()  # once the one before has been given back
            self._answers = []
            self._tending = asyncio.create_task(self._tend(connection, _listen(connection, self._arrived)))

    async def end(self) -> None:
        """What has not been sent yet is not sent any more: it would open a connection that nobody closes. Whoever waits is told."""
        self._over = True
        if self._sending:
            await end([self._sending])  # first: it may be about to begin the other
        if self._tending:
            await end([self._tending])
        if self._watch:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        self._asked += waiting
        self._lose(_closed())

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                error = None
                try:
                    async with asyncio.timeout(ANSWER):
                        await self.connect()
                except Exception as failed:  # noqa: BLE001  # whatever a library meets
                    error = _as_store_error(failed)
                waiting, self._waiting = self._waiting, deque()
                for asked in waiting:
                    if error or asked.run_id not in ("", self._server.run_id):
                        asked.told(error or self._server.restarted())
                    else:
                        self._write(asked)
        finally:
            self._sending = None

    def _write(self, asked: _Asked) -> None:
        self._asked.append(asked._replace(due=time.monotonic() + ANSWER))
        loop = asyncio.get_running_loop()
        if self._watch is None:
            self._watch = loop.call_later(ANSWER, self._drop_if_overdue)
        try:
            # As redis-py's own coroutine does, which then waits until its buffer has room: few commands are under way at a time.
            self._connection._writer.writelines(_portions(asked.commands) if self._server.in_process else asked.commands)
        except Exception as error:  # noqa: BLE001  # a connection that is gone
            loop.call_soon(self._drop, self._connection, error)

    async def _tend(self, connection: Any, stream: asyncio.StreamReader | None) -> None:
        """See to a connection until it is gone. `stream`: where its end is read; None: its answers are read here, too."""
        try:
            if stream:
                await stream.read()  # nothing comes here any more but its end
                raise RedisConnectionError("the store closed the connection")
            while True:
                self._take(await _response(connection))
        except Exception as error:  # noqa: BLE001  # the same
            self._lose(error)
        finally:
            await finish(self._give_back(connection))

    async def _give_back(self, connection: Any) -> None:
        try:
            await connection.disconnect(nowait=True)
        finally:
            await self._pool.release(connection)

    def _arrived(self, connection: Any, answers: Reader) -> None:
        """Something has come: take all the answers that are whole."""
        try:
            while (answer := answers.gets()) is not False:
                self._take(answer)
        except Exception as error:  # noqa: BLE001  # the same
            self._drop(connection, error)

    def _take(self, answer: Any) -> None:
        """One more answer, to the oldest that was asked. Raises what the server says of the connection itself."""
        if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
            raise answer
        if not self._asked:
            raise RedisConnectionError(f"the store said what nobody had asked: {answer!r}")
        self._answers.append(answer)
        if len(self._answers) == len(self._asked[0].commands):
            answers, self._answers = self._answers, []
            self._asked.popleft().told(answers)

    def _drop_if_overdue(self) -> None:
        """One timer for all that is asked: it looks again when the oldest of it would be due."""
        self._watch = None
        if self._asked and (left := self._asked[0].due - time.monotonic()) > 0:
            self._watch = asyncio.get_running_loop().call_later(left, self._drop_if_overdue)
        elif self._asked:
            self._drop(self._connection, RedisTimeoutError(f"the store did not answer for {ANSWER:g} s"))

    def _drop(self, connection: Any, error: Exception) -> None:
        """Have no more to do with a connection, if it is still the one that is held."""
        if connection is self._connection and self._tending:
            asyncio.get_running_loop().call_soon(self._tending.cancel)  # not before its first step: it gives the connection back
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        """The connection is gone: nobody knows what became of what was asked of it."""
        self._connection = None
        asked, self._asked = self._asked, deque()
        for one in asked:
            one.told(_as_store_error(error))


class _Listening:
    """The protocol of a connection whose answers are taken as they arrive; for all else it is the one that redis-py gave it."""

    def __init__(self, before: asyncio.Protocol, answers: Reader, arrived: Callable[[Reader], None]) -> None:
        self._before, self._answers, self._arrived = before, answers, arrived

    def __getattr__(self, name: str) -> Any:
        return getattr(self._before, name)

    def data_received(self, data: bytes) -> None:
        self._answers.feed(data)
        self._arrived(self._answers)


def _listen(connection: Any, arrived: Callable[[Any, Reader], None]) -> asyncio.StreamReader | None:
    """From now on its answers are taken as they arrive, a step of the loop and a task's turn sooner than by redis-py.

    Gives what tells of its end; None, and nothing is done, where it is one of fakeredis.
    """
    if not isinstance(connection._reader, asyncio.StreamReader):
        return None
    transport, answers = connection._writer.transport, Reader(replyError=connection._parser.parse_error)
    transport.set_protocol(_Listening(transport.get_protocol(), answers, partial(arrived, connection)))
    return connection._reader


def _portions(commands: Sequence[bytes]) -> Iterator[bytes]:
    for command in commands:
        for begin in range(0, len(command), PORTION):
            yield command[begin : begin + PORTION]


def _as_store_error(error: Exception) -> Exception:
    return error if isinstance(error, RedisError | OSError) else RedisConnectionError(f"the connection failed: {error!r}")


def _closed() -> Exception:
    return RedisConnectionError("the store was closed")


async def _response(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
