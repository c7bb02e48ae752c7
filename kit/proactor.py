"""Proactor: Windows' own event loop, mended: a connection that its peer has reset ends as any other does.

asyncio shuts the socket down first, which fails there, and leaves the rest undone (Python 3.11 to 3.13, `_call_connection_lost` in
Lib/asyncio/proactor_events.py): an error is printed, the socket stays open, and a server that closes waits for it, since 3.12 without end.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any


def mend() -> None:
    """From now on, on Windows; elsewhere there is no such loop."""
    if sys.platform == "win32":
        from asyncio import proactor_events

        forgive(proactor_events._ProactorBasePipeTransport)


def forgive(transport: Any) -> None:
    """Let this class of transports go on where a shutdown fails."""
    lose = transport._call_connection_lost

    def _call_connection_lost(self: Any, error: Exception | None) -> None:
        if hasattr(self._sock, "shutdown"):  # a pipe has none
            self._sock = _Socket(self._sock)
        lose(self, error)

    transport._call_connection_lost = _call_connection_lost


class _Socket:
    """One whose peer may be gone."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def shutdown(self, how: int) -> None:
        with suppress(OSError):
            self._socket.shutdown(how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)
