"""Chapter 09: what it says of keys, of an exit, of its reader of events and of a month's bill, beyond the one run that it shows."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kit.lab.instances import Node, instances
from kit.log import Log
from tests.notebooks import chapters
from tests.notebooks.chapters import cells

CELLS = cells("09")


def defined(*ids: str, **names: Any) -> dict[str, Any]:
    """What these cells make, but for a lab and what they do with it."""
    return chapters.defined(
        CELLS, *ids, takes=lambda node: not isinstance(node, ast.Expr) and "lab.start" not in ast.unparse(node), **names
    )


# ---- keys ----


@pytest.mark.parametrize("shards", [1, 3, 16])
def test_the_keys_that_one_script_names_are_on_one_server(shards: int) -> None:
    """All of a session's, in any shard; named as they come to mind, most sessions' are apart."""
    server_of = chapters.defined(CELLS, "tags")["server_of"]
    together = 0
    for i in range(200):
        log = Log(f"s{i}", "AAAAAAAA", i % shards, "run")
        kits = (log.owner, log.stream, log.refs, log.lease("1-0/agent"))
        assert len({server_of(key) for key in kits}) == 1, kits
        together += len({server_of(f"s{i}{part}") for part in ("", ":log", ":refs", ":lease:1-0")}) == 1
    assert together < 40


# ---- the order of an exit ----


def deploys(lease: float) -> Callable[..., Awaitable[Any]]:
    """The chapter's function, with another lease."""
    names = defined("start", "deploy")

    def leased(*given: Any, **options: Any) -> Any:
        return instances(*given, **{**options, "lease": lease})

    names["instances"] = leased
    deploy: Callable[..., Awaitable[Any]] = names["deploy"]
    return deploy


TEXT = "".join(f"{i} " for i in range(1, 101))


async def test_killed_after_its_turns_were_given_away_an_instance_keeps_nobody_waiting() -> None:
    """The lease is longer than the test may take: nobody waits for it to run out."""

    async def gives_and_dies(node: Node) -> None:
        await node.server.instance.hand_over()
        await node.stop()

    story = await deploys(30.0)(gives_and_dies)
    assert story.text == TEXT
    assert story.given >= 1
    assert story.wait < 20_000


async def test_killed_when_only_its_sockets_were_closed_an_instance_leaves_its_lease_behind() -> None:
    """Ann is back at once, and waits all the same for what is left of the lease, two thirds at least; nothing is given away."""

    async def closes_and_dies(node: Node) -> None:
        await node.server.cut()
        await node.stop()

    story = await deploys(0.9)(closes_and_dies)
    assert story.text == TEXT
    assert (story.given, story.taken >= 1) == (0, True)
    assert story.wait >= 500
    assert story.dials > 2


# ---- the reader of events ----


async def test_the_reader_knows_its_place_at_each_event() -> None:
    """The id of the event, or the last one where it has none; sizes of chunks, comments and other fields are passed over."""
    events = "1f\r\nid: L/1-0\ndata: one\n\n\r\n9\r\ndata: beat\n\n\r\n: hm\nretry: 5\nid: L/1-1\ndata: two: three\n\n"
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 200 OK\r\n\r\n{events}".encode())
        writer.close()

    by_events = defined("by-events", asyncio=asyncio)["by_events"]
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        seen = [event async for event in by_events(port, "t0ken", "L/0-9")]
    assert seen == [("L/1-0", "one"), ("L/1-0", "beat"), ("L/1-1", "two: three")]
    assert "\r\nAuthorization: Bearer t0ken\r\n" in asked[0]
    assert "\r\nLast-Event-ID: L/0-9\r\n" in asked[0]


# ---- the bill ----


def test_the_bill_is_the_load_of_the_text_by_the_prices() -> None:
    """A thousand people, 20 hours, 100 answers of 400 tokens, counted by hand: 72 million seconds and 40 million tokens."""
    seen: list[None] = []  # commands: 1.5 a token, and a word's 8; when a session begins, 4 more

    def prompt(text: str) -> list[str]:
        tokens = 2 * int("".join(filter(str.isdigit, text)) or 1)
        seen.extend([None] * (3 * tokens // 2 + 8 + (0 if seen else 4)))
        return ["the prompt", *["a token"] * tokens]

    trace = SimpleNamespace(mark=lambda: len(seen), since=lambda mark: SimpleNamespace(of=lambda _: seen[mark:]))
    here = SimpleNamespace(trace=trace, session=lambda _: SimpleNamespace(prompt=prompt))
    sse, ws = {"a word": 500, "a token": 32.0}, {"a word": 200, "a token": 2}
    told = defined("cost", here=here, sse=sse, ws=ws, json_bytes=70.0)["told"]
    assert list(told) == ["polling, 1 s", "SSE, an answer", "SSE, open", "WebSocket, open"]

    def used(meter: str, units: float) -> list[float]:
        return [meters[meter] * units for meters in told.values()]

    words, looks, dials, tokens = 1e5, 72e6, 24e4, 4e7
    assert used("requests", 1e6 / 0.60) == pytest.approx([looks + words, 2 * words, words + dials, dials])
    spoken = 8 * words + 3 * tokens  # where it is streamed, each is read, too
    assert used("commands", 1e5 / 0.20) == pytest.approx([looks + spoken - 1.5 * tokens, words + spoken, dials + spoken, dials + spoken])
    down = 500 * words + 102 * tokens
    polled, sent = 600 * looks + 500 * words + 70 * tokens, 600 * dials + 200 * words + 72 * tokens
    assert used("data", 1e9 / 0.15) == pytest.approx([polled, 600 * words + down, 600 * dials + down, sent])
    seconds = [(looks + words) * 0.01, words * 10, 72e6, 72e6]
    assert used("memory", 3600 / 0.0106) == pytest.approx([each * 2 / 100 for each in seconds])
