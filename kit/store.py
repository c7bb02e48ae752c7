"""Store: a connection to Redis, Valkey, or the fakeredis inside this process. Only this file and held.py import redis.

Three lines, because what blocks must not wait for what is urgent: `redis` (a pool for short commands), `commits` (one, held: what
agents say) and `ears` (the blocking reads). No command is ever repeated by the client library: an append whose reply was lost may stand
in the log, and only the writer knows how to find out.

A server that restarted may have lost the tail of its logs. So every new connection asks for the server's `run_id`. Each line refuses its
first command after a change, and all that were asked before it was known; everybody compares it with the one that a log was opened under.

A cluster is known by what any of its servers says of itself: each server has three lines of its own, and `of` says which one keeps a key.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from kit.ending import finish
from kit.held import ANSWER, Held

StoreError = (RedisError, OSError)
"""What a command raises when the store is out of reach or refuses; the command may or may not have been carried out."""
OLDEST = (7, 0)
BLOCK = 5.0
"""Seconds that a blocking read waits. One that has no answer ANSWER seconds later gets none: the server, or its host, stands still."""


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


class Store:
    """The three lines to one server, and which server it is (`run_id`, constant on fakeredis; "" before the first command).

    `in_process`: it is a fakeredis, which works in this process' own loop.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = "fake://" if url is None else url
        self.in_process = self.url.startswith("fake://")
        self._name = self.url.removeprefix("fake://") or f"private-{secrets.token_hex(8)}"
        self.run_id = ""
        self.clustered = False
        # redis-py gives unions of all that any protocol or option could return; what these commands return is pinned down by the tests.
        self.redis: Any = self._line(16, ANSWER)
        # Its connections are opened as they are needed, one for each shard of each instance: whoever waited for one would be deaf.
        self.ears: Any = self._line(1000, BLOCK + ANSWER)
        line = self._line(1)
        self.commits = Held(self, line.connection_pool)
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
        if self.in_process:
            self.run_id = "fake"
            return _fake(self._name, connections)
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
"""By name; they stay: a blocking read of fakeredis that is collected before it has run out says so on stderr."""


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
