"""Herd: 2,000 clients come back after 20 s: how the policies differ, what chance allows, and what slots make of it."""

from __future__ import annotations

import itertools
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import websockets.client

from kit.client import Backoff
from kit.lab.herd import (
    KNOWN,
    Herds,
    Policy,
    compare,
    decorrelated_jitter,
    equal_jitter,
    exponential,
    fixed,
    full_jitter,
    herd,
    limit,
    of_backoff,
    socketio,
)
from kit.lab.herd import websockets as as_websockets
from kit.slots import Slots

KIT = KNOWN["the kit"]


def first(policy: Policy, count: int, rng: random.Random | None = None) -> list[float]:
    """The first delays of a client."""
    return list(itertools.islice(policy(rng or random.Random(0)), count))


def typical(policy: Policy, seeds: range = range(30), **options: Any) -> tuple[float, float]:
    """Peak and median wait: each the median over the seeds. Options as in `herd`."""
    herds = [herd(policy, seed=seed, **options) for seed in seeds]
    return statistics.median(each.peak for each in herds), statistics.median(each.median for each in herds)


# ---- the numbers of the kit ----


def test_the_kits_default_is_as_even_as_chance_allows() -> None:
    """Within 10 % of independent arrivals with the same median wait (medians of 30 seeds)."""
    peak, median = typical(KIT)
    assert peak <= 1.1 * limit(median), (peak, median)
    assert median < 4.5


def test_slots_go_past_that_limit() -> None:
    """At most 25 in 100 ms at a median of 4.5 s or less, where chance needs 35; also pages, which cannot see a 503."""
    peak, median = typical(KIT, slots=25)
    assert peak <= 25
    assert median <= 4.5
    assert limit(median) >= 34
    peak, median = typical(KIT, slots=25, listens=False)
    assert peak <= 25
    assert median < 5.0


def test_where_another_instance_is_there_at_once_only_slots_help() -> None:
    """The first retry is at once, so a herd without an outage stands at the door together; told when to come, it uses every slot."""
    assert herd(KIT, outage=0).peak == 2000
    told = herd(KIT, outage=0, slots=25)
    assert set(told.counts) == {25}
    assert told.median <= 4.0
    assert told.tries == 2000 + 1975  # one look, and then at the time that was told


def test_an_orderly_shutdown_spreads_its_connections() -> None:
    """What the closes say is the slots' own: everybody is let in at the first try."""
    told = iter(Slots(25).spread(2000))

    def orderly(rng: random.Random) -> Iterator[float]:
        yield next(told) / 1000
        yield from KIT(rng)

    back = herd(orderly, outage=0, slots=25)
    assert set(back.counts) == {25}
    assert back.tries == 2000


# ---- what chance allows ----


@pytest.mark.parametrize("median", [0.5, 2.0, 5.4, 7.0])
def test_the_limit_is_what_independent_clients_reach(median: float) -> None:
    """Computed, and thrown: clients uniform over twice the median wait, each by itself."""
    rng = random.Random(1)

    def thrown() -> int:
        return max(Counter(int(rng.uniform(0, 20 * median)) for _ in range(2000)).values())

    peaks = sorted(thrown() for _ in range(200))
    assert abs(limit(median) - peaks[100]) <= 1


def test_without_a_wait_the_limit_is_everybody() -> None:
    assert limit(0.0) == pytest.approx(2000, abs=1)


# ---- the simulation ----


def test_a_policy_without_chance_brings_all_at_once() -> None:
    """At the first multiple after the host's return."""
    back = herd(fixed, outage=19.5)
    assert (back.peak, back.median) == (2000, pytest.approx(0.5))
    assert back.tries == 2000 * 20


def test_the_same_seed_is_the_same_herd() -> None:
    assert herd(KIT) == herd(KIT)
    assert herd(KIT).waits != herd(KIT, seed=2).waits


def test_everybody_comes_back_once() -> None:
    back = herd(KIT, slots=25)
    assert sum(back.counts) == len(back.waits) == 2000
    assert list(back.waits) == sorted(back.waits)


