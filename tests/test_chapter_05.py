"""Chapter 05: each draft fails for the reason that the chapter gives, and what it ends with does not; on fakeredis and on a real server."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import inspect
from collections import Counter
from functools import partial
from typing import Any

import pytest
from redis.exceptions import ResponseError
from websockets.asyncio.client import connect as dial
from websockets.asyncio.server import serve as listen

from kit import commits
from kit.lab.instances import Node
from kit.lab.view import Transcript as Shown
from kit.packets import START, Content, Edit, Prompt, decode_entry, stored
from kit.scripts import APPEND
from kit.store import Store, is_refused_id, open_store
from kit.transcript import Transcript
from tests.notebooks.chapters import cells

CELLS = cells("05")
SAID = [str(i) for i in range(1, 61)]


GIVEN = """
import asyncio
from functools import partial
from redis.exceptions import ResponseError
from kit.lab.table import as_text
from collections import namedtuple
from kit.packets import Content, Prompt, Takeover
from kit.store import open_store
"""
"""What the cells have from those before them."""
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef)


async def ran(*cells: str, only: tuple[type[ast.stmt], ...] = (ast.stmt,)) -> dict[str, Any]:
    """The names that some cells make, run one after the other; of each only statements of some kinds."""
    names: dict[str, Any] = {}
    exec(GIVEN, names)
    for cell in cells:
        tree = ast.Module([node for node in ast.parse(CELLS[cell]).body if isinstance(node, only)], [])
        made = eval(compile(tree, cell, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(made):
            await made
    return names


# ---- a chat in a dict ----


async def test_another_instance_has_never_heard_of_her_and_neither_has_the_next_one_in_its_place() -> None:
    """What is in a dict is gone where the dict is not: on another instance, and after a restart."""
    chat = (await ran("two-instances", only=DEFINITIONS))["chat"]

    async def told(instances: list[Any], *said: tuple[int, str]) -> list[str]:
        replies = []
        for which, text in said:
            async with dial("ws://{}:{}/ann".format(*instances[which].sockets[0].getsockname()), proxy=None) as socket:
                await socket.send(text)
                replies.append(str(await socket.recv()))
        return replies

    async with listen(partial(chat, chats={}), "127.0.0.1", 0) as one, listen(partial(chat, chats={}), "127.0.0.1", 0) as other:
        assert await told([one, other], (0, "my"), (0, "name"), (1, "is Ann")) == ["my", "my name", "is Ann"]
    chats: dict[str, list[str]] = {}
    for memory, expected in ((chats, "my"), (chats, "my name"), ({}, "name")):
        async with listen(partial(chat, chats=memory), "127.0.0.1", 0) as started:
            assert await told([started], (0, expected.split()[-1])) == [expected]


# ---- a lease, and a fence ----


@pytest.fixture
async def redis(store: str) -> Any:
    async with open_store(store) as opened:
        yield opened.redis


async def test_of_many_that_want_a_lease_one_gets_it_and_only_the_holder_renews(redis: Any) -> None:
    hold = (await ran("hold"))["hold"]
    got = await asyncio.gather(*(hold(redis, "lease", f"i{n}", 10_000) for n in range(20)))
    assert got.count(True) == 1
    holder = f"i{got.index(True)}"
    assert [await hold(redis, "lease", by, 60_000) for by in (holder, "another")] == [True, False]
    assert await redis.get("lease") == holder.encode()
    assert 10_000 < await redis.pttl("lease") <= 60_000
    await redis.delete("lease")  # it ran out
    assert await hold(redis, "lease", "another", 10_000) is True
    assert await hold(redis, "lease", holder, 10_000) is False


async def test_a_lease_alone_lets_the_zombie_write(capsys: pytest.CaptureFixture[str]) -> None:
    """It looked in time, and wrote too late."""
    await ran("lease-alone")
    assert capsys.readouterr().out == "[b'1 2 3', b'4 5 6', b'4 5 6']\n"


async def test_with_the_fence_the_same_zombie_is_refused(redis: Any) -> None:
    """The same story on a stream, with the learner's append: what the heir said stands once, in the heir's epoch."""
    append = (await ran("append"))["append"]
    await redis.xadd("answer", {"f": "prompt"}, id="1-0")
    assert await append(redis, "answer", 1, "1 2 3") == "1-1"
    await redis.xadd("answer", {"f": "takeover"}, id="2-0")
    assert await append(redis, "answer", 2, "4 5 6") == "2-1"
    assert await append(redis, "answer", 1, "4 5 6") is None
    assert [fields[b"f"] for _, fields in await redis.xrange("answer")] == [b"prompt", b"1 2 3", b"takeover", b"4 5 6"]
    assert await append(redis, "gone", 1, "x") is None
    await redis.set("text", "no stream")
    with pytest.raises(ResponseError) as error:
        await append(redis, "text", 1, "x")
    assert not is_refused_id(error.value)


async def test_the_kit_says_unheard_and_redis_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    await ran("refused")
    kit, redis, ids = capsys.readouterr().out.splitlines()
    assert "heard epoch 1, but a later word has been said" in kit
    assert "equal or smaller" in redis
    assert redis.endswith("True")
    assert ids == "['1-0', '1-1', '2-0', '2-1']"


# ---- instances that go away ----


@pytest.fixture
async def story() -> Any:
    return (await ran("story"))["story"]


async def test_whatever_happens_to_the_instance_each_number_comes_once(story: Any) -> None:
    """And by the takeovers of the chapter's table."""
    fates = {
        "cold start": (story(Node.stop, count=1), ["taken over"]),
        "frozen": (story(Node.freeze), ["taken over"]),
        "stopped": (story(Node.stop), ["taken over"]),
        "maximum duration": (story(None, max_duration=0.2), []),
        "deploy": (story(Node.leave), ["given away", "taken over"]),
    }
    told = [await fate for fate, _ in fates.values()]  # one after the other: a lease must not run out because five of them are busy
    assert [(text.split(), takeovers) for text, takeovers in told] == [(SAID, expected) for _, expected in fates.values()]


