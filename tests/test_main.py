"""python -m kit serve, token: what they print and where, how they end, and the sentence for each thing that can't be done."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets import InvalidStatus
from websockets.asyncio.client import connect

from kit.__main__ import main
from kit.agents.tape import Tape
from kit.auth import Door
from kit.client import connect as connect_kit
from kit.packets import Content, End, Entry, Gap
from kit.store import open_store

ROOT = Path(__file__).parents[1]
SECRET = "a secret that the instances share, 32 bytes"
AGENT = """
import gc

from kit.packets import Content

async def greet(history):
    yield Content(f"hello, {history.prompt.text}")

async def part(history):
    yield Content("goodbye")

async def held(history):
    yield Content(str(gc.get_freeze_count()))

both = {"greet": greet, "part": part}
named = {"all": greet}
nothing = 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a module of agents."""
    (tmp_path / "my_agents.py").write_text(AGENT)
    return tmp_path


@asynccontextmanager
async def serving(
    folder: Path, *arguments: str, secret: str | None = SECRET, agent: str | None = "my_agents:greet"
) -> AsyncIterator[tuple[Process, Any]]:
    """`python -m kit serve` in a folder, with the line that it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "KIT_SECRET"} | {"PYTHONPATH": str(ROOT)}
    if secret is not None:
        environment["KIT_SECRET"] = secret
    command = [sys.executable, "-m", "kit", "serve", *(["--agent", agent] if agent else []), *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE)
    try:
        assert process.stdout
        line = await process.stdout.readline()
        assert line.endswith(b"\n"), (await process.communicate())[1].decode()
        token = {} if secret is None else {"token": Door(secret, None).issue("you")}
        yield process, {**json.loads(line), **token}
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ended(process: Process, number: int = signal.SIGTERM) -> tuple[int, str, str, float]:
    """Send a signal; gives the exit status, what was printed after the first line, what was logged, and the seconds that it took."""
    begin = time.monotonic()
    process.send_signal(number)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode(), time.monotonic() - begin


async def answer(printed: Any, session: str = "s", token: str | None = None) -> str:
    """What an instance's agent says to `world`."""
    async with connect_kit(printed["url"], session=session, token=token or printed["token"]) as here:
        await here.prompt("world")
        said = ""
        async for entry in here:
            match entry:
                case Content(text=text):
                    said += text
                case End():
                    break
        return said


# ---- serve ----


async def test_one_line_of_json_with_a_token_for_every_session(folder: Path) -> None:
    """The line is all that stands on stdout; logs go to stderr, without the token. The agent comes from the folder it is started in."""
    async with serving(folder, "--store", f"fake://{time.monotonic_ns()}", secret=None) as (process, printed):
        assert set(printed) == {"url", "token"}
        assert printed["url"].startswith("ws://127.0.0.1:")
        assert await answer(printed, "one") == "hello, world"
        assert await answer(printed, "another-one") == "hello, world"
        status, out, err, _ = await ended(process)
        assert (status, out) == (0, "")
        assert "draining" in err
        assert printed["token"] not in err


