"""Server: hello and what follows it, typing, beats, the end of a connection's time, the drain, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from websockets import InvalidStatus, Subprotocol
from websockets.asyncio.client import connect

from kit.agents.scripted import scripted
from kit.connection import Budget, Flooding
from kit.history import History
from kit.lab.instances import Serve
from kit.log import Log, Stored
from kit.packets import Ask, Content, Entry, EntryId, Prompt, Typing
from kit.server import BoundedConnection, Server
from kit.service import Service
from kit.store import open_store
from kit.transcript import Transcript
from kit.turn import Run
from tests.promises.support import counting
from tests.support import Counting, both_servers, prompt, ref, visit

# ---- hello and the log ----


@both_servers
async def test_hello_says_where_the_connection_starts(store: str, serve: Serve) -> None:
    """Fresh: from the beginning. With a cursor: resumed after it, and nothing before it comes."""
    async with serve(Counting(), store=store) as server:
        async with visit(server) as ann:
            hello = ann.hello
            assert (hello.session, hello.after, hello.head, hello.status, hello.ticket) == ("s", "0-0", "0-0", "fresh", None)
            await ann.answer(prompt())
            await ann.until("end")
        async with visit(server, query=f"?after=1-1&log={hello.log}") as ann:
            assert (ann.hello.status, ann.hello.after, ann.hello.head, ann.hello.log) == ("resumed", "1-1", "1-2", hello.log)
            assert (await ann.receive())["id"] == "1-2"
        async with visit(server, query="?after=1-2") as ann:
            assert (ann.hello.status, ann.hello.after) == ("resumed", "1-2")


@both_servers
async def test_who_comes_back_has_the_first_entries_soon(store: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of hundreds is not read at once before the first is sent: the reads begin small, and grow."""
    asked = list[int]()
    read = Transcript.read

    async def noting(transcript: Transcript, log: Log, after: EntryId, count: int = 200) -> list[Stored]:
        asked.append(count)
        return await read(transcript, log, after, count)

    async with serve(counting(600), store=store, join=False) as server, visit(server) as ann:
        await ann.answer(prompt())
        await ann.until("end")
        monkeypatch.setattr(Transcript, "read", noting)
        async with visit(server) as bob:
            await bob.until("end")
            came = [entry.id for entry in bob.seen if isinstance(entry, Entry)]
    assert came == ["1-0", *(f"1-{n}" for n in range(1, 602))]
    sizes = [count for count in asked if count > 1]
    assert (sizes[:3], {*sizes[3:]}) == ([16, 64, 200], {200})  # of entries that hold several pieces where the store was slow


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?after=nonsense", "other log"),
        ("?after=", "other log"),
        ("?after=1", "other log"),
        ("?after=9-9", "future"),
        ("?after=18446744073709551616-0", "future"),
        ("?after=99999999999999999999999-0", "future"),
        ("?after=1-0&log=anotherl", "other log"),
        ("?after=1-7", "future"),
        ("?after=0-3", "lost"),
    ],
)
async def test_a_cursor_that_cannot_be_served_is_a_gap(store: str, serve: Serve, query: str, reason: str) -> None:
    """`hello` and `gap` say why and where; then all that is kept comes, from the first word on."""
    async with serve(Counting(), store=store) as server:
        async with visit(server) as ann:
            await ann.answer(prompt())
            await ann.until("end")
        async with visit(server, query=query) as ann:
            assert (ann.hello.status, ann.hello.after) == ("gap", "0-0")
            assert ann.hello.reason == reason
            gap = await ann.receive()
            assert (gap["type"], gap["after"], gap["log"], gap["reason"]) == ("gap", "0-0", ann.hello.log, reason)
            assert [(await ann.receive())["id"] for _ in range(3)] == ["1-0", "1-1", "1-2"]


async def test_sessions_do_not_hear_each_other(store: str, serve: Serve) -> None:
    async with serve(Counting(), store=store) as server, visit(server, "one") as ann, visit(server, "two", name="bob") as bob:
        await ann.answer(prompt("secret"))
        await ann.until("end")
        await bob.answer(prompt("mine"))
        await bob.until("end")
        assert [frame.text for frame in bob.seen if isinstance(frame, Prompt)] == ["mine"]


