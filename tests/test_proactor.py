"""Windows' own event loop: what its transports do is plain Python, and is tried here; whether Windows' sockets fail so is not."""

from __future__ import annotations

from asyncio.proactor_events import _ProactorBasePipeTransport
from typing import Any

import pytest

from kit.proactor import forgive


class Reset:
    """A socket whose peer has reset the connection."""

    closed = False

    def fileno(self) -> int:
        return 5

    def shutdown(self, how: int) -> None:
        raise ConnectionResetError(10054, "An existing connection was forcibly closed by the remote host")

    def close(self) -> None:
        self.closed = True


class Left:
    """The protocol and the server of a connection."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.append(error)

    def _detach(self, *transport: Any) -> None:  # with the transport from Python 3.13
        self.heard.append("detached")


@pytest.mark.parametrize("mended", [False, True])
def test_a_connection_that_was_reset_ends_as_any_other(mended: bool) -> None:
    """Its protocol hears of it once, its socket is closed, its server waits for it no longer; the library's own leaves that undone."""

    class Transport(_ProactorBasePipeTransport):
        def __init__(self, socket: Any, left: Any) -> None:
            self._sock, self._protocol, self._server, self._called_connection_lost = socket, left, left, False

        def __del__(self, *_: Any) -> None:
            pass

    socket, left, lost = Reset(), Left(), OSError("lost")
    transport = Transport(socket, left)
    if not mended:
        with pytest.raises(ConnectionResetError):
            transport._call_connection_lost(lost)
        assert (left.heard, socket.closed) == ([lost], False)
        return
    forgive(Transport)
    for _ in range(2):
        transport._call_connection_lost(lost)
    assert (left.heard, socket.closed, transport._sock) == ([lost, "detached"], True, None)