async def test_with_a_secret_that_others_know_no_token_is_printed(folder: Path) -> None:
    """A platform keeps what is printed, and this one would be good for every session."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KIT_SECRET": SECRET}
    command = [sys.executable, "-m", "kit", "serve", "--agent", "my_agents:greet"]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=PIPE)
    assert process.stdout
    assert set(json.loads(await process.stdout.readline())) == {"url"}
    process.send_signal(signal.SIGINT)
    assert (await process.communicate(), process.returncode) == ((b"", None), 0)


async def test_an_address_that_is_told_leads_there_though_it_listens_at_all_of_them(folder: Path) -> None:
    async with serving(folder, "--host", "0.0.0.0") as (_, printed):
        assert printed["url"].startswith("ws://127.0.0.1:")
        assert await answer(printed) == "hello, world"


async def test_what_it_holds_when_it_begins_is_not_looked_at_by_the_garbage_collector(folder: Path) -> None:
    """Or each full collection takes 15 ms and more, and all answers wait."""
    async with serving(folder, agent="my_agents:held") as (_, printed):
        assert int(await answer(printed)) > 10_000


async def test_the_demo_agent_is_served_without_a_line_for_each_request(folder: Path) -> None:
    """Neither for what it asks the embedded model, nor for what was only done to have the client ready."""
    async with serving(folder, agent=None) as (process, printed):
        assert "world" in await answer(printed)
        _, _, err, _ = await ended(process)
    assert "draining" in err
    assert "HTTP Request" not in err


async def test_a_log_holds_no_more_than_is_to_be_kept(folder: Path) -> None:
    """Its oldest turns go; who comes then is told."""
    async with serving(folder, "--keep", "4") as (_, printed):
        async with asyncio.timeout(10):
            while not isinstance(first := await first_seen(printed), Gap):
                assert str(first.id) == "1-0"
    assert first.reason == "trimmed"


async def first_seen(printed: Any) -> Entry | Gap:
    """What a client without a cursor sees first, after one more turn."""
    async with connect_kit(printed["url"], session="s", token=printed["token"]) as here:
        opened = (await here.prompt("world")).id
        entries = aiter(here)
        first = entry = await anext(entries)
        while not (isinstance(entry, End) and entry.turn.startswith(f"{opened}/")):
            entry = await anext(entries)
        return first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
async def test_a_signal_drains_with_1012(folder: Path, number: int) -> None:
    """A client is told to come back at once, and the instance is gone with status 0, though another client answers nothing."""
    async with serving(folder) as (process, printed):
        headers = {"Authorization": f"Bearer {printed['token']}"}
        open_at = f"{printed['url']}/s/s"
        async with (
            connect(open_at, additional_headers=headers, subprotocols=["kit.v1"], proxy=None) as client,  # type: ignore[list-item]  # a plain str
            connect(open_at, additional_headers=headers, subprotocols=["kit.v1"], proxy=None, close_timeout=0.1) as frozen,  # type: ignore[list-item]
        ):
            await client.recv()
            await frozen.recv()
            frozen.transport.pause_reading()
            status, _, _, took = await ended(process, number)
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (1012, "0")
        assert status == 0
        assert took < 5.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
async def test_what_the_model_said_is_on_a_tape_when_it_ends(folder: Path, number: int) -> None:
    """By a signal, which is how it always ends."""
    async with serving(folder, "--tape", "world.tape", "--pace", "0", agent=None) as (process, printed):
        said = await answer(printed)
        status, _, err, _ = await ended(process, number)
    assert (status, "Traceback" in err) == (0, False)
    assert [run.text for run in Tape.load(folder / "world.tape").runs] == [said]


async def test_at_debug_the_log_holds_no_token(folder: Path) -> None:
    """`--log debug` is what one turns on before pasting a log somewhere."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KIT_SECRET": SECRET}
    command = [sys.executable, "-m", "kit", "--log", "debug", "serve", "--agent", "my_agents:greet"]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE)
    assert process.stdout
    printed = {**json.loads(await process.stdout.readline()), "token": Door(SECRET, None).issue("you")}
    assert await answer(printed) == "hello, world"
    status, _, err, _ = await ended(process)
    assert status == 0
    assert "DEBUG" in err, "there was something to leak into"
    assert not any(part in err for part in printed["token"].split(".")[1:])


async def test_instances_with_one_secret_accept_each_others_tokens(folder: Path, real_store_url: str) -> None:
    """And over one store they serve one session; an instance with a secret of its own refuses."""
    async with (
        serving(folder, "--store", real_store_url) as (_, one),
        serving(folder, "--store", real_store_url, agent="my_agents:both") as (_, two),
        serving(folder, secret=None) as (_, stranger),
    ):
        assert await answer(one, token=two["token"]) == "hello, world"
        async with connect_kit(two["url"], session="s", token=one["token"]) as session:
            first = await anext(aiter(session))
            assert getattr(first, "text", None) == "world", "what was said on one is seen on the other"
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{stranger['url']}/s/s", additional_headers={"Authorization": f"Bearer {one['token']}"}, proxy=None):
                pass
        assert caught.value.response.status_code == 401


