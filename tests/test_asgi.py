"""ASGI: what an application may meet that kit/server.py does not: other servers' limits and habits, a prefix, no lifespan.

That the promises hold over it is tested where they are: each test that is `@both_servers` runs over ASGI, too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState
from websockets import Subprotocol
from websockets.asyncio.client import connect

from kit import asgi
from kit.connection import Connection
from kit.lab.hosted import serve
from kit.listening import listening
from kit.packets import MAX_FRAME
from tests.support import Counting, bearer, prompt, request, visit

SECRET = "a secret of the tests, of more than 32 bytes"
Message = MutableMapping[str, Any]


class Server:
    """An ASGI server of the test's own, with one WebSocket request: what is sent to it, while it is `free` and without `fault`."""

    def __init__(self, app: asgi.App, path: str = "/s/s", token: str | None = None, **scope: Any) -> None:
        asked = {"path": path, "raw_path": path.encode(), "query_string": b"", "subprotocols": ["kit.v1"], **scope}
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        self.scope = {"type": "websocket", "headers": headers, **asked}
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        self.said.put_nowait({"type": "websocket.connect"})
        self.sent: list[Message] = []
        self.free = asyncio.Event()
        self.free.set()
        self.fault: Exception | None = None
        self._news = asyncio.Event()
        self.visit = asyncio.create_task(app(self.scope, self.said.get, self._send))

    async def _send(self, message: Message) -> None:
        await self.free.wait()
        if self.fault:
            raise self.fault
        self.sent.append(message)
        self._news.set()

    async def until(self, condition: Callable[[Message], bool]) -> Message:
        """The first message that fulfils the condition."""
        while not (found := next(filter(condition, self.sent), None)):
            self._news.clear()
            await self._news.wait()
        return found


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[asgi.App]:
    """The application in its lifespan, without a server."""
    app = asgi.app(Counting(), secret=SECRET, **options)
    async with app.running():
        yield app


@asynccontextmanager
async def visited() -> AsyncIterator[tuple[asgi.App, Server, Connection]]:
    """The same, and somebody who has had the hello."""
    async with running() as app:
        server = Server(app, token=app.service.token("ann"))
        await server.until(lambda message: "text" in message)
        (connection,) = app.service.connections
        yield app, server, connection


gone = pytest.mark.parametrize("fault", [OSError("gone"), RuntimeError("after sending 'websocket.close'")], ids=repr)


# ---- the socket ----


async def test_no_frame_waits_for_an_acknowledgement() -> None:
    """On a socket that was bound beforehand, as uvicorn's workers get one, asyncio leaves Nagle's algorithm on: some would, for 40 ms."""
    async with running() as app:
        config, state = uvicorn.Config(app, lifespan="off", log_config=None), ServerState()
        config.load()
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        async with await asyncio.get_running_loop().create_server(lambda: H11Protocol(config, state, {}), sock=bound) as listener:
            url = "ws://{}:{}/s/s".format(*listener.sockets[0].getsockname())
            token = {"Authorization": f"Bearer {app.service.token('ann')}"}
            async with connect(url, additional_headers=token, subprotocols=[Subprotocol("kit.v1")], proxy=None):
                (served,) = state.connections
                accepted = served.transport.get_extra_info("socket")  # type: ignore[union-attr]  # of whatever protocol, it has one
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---- the request ----


async def test_a_websocket_need_not_come_with_the_headers_of_http_1() -> None:
    """Over HTTP/2 it is asked for with `:protocol` (RFC 8441), and some servers keep its headers: the scope counts."""
    async with running() as app:
        server = Server(app, token=app.service.token("ann"))
        hello = await server.until(lambda message: "text" in message)
        assert server.sent[0] == {"type": "websocket.accept", "subprotocol": "kit.v1"}
        assert json.loads(hello["text"])["type"] == "hello"
        server.said.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await server.visit


@pytest.mark.parametrize("extensions", [{"websocket.http.response": {}}, {}, None])
async def test_a_server_that_cannot_tell_a_reason_refuses_all_the_same(extensions: dict[str, Any] | None) -> None:
    """With the extension the response has status and body; without it the socket is closed before it was accepted, which is a 403."""
    async with running() as app:
        server = Server(app, **({} if extensions is None else {"extensions": extensions}))
        await server.visit
        if extensions:
            assert [message["type"] for message in server.sent] == ["websocket.http.response.start", "websocket.http.response.body"]
            assert server.sent[0]["status"] == 401
            assert b"bearer token" in server.sent[1]["body"]
        else:
            assert [message["type"] for message in server.sent] == ["websocket.close"]


