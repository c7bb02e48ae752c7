"""Served: the fakeredis of this process on a port, so that real processes share it where there is no real server.

fakeredis has a server of its own, `TcpFakeServer`. Behind it (2.40) a connection ends at the first error reply, so at the first script that
is not known yet; INFO is missing; a thread for each connection looks 100 times a second whether there is something to do. What is here
speaks RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec) for the kit's own commands, knows INFO's `run_id`, and can
be paused and restarted, as the real thing can. What any store can lose, wherever it is, `flush` and `trim` take from it.
"""

from __future__ import annotations

import asyncio
import secrets
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from kit.ending import end, finish, stop_listening
from kit.packets import START
from kit.projection import Projection
from kit.store import Store, StoreError, is_unknown_script, open_store
from kit.transcript import Transcript


class ServedStore:
    """Open its `url` in any process of this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.url = ""
        self.run_id = "fake"  # as this process knows it by its name, so that both may use it
        self._answers = asyncio.Event()
        self._answers.set()
        self._connections: dict[asyncio.Task[None], StreamWriter] = {}

    def pause(self) -> None:
        """From now on nothing is answered; what is asked meanwhile is answered by and by after `resume`."""
        self._answers.clear()

    def resume(self) -> None:
        self._answers.set()

    async def restart(self, *, keep: bool = False) -> None:
        """It comes back under another run id and lost every connection: empty, or (`keep`) with all that it held."""
        self.run_id = secrets.token_hex(20)
        self.resume()
        await end(self._connections)
        if not keep:
            await self.flush()

    async def lose_tail(self, session: str, keep: int) -> None:
        """It is killed, and comes back without the end of a session's log, as after a crash between two snapshots: `keep` entries stay."""
        self.pause()
        async with open_store(self.name) as inside:
            stream = (await Transcript(inside).open(session)).log.stream
            kept = await inside.redis.xrange(stream, count=keep)
            await inside.redis.delete(stream)
            for id, fields in kept:
                await inside.redis.xadd(stream, fields, id=id)
        await self.restart(keep=True)

    async def flush(self) -> None:
        """It loses all that it holds."""
        await flush(self.name)

    async def trim(self, session: str = "demo", keep: int = 0) -> None:
        """A session's log loses its beginning."""
        await trim(self.url, session, keep)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Whatever ended it: a task that is cancelled before its first step closes nothing itself."""
        self._connections.pop(task).close()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError):
            async with open_store(self.name) as own:
                line = await own.redis.connection_pool.get_connection()  # one's own: MULTI and CLIENT UNBLOCK are a connection's affair
                while command := await _command(reader):
                    reply = await self._answer(line, command)
                    await self._answers.wait()
                    writer.write(encode_reply(reply))
                    await writer.drain()

    async def _answer(self, line: Any, command: Sequence[bytes]) -> Any:
        await self._answers.wait()
        if command[0].upper() == b"INFO":
            return f"# Server\r\nredis_version:8.0.0\r\nrun_id:{self.run_id}\r\n".encode()
        try:
            await line.send_command(*command)
            return await line.read_response()
        except StoreError as refused:
            return refused


async def _command(reader: StreamReader) -> list[bytes]:
    """The next command as a client sends it, an array of bulk strings; [] where the client has left."""
    try:
        count = int((await reader.readuntil(b"\r\n"))[1:])
        words = []
        for _ in range(count):
            size = int((await reader.readuntil(b"\r\n"))[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        return words
    except (asyncio.IncompleteReadError, ConnectionError):
        return []


def encode_reply(reply: Any) -> bytes:
    """A reply in RESP2.

    >>> encode_reply([1, b"a", None])
    b'*3\\r\\n:1\\r\\n$1\\r\\na\\r\\n$-1\\r\\n'
    """
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case Exception():  # the client library has taken the error's first word for its class
            return f"-{'NOSCRIPT' if is_unknown_script(reply) else 'ERR'} {reply}\r\n".encode()
        case _:
            return b"*%d\r\n" % len(reply) + b"".join(map(encode_reply, reply))


@asynccontextmanager
async def served_store(name: str | None = None) -> AsyncIterator[ServedStore]:
    """The store `fake://...` of this process (None: an empty one) on a port of loopback, while the block runs."""
    store = ServedStore(name or f"fake://served-{secrets.token_hex(8)}")
    server = await asyncio.start_server(store._accept, "127.0.0.1", 0)
    store.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield store
    finally:
        await finish(_end(server, store))


async def _end(server: asyncio.Server, store: ServedStore) -> None:
    await stop_listening(server)
    await end(store._connections)


async def flush(url: str) -> None:
    """The store at any URL loses all that it holds."""
    async with open_store(url) as store:
        for server in store.servers:
            await server.redis.flushall()


async def end_leases(store: Store) -> None:
    """Each turn's lease is over, as if its time were."""
    async for key in store.redis.scan_iter("*:lease:*"):
        await store.redis.delete(key)


async def trim(url: str, session: str, keep: int = 0) -> None:
    """A session's log loses its first epochs, as when it is full: about `keep` entries stay, the last epoch, and what open turns need."""
    async with open_store(url) as store:
        transcript, projection = Transcript(store), Projection()
        log = (await transcript.open(session)).log
        async for batch in transcript.batches(log, START):
            for entry in batch:
                projection.fold(entry.id, entry.body)
        if before := projection.surplus(keep):
            await transcript.trim(log, before)
