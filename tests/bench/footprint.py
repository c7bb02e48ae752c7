"""Footprint: what an idle connection holds, and what an import takes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from tests.bench.arms import KIT
from tests.bench.child import Child
from tests.bench.table import Row
from tests.bench.tap import Tap
from tests.conftest import RealStore


def idle(store: RealStore, connections: int) -> list[Row]:
    """RSS of the server's process over many idle connections: all in one session, and each in its own; the store is another process."""
    rows = []
    for name, path in (("in one session", "one"), ("each in a session of its own", "session-{}")):
        store.empty()
        with KIT.started(store) as server:
            size = asyncio.run(_idle(server, [path.format(i) for i in range(connections)]))
        target = "<= 20 KB" if name == "in one session" else ""
        rows.append(Row(f"idle connection, {name}", f"{size:.1f} KB of RSS, of {connections}", target, size <= 20 or not target))
    return rows


async def _idle(server: Child, sessions: list[str]) -> float:
    await _dialled(server, [f"warm-{i}" for i in range(20)])
    before = server.memory()
    taps = await _dialled(server, sessions)
    return (server.memory() - before) / len(taps) / 1024


async def _dialled(server: Child, sessions: list[str]) -> list[Tap]:
    return [await KIT.dialect.dial(server, session) for session in sessions]


def imports(times: int) -> list[Row]:
    """`import` of the core in a fresh interpreter, less the interpreter's own start; the best of a few, as a busy machine only adds."""
    took = {what: min(_start(f"import {what}" if what else "") for _ in range(times)) for what in ("", "kit", "kit.server, kit.client")}
    rows = []
    for what in ("kit", "kit.server, kit.client"):
        seconds = max(0.0, took[what] - took[""])
        rows.append(Row(f"import {what}", f"{seconds:.2f} s (interpreter: {took['']:.2f} s)", "< 0.3 s", seconds < 0.3))
    return rows


def _start(code: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began
