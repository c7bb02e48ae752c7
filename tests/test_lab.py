"""The lab: it starts once, a chapter starts cold, what is in the way is one sentence, and finish sees what is left open."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest
from tornado.platform.asyncio import AddThreadSelectorEventLoop

from kit import doctor, lab
from kit.agents.tape import Tape
from kit.client import connect
from kit.history import History
from kit.lab.finish import Unfinished
from kit.lab.start import CannotStart, Lab
from kit.lab.trace import Command, TurnChange
from kit.packets import AnyPacket, At, Content


async def parrot(history: History) -> AsyncIterator[AnyPacket]:
    yield Content(history.prompt.text)


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("KIT_STRICT", raising=False)
    yield
    if Lab.current:
        Lab.current.close()


# ---- start ----


def test_it_starts_once() -> None:
    """Each cell may ask for it; only other arguments than the running lab's make another, at the same port."""
    first = lab.start()
    assert lab.start() is first
    url = first.url
    second = lab.start(agents=parrot)
    assert second is not first
    assert lab.start(agents=parrot) is second
    assert lab.start() is second
    assert second.url == url


def test_a_chapter_starts_cold() -> None:
    """Whatever ran before, and each time: nothing stands in the log or in the trace; open panels find the same port."""
    before = lab.start(agents=parrot)
    url = before.url
    before.session().prompt("hi")
    here = lab.start("01", agents=parrot)
    assert here.url == url
    assert here.session().transcript == ()
    here.session().prompt("hi")
    again = lab.start("01", agents=parrot)
    assert again is not here
    assert again.session().transcript == ()
    assert not again.trace.records.of(TurnChange)
    assert lab.start() is again


def test_the_trace_sees_agents_that_are_added() -> None:
    """Not only those of the start."""
    here = lab.start("01", agents=parrot)
    here.add(other=parrot)
    here.session().prompt("hi", to="other")
    assert [(t.turn, t.what) for t in here.trace.records.of(TurnChange)] == [("1-0/other", "called"), ("1-0/other", "returned")]
    assert here.trace.records.of(Command)


def test_a_session_in_a_cell_is_the_servers() -> None:
    """It knows of each packet where the provider's stream stood; a client is never sent that."""

    async def quoting(_: History) -> AsyncIterator[AnyPacket]:
        yield Content("one", at=At("resp_1", 7))
        yield Content("two")

    here = lab.start(agents=quoting)
    said = here.session().prompt("hi")
    assert [entry.at for entry in said if isinstance(entry, Content)] == [At("resp_1", 7), None]

    async def read() -> list[AnyPacket]:
        found: list[AnyPacket] = []
        async with connect(here.url, session="demo", token=here.token()) as session:
            while len(found) < 2:
                if isinstance(entry := await anext(aiter(session)), Content):
                    found.append(entry)
        return found

    assert [entry.at for entry in lab.run(read())] == [None, None]


def test_a_cell_waits_to_the_end_however_often_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends in the very moment in which a look gives up is no TimeoutError; a TimeoutError of its own is."""
    monkeypatch.setattr("kit.lab.thread.STEP", 0.0)
    for n in range(300):
        assert lab.run(asyncio.sleep(0, n)) == n
    for _ in range(300):
        with pytest.raises(TimeoutError, match="its own"):
            lab.run(late())


async def late() -> None:
    raise TimeoutError("its own")


def test_what_is_in_the_way_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    old = doctor.package("ipykernel>=7.4,<8", lambda name: "6.29.5")
    monkeypatch.setattr(sys.modules["kit.lab.start"], "essentials", lambda: iter([old]))
    with pytest.raises(CannotStart, match=r'^ipykernel 6\.29\.5: .* "ipykernel>=7\.4,<8", .*; or run `make lab`'):
        lab.start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.undo()
        with pytest.raises(CannotStart, match="The lab could not start"):
            lab.start(port=taken.getsockname()[1])


def test_what_the_demos_model_says_is_on_a_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo has its tools all the same; the same tape is the same lab, and another one makes another."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    tape = Tape()
    here = lab.start(tape=tape)
    assert lab.start() is lab.start(tape=tape) is here
    said = here.session("taped").prompt("weather in Oslo")
    assert [run.calls for run in tape.runs] == [["get_weather"], []]
    assert "".join(run.text for run in tape.runs) == "".join(entry.text for entry in said if isinstance(entry, Content))
    assert lab.start(tape=Tape()) is not here


def test_a_tape_beside_agents_of_ones_own_is_refused() -> None:
    """Nothing would come onto it. The lab that runs goes on."""
    before = lab.start(agents=parrot)
    with pytest.raises(CannotStart, match=r"^tape= .* agents= .*openai_agent\(tape=...\)$"):
        lab.start(agents=parrot, tape=Tape())
    assert lab.start(agents=parrot) is before


# ---- finish ----


async def test_nothing_is_left_over() -> None:
    """After a client that was closed; the lab goes on for a learner, and a test looks behind it, too."""
    here = lab.start("01", agents=parrot)
    async with connect(here.url, token=here.token(), session="demo") as session:
        await session.prompt("hi")
    assert repr(lab.finish()) == "✓ finished: no task and no socket is left over"
    assert Lab.current is here


async def test_in_tests_of_chapters_the_lab_itself_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, and no task of it runs on."""
    here = lab.start("01", agents=parrot)
    here.session().prompt("hi")
    monkeypatch.setenv("KIT_STRICT", "1")
    lab.finish()
    assert Lab.current is None
    kept = lab.start("01", agents=parrot)
    forgotten = asyncio.run_coroutine_threadsafe(asyncio.Event().wait(), kept.loop)
    with pytest.raises(Unfinished, match="the lab left a task behind"):
        lab.finish()
    forgotten.cancel()