async def test_without_the_fence_the_zombie_says_it_twice(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease, the takeover and the reading of it are all there; only the store takes whatever comes. That is what the fence is for."""
    last = "string.match(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1][1], '^(%d+)')"
    unfenced = APPEND.replace("local id = heard", f"heard = {last}\n  local id = heard")
    assert unfenced != APPEND
    monkeypatch.setattr(commits, "APPEND", unfenced)
    monkeypatch.setattr(commits, "APPEND_SHA", hashlib.sha1(unfenced.encode()).hexdigest())
    monkeypatch.setattr(commits, "_are_few", lambda _: False)  # single packets go by that script, too
    text, takeovers = await story(Node.freeze)
    assert takeovers == ["taken over"]
    assert set(text.split()) == set(SAID)
    assert max(Counter(text.split()).values()) == 2


# ---- finding one's place ----

REASONS = {
    "no cursor": ["The bridge is metres.", "The bridge is towers.", "The bridge is is it?", "The bridge is 412 412 metres."],
    "full replay": [
        "The bridge is The bridge is 412 metres.",
        "",
        "The bridge is Which one is it?",
        "The bridge is The bridge is 412 412 metres.",
    ],
    "character count": ["", "The bridge is ers.", "The bridge is t?", "The bridge is 412 412 metres."],
    "offset": ["", "", "The bridge is it?", "The bridge is 412 412 metres."],
    "offset + epoch": ["", "", "", "The bridge is 412 412 metres."],
    "the kit": ["", "", "", ""],
}
"""What each policy shows under each fault, where that is wrong: lost, doubled, in the middle of other words, of another log, said twice."""


async def test_each_policy_of_resuming_is_broken_by_its_fault_and_by_no_other() -> None:
    names = await ran("resume", "broken")
    assert list(names["FAULTS"]) == ["said", "edited", "restarted", "zombie"]
    right = [fault.right for fault in names["FAULTS"].values()]
    assert {name: [t if t != r else "" for t, r in zip(shown, right, strict=True)] for name, shown in names["shown"].items()} == REASONS


async def test_screen_is_what_the_kit_shows_of_an_edit(store: str) -> None:
    """An answer that was edited begins anew: the chapter's one-line reducer and the log's own entries agree."""
    screen = (await ran("resume"))["screen"]
    assert screen(["The ", "bridge ", "(edit)", "It ", "has "]) == "It has "
    async with open_store(store) as opened:
        log = await spoken(opened)
    last = max(i for i, entry in enumerate(log) if isinstance(entry, Edit))
    entries = ["(edit)" if isinstance(entry, Edit) else getattr(entry, "text", "") for entry in log]
    assert screen(entries) == "".join(entry.text for entry in log[last:] if isinstance(entry, Content))


async def spoken(store: Store) -> Shown:
    """A log with two words and 12 packets in each epoch."""
    transcript = Transcript(store)
    log = (await transcript.open("s")).log
    for epoch, word in ((1, Prompt(text="go", to="a", from_="ann", ref="r1")), (2, Edit(turn="1-0/a", text="no", from_="ann", ref="r2"))):
        await transcript.say(log, word)
        await transcript.append(log, epoch, [(stored(Content(f"{n} ", from_="a", turn=f"{epoch}-0/a", n=n)), None) for n in range(1, 13)])
    return Shown(decode_entry(entry.frame()) for entry in await transcript.read(log, START))


async def test_a_hole_anywhere_in_a_real_log_is_found(store: str) -> None:
    """Any one entry left out, and the one behind it is told; at the end none can be; a whole log has none."""
    first_gap = (await ran("first-gap"))["first_gap"]
    async with open_store(store) as opened:
        frames = [{"id": e.id, "prev": getattr(e, "prev", "")} for e in await spoken(opened)]
    assert first_gap("0-0", frames) is None
    for i, frame in enumerate(frames[:-1]):
        assert first_gap("0-0", frames[:i] + frames[i + 1 :]) == frames[i + 1]["id"]
        assert first_gap(frame["id"], frames[i + 1 :]) is None