async def test_it_may_be_mounted_in_another_application() -> None:
    """Below a prefix, beside routes of that application; an address of ours outside of it is none."""
    kit = asgi.app(Counting(), secret=SECRET)
    routes = [Mount("/agents", app=kit), Route("/", lambda _: PlainTextResponse("home"))]
    async with kit.running(), listening(Starlette(routes=routes)) as listener:
        token, port = kit.service.token("ann"), listener.sockets[0].getsockname()[1]
        assert (await request(port, "/agents/s/demo", bearer(token))).status == 101
        assert (await request(port, "/agents/s/demo", {})).status == 426
        assert (await request(port, "/agents/ticket?session=s", {"Authorization": f"Bearer {token}"}, method="POST")).status == 200
        assert (await request(port, "/s/demo", {})).status == 404
        assert (await request(port, "/", {})).body == "home"


async def test_a_room_has_its_page() -> None:
    """And this address is one from which its people may connect."""
    async with serve(Counting(), rooms=["war"]) as server:
        page = await request(server, "/room/war", {})
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert (await request(server, "/widgets/page.js", {})).status == 200
        assert (await request(server, "/room/other", {})).status == 404
        assert (await request(server, "/s/war", {**bearer(server.token("ann")), "Origin": server.origin})).status == 101


async def test_a_refusal_is_no_error_in_the_servers_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with serve(Counting(), secret=SECRET) as server:
        for path in ("/s/s", "/nowhere"):
            await request(server, path)
    assert caplog.messages == []


# ---- the lifespan ----


async def test_without_its_lifespan_it_says_what_is_missing() -> None:
    app = asgi.app(Counting(), secret=SECRET)
    with pytest.raises(RuntimeError, match="lifespan on"):
        await Server(app).visit


async def test_its_end_sends_away_who_is_still_there() -> None:
    """A server that closes its sockets after the lifespan: 1012, and the application is done with the visit."""
    async with running() as app:
        server = Server(app, token=app.service.token("ann"))
        await server.until(lambda message: "text" in message)
    assert server.sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "0"}
    async with asyncio.timeout(10.0):
        await server.visit


async def test_a_client_that_takes_nothing_does_not_hold_up_the_end() -> None:
    """The server's buffer is full and stays so: after a moment the application leaves without a word."""
    async with running() as app:
        server = Server(app, token=app.service.token("ann"))
        await server.until(lambda message: "text" in message)
        server.free.clear()
    async with asyncio.timeout(10.0):
        await server.visit
    assert "websocket.close" not in [message["type"] for message in server.sent]


# ---- the socket ----


async def test_a_server_with_larger_limits_does_not_widen_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's own limit is 16 MiB, and a platform may not let one set it: a frame over 64 KiB closes 1009 all the same."""
    monkeypatch.setattr(asgi, "UVICORN", {})
    async with serve(Counting()) as server, visit(server) as bob:
        for frame in ("x" * (MAX_FRAME + 1), "é" * (MAX_FRAME // 2 + 1), b"x" * (MAX_FRAME + 1)):
            async with visit(server, name="ann") as ann:
                assert (await ann.answer("x" * MAX_FRAME))["code"] == "not_json"
                await ann.send(frame)
                assert (await ann.closed())[0] == 1009
        assert (await bob.answer(prompt()))["status"] == "applied"


@gone
async def test_a_socket_that_has_gone_ends_the_visit(fault: Exception) -> None:
    """The specification has `send` raise OSError; uvicorn raises RuntimeError where it has closed the socket by itself (1007, 1009)."""
    async with visited() as (app, server, connection):
        server.fault = fault
        connection.socket.send_now([b"fanned out"])
        server.said.put_nowait({"type": "websocket.receive", "text": json.dumps(prompt())})
        await server.visit
        assert app.service.connections == set()


@gone
async def test_a_socket_that_has_gone_is_not_listened_to_for_ever(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn closes a reader that answers no ping, and tells only who sends."""
    monkeypatch.setattr(asgi, "CLOSING", 0.05)
    async with visited() as (app, server, connection):
        server.fault = fault
        connection.socket.send_now([b"fanned out"])
        async with asyncio.timeout(10.0):
            await server.visit
        assert app.service.connections == set()


async def test_a_close_of_a_socket_that_has_gone_is_no_error() -> None:
    """uvicorn may have closed it by itself, a moment ago."""
    async with visited() as (_, server, connection):
        server.fault = RuntimeError("after sending 'websocket.close'")
        await connection.socket.close(4408)
        async with asyncio.timeout(10.0):
            await server.visit


async def test_frames_leave_in_the_order_in_which_they_came() -> None:
    """Those that wait for room and those that do not, while the server's buffer is full and when it is free again."""
    async with visited() as (_, server, connection):
        server.free.clear()
        waiting = [asyncio.create_task(connection.socket.send(b"0"))]
        await asyncio.sleep(0)
        assert connection.socket.send_now([b"1", b"2"]) == 3
        waiting.append(asyncio.create_task(connection.socket.send(b"3")))
        await asyncio.sleep(0)
        assert connection.socket.send_now([b"4"]) == 5
        server.free.set()
        await asyncio.gather(*waiting)
        await server.until(lambda message: message.get("text") == "4")
        assert [message["text"] for message in server.sent[-5:]] == ["0", "1", "2", "3", "4"]
        assert connection.socket.waiting == 0