@both_servers
async def test_two_instances_serve_one_session(store: str, serve: Serve) -> None:
    """What is said on one is seen on the other, and the other's words reach the agent that runs on the first."""

    async def agent(history: History) -> AsyncIterator[Ask | Content]:
        if answer := history.answer("q"):
            yield Content(f"thanks, {answer.from_}")
        else:
            yield Ask(call="q", text="?")

    secret = "s" * 32
    async with (
        serve(agent, store=store, secret=secret) as one,
        serve(agent, store=store, secret=secret) as two,
        visit(one) as ann,
        visit(two, name="bob") as bob,
    ):
        await ann.answer(prompt())
        await bob.until("ask")
        assert (await bob.answer({"type": "answer", "ref": "r" * 16, "call": "q", "text": "x"}))["status"] == "applied"
        assert (await ann.until("content"))["text"] == "thanks, bob"
        assert (await bob.until("end"))["reason"] == "done"


# ---- beside the log ----


@both_servers
async def test_typing_goes_around_the_log(store: str, serve: Serve) -> None:
    """Everybody in the session sees it, on every instance, from whom the door let in; it is not kept."""
    secret = "s" * 32
    async with serve(Counting(), store=store, secret=secret) as one, serve(Counting(), store=store, secret=secret) as two:
        async with visit(one) as ann, visit(two, name="bob") as bob, visit(one, "other", name="eve") as eve:
            await bob.answer(prompt())
            await ann.until("end")
            await bob.until("end")
            await ann.send({"type": "typing", "on": True})
            for visitor in (ann, bob):
                assert (await visitor.until("typing"))["from"] == "ann"
            assert await eve.answers() == []
            assert not any(isinstance(frame, Typing) for frame in eve.seen)
        async with visit(two) as late:
            await late.until("end")
            assert {type(frame).__name__ for frame in late.seen} == {"Hello", "Prompt", "Content", "End"}


@both_servers
async def test_beats_come_by_themselves(store: str, serve: Serve) -> None:
    """At the server's pace, also to who is not spoken to."""
    async with serve(Counting(), store=store, beat=0.01) as server, visit(server) as ann:
        for _ in range(3):
            await ann.until("beat")


# ---- the end of a connection ----


@both_servers
async def test_a_connections_time_is_up(store: str, serve: Serve) -> None:
    """After `max_duration` it is closed with 1012, come back at once; the turn goes on meanwhile and the next connection has it all."""
    agent = scripted([Content(str(n)) for n in range(40)], pace=100)
    async with serve(agent, store=store, max_duration=0.15, join=False) as server:
        async with visit(server) as ann:
            # Not over this connection: where the machine stands still for a moment, its time is up before it has said a word.
            await server.instance.say("s", Prompt(text="go", ref=ref()), "ann")
            assert await ann.closed() == (1012, "0")
        said: list[str] = []
        query = ""
        while "39" not in said:
            async with visit(server, query=query) as ann:
                await ann.closed()
                entries = [frame for frame in ann.seen if isinstance(frame, Content)]
                said += [entry.text for entry in entries]
                query = f"?after={entries[-1].id}&log={ann.hello.log}" if entries else query
        assert said == [str(n) for n in range(40)]


@both_servers
async def test_a_cut_is_no_closing_handshake(store: str, serve: Serve) -> None:
    async with serve(Counting(), store=store) as server, visit(server) as ann, visit(server, "other") as bob:
        await server.cut("s")
        await ann.socket.wait_closed()
        assert ann.socket.close_code == 1006
        assert (await bob.answer(prompt()))["status"] == "applied"