async def test_a_task_that_still_runs_is_named() -> None:
    """And ended where the chapter begins again."""
    lab.start("01", agents=parrot)
    task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
    with pytest.raises(Unfinished, match="a task still runs: forgotten"):
        lab.finish()
    lab.start("01", agents=parrot)
    with pytest.raises(asyncio.CancelledError):
        await task
    lab.finish()


@pytest.mark.parametrize("held", [True, False])
async def test_a_task_that_failed_unseen_is_named(held: bool) -> None:
    """Whether a variable still holds it or not."""

    async def fails() -> None:
        raise ZeroDivisionError("in the background")

    lab.start("01", agents=parrot)
    tasks = [asyncio.create_task(fails())]
    await asyncio.wait(tasks)
    if not held:
        tasks.clear()
        gc.collect()
    with pytest.raises(Unfinished, match=r"a task failed and nobody looked: .*ZeroDivisionError\('in the background'\)"):
        lab.finish()


async def test_a_failure_that_was_looked_at_is_none() -> None:
    """Lessons let things fail."""

    async def fails() -> None:
        raise ZeroDivisionError

    lab.start("01", agents=parrot)
    task = asyncio.create_task(fails())
    with pytest.raises(ZeroDivisionError):
        await task
    lab.finish()


def test_a_look_disturbs_nobody() -> None:
    """A tuple in the making, which somebody else holds, is an error of CPython's."""
    here = lab.start("98")
    began = threading.Event()

    async def busy() -> None:
        began.set()
        while True:
            assert len(tuple(i for i in range(5_000))) == 5_000
            await asyncio.sleep(0)

    going = asyncio.run_coroutine_threadsafe(busy(), here.loop)
    began.wait()
    for _ in range(3):
        here.watch.report([], 0)
    assert not going.done()
    going.cancel()


def test_an_open_socket_is_named() -> None:
    """By its addresses: one that listens, and one to the lab."""
    here = lab.start("01", agents=parrot)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(("127.0.0.1", here.server.port)):
        with pytest.raises(Unfinished) as told:
            lab.finish()
        lines = str(told.value).splitlines()
        assert any(f":{server.getsockname()[1]} listening" in line for line in lines)
        assert any(f" to 127.0.0.1:{here.server.port}: close it" in line for line in lines)
        assert len(lines) == 2
    lab.finish()


def test_a_socket_that_holds_nothing_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows an event loop wakes itself by a pair of TCP sockets, and one that listens has the next ready, which is not bound."""

    def pair() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            one = socket.create_connection(server.getsockname())
            return server.accept()[0], one

    lab.start("01", agents=parrot)
    monkeypatch.setattr(socket, "socketpair", pair)
    with closing(asyncio.new_event_loop()), closing(AddThreadSelectorEventLoop(asyncio.new_event_loop())), socket.socket():
        lab.finish()


def test_finish_without_a_lab_says_so() -> None:
    with pytest.raises(Unfinished, match="no lab is open"):
        lab.finish()
