"""Windows' own event loop: what its transports do is plain Python, and is tried here; whether Windows' sockets fail so is not."""

from __future__ import annotations

from asyncio.proactor_events import _ProactorBasePipeTransport
from typing import Any

import pytest

from kit.proactor import forgive


class Pipe:
    """What a subprocess' pipe is there: nothing to shut down."""

    closed = False

    def fileno(self) -> int:
        return 5

    def close(self) -> None:
        self.closed = True


class Reset(Pipe):
    """A socket whose peer has reset the connection."""

    def shutdown(self, how: int) -> None:
        raise ConnectionResetError(10054, "An existing connection was forcibly closed by the remote host")


class Left:
    """The protocol and the server of a connection."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.append(error)

    def _detach(self, *transport: Any) -> None:  # with the transport from Python 3.13
        self.heard.append("detached")


class Transport(_ProactorBasePipeTransport):
    """The library's, without a loop."""

    def __init__(self, socket: Any, left: Any) -> None:
        self._sock, self._protocol, self._server, self._called_connection_lost = socket, left, left, False

    def __del__(self, *_: Any) -> None:
        pass


class Mended(Transport):
    pass


forgive(Mended)


def test_the_librarys_own_leaves_a_connection_that_was_reset_half_open() -> None:
    socket, left, lost = Reset(), Left(), OSError("lost")
    with pytest.raises(ConnectionResetError):
        Transport(socket, left)._call_connection_lost(lost)
    assert (left.heard, socket.closed) == ([lost], False)


@pytest.mark.parametrize("kind", [Reset, Pipe])
def test_it_ends_as_any_other(kind: type[Pipe]) -> None:
    """Its protocol hears of it once, its socket is closed, and its server waits for it no longer. A pipe ends as before."""
    socket, left, lost = kind(), Left(), OSError("lost")
    transport = Mended(socket, left)
    for _ in range(2):
        transport._call_connection_lost(lost)
    assert (left.heard, socket.closed, transport._sock) == ([lost, "detached"], True, None)