def test_slots_cost_a_silent_client_nothing() -> None:
    """The median with slots is no worse than without: every slot is used while anybody knocks."""
    assert typical(KIT, seeds=range(5), slots=25)[1] <= typical(KIT, seeds=range(5))[1] + 0.1


def test_a_policy_that_dials_without_end_is_told() -> None:
    with pytest.raises(ValueError, match="must not dial without end"):
        herd(lambda rng: itertools.repeat(0.001))
    with pytest.raises(ValueError, match="the delays end"):
        herd(lambda rng: iter([0.1, 0.2]))


# ---- the policies ----


def test_of_backoff_is_the_class_itself() -> None:
    """The delays that the client will wait, not a second version of them."""
    backoff = Backoff(rng=random.Random(3))
    assert first(of_backoff(Backoff), 8, random.Random(3)) == [backoff.next() for _ in range(8)]


def test_websockets_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    monkeypatch.setattr(random, "random", chance.random)
    ours = first(as_websockets, 12, random.Random(5))
    assert ours == pytest.approx(list(itertools.islice(websockets.client.backoff(), 12)))


def test_socketio_is_as_documented() -> None:
    """1 s doubling, each half more or half less, 5 s at most."""
    for n, bounds in enumerate([(0.5, 1.5), (1.0, 3.0), (2.0, 5.0), (4.0, 5.0), (5.0, 5.0)]):
        delays = [first(socketio, 5, random.Random(seed))[n] for seed in range(300)]
        assert bounds[0] <= min(delays) <= max(delays) <= bounds[1]
        assert min(delays) == pytest.approx(bounds[0], rel=0.15)
        assert max(delays) == pytest.approx(bounds[1], rel=0.15)


@pytest.mark.parametrize(("policy", "low", "high"), [(full_jitter, 0.0, 1.0), (equal_jitter, 0.5, 1.0)])
def test_jitter_is_a_part_of_the_exponential_delay(policy: Policy, low: float, high: float) -> None:
    for delay, cap in zip(first(policy, 12), first(exponential, 12), strict=True):
        assert low * cap <= delay <= high * cap
    assert first(exponential, 8) == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_decorrelated_jitter_grows_from_the_delay_before() -> None:
    delays = first(decorrelated_jitter, 200)
    assert all(0.5 <= after <= min(30.0, 3 * before) for before, after in itertools.pairwise(delays))
    assert max(delays) == 30.0


# ---- the display ----


@pytest.fixture(scope="module")
def known() -> Herds:
    return compare(KNOWN)


def test_the_table_has_peak_median_and_limit(known: Herds) -> None:
    lines = repr(known).splitlines()
    assert lines[0].split() == ["peak", "in", "100", "ms", "median", "wait", "limit", "of", "chance", "tries", "each"]
    for line, (name, each) in zip(lines[1:], known.items(), strict=True):
        assert line.startswith(name)
        assert line.removeprefix(name).split() == [
            str(each.peak), f"{each.median:.1f}", "s", str(limit(each.median)), f"{each.tries / 2000:.0f}"
        ]  # fmt: skip


def test_the_picture_is_drawn_to_scale(known: Herds) -> None:
    """Well-formed, on a white ground, a title for who cannot see it; a lane's bars and its line of chance measure by the same rule."""
    picture = ET.fromstring(known._repr_svg_())
    svg = "{http://www.w3.org/2000/svg}"
    title, ground = picture.findtext(f"{svg}title"), picture.find(f"{svg}rect")
    assert title == repr(known)
    assert ground is not None
    assert ground.get("fill") == "white"
    bars = [path.get("d", "") for path in picture.iter(f"{svg}path") if path.get("stroke") == "#06c"]
    assert len(bars) == len(KNOWN)
    for each, path in zip(known.values(), bars, strict=True):
        shown = [n for n in each.counts[:160] if n]
        heights = [float(bar.partition("v-")[2]) for bar in path.split("M")[1:]]
        assert heights == pytest.approx([min(n, 60) * 46 / 60 for n in shown], abs=0.1)
