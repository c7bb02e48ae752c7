"""Chaos: a schedule falls in the same places each time, is printed as the code that makes it, and is over when it has been played."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.lab import chaos
from kit.lab.chaos import INSTANCE, LINE, STORE, Fault, Schedule, happen, play, witness
from kit.lab.instances import instances
from kit.lab.line import line
from kit.lab.served import flush, served_store, trim
from kit.packets import Prompt
from tests.promises.support import Judge, count, counting, read_log, said, turn_of, watch

STAGE = {"line": LINE, "one": INSTANCE, "store": STORE}


class Puppet:
    """Everything can happen to it; it writes down what did, and when."""

    def __init__(self, told: list[tuple[int, str]], seen: Any) -> None:
        self.told, self.seen = told, seen

    def __getattr__(self, what: str) -> Any:
        return lambda *_: self.told.append((self.seen.count, what))


# ---- schedules ----


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_is_drawn_from_its_seed_and_makes_itself_again(seed: int) -> None:
    """As code; in order, within its bounds, and with nothing that its stage does not know."""
    schedule = Schedule.draw(seed, 12, 100, STAGE)
    assert schedule == Schedule.draw(seed, 12, 100, STAGE) != Schedule.draw(seed + 1, 12, 100, STAGE)
    assert eval(repr(schedule), vars(chaos)) == schedule
    assert [f.after for f in schedule.faults] == sorted(f.after for f in schedule.faults)
    assert all(0 < f.after < 100 and f.what in STAGE[f.where] for f in schedule.faults)
    assert all((f.seconds > 0) == (f.what not in ("cut", "linger", "shut", "flush", "trim")) for f in schedule.faults)


def test_a_fault_that_nobody_knows_is_refused() -> None:
    """A story is written by hand, too, and a name that is no fault would be any attribute."""
    with pytest.raises(ValueError, match="is no fault: it is one of appear, cut"):
        Fault(1, "__class__", "line")


# ---- playing ----


async def test_faults_fall_where_the_witness_has_seen_so_much() -> None:
    """Not before, and each is ended in its time; what is cancelled in between is ended too."""
    async with instances(counting(60, pace=300), 1, join=False) as (one,), witness(one.url, "s", one.token(), proxy=None) as seen:
        told: list[tuple[int, str]] = []
        puppet = Puppet(told, seen)
        schedule = Schedule((Fault(5, "cut", "line"), Fault(20, "freeze", "line", seconds=0.01), Fault(40, "pause", "line", seconds=60.0)))
        playing = asyncio.create_task(play(schedule, seen, {"line": puppet}))
        await seen.session.prompt("go")
        await seen.until(lambda _: len(told) == 4)
        assert [what for _, what in told] == ["cut", "freeze", "thaw", "pause"]
        for (at, _), after in zip([told[0], told[1], told[3]], (5, 20, 40), strict=True):
            assert after <= at <= after + 2, "the witness reads on while the play wakes up"
        assert not playing.done()
        playing.cancel()
        await asyncio.wait({playing})
        assert told[-1][1] == "resume"


@pytest.mark.parametrize("seed", range(4))
async def test_a_story_of_drawn_faults_is_exact(seed: int) -> None:
    """All faults of lines, instances and stores but the flush: nothing lost, doubled or late, and all is well when it is over."""
    stage = {"line": LINE, "one": INSTANCE, "store": ("pause", "trim")}
    schedule = Schedule.draw(seed, 6, 100, stage)
    async with (
        served_store() as store,
        instances(counting(100, pace=400), 2, store=store.url, lease=0.15, join=False) as (one, other),
        line(one.url) as wire,
        witness(other.url, "demo", other.token(), proxy=None) as seen,
        watch(wire.url, "demo", "bob", token=one.token("bob"), silence=0.3) as bob,
    ):
        turn = turn_of(await seen.session.prompt("go"))
        await play(schedule, seen, {"line": wire, "one": one, "store": store})
        await bob.ended(turn)
        assert (wire.delay, wire.jitter, wire.rate) == (0.0, 0.0, None)
        assert one.running
        kept = await read_log(store.url, "demo")  # a late trim may have taken all but a takeover that was too late
        for person in (seen, bob):
            await person.until(lambda w: kept[-1] in w.log)
        log, view = (person.log[: person.log.index(kept[-1]) + 1] for person in (seen, bob))
        Judge(log)
        assert said(log, turn) == count(100)
        assert log[-len(kept) :] == kept
        missed = len(log) - len(view)
        assert log[missed:] == view
        assert {gap.reason for gap in bob.gaps} == ({"trimmed"} if missed else set())


async def test_what_is_set_and_how_it_is_undone() -> None:
    """A knob is set to its value, and back to nothing; a fault that ends by itself has nothing to undo it."""
    async with instances(counting(1), 1) as (one,), line(one.url) as wire:
        over = await happen(Fault(0, "delay", "line", 0.1), {"line": wire})
        assert wire.delay == 0.1
        assert over is not None
        await happen(over, {"line": wire})
        assert wire.delay == 0.0
        assert await happen(Fault(0, "stop", "one"), {"one": one}) == Fault(0, "start", "one")
        assert not one.running
        assert await happen(Fault(0, "cut", "line"), {"line": wire}) is None


# ---- the store loses ----


async def test_a_flushed_store_holds_nothing(store: str) -> None:
    """Clients are told `lost`."""
    async with instances(counting(10), 1, store=store) as (one,), watch(one.server, "s") as ann:
        await ann.ended(turn_of(await ann.session.prompt("go")))
        await flush(store)
        turn = turn_of(await ann.session.prompt("anew"))
        await ann.until(lambda w: w.gaps)
        await ann.ended(turn)
        assert [gap.reason for gap in ann.gaps] == ["lost"]
        assert [e.text for e in await read_log(store, "s") if isinstance(e, Prompt)] == ["anew"]


async def test_a_trimmed_log_keeps_its_last_epoch_and_what_open_turns_need(store: str) -> None:
    """The first of three answers goes while the second is still said; whoever comes anew is told `trimmed`."""
    agents = {"one": counting(10, pace=1000), "slow": counting(10_000, pace=200)}
    async with instances(agents, 1, store=store, join=False) as (one,), watch(one.server, "s") as ann:
        await ann.ended(turn_of(await ann.session.prompt("a"), "one"))
        slow = turn_of(await ann.session.prompt("b", to="slow"), "slow")
        await ann.ended(turn_of(await ann.session.prompt("c"), "one"))
        await trim(store, "s")
        assert (await read_log(store, "s"))[0].id == slow.partition("/")[0]
        async with watch(one.server, "s", "bob") as bob:
            await bob.until(lambda w: any(isinstance(e, Prompt) and e.text == "c" for e in w.log))
            assert [gap.reason for gap in bob.gaps] == ["trimmed"]
        await ann.session.stop()
        await ann.ended(slow)
