"""P1 to P7 at once, under generated schedules of faults: a bounded number of them here, all of them in `python -m tests.soak`."""

from __future__ import annotations

import asyncio
import itertools

from kit.lab.instances import Serve
from tests.soak.stories import FAULTS, KILLS, world, world_of_processes
from tests.support import both_servers

STORIES = 20
WORLDS = 4
KILLED = 4


@both_servers
async def test_p1_to_p7_under_generated_schedules(store: str, serve: Serve) -> None:
    """Cuts, half-open and duplicate connections, instances that stop, freeze and leave, a trimmed log: nothing is lost, doubled or late."""
    seeds = iter(range(STORIES))

    async def tell() -> None:
        async with world(store, serve) as one:
            for seed in seeds:
                await one.tell(seed, FAULTS)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WORLDS):
            tasks.create_task(tell())


async def test_p1_to_p7_while_processes_are_killed(real_store_url: str) -> None:
    """The same, with real processes and `kill -9`."""
    async with world_of_processes(real_store_url) as one:
        seeds = itertools.count()
        while one.kills < KILLED:
            await one.tell(next(seeds), KILLS)
