"""Arms: what is compared: a child that serves, how to talk to it, and the store that it stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.bench.child import Child, child
from tests.bench.dialects import Bare, Dialect, Kit, Resumable, Resumed, SocketIo, Sse
from tests.bench.peers import install
from tests.conftest import RealStore


@dataclass(frozen=True, eq=False)
class Arm:
    """`needs` installs what its child wants, and raises install.Missing; `note` is about what it does otherwise than the rest."""

    name: str
    child: str
    dialect: Dialect
    store: Literal["none", "fake", "real"] = "real"
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Callable[[], None] | None = None
    note: str = ""
    resumes: bool = True
    """Whether a client can come back and have the rest."""

    @property
    def is_peer(self) -> bool:
        return self.child.startswith("peers")

    @property
    def returns(self) -> bool:
        """Whether there may be another process to come back to."""
        return self.resumes and self.store == "real"

    @contextmanager
    def started(self, store: RealStore, **more: Any) -> Iterator[Child]:
        """Its child, on an empty store unless others are on it."""
        url = {"store": store.url} if self.store == "real" else {}
        with child(self.child, **url, **self.options, **more) as server:
            yield server


RAW = Arm("raw TCP", "raw", Dialect(), "none", resumes=False)
BARE = Arm("bare websockets", "bare", Bare(), "none", resumes=False)
LEAST = Arm("redis-py and websockets alone", "least", Bare(), note="an XADD, then a send; nobody can come back", resumes=False)
KIT_FAKE = Arm("the kit, fakeredis", "full", Kit(), "fake")
KIT = Arm("the kit, real store", "full", Kit())
ASGI = Arm("the kit as ASGI, real store", "asgi", Kit())
ASGI_FAKE = Arm("the kit as ASGI, fakeredis", "asgi", Kit(), "fake")
WORKERS = Arm("the kit, 4 workers", "asgi", Kit(), options={"workers": 4})
SSE = Arm("starlette, SSE + POST", "peers.sse", Sse(), note="ids of a Redis stream as Last-Event-ID")
PEERS = (
    replace(SSE, needs=install.python),
    Arm("python-socketio", "peers.socketio", SocketIo(), needs=install.python, note="its Redis manager: pub/sub, nothing is kept"),
    Arm("socket.io", "peers/socketio.cjs", SocketIo(), needs=install.node, note="Redis streams adapter, connection state recovery"),
    Arm("resumable-stream", "peers/resumable.cjs", Resumed(), needs=install.node, note="a reader who has come back"),
    Arm("resumable-stream, first reader", "peers/resumable.cjs", Resumable(), needs=install.node, note="whose tokens pass by the store"),
)