@both_servers
async def test_nothing_is_written_to_a_socket_that_was_cut(store: str, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Not in that step of the loop either, at whose end its protocol knows: asyncio logs the fifth such write, in a cell's stderr."""
    async with serve(Counting(), store=store) as server, visit(server) as ann:
        await ann.answer(prompt())
        await server.cut()
        for connection in server.connections:
            for _ in range(10):
                connection.beside(b"{}")
        await ann.socket.wait_closed()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_who_is_just_being_let_in_while_the_others_are_sent_away_goes_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the instance would wait for it, and answer nobody's prompts, as long as it stays."""
    upgraded, sent_away = asyncio.Event(), asyncio.Event()

    class Slow(BoundedConnection):
        async def handshake(self, *args: Any, **options: Any) -> None:
            await super().handshake(*args, **options)
            upgraded.set()
            await sent_away.wait()

    send_away = Server.drain

    async def drain(server: Server) -> None:
        await send_away(server)
        sent_away.set()

    monkeypatch.setattr(Server, "drain", drain)
    async with serve(Counting(), create_connection=Slow) as server:
        headers = {"Authorization": f"Bearer {server.token('ann')}"}
        late = await connect(f"{server.url}/s/s", additional_headers=headers, subprotocols=[Subprotocol("kit.v1")], proxy=None)
        await upgraded.wait()
    await late.wait_closed()
    assert (late.close_code, late.close_reason) == (1012, "0")


@both_servers
async def test_the_drain_closes_everybody_with_1012(store: str, serve: Serve) -> None:
    """And a client that answers nothing does not hold it up."""
    async with serve(Counting(), store=store) as server:
        url, token = server.url, server.token("ann")
        options = {
            "additional_headers": {"Authorization": f"Bearer {token}"},
            "subprotocols": ["kit.v1"],
            "proxy": None,
            "close_timeout": 0.1,
        }
        good = await connect(f"{url}/s/s", **options)  # type: ignore[arg-type]  # a dict of all kinds
        frozen = await connect(f"{url}/s/s", **options)  # type: ignore[arg-type]
        await frozen.recv()
        frozen.transport.pause_reading()
        begin = time.monotonic()
    assert time.monotonic() - begin < 3.0
    await good.wait_closed()
    assert (good.close_code, good.close_reason) == (1012, "0")
    frozen.transport.abort()


@both_servers
async def test_who_comes_while_an_instance_goes_is_sent_elsewhere(store: str, serve: Serve) -> None:
    """Where the server still listens, as uvicorn does: a 503 that has them come back at different moments."""
    async with serve(Counting(), store=store) as server:
        await server.drain()
        with pytest.raises(InvalidStatus) as refused:
            async with visit(server):
                pytest.fail("let in")
        response = refused.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert "retry-after-ms" not in response.headers  # to a client that would be a moment of its own


@both_servers
async def test_nothing_is_left_when_the_server_ends(store: str, serve: Serve) -> None:
    """No task, no socket; and the store that was given stays open, for it is not the server's."""
    async with open_store(store) as shared:
        await shared.commits.ask(("PING",))
        before = asyncio.all_tasks()  # among them the one that waits for the store's answers

        def ours() -> list[str]:
            tasks = [repr(task) for task in asyncio.all_tasks() - before]  # with the file that each one runs in
            return [task for task in tasks if any(f"/{package}/" in task for package in ("kit", "websockets", "uvicorn", "starlette"))]

        async with serve(Counting(), store=shared) as server, visit(server) as ann:
            await ann.answer(prompt())
            assert len(ours()) >= 4
        assert ours() == []
        assert await shared.redis.ping()


@both_servers
@pytest.mark.parametrize("first", [0, 20, 40])
async def test_nothing_stays_open_where_the_server_is_cancelled_again(
    store: str, serve: Serve, caplog: pytest.LogCaptureFixture, first: int
) -> None:
    """Wherever the second cancellation comes: `kit.ending.end` asks again, and a busy machine is still cleaning up then."""

    async def life(ready: asyncio.Future[Service]) -> None:
        async with serve(counting(500), store=store) as server:
            ready.set_result(server)
            await asyncio.Event().wait()

    for steps in range(first, first + 20):
        ready: asyncio.Future[Service] = asyncio.get_running_loop().create_future()
        living = asyncio.create_task(life(ready))
        async with visit(await ready) as ann:
            await ann.answer(prompt())
            living.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            living.cancel()
            await asyncio.wait({living})
    gc.collect()  # pytest fails for what that closes
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@both_servers
async def test_a_turn_that_loses_cancellations_ends_with_its_server(store: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """As fakeredis loses them while it connects; and the server is cancelled a second time before it asks again."""
    begun, lost = asyncio.Event(), asyncio.Event()

    async def run(self: Run, *, first: bool) -> None:
        begun.set()
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            lost.set()
        await asyncio.Event().wait()

    async def life() -> None:
        async with serve(counting(1), store=store) as server, visit(server) as ann:
            await ann.answer(prompt())
            await asyncio.Event().wait()

    monkeypatch.setattr(Run, "run", run)
    living = asyncio.create_task(life())
    await begun.wait()
    for _ in range(2):
        living.cancel()
        await lost.wait()
    async with asyncio.timeout(10):
        await asyncio.wait({living})


@pytest.mark.parametrize("steps", range(5))
@both_servers
async def test_who_is_accepted_in_the_step_in_which_the_server_closes_is_closed_too(store: str, serve: Serve, steps: int) -> None:
    """Its socket would stay open until a search for garbage finds it (CPython's issue 109564): pytest fails for what that closes."""
    async with serve(Counting(), store=store) as server:
        late = socket.create_connection(("127.0.0.1", server.port))
        for _ in range(steps):
            await asyncio.sleep(0)
    gc.collect()
    with late, suppress(ConnectionResetError):
        late.settimeout(5)
        assert late.recv(1) == b""


@both_servers
async def test_what_the_block_raises_comes_out_as_it_is(store: str, serve: Serve) -> None:
    """Not in an ExceptionGroup: `serve` has tasks of its own, but this is not one of them."""
    with pytest.raises(LookupError, match="mine"):
        async with serve(Counting(), store=store):
            raise LookupError("mine")
    with pytest.raises(OSError, match="address already in use"):
        async with serve(Counting(), store=store) as server, serve(Counting(), store=store, port=server.port):
            pass


@both_servers
async def test_an_instance_needs_an_agent(store: str, serve: Serve) -> None:
    with pytest.raises(ValueError, match="at least one agent"):
        async with serve({}, store=store):
            pass


@both_servers
@pytest.mark.parametrize(
    "wrong",
    [
        {"orgins": ["https://example.com"]},
        {"patiense": 3.0},
        {"rooms": "war"},
        {"origins": "https://example.com"},
        {"origins": ["https://example.com/"]},
        {"origins": ["*"]},
        {"secret": ""},
    ],
    ids=str,
)
async def test_an_option_that_cannot_be_is_told_before_anybody_is_let_in(store: str, serve: Serve, wrong: dict[str, Any]) -> None:
    """A misspelt one would be found at the first prompt, by whoever says it; a string is a list of letters to Python."""
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        async with serve(Counting(), store=store, **wrong):
            pass


@both_servers
@pytest.mark.parametrize("name", ["", "all", "a,b"])
async def test_a_name_by_which_no_agent_could_be_asked(store: str, serve: Serve, name: str) -> None:
    with pytest.raises(ValueError, match="can't be an agent's name"):
        async with serve({name: Counting()}, store=store):
            pass


# ---- the budget ----


def test_a_budget_refills_with_time() -> None:
    """`size` at once, `refill` a second, and never more than `size`."""
    now = [0.0]
    budget = Budget(10, 2, clock=lambda: now[0])
    for _ in range(10):
        budget.spend(1)
    with pytest.raises(Flooding):
        budget.spend(1)
    now[0] = 3.0
    budget.spend(5)  # six have come, one was owed
    with pytest.raises(Flooding):
        budget.spend(1)
    now[0] = 1000.0
    budget.spend(10)
    with pytest.raises(Flooding):
        budget.spend(1)


def test_the_default_budget_is_more_than_a_person_can_say() -> None:
    """Ten thousand malformed frames in a row, or 900 prompts, are answered."""
    frozen = Budget(clock=lambda: 0.0)
    for _ in range(10_000):
        frozen.spend(1)
    words = Budget(clock=lambda: 0.0)
    for _ in range(900):
        words.spend(1)
        words.spend(20)


# ---- receipts after a trim ----


async def test_a_repeated_answer_is_a_duplicate_though_its_question_is_trimmed(store: str, serve: Serve) -> None:
    """Not `refused: there is no such call`: it was applied."""

    async def agent(history: History) -> AsyncIterator[Ask | Content]:
        yield Ask(call="q", text="?") if history.prompt.text == "ask" and not history.pieces else Content("done")

    answer = {"type": "answer", "ref": "r" * 16, "call": "q", "text": "x"}
    secret = "s" * 32
    async with serve(agent, store=store, secret=secret, keep=3) as one, visit(one) as ann:
        await ann.answer(prompt("ask"))
        await ann.until("ask")
        assert (await ann.answer(answer))["status"] == "applied"
        await ann.until("end")
        await ann.answer(prompt("tell"))
        await ann.until("end")
    async with serve(agent, store=store, secret=secret) as two, visit(two) as ann:
        assert ann.hello.status == "gap"
        again = await ann.answer(answer)
        assert (again["status"], again["id"], again["was"]) == ("duplicate", "2-0", "applied")
        assert (await ann.answer({**answer, "ref": "q" * 16}))["status"] == "refused"


async def test_a_repeated_word_has_its_outcome_though_what_it_was_about_is_trimmed(store: str, serve: Serve) -> None:
    """A stop was applied; its prompt is trimmed away; an instance that never saw it says the same as the first."""

    async def agent(history: History) -> AsyncIterator[Content]:
        yield Content("well")
        if history.prompt.text == "think":
            await asyncio.Event().wait()

    stop = {"type": "stop", "ref": "r" * 16}
    secret = "s" * 32
    async with serve(agent, store=store, secret=secret, keep=5) as one, visit(one) as ann:
        await ann.answer(prompt("think"))
        await ann.until("content")
        assert (await ann.answer(stop))["status"] == "applied"
        await ann.until("end")
        await ann.answer(prompt("tell"))
        await ann.until("end")
        again = await ann.answer(stop)
    async with serve(agent, store=store, secret=secret) as two, visit(two) as ann:
        assert (ann.hello.status, ann.hello.after) == ("gap", "1-1"), "the prompt is gone, the stop is there"
        assert (await ann.answer(stop)) == again
        assert (again["status"], again["id"], again["was"]) == ("duplicate", "2-0", "applied")