# ---- what can't be done ----


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, folder: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setenv("KIT_SECRET", SECRET)
    return monkeypatch


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--agent", "my_agents"], "Give module:name"),
        (["--agent", "my_agents:absent"], "Give module:name"),
        (["--agent", "absent_module:greet"], "No module named 'absent_module'"),
        (["--agent", "my_agents.absent:greet"], "Give module:name"),
        (["--agent", ":greet"], "Give module:name"),
        (["--agent", "my_agents:named"], "can't be an agent's name"),
        (["--agent", "my_agents:nothing"], "should be an agent, or a dict of agents"),
        (["--agent", "my_agents:greet", "--store", "redis://127.0.0.1:1/0"], "the store (redis://127.0.0.1:1/0) does not answer"),
        (["--agent", "my_agents:greet", "--store", "http://127.0.0.1"], "redis://"),
        (["--agent", "my_agents:greet", "--store", ""], "redis://"),
        (["--agent", "my_agents:greet", "--store", "redis://ann:ab/cd@127.0.0.1:6379/0"], "is written %2F"),
        (["--agent", "my_agents:greet", "--origin", "https://example.com/"], "origins are a list of pages"),
        (["--agent", "my_agents:greet", "--port", "65536"], "0-65535"),
        (["--agent", "my_agents:greet", "--tape", "a.tape"], "--tape keeps what the demo says, and --agent names your own: give yours"),
        (["--agent", "my_agents:greet", "--play", "a.tape"], "--play is said by the demo, and --agent names your own: leave one of them"),
        (["--tape", "nowhere/a.tape"], "--tape: nowhere/a.tape can't be written: No such file or directory. Name another file, in a"),
        (["--tape", "."], "--tape: . can't be written: it is no regular file. Name another file"),
        (["--play", "absent.tape"], "--play wants a file that --tape has written: absent.tape can't be read: No such file"),
        (["--play", "my_agents.py"], "--play wants a file that --tape has written: my_agents.py is no tape that can be played: line 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_served_is_a_sentence(
    shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    """Status 2, one line on stderr, nothing on stdout, no traceback."""
    before = signal.getsignal(signal.SIGINT)
    assert main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("python -m kit: ")
    assert "Traceback" not in err
    assert "cd@" not in err, "it is a part of the password"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_tape_is_kept_or_played(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Both would keep nothing new, and of the same file less than was there."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--tape", "a.tape", "--play", "a.tape"])
    assert caught.value.code == 2
    assert "argument --play: not allowed with argument --tape" in capsys.readouterr().err


