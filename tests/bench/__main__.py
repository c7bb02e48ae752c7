"""python -m tests.bench [--quick]: measure, against the bare libraries in the same run, and print one table."""

from __future__ import annotations

import argparse
import os
import platform
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench import footprint, gaps, latency, lifelines, notebooks, panel, throughput
from tests.bench.table import Row, render
from tests.conftest import RealStore
from tests.prerequisites import redis_server


def main() -> None:
    """Run every arm and print the table; `--quick` says that all of it runs, not how fast."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds an arm at most: shows that the bench runs; its numbers say little"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the order of the arms")
    options = parser.parse_args()
    rng, quick = random.Random(options.seed), options.quick
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        store = RealStore(Path(directory))
        try:
            arms: list[Callable[[], list[Row]]] = [
                lambda: throughput.measure(store, tokens=100 if quick else 600, rounds=1 if quick else 3, rng=rng),
                lambda: latency.measure(store, seconds=1 if quick else 3, rounds=1 if quick else 3, rng=rng),
                lambda: gaps.measure(seconds=0.3 if quick else 3),
                lambda: lifelines.resume(store, times=5 if quick else 50),
                lambda: lifelines.takeover(store, times=1 if quick else 5),
                lambda: footprint.idle(store, connections=100 if quick else 1000),
                lambda: footprint.imports(times=1 if quick else 5),
                lambda: panel.measure(stops=2 if quick else 20),
                lambda: notebooks.measure(count=1 if quick else 100, times=1 if quick else 3),
            ]
            rows = [row for arm in arms for row in arm()]
        finally:
            store.kill()
    print(_about(), f"took {time.monotonic() - began:.0f} s", "", render(rows), sep="\n")


def _about() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("websockets", "redis", "hiredis", "fakeredis", "msgspec"))
    store = subprocess.run([redis_server(), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {machine}"
    return "\n".join([shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]]), when, libraries, store])


if __name__ == "__main__":
    main()
