"""P1: within one log every client sees each id's successor next, and what two clients see agrees."""

from __future__ import annotations

import asyncio
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.lab.instances import Serve
from kit.packets import Prompt
from tests.promises.support import Judge, counting, ids, nodes, read_log, turn_of, watch, watchers
from tests.support import both_servers


@both_servers
async def test_p1_clients_on_three_instances_see_the_same_log(store: str, serve: Serve) -> None:
    """Three people on three instances talk at once: each sees exactly what the store holds, in its order."""
    async with nodes(store, counting(40, pace=2000), 3, serve=serve) as three, watchers([n.server for n in three], "order") as people:
        rounds = [[await asyncio.gather(*(person.session.prompt("go") for person in people))] for _ in range(5)]
        receipts = [receipt for talk in rounds for gathered in talk for receipt in gathered]
        for person in people:
            for receipt in receipts:
                await person.ended(turn_of(receipt))
        log = await read_log(store, "order")
        Judge(log)
        assert len([e for e in log if isinstance(e, Prompt)]) == 15  # on a busy machine there may be takeovers, too
        for person in people:
            assert person.seen == log


@both_servers
async def test_p1_a_late_client_sees_the_same_order_as_the_early_one(store: str, serve: Serve) -> None:
    """One reads live and joined packets, the other the log from its beginning, while it grows: the frames are the same."""
    async with nodes(store, counting(300, pace=1500), 2, serve=serve) as (one, other), watch(one.server, "late") as early:
        turn = turn_of(await early.session.prompt("go"))
        await early.pieces(turn, 100)
        async with watch(other.server, "late", "bob") as late:
            await late.ended(turn)
            await early.ended(turn)
            assert late.seen == early.seen
            Judge(late.log)


@both_servers
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_p1_cuts_at_random_points_do_not_change_the_order(store: str, serve: Serve, seed: int) -> None:
    """However often the sockets of one client are cut, it sees the log that the undisturbed one sees."""
    rng = random.Random(seed)
    session = f"cuts-{seed}"
    async with (
        nodes(store, counting(120, pace=1500), 2, serve=serve) as (one, other),
        watch(one.server, session) as calm,
        watch(other.server, session, "bob") as cut,
    ):
        turn = turn_of(await calm.session.prompt("go"))
        for pieces in sorted(rng.sample(range(1, 120), 5)):
            await calm.pieces(turn, pieces)
            await other.server.cut(session)
        await calm.ended(turn)
        await cut.ended(turn)
        assert cut.seen == calm.seen
        assert ids(cut.log) == ids(await read_log(store, session))
        Judge(cut.log)