def test_a_key_that_a_model_needs_is_a_sentence(folder: Path, shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As one's own module asks for it, while it is imported."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        shell.delenv(name, raising=False)
    (folder / "on_a_model.py").write_text("from kit.agents.openai import openai_agent\nagent = openai_agent()\n")
    assert main(["serve", "--agent", "on_a_model:agent"]) == 2
    assert capsys.readouterr().err.startswith("python -m kit: There is no API key: set OPENAI_API_KEY")


def test_what_a_module_needs_and_is_not_there_is_told_with_its_line(folder: Path, shell: pytest.MonkeyPatch) -> None:
    """`--agent` is right: to say so would send people to the wrong place."""
    (folder / "needs_more.py").write_text("import absent_module_of_its_own\n")
    with pytest.raises(ModuleNotFoundError, match="absent_module_of_its_own"):
        main(["serve", "--agent", "needs_more:agent"])


async def test_a_session_is_kept_as_long_as_is_said(folder: Path, real_store_url: str) -> None:
    async with serving(folder, "--store", real_store_url, "--ttl", "1h") as (_, printed):
        await answer(printed)
        async with open_store(real_store_url) as store:
            assert 3_500_000 < await store.redis.pttl("{0}:s") <= 3_600_000


def test_a_port_that_is_taken_is_a_sentence(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--agent", "my_agents:greet", "--port", port]) == 2
    err = capsys.readouterr().err
    assert err.endswith(f"cannot listen on 127.0.0.1 port {port}: another program listens there. Give another by --port or --host.\n")
    assert "Traceback" not in err


WRONG_NUMBERS = [
    "--lease=0",
    "--lease=-1",
    "--lease=nan",
    "--max-duration=0",
    "--shards=0",
    "--shards=0.5",
    "--keep=0",
    "--lease=x",
    "--port=x",
]


@pytest.mark.parametrize("option", WRONG_NUMBERS)
def test_what_is_no_number_for_it_is_told(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--agent", "my_agents:greet", option])
    assert caught.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve", "--agent", "my_agents:greet"], ["token"]], ids=str)
def test_a_short_secret_is_a_sentence(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    shell.setenv("KIT_SECRET", "short")
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "at least 32 bytes" in err
    assert "KIT_SECRET" in err


async def test_another_number_of_shards_is_a_sentence(folder: Path, real_store_url: str) -> None:
    async with serving(folder, "--store", real_store_url, "--shards", "2"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "KIT_SECRET": SECRET}
        command = [sys.executable, "-m", "kit", "serve", "--agent", "my_agents:greet", "--store", real_store_url, "--shards", "3"]
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        assert (process.returncode, out) == (2, b"")
        assert b"spread over 2" in err
        assert b"Traceback" not in err


# ---- token ----


def test_a_token_is_printed_alone(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Good for the session and the time that were asked for; the line can be put into a variable as it is."""
    assert main(["token", "--session", "demo", "--ttl", "1h", "--name", "ann"]) == 0
    out, err = capsys.readouterr()
    claims = jwt.decode(out.strip(), SECRET, algorithms=["HS256"], audience="kit", issuer="kit")
    assert (out.count("\n"), err) == (1, "")
    assert (claims["sub"], claims["session"], claims["exp"] - claims["iat"]) == ("ann", "demo", 3600)
    assert abs(claims["iat"] - time.time()) < 60


async def test_a_printed_token_opens_its_session_only(folder: Path) -> None:
    async with serving(folder) as (_, printed):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "KIT_SECRET": SECRET}
        command = [sys.executable, "-m", "kit", "token", "--session", "mine"]
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE)
        token = (await process.communicate())[0].decode().strip()
        assert await answer(printed, "mine", token) == "hello, world"
        with pytest.raises(InvalidStatus):
            async with connect(f"{printed['url']}/s/other", additional_headers={"Authorization": f"Bearer {token}"}, proxy=None):
                pass


@pytest.mark.parametrize(("ttl", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172800), ("1.5h", 5400)])
def test_times_are_written_as_people_do(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ttl: str, seconds: int) -> None:
    assert main(["token", "--ttl", ttl]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"], audience="kit")
    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize("ttl", ["", "soon", "1 h", "-5m", "1w", "h", "1e3", "nan", "inf", "9" * 400])
def test_what_is_no_time_is_told(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ttl: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["token", f"--ttl={ttl}"])
    assert caught.value.code == 2
    assert "write 90s, 15m, 1h or 2d" in capsys.readouterr().err


def test_a_token_needs_a_secret_and_a_session_that_can_be(shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for session in ("a/b", "", "x" * 65):
        assert main(["token", "--session", session]) == 2
        assert "1 to 64 characters" in capsys.readouterr().err
    shell.delenv("KIT_SECRET")
    assert main(["token"]) == 2
    out, err = capsys.readouterr()
    assert (out, "KIT_SECRET" in err) == ("", True)
