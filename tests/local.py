"""The real model, really: `make test-local`, or `python -m tests.local [folder]`, which leaves the first conversation there as a tape, and
pictures of one in JupyterLab.

A conversation with a call of a tool, a stop, a steer, and `kill -9` of the instance in mid-answer. `make test` does not run it: the weights
are 93 MB. What so small a model says can't be asserted; that it calls, is stopped and goes on can.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kit.agents import local
from kit.agents.demo import get_weather
from kit.agents.openai import openai_agent
from kit.agents.tape import Tape
from kit.client import Session, connect
from kit.lab.processes import processes
from kit.lab.served import served_store
from kit.packets import Action, AnyPacket, Content, End, Takeover, ToolResult
from kit.server import serve
from tests.browser.local import shown

AGENT = """from kit.agents.demo import get_weather
from kit.agents.openai import openai_agent
agent = openai_agent(base_url={url!r}, api_key={key!r}, model={name!r}, tools=[get_weather])
"""


async def heard(session: Session, *, pieces: int | None = None) -> list[AnyPacket]:
    """What is said up to a turn's end, or up to so many pieces of content."""
    said, count = [], 0
    async for entry in session:
        said.append(entry)
        count += isinstance(entry, Content)
        if isinstance(entry, End) or count == pieces:
            break
    return said  # type: ignore[return-value]  # gaps do not happen here


def text_of(said: list[AnyPacket]) -> str:
    return "".join(entry.text for entry in said if isinstance(entry, Content))


async def talk(path: Path | None) -> None:
    """A tool, an answer without one, a stop, a steer; in one process."""
    tape = Tape()
    agent = openai_agent(tools=[get_weather], tape=tape)
    async with serve(agent, lease=10.0, join=False) as server, connect(server.url, token=server.token("ann"), session="s") as session:
        await session.prompt("What is the weather in Oslo?")
        said = await heard(session)
        (action,) = [entry for entry in said if isinstance(entry, Action)]
        (result,) = [entry for entry in said if isinstance(entry, ToolResult)]
        assert (action.name, action.arguments["city"]) == ("get_weather", "Oslo")
        assert isinstance(result.value, dict)
        assert "4" in text_of(said)
        print(f"tool:   {action.name}({action.arguments}), then: {text_of(said)}")
        if path:
            tape.save(path)
            print(tape)
        await session.prompt("What is the capital of France?")
        said = await heard(session)
        assert text_of(said)
        print(f"answer: {text_of(said)}")
        await session.prompt("Tell me a long story about a frog and a princess.")
        said = await heard(session, pieces=4)
        before = time.monotonic()
        receipt = await session.stop()
        print(f"stop:   {receipt.status} after {1000 * (time.monotonic() - before):.0f} ms, at: {text_of(said)}")
        rest = await heard(session)
        assert [entry.reason for entry in rest if isinstance(entry, End)] == ["stopped"]
        prompt = await session.prompt("Tell me a long story about a dragon.")
        await heard(session, pieces=4)
        await session.edit(f"{prompt.id}/agent", "What is the weather in Rome?")
        replaced = await heard(session)
        said = await heard(session)
        assert [entry.reason for entry in replaced if isinstance(entry, End)] == ["replaced"]
        print(f"steer:  {[f'{e.name}({e.arguments})' for e in said if isinstance(e, Action)]}, then: {text_of(said)}")


async def survive(served: local.Local) -> None:
    """Two instances, one store, one model; the one that speaks is killed."""
    with TemporaryDirectory() as folder:
        Path(folder, "smol.py").write_text(AGENT.format(name=local.NAME, **served._asdict()))  # noqa: ASYNC240  # three lines
        os.environ["PYTHONPATH"] = folder
        async with (
            served_store() as store,
            processes("smol:agent", store=store.url, lease=5.0) as (one, other),
            connect(other.url, token=one.token, session="s") as ann,
        ):
            async with connect(one.url, token=one.token, session="s") as visitor:
                await visitor.prompt("Tell me a long story about a frog and a princess.")
                said = await heard(ann, pieces=8)
                one.kill()
            killed = time.monotonic()
            rest = await heard(ann, pieces=8)
            print(f"kill -9 at: {text_of(said)}")
            print(f"{time.monotonic() - killed:.1f} s later, on the other instance: {text_of(rest)}")
            assert any(isinstance(entry, Takeover) for entry in rest)
            assert text_of(rest)
            await ann.stop()


def main() -> int:
    if sentence := local.missing():
        print(sentence, file=sys.stderr)
        return 1
    process, served = local.start()
    with process:
        os.environ.update(served.environment())
        folder = Path(sys.argv[1]) if sys.argv[1:] else None
        asyncio.run(talk(folder / "smollm2.tape" if folder else None))
        asyncio.run(survive(served))
        for theme in ("Light", "Dark"):
            asyncio.run(shown(theme, folder))
    print("the local model: all well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
