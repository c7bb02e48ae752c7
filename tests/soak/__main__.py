"""Soak: `python -m tests.soak`: generated schedules of faults by the thousand, kills of real processes, a thousand sessions.

It prints seeds and counts as it goes, and ends with 1 at the first broken promise, with the schedule and what everybody saw. A story
is told again by `--seed N --stories 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import RealStore
from tests.soak.crowd import screens, stops
from tests.soak.many import many_sessions
from tests.soak.pages import pages
from tests.soak.restarts import restarts
from tests.soak.stories import FAULTS, KILLS, LEASE, Failed, world, world_of_processes
from tests.soak.takeovers import after_kills, after_leaving, zombies


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="faults at random for a long time, on a real store")
    parser.add_argument("--seed", type=int, default=0, help="of the first story; the next ones count up")
    parser.add_argument("--stories", type=int, default=10_000, help="with instances of this process")
    parser.add_argument("--kills", type=int, default=500, help="with real processes, until so many were killed with signal 9")
    parser.add_argument("--pages", type=int, default=200, help="stories of session.js in Chromium")
    parser.add_argument("--restarts", type=int, default=200, help="stories in which the store itself restarts")
    parser.add_argument("--takeovers", type=int, default=20, help="measured of each kind")
    parser.add_argument("--sessions", type=int, default=1000, help="live at a time on one instance")
    parser.add_argument("--minutes", type=float, default=10.0, help="for that long")
    parser.add_argument("--stops", type=int, default=1000, help="of all in a room of eight agents that speak")
    parser.add_argument("--crowd", type=float, default=20.0, metavar="SECONDS", help="that the same room speaks to 40 people")
    parser.add_argument("--worlds", type=int, default=6, help="stories told at a time")
    return parser.parse_args()


async def stories(store: RealStore, seeds: Iterator[int], worlds: int) -> Counter[str]:
    """All of them, in so many worlds at a time; each has a database of its own."""
    happened, told, began = Counter[str](), 0, time.monotonic()

    async def tell(database: int) -> None:
        nonlocal told
        async with world(store.url.removesuffix("0") + str(database)) as one:
            for seed in seeds:
                await one.tell(seed, FAULTS)
                told += 1
                if told % 100 == 0:
                    print(f"  {told} stories, the last with seed {seed}, {time.monotonic() - began:.0f} s", flush=True)
        happened.update(one.happened)

    async with asyncio.TaskGroup() as tasks:
        for database in range(1, worlds + 1):
            tasks.create_task(tell(database))
    print(f"{told} stories without a broken promise in {time.monotonic() - began:.0f} s; faults: {dict(happened)}", flush=True)
    return happened


async def kills(store: RealStore, seed: int, wanted: int) -> None:
    """Stories of real processes, until so many were killed."""
    began, told = time.monotonic(), 0
    async with world_of_processes(store.url) as one:
        while one.kills < wanted:
            await one.tell(seed + told, KILLS)
            told += 1
            if told % 50 == 0:
                print(f"  {told} stories, {one.kills} kills, {time.monotonic() - began:.0f} s", flush=True)
        print(f"{told} stories of processes without a broken promise in {time.monotonic() - began:.0f} s", flush=True)
        print(f"  {one.kills} running processes killed with signal 9; faults: {dict(one.happened)}", flush=True)


def told(name: str, seconds: list[float], bound: float) -> bool:
    """Print what was measured; whether the median is in its bound."""
    middle = statistics.median(seconds)
    print(
        f"{name}: median {middle * 1000:.0f} ms, longest {max(seconds) * 1000:.0f} ms of {len(seconds)}; at most {bound * 1000:.0f} ms",
        flush=True,
    )
    return middle <= bound


async def main(chosen: argparse.Namespace) -> int:
    logging.getLogger("kit").setLevel(logging.ERROR)  # that a store is gone or a turn taken over is what is wanted here
    fine = True
    with tempfile.TemporaryDirectory() as directory:
        store = RealStore(Path(directory))
        print(f"seeds from {chosen.seed}; store {store.url}", flush=True)
        try:
            if chosen.stories:
                await stories(store, iter(range(chosen.seed, chosen.seed + chosen.stories)), chosen.worlds)
            if chosen.kills:
                await kills(store, chosen.seed, chosen.kills)
            if chosen.pages:
                await pages(chosen.seed, chosen.pages)
            if chosen.restarts:
                await restarts(chosen.seed, chosen.restarts)
            if chosen.takeovers:
                fine &= told("next token after kill -9", await after_kills(store.url, chosen.takeovers), LEASE + 0.5)
                fine &= told("next token after an orderly exit", await after_leaving(store.url, chosen.takeovers), 0.1)
                print(
                    f"{await zombies(store.url, chosen.takeovers)} instances woke up after their lease; nothing of theirs landed",
                    flush=True,
                )
            if chosen.crowd:
                store.empty()
                fine &= await screens(store.url, chosen.crowd)
            if chosen.stops:
                store.empty()
                late = await stops(store.url, chosen.stops, random.Random(chosen.seed))
                print(f"{chosen.stops} times all agents of a room stopped: {late} packets of a stopped turn after its receipt", flush=True)
                fine &= late == 0
            if chosen.sessions and chosen.minutes:
                fine &= await many_sessions(store.url, chosen.sessions, chosen.minutes * 60)
        except* Failed as failed:
            print("\n".join(str(error) for error in failed.exceptions), file=sys.stderr)
            fine = False
        finally:
            store.kill()
    print("fine" if fine else "NOT FINE")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options())))
