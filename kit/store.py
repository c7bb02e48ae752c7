"""Store: a connection to Redis, Valkey, or the fakeredis inside this process. The only file that imports redis.

Three lines, because what blocks must not wait for what is urgent: `redis` (a pool for short commands), `commits` (one, held: what
agents say) and `ears` (the blocking reads). No command is ever repeated by the client library: an append whose reply was lost may stand
in the log, and only the writer knows how to find out.

A server that restarted may have lost the tail of its logs. So every new connection asks for the server's `run_id`. Each line refuses its
first command after a change, and all that were asked before it was known; everybody compares it with the one that a log was opened under.

A cluster is known by what any of its servers says of itself: each server has three lines of its own, and `of` says which one keeps a key.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from hiredis import Reader, pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from kit.ending import end, finish

T = TypeVar("T")
Told = Callable[[list[Any] | Exception], None]
"""Told the answers to commands, or what became of the connection."""
StoreError = (RedisError, OSError)
"""What a command raises when the store is out of reach or refuses; the command may or may not have been carried out."""
OLDEST = (7, 0)
ANSWER = 10.0
"""Seconds after which no answer comes any more: TCP would wait a quarter of an hour for a host that is gone. Not for the blocking reads,
which are silent by nature; keepalive watches over those."""


def without_password(url: str) -> str:
    """The URL as it may be shown and logged, also where it is none: a password with a `/` in it ends the host for whoever parses it."""
    return re.sub(r"(?<=://).*@|[?#].*", "", url)


class StoreTooOld(Exception):
    """The server is older than the commands that the transcript rests on."""

    def __init__(self, url: str, version: str) -> None:
        super().__init__(
            f"the store at {without_password(url)} is Redis {version}; the kit needs Redis {OLDEST[0]} or newer, or Valkey:"
            " start one, or leave --store out"
        )


class StoreRestarted(RedisConnectionError):
    """The server is not the one that was spoken to before: what stood at the end of a log may be gone."""


class Refusal(ResponseError):
    """The store refused one command of a script."""


def is_refused_id(error: object) -> bool:
    """Whether the error is Redis' answer to an id that is not above the last one; every other error is the store's own."""
    return isinstance(error, ResponseError) and "equal or smaller" in str(error)


def is_unknown_script(error: object) -> bool:
    """Whether the store does not have the script, so that it was not run."""
    return isinstance(error, NoScriptError)


class _Pool(BlockingConnectionPool):
    """Connections of a line; a command gets none that leads to another server than the one that it was made for."""

    store: Store

    async def get_connection(self, *asked: Any, **options: Any) -> Any:
        before = self.store.run_id  # what the command's own arguments name
        connection: Any = await super().get_connection(*asked, **options)  # type: ignore[no-untyped-call]  # redis-py's
        if before not in ("", self.store.run_id):
            await self.release(connection)
            raise self.store.restarted()
        return connection


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

    def __init__(self, store: Store, line: Redis) -> None:
        self._store = store
        self._pool: Any = line.connection_pool
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
        asked = _Asked([pack_command(tuple(command)) for command in commands], self._store.run_id, told)
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
                    if error or asked.run_id not in ("", self._store.run_id):
                        asked.told(error or self._store.restarted())
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
            self._connection._writer.writelines(asked.commands)
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


def _as_store_error(error: Exception) -> Exception:
    return error if isinstance(error, StoreError) else RedisConnectionError(f"the connection failed: {error!r}")


def _closed() -> Exception:
    return RedisConnectionError("the store was closed")


async def _response(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def settle(waiting: asyncio.Future[T], answer: T | Exception) -> None:
    """Give somebody who waits, if he still does, an answer, or raise it there."""
    if waiting.done():
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


class Store:
    """The three lines to one server, and which server it is (`run_id`, constant on fakeredis; "" before the first command)."""

    def __init__(self, url: str | None = None) -> None:
        self.url = "fake://" if url is None else url
        self.run_id = ""
        self.clustered = False
        # redis-py gives unions of all that any protocol or option could return; what these commands return is pinned down by the tests.
        self.redis: Any = self._line(16, ANSWER)
        self.ears: Any = self._line(1000)  # opened as they are needed, one for each shard of each instance: whoever waited for one is deaf
        line = self._line(1)
        self.commits = Held(self, line)
        self._lines = (self.redis, self.ears, line)

    @property
    def servers(self) -> list[Store]:
        """All that keep something."""
        return [self]

    def of(self, key: str) -> Store:
        """The server that keeps a key."""
        return self

    async def look(self) -> None:
        """Find out again who keeps what: a server alone keeps all."""

    def _line(self, connections: int, answer: float | None = None) -> Redis:
        if self.url.startswith("fake://"):
            self.run_id = "fake"
            return _fake(self.url.removeprefix("fake://") or f"private-{id(self)}", connections)
        seen = [""]  # each line compares with what it saw itself: another's reconnect must not hide the change

        async def greet(connection: Any) -> None:
            await connection.on_connect()
            await self._greet(connection, seen)

        try:
            pool = _Pool.from_url(
                self.url,
                max_connections=connections,
                timeout=None,
                socket_timeout=answer,
                socket_connect_timeout=ANSWER,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                redis_connect_func=greet,
            )
        except ValueError:  # whose text may quote a piece of the password
            raise ValueError(
                f"{without_password(self.url)!r} is no store's URL: one looks like redis://127.0.0.1:6379/0;"
                " a / # ? @ in its password is written %2F %23 %3F %40"
            ) from None
        pool.store = self
        return Redis(connection_pool=pool)

    async def _greet(self, connection: Any, seen: list[str]) -> None:
        await connection.send_command("INFO", "server")
        info = dict(line.split(":", 1) for line in (await connection.read_response()).decode().splitlines() if ":" in line)
        if "valkey_version" not in info and tuple(int(p) for p in info["redis_version"].split(".")[:2]) < OLDEST:
            raise StoreTooOld(self.url, info["redis_version"])
        self.clustered = "cluster" in (info.get("redis_mode"), info.get("server_mode"))  # Redis' name for it, and Valkey's
        before, seen[0] = seen[0], info["run_id"]
        self.run_id = info["run_id"]
        if before and before != self.run_id:
            raise self.restarted()

    def restarted(self) -> StoreRestarted:
        return StoreRestarted(f"the store at {without_password(self.url)} was restarted")

    async def close(self) -> None:
        await self.commits.end()
        for line in self._lines:
            await line.aclose()
            await line.connection_pool.disconnect()


class Cluster(Store):
    """Servers that share 16,384 slots (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec).

    Not by redis-py's own RedisCluster (8.1): it has no place for the greeting that compares run ids, and it repeats commands by itself.
    Here a command that went to the wrong server is refused (MOVED) and fails like any other, and an instance looks again.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._servers: dict[str, Store] = {}
        self._ranges: list[tuple[range, Store]] = []

    @property
    def servers(self) -> list[Store]:
        return list(self._servers.values())

    def of(self, key: str) -> Store:
        slot = key_slot(key.encode())
        for slots, server in self._ranges:
            if slot in slots:
                return server
        raise RedisConnectionError(f"no server of the cluster at {without_password(self.url)} keeps slot {slot}: see CLUSTER SLOTS there")

    async def look(self) -> None:
        ranges = await self._asked()
        before, self._servers = self._servers, {}
        self._ranges = []
        for first, last, (host, port, *_), *_ in ranges:
            url = self._beside(host.decode() if host else "", port)
            server = self._servers[url] = self._servers.get(url) or before.get(url) or Store(url)
            self._ranges.append((range(first, last + 1), server))
        for url, server in before.items():
            if url not in self._servers:  # when it is a master again, it is greeted again
                await server.close()

    async def _asked(self) -> Any:
        """Who keeps which slots, by the first server that answers."""
        for server in self.servers:
            with suppress(*StoreError):
                return await server.redis.execute_command("CLUSTER SLOTS")
        return await self.redis.execute_command("CLUSTER SLOTS")

    def _beside(self, host: str, port: int) -> str:
        """The URL of a server, with what else stands in the cluster's; a server that does not know its own address is named by none."""
        parts = urlsplit(self.url)
        login, at, _ = parts.netloc.rpartition("@")
        host = host or parts.hostname or ""
        return parts._replace(netloc=f"{login}{at}{f'[{host}]' if ':' in host else host}:{port}").geturl()

    async def close(self) -> None:
        for server in self.servers:
            await server.close()
        await super().close()


def _fake(name: str, connections: int) -> Redis:
    from fakeredis import FakeAsyncRedis, FakeServer  # 50 ms to import, and no business of who runs a real server

    waiting = partial(BlockingConnectionPool, timeout=None)  # the default pool refuses the 101st command of one moment
    server = _FAKE_SERVERS.setdefault(name, FakeServer())
    return FakeAsyncRedis(server=server, protocol=2, connection_pool_class=waiting, max_connections=connections)  # type: ignore[arg-type]  # called, never subclassed


_FAKE_SERVERS: dict[str, Any] = {}


@asynccontextmanager
async def open_store(url: str | None = None) -> AsyncIterator[Store]:
    """The store at `redis://`, `rediss://` or `unix://` (of a cluster, any of its servers); `fake://NAME`, shared by all in this process
    who name it; or, for None, one's own.

    Raises StoreTooOld below Redis 7 and redis' ConnectionError where nothing answers.
    """
    store = Store(url)
    try:
        await store.redis.execute_command("PING")
        if store.clustered:
            await store.close()
            store = Cluster(store.url)
            await store.look()
        yield store
    finally:
        await finish(store.close())
