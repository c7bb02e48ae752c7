"""Bench: it runs, and prints every number that the project promises to reach. How large they are is no matter of a test."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

ROWS = (
    r"bare websockets, 100 connections +[\d,]+ messages a CPU second",
    r"full path, real server, one frame a token +[\d.]+ of bare .* >= 0.45 ",
    r"full path, fakeredis, one frame a token +[\d.]+ of bare .* >= 0.35 ",
    r"full path, real server, one frame a token, a token a step +[\d.]+ of bare",
    r"full path, fakeredis, one frame a token, a token a step +[\d.]+ of bare",
    r"full path, real server, joined frames +[\d.]+ of bare .*, \d+ a frame",
    r"full path, fakeredis, joined frames +[\d.]+ of bare .*, \d+ a frame",
    r"naive design .* p50 [\d.]+ ms, p99 [\d.]+ ms",
    r"kit, fakeredis +p50 [\d.]+ ms, p99 [\d.]+ ms: p50 is [\d.]+ of naive +<= 0.20 ",
    r"kit, real server +p50 [\d.]+ ms",
    r"longest gap while the cell sleeps +\d+ ms +< 50 ms ",
    r"longest gap while the cell loops in Python +\d+ ms +< 50 ms ",
    r"longest gap while the cell holds the GIL in C +\d+ ms",
    r"resume, fakeredis: handshake to next packet +median [\d.]+ ms.* median <= 10 ms ",
    r"resume, real server: handshake to next packet +median [\d.]+ ms.* median <= 10 ms ",
    r"takeover after kill -9 \(lease 0.5 s\) +median \d+ ms",
    r"idle connection, in one session +[\d.]+ KB .* <= 20 KB ",
    r"idle connection, each in a session of its own +[\d.]+ KB",
    r"import kit +[\d.]+ s .* < 0.3 s ",
    r"panel: 2,000 tokens at 1,000/s, last said to last visible +\d+ ms +<= 50 ms ",
    r"panel: longest task of the page meanwhile +\d+ ms +<= 100 ms ",
    r"panel: stop beside a busy cell to the last token \(median of \d+\) +\d+ ms +<= 50 ms ",
    r"import kit.server, kit.client +[\d.]+ s .* < 0.3 s ",
    r"notebook 00_start_here, an empty one beside it +[\d.]+ s, [\d.]+ s +< 5 s ",
)


@pytest.mark.timeout(300)
def test_the_bench_prints_every_row() -> None:
    """With the date, the versions and the command that say what was measured, and where."""
    ran = subprocess.run([sys.executable, "-m", "tests.bench", "--quick"], capture_output=True, text=True, timeout=290)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.match(
        r"python -m tests.bench --quick\n\d{4}-\d\d-\d\d \d\d:\d\d UTC, Python 3.*, \d+ cores\nwebsockets 1\d.*, fakeredis", ran.stdout
    )
    for row in ROWS:
        assert re.search(f"^{row}", ran.stdout, re.MULTILINE), f"no row {row!r} in\n{ran.stdout}"
