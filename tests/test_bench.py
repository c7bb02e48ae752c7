"""Bench: it runs, and prints every number that the project promises to reach. How large they are is no matter of a test."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

ROWS = (
    r"raw TCP +[\d,]+ +[\d,]+ +[\d,]+ ",
    r"bare websockets +[\d,]+ +[\d,]+ +[\d,]+ ",
    r"the kit, fakeredis +[\d,]+ +[\d,]+ +[\d,]+ +\d+, \d+ +[\d.]+ +[\d.]+ +[\d.]+ +0, 0 of \d+",
    r"the kit, real store +[\d,]+ +[\d,]+ +[\d,]+ +\d+, \d+ +[\d.]+ +[\d.]+ +[\d.]+ +0, 0 of \d+ +goes on in ",
    r"the kit, real store .* goes on in \d+ ms: 150 of 150, 0 doubled; whoever comes later gets 150",
    r"the kit as ASGI, real store .* 0, 0 of \d+ +goes on in \d+ ms: 150 of 150, 0 doubled; whoever comes later gets 150",
    r"starlette, SSE \+ POST .*[\d,]+ +[\d,]+ +[\d,]+ +1, 1 +[\d.]+ +[\d.]+ +[\d.]+ +0, 0 of \d+ +ends there: \d\d of 150",
    r"tokens/s, 1 session: the kit on a real store +[\d.]+ times .* >= 10 ",
    r"tokens/s, 20 sessions: the kit on a real store +[\d.]+ times .* >= 8 ",
    r"p50 at 50 tokens/s: the kit on a real store +[\d.]+ ms, .* <= the best peer's ",
    r"p99 at 50 tokens/s: the kit on a real store +[\d.]+ ms, .* <= the best peer's ",
    r"tokens lost or doubled in all drops and kills +0 of \d+ +0 +met",
    r"the kit, fakeredis( +[\d,]+){6}( +[\d.]+, [\d.]+){2}$",
    r"the kit as ASGI, fakeredis( +[\d,]+){6}( +[\d.]+, [\d.]+){2}$",
    r"the kit, real store( +[\d,]+){6}( +[\d.]+, [\d.]+){2}$",
    r"the kit as ASGI, real store( +[\d,]+){6}( +[\d.]+, [\d.]+){2}$",
    r"bare websockets, 100 connections +[\d,]+ messages a CPU second",
    r"full path, real server, 100 sessions, one frame a token +[\d.]+ of bare .* >= 0.45 ",
    r"full path, fakeredis, 100 sessions, one frame a token +[\d.]+ of bare .* >= 0.35 ",
    r"full path, real server, 100 sessions, one frame a token, a token a step +[\d.]+ of bare",
    r"full path, fakeredis, 100 sessions, one frame a token, a token a step +[\d.]+ of bare",
    r"full path, real server, 100 sessions, joined frames +[\d.]+ of bare .*, \d+ a frame.* >= 1.5 ",
    r"full path, fakeredis, 100 sessions, joined frames +[\d.]+ of bare .*, \d+ a frame.* >= 0.9 ",
    r"full path, real server, 100 sessions, joined frames, answers of 500 tokens +[\d.]+ of bare .*, \d+ a frame",
    r"full path, fakeredis, [\d,]+ sessions, joined frames, answers of 500 tokens +[\d.]+ of bare .*, \d+ a frame",
    r"full path, real server: cost of a token at [\d,]+ sessions +[\d.]+ times that at 100, in answers of 500 +<= 1.5 times ",
    r"full path, fakeredis: cost of a token at [\d,]+ sessions +[\d.]+ times that at 100, in answers of 500 +<= 1.5 times ",
    r"full path, 4 workers of uvicorn, real server: cost of a token +[\d.]+ times that of one +<= 1.2 times ",
    r"naive design .* p50 [\d.]+ ms, p99 [\d.]+ ms",
    r"kit, fakeredis +p50 [\d.]+ ms, p99 [\d.]+ ms: p50 is [\d.]+ of naive +<= 0.20 ",
    r"kit, real server +p50 [\d.]+ ms",
    r"longest gap while the cell sleeps +\d+ ms +< 50 ms ",
    r"longest gap while the cell loops in Python +\d+ ms +< 50 ms ",
    r"longest gap while the cell holds the GIL in C +\d+ ms",
    r"resume, fakeredis: dial to next packet +median [\d.]+ ms.* median <= 10 ms ",
    r"resume, real server: dial to next packet +median [\d.]+ ms.* median <= 10 ms ",
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


@pytest.mark.timeout(1000)
def test_the_bench_prints_every_row() -> None:
    """With the date, the versions and the command that say what was measured, and where."""
    ran = subprocess.run([sys.executable, "-m", "tests.bench", "--quick"], capture_output=True, text=True, timeout=990)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.match(
        r"python -m tests.bench --quick\n\d{4}-\d\d-\d\d \d\d:\d\d UTC, Python 3.*, \d+ cores\nwebsockets 1\d.*, fakeredis", ran.stdout
    )
    for row in ROWS:
        assert re.search(f"^{row}", ran.stdout, re.MULTILINE), f"no row {row!r} in\n{ran.stdout}"
