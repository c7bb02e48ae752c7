"""python -m tests.bench [--quick]: measure, against the bare libraries in the same run, and print one table."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tests.bench import comparison, footprint, gaps, grid, latency, lifelines, notebooks, panel, throughput
from tests.bench.peers.install import NODE, PYTHON
from tests.bench.table import Row, Table
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
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # set, it has every child compile what it imports
    gc.collect()
    gc.freeze()  # or a full collection here, of 15 ms and more, is taken for some arm's delay
    began = time.monotonic()
    print(_about(quick=quick), flush=True)
    with tempfile.TemporaryDirectory() as directory:
        store = RealStore(Path(directory))
        try:
            for measure in _sections(store, rng, quick):
                for table in measure():
                    print("", table.render(), sep="\n", flush=True)
        finally:
            store.kill()
    print(f"\ntook {time.monotonic() - began:.0f} s")


def _sections(store: RealStore, rng: random.Random, quick: bool) -> Iterator[Callable[[], Iterator[Table]]]:
    """What is printed as soon as it is known."""
    rounds, seconds = (1, 0.04) if quick else (3, 1.5)
    how = {"paced": 1, "times": 3, "kills": 1, "peers": False} if quick else {"paced": 9, "times": 10, "kills": 3, "peers": True}
    yield partial(comparison.measure, store, seconds, rounds, **how, rng=rng)
    yield partial(grid.measure, store, seconds, rounds, rng, (1, 5, 10) if quick else (1, 100, 1000))
    rows: list[Callable[[], list[Row]]] = [
        lambda: throughput.measure(store, seconds, rounds, rng, most=200 if quick else 1000),
        lambda: latency.measure(store, 1 if quick else 3, rounds, rng),
        lambda: gaps.measure(seconds=0.3 if quick else 3),
        lambda: lifelines.resume(store, times=5 if quick else 50),
        lambda: [*footprint.idle(store, connections=100 if quick else 1000), *footprint.imports(times=1 if quick else 5)],
        lambda: panel.measure(stops=2 if quick else 20),
        lambda: notebooks.measure(count=1 if quick else 100, times=1 if quick else 2),
    ]
    for each in rows:
        yield partial(_one, each)


def _one(measure: Callable[[], list[Row]]) -> Iterator[Table]:
    yield Table.of(measure())


def _about(*, quick: bool) -> str:
    ours = ("websockets", "redis", "hiredis", "fakeredis", "msgspec", "starlette", "uvicorn")
    libraries = ", ".join(f"{name} {version(name)}" for name in ours)
    if not quick:
        peers = [*(peer.replace("==", " ") for peer in PYTHON), *(" ".join(peer.rsplit("@", 1)) for peer in NODE)]
        libraries += f"\npeers: {', '.join(peers)}"
    store = subprocess.run([redis_server(), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {machine}"
    return "\n".join([shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]]), when, libraries, store])


if __name__ == "__main__":
    main()
