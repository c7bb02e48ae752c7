"""Chapter 06: each draft fails for the reason that the chapter gives, and what it ends with does not."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import msgspec
import pytest

from kit.client import connect
from kit.lab.chaos import Fault
from kit.lab.herd import KNOWN, exponential, fixed, herd, limit
from kit.lab.line import Line, line
from kit.lab.resume import check_resume, replay
from kit.lab.trial import SHUT, Client
from kit.packets import Prompt, new_ref
from kit.server import Server, serve
from tests.notebooks import chapters
from tests.notebooks.chapters import cells
from tests.support import Counting, visit

defined = partial(chapters.defined, cells("06"))
DRAFTS = defined("start", "listen", "again", "cursor", "anew", "client")
CUT, RELOAD, RECEIPT = Fault(4, "cut", "line"), Fault(4, "reload", "client"), Fault(4, "receipt", "client")
VANISH, SHUTS, LINGER = Fault(4, "vanish", "line"), Fault(4, "shut", "line", SHUT), Fault(4, "linger", "line")
AWAY = Fault(4, "flush", "store", value=SHUT)
FLUSH, TRIM, LEAVE = Fault(4, "flush", "store"), Fault(4, "trim", "store", "s"), Fault(4, "leave", "one", seconds=1.0)


def broken(client: Client, fault: Fault) -> tuple[str, str]:
    """The promise that the client breaks in this story, and what was seen."""
    verdict = replay(client, fault)
    assert verdict.trial is not None, "it survived"
    assert verdict.trial.broken is not None
    return verdict.trial.broken.promise, verdict.trial.broken.seen


# ---- when ----


def test_doubling_alone_only_moves_the_moment() -> None:
    """All 2,000 in the same 100 ms, whether the delay doubles or not."""
    assert herd(fixed).peak == herd(exponential).peak == 2000
    assert herd(exponential).median > herd(fixed).median


def test_no_known_policy_gets_below_the_limit_of_chance() -> None:
    """The chapter says: without a word from the host nobody does. (A peak is a whole number, and one seed may be lucky.)"""
    for name, policy in KNOWN.items():
        back = herd(policy)
        assert back.peak >= 0.9 * limit(back.median), name


def test_after_a_short_outage_only_slots_help() -> None:
    """The numbers in the text: the caps are small yet, or everybody's first delay is 0."""
    kits = KNOWN["the kit"]
    assert [herd(kits, outage=outage).peak for outage in (1, 0)] == [291, 2000]
    assert [herd(kits, outage=outage, slots=25).peak for outage in (1, 0)] == [25, 25]


async def test_who_begins_anew_at_each_handshake_dials_without_end() -> None:
    """The reconnecting iterator of the library, and the kit's client, each at a line that accepts and closes."""
    names = defined("start")
    async with serve(Counting()) as server, line(server.url) as one, line(server.url) as other:
        for each in (one, other):
            each.shut(1000)
        async with connect(other.url, session="s", token=server.token("ann")):
            await _fifty_dials(names["connect"], one, server)
        assert other.dials < 10


async def _fifty_dials(dial: Any, wire: Line, server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.token('ann')}"}
    async for socket in dial(f"{wire.url}/s/s", additional_headers=headers, subprotocols=["kit.v1"], proxy=None):
        await socket.wait_closed()
        if wire.dials == 50:
            return


# ---- where ----


def test_dialling_again_gives_everything_a_second_time() -> None:
    assert broken(DRAFTS["dials_again"], CUT) == ("P2 exactly once", "1-0 (prompt) again")


@pytest.mark.parametrize("fault", [CUT, RELOAD, LINGER, RECEIPT], ids=lambda fault: fault.what)
def test_the_last_id_survives_what_leaves_the_log_alone(fault: Fault) -> None:
    assert replay(DRAFTS["with_cursor"], fault).passed


def test_the_last_id_alone_glues_two_logs_together() -> None:
    """The store was emptied while it was away: the rest of the new answer follows half of the old one. It does not hear a gap, either."""
    assert broken(DRAFTS["with_cursor"], AWAY) == ("P1 order", "1-0 (prompt) “hello”")
    assert broken(DRAFTS["with_cursor"], FLUSH) == ("P7 honest gap", "1-0 (prompt)")


async def test_without_its_log_an_id_is_believed() -> None:
    """The same id, resumed in silence; with the name of another log it is a gap."""
    async with serve(Counting()) as server:
        await server.instance.say("s", new_ref(Prompt(text="hi")), "ann")
        async with visit(server, query="?after=1-0") as alone, visit(server, query="?after=1-0&log=AAAAAAAA") as named:
            assert (alone.hello.status, alone.hello.reason) == ("resumed", None)
            assert (named.hello.status, named.hello.reason) == ("gap", "other log")


def test_without_a_limit_to_silence_a_dead_line_is_waited_for() -> None:
    assert broken(DRAFTS["with_cursor"], VANISH)[0] == "P2 exactly once"


# ---- words ----


def test_a_new_id_for_each_sending_says_it_twice() -> None:
    """And the same ref does not: the receipt was lost, the word was not."""
    twice = partial(DRAFTS["with_cursor"], listen=DRAFTS["sends_anew"])
    assert broken(twice, RECEIPT) == ("P4 receipts", "2 times")
    assert replay(twice, CUT).passed


# ---- the last draft ----


@pytest.mark.parametrize("fault", [CUT, RELOAD, RECEIPT, VANISH, SHUTS, LINGER, FLUSH, AWAY, TRIM, LEAVE], ids=repr)
def test_the_client_of_the_last_exercise_survives(fault: Fault) -> None:
    verdict = replay(DRAFTS["my_client"], fault)
    assert verdict.passed, verdict


def test_the_client_of_the_last_exercise_survives_faults_by_chance() -> None:
    verdict = check_resume(DRAFTS["my_client"], examples=12, seconds=20.0, seed=6)
    assert verdict.passed, verdict
    assert verdict.stories >= 8


# ---- the tables of the exercises ----


def test_the_solution_of_6_2_agrees_with_a_real_connection() -> None:
    """Frame by frame it draws what the kit's server sends, each entry once; a repeated one is skipped, a missing one noticed."""
    decide = defined("decide")["decide"]

    async def frames() -> list[dict[str, Any]]:
        async with serve(Counting(), join=False) as server, visit(server) as ann:
            await ann.send({"type": "prompt", "text": "hi", "ref": "r" * 16})
            await ann.until("end")
            return [msgspec.to_builtins(frame) for frame in ann.seen]

    heard = asyncio.run(frames())
    place: dict[str, str] = {}
    done = []
    for frame in heard:
        place, do = decide(place, frame)
        done.append(do)
    entries = [frame for frame in heard if "id" in frame and frame["type"] != "receipt"]
    assert done.count("draw") == len(entries) == 3
    assert place["after"] == entries[-1]["id"]
    assert decide(place, random.Random(6).choice(entries))[1] == "skip"
    assert decide({"after": entries[0]["id"], "log": place["log"]}, entries[-1])[1] == "dial again"
