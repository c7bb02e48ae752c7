"""Store: a connection to Redis, Valkey, or the fakeredis inside this process. The only file that imports redis.

Three lines, because what blocks must not wait for what is urgent: `redis` (a pool for short commands), `commits` (one connection: what
agents say) and `ears` (the blocking reads). No command is ever repeated by the client library: an append whose reply
was lost may stand in the log, and only the writer knows how to find out.

A server that restarted may have lost the tail of its logs. So every new connection asks for the server's `run_id`; the line of the
agents' words refuses its first command after a change, and `generation` tells everybody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

StoreError = (RedisError, OSError)
"""What a command raises when the store is out of reach or refuses; the command may or may not have been carried out."""
OLDEST = (7, 0)


def without_password(url: str) -> str:
    """The URL as it may be shown and logged."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


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


class Store:
    """The three lines to one server, and which server it is (`run_id`, constant on fakeredis)."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or "fake://"
        self.run_id = ""
        self.generation = 0
        # redis-py gives unions of all that any protocol or option could return; what these commands return is pinned down by the tests.
        self.redis: Any = self._line(16)
        self.commits: Any = self._line(1)
        self.ears: Any = self._line(16)

    def _line(self, connections: int) -> Redis:
        if self.url.startswith("fake://"):
            self.run_id = "fake"
            return _fake(self.url.removeprefix("fake://") or f"private-{id(self)}", connections)
        seen = [""]  # each line compares with what it saw itself: another's reconnect must not hide the change

        async def greet(connection: Any) -> None:
            await connection.on_connect()
            await self._greet(connection, seen)

        pool = BlockingConnectionPool.from_url(
            self.url,
            max_connections=connections,
            timeout=None,
            socket_timeout=None,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=greet,
        )
        return Redis(connection_pool=pool)

    async def _greet(self, connection: Any, seen: list[str]) -> None:
        await connection.send_command("INFO", "server")
        info = dict(line.split(":", 1) for line in (await connection.read_response()).decode().splitlines() if ":" in line)
        if "valkey_version" not in info and tuple(int(p) for p in info["redis_version"].split(".")[:2]) < OLDEST:
            raise StoreTooOld(self.url, info["redis_version"])
        before, seen[0] = seen[0], info["run_id"]
        if self.run_id != info["run_id"]:
            self.generation += bool(self.run_id)
            self.run_id = info["run_id"]
        if before and before != self.run_id:
            raise StoreRestarted(f"the store at {without_password(self.url)} was restarted")

    async def close(self) -> None:
        for line in (self.redis, self.commits, self.ears):
            await line.aclose()
            await line.connection_pool.disconnect()


def _fake(name: str, connections: int) -> Redis:
    from fakeredis import FakeAsyncRedis, FakeServer  # 50 ms to import, and no business of who runs a real server

    waiting = partial(BlockingConnectionPool, timeout=None)  # the default pool refuses the 101st command of one moment
    server = _FAKE_SERVERS.setdefault(name, FakeServer())
    return FakeAsyncRedis(server=server, protocol=2, connection_pool_class=waiting, max_connections=connections)  # type: ignore[arg-type]  # called, never subclassed


_FAKE_SERVERS: dict[str, Any] = {}


@asynccontextmanager
async def open_store(url: str | None = None) -> AsyncIterator[Store]:
    """The store at `redis://`, `rediss://` or `unix://`; `fake://NAME`, shared by all in this process who name it; or, for None, one's own.

    Raises StoreTooOld below Redis 7 and redis' ConnectionError where nothing answers.
    """
    store = Store(url)
    try:
        await store.redis.execute_command("PING")
        yield store
    finally:
        await store.close()
