"""Workers: several processes of uvicorn behind one port, over one store: no promise is weaker than with one.

Which of them a client gets is the system's choice, and another one at each reconnect.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from kit.lab.project import project, write
from kit.packets import Content, End, Entry, EntryId, Takeover, Thought
from tests.promises.support import Judge, Watcher, count, read_log, turn_of, watch
from tests.started import Project, started
from tests.support import visit

TO = 200
AGENT = f"""
import asyncio, os
from kit.packets import Content, Thought

async def agent(history):
    yield Thought(f"{{os.getpid()}} ")
    said = "".join(packet.text for packet in history.said if isinstance(packet, Content)).split()
    for n in range(len(said) + 1, {TO} + 1):
        await asyncio.sleep(0.01 if history.prompt.text == "go" else 1)
        yield Content(f"{{n}} ")
"""
"""Counts, fast at "go"; whoever goes on with it says in which process."""


def write_project(folder: Path) -> None:
    """With a short lease: whoever is killed is not waited for long."""
    files = project(AGENT)
    write(folder, {**files, "app.py": files["app.py"].replace("    secret=", "    lease=0.5,\n    secret=")})


HYPERCORN = "web: exec hypercorn app:app --bind $HOST:$PORT --graceful-timeout 1\n"
"""Another Procfile."""


def owners(log: list[Entry], turn: str) -> list[int]:
    """The processes in which a turn ran, in order."""
    return [int(pid) for e in log if isinstance(e, Thought) and e.turn == turn for pid in e.text.split()]


def counted(log: list[Entry], turn: str) -> str:
    return "".join(e.text for e in log if isinstance(e, Content) and e.turn == turn)


class Speaking:
    """Somebody, and the turn that answers them."""

    def __init__(self, watcher: Watcher, session: str, turn: str) -> None:
        self.watcher, self.session, self.turn = watcher, session, turn

    async def owner(self) -> int:
        """Who answers."""
        await self.watcher.until(lambda w: owners(w.log, self.turn))
        return owners(self.watcher.log, self.turn)[-1]


async def spread(here: Project, stack: AsyncExitStack) -> AsyncIterator[Speaking]:
    """People in sessions of their own, who prompt at once, without end."""
    i = 0
    while True:
        session = f"s{(i := i + 1)}"
        watcher = await stack.enter_async_context(watch(here.url, session, token=here.token("ann")))
        yield Speaking(watcher, session, turn_of(await watcher.session.prompt("go")))


async def test_p1_to_p6_with_three_workers_of_which_one_is_killed(tmp_path: Path, real_store_url: str) -> None:
    """At least two of them answer when `kill -9` takes one in mid-answer: every client sees its answer to the end, exact, and the log."""
    write_project(tmp_path)
    async with started(tmp_path, store=real_store_url, workers=3) as here, AsyncExitStack() as stack:
        people: list[Speaking] = []
        async for one in spread(here, stack):
            people.append(one)
            if len(people) >= 4 and len({await person.owner() for person in people}) > 1:
                break
        last = people[-1]
        victim = await last.owner()
        others = await stack.enter_async_context(watch(here.url, last.session, token=here.token("bob")))
        await last.watcher.until(lambda w: " 30 " in counted(w.log, last.turn))
        os.kill(victim, signal.SIGKILL)
        for person in people:
            assert (await person.watcher.ended(person.turn)).reason == "done"
            log = await read_log(real_store_url, person.session)
            Judge(log)
            assert person.watcher.seen == log
            assert counted(log, person.turn) == count(TO)
        assert owners(last.watcher.log, last.turn)[-1] != victim
        await others.reached(EntryId.parse(log[-1].id))
        assert others.seen == log
        await here.serving(4)  # the one that was killed has a successor


async def test_workers_that_are_sent_away_hand_over_and_say_1012(tmp_path: Path, real_store_url: str) -> None:
    """SIGTERM: the turns are given away, and then the sockets close with 1012 and a delay: killed meanwhile, nobody waits for a lease."""
    write_project(tmp_path)
    async with started(tmp_path, store=real_store_url, workers=2) as here:
        async with visit(here) as ann:
            await ann.send({"type": "prompt", "ref": "r" * 16, "text": "go"})
            await ann.until("content")
            leaving = asyncio.create_task(here.leave())
            code, reason = await ann.closed()
            given_away = (await read_log(real_store_url, "s"))[-1]
            assert (code, reason.isdecimal(), given_away.__struct_config__.tag) == (1012, True, "takeover")
        assert await leaving in (0, -signal.SIGTERM)
        assert here.log.count("Application shutdown complete") == 2
        log = await read_log(real_store_url, "s")
        Judge(log)
        assert isinstance(log[-1], Takeover)
        assert log[-1].by is None


async def test_p1_to_p6_behind_another_asgi_server(tmp_path: Path, real_store_url: str) -> None:
    """Hypercorn, for which nothing in the kit was written: `kill -9` in mid-answer, a stop, an orderly end."""
    write_project(tmp_path)
    (tmp_path / "Procfile").write_text(HYPERCORN)
    alike: dict[str, Any] = {"store": real_store_url, "secret": secrets.token_urlsafe(32), "workers": 0}
    async with (
        started(tmp_path, **alike) as one,
        started(tmp_path, **alike) as other,
        watch(one.url, "s", token=one.token("ann")) as ann,
        watch(other.url, "s", token=other.token("bob")) as bob,
    ):
        killed = turn_of(await ann.session.prompt("go"))
        await bob.until(lambda w: " 30 " in counted(w.log, killed))
        one.kill()
        assert (await bob.ended(killed)).reason == "done"
        assert counted(bob.log, killed) == count(TO)

        stopped = turn_of(await bob.session.prompt("go"))
        await bob.until(lambda w: " 30 " in counted(w.log, stopped))
        receipt = await bob.session.stop()
        assert (await bob.ended(stopped)).reason == "stopped"
        after = [entry for entry in bob.log if EntryId.parse(entry.id) > EntryId.parse(str(receipt.id))]
        assert [type(entry) for entry in after] == [End]

        await bob.session.prompt("slowly")
        assert await other.leave() == 0
        log = await read_log(real_store_url, "s")
        Judge(log)
        assert bob.seen == log[: len(bob.seen)]
        assert any(entry.by for entry in log if isinstance(entry, Takeover))  # of the one that was killed
        assert isinstance(log[-1], Takeover)
        assert log[-1].by is None
