"""P10: each malformed frame is answered by an `error` that names the field; the connection, and everyone else's, go on.

The client is the plain one of `websockets`, over a real socket, on both stores.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.agents.scripted import scripted
from kit.connection import Budget
from kit.history import Agent, History
from kit.lab.instances import Serve
from kit.packets import MAX_BODY, MAX_FRAME, START, Action, AnyPacket, Ask, Content, Prompt, decode_entry
from kit.said import MAX_WORD
from kit.service import Service
from tests.support import Counting, Visitor, both_servers, prompt, ref, visit

REF = "r" * 16
MALFORMED: list[tuple[str, str, str, str | None]] = [
    # what it is, the frame, the error's code, the field it names
    ("empty", "", "not_json", None),
    ("words", "hello", "not_json", None),
    ("half an object", '{"type":"prompt"', "not_json", None),
    ("two objects", '{"type":"stop"}{"type":"stop"}', "not_json", None),
    ("a byte order mark", '\ufeff{"type":"stop"}', "not_json", None),
    ("a raw line feed in a string", '{"type":"prompt","text":"\n"}', "not_json", None),
    ("a list", '[{"type":"stop"}]', "not_an_object", None),
    ("a string", '"stop"', "not_an_object", None),
    ("null", "null", "not_an_object", None),
    ("no type", "{}", "unknown_type", "type"),
    ("a type that is none", '{"type":"shout"}', "unknown_type", "type"),
    ("a type that is a number", '{"type":7}', "unknown_type", "type"),
    ("a type that is a list", '{"type":["prompt"]}', "unknown_type", "type"),
    ("an instance's word", f'{{"type":"takeover","ref":"{REF}","turn":"1-0/agent","by":"me"}}', "unknown_type", "type"),
    ("an agent's end", '{"type":"end","turn":"1-0/agent","reason":"done"}', "unknown_type", "type"),
    ("an agent's content", '{"type":"content","text":"said by the agent"}', "unknown_type", "type"),
    ("a server's hello", '{"type":"hello","session":"s","log":"x","after":"0-0","head":"0-0","status":"fresh"}', "unknown_type", "type"),
    ("a server's receipt", f'{{"type":"receipt","ref":"{REF}","status":"applied"}}', "unknown_type", "type"),
    ("a forged sender", f'{{"type":"prompt","ref":"{REF}","text":"hi","from":"bob"}}', "bad_field", "from"),
    ("a forged id", f'{{"type":"prompt","ref":"{REF}","text":"hi","id":"9-0"}}', "bad_field", "id"),
    ("a forged prev", f'{{"type":"prompt","ref":"{REF}","text":"hi","prev":"8-0"}}', "bad_field", "prev"),
    ("a forged sender of typing", '{"type":"typing","on":true,"from":"bob"}', "bad_field", "from"),
    ("no ref", '{"type":"prompt","text":"hi"}', "bad_field", "ref"),
    ("a short ref", '{"type":"prompt","ref":"r","text":"hi"}', "bad_field", "ref"),
    ("a ref of spaces", f'{{"type":"prompt","ref":"{" " * 16}","text":"hi"}}', "bad_field", "ref"),
    ("a ref with a line feed", f'{{"type":"prompt","ref":"{REF}\\n","text":"hi"}}', "bad_field", "ref"),
    ("a long ref", f'{{"type":"prompt","ref":"{"r" * 65}","text":"hi"}}', "bad_field", "ref"),
    ("no text", f'{{"type":"prompt","ref":"{REF}"}}', "bad_field", "text"),
    ("a text that is a number", f'{{"type":"prompt","ref":"{REF}","text":7}}', "bad_field", "text"),
    ("a text that is null", f'{{"type":"prompt","ref":"{REF}","text":null}}', "bad_field", "text"),
    ("an unknown field", f'{{"type":"prompt","ref":"{REF}","text":"hi","colour":"red"}}', "bad_field", "colour"),
    ("a turn that is a list", f'{{"type":"stop","ref":"{REF}","turn":[]}}', "bad_field", "turn"),
    ("an edit without its turn", f'{{"type":"edit","ref":"{REF}","text":"hi"}}', "bad_field", "turn"),
    ("an answer without its call", f'{{"type":"answer","ref":"{REF}","text":"hi"}}', "bad_field", "call"),
    ("a claim of a number", f'{{"type":"claim","ref":"{REF}","call":1}}', "bad_field", "call"),
    ("a result of nothing", f'{{"type":"result","ref":"{REF}","call":"c"}}', "bad_field", "value"),
    ("a result and an error", f'{{"type":"result","ref":"{REF}","call":"c","value":1,"error":"e"}}', "bad_field", "value"),
    ("an error that is a number", f'{{"type":"result","ref":"{REF}","call":"c","error":1}}', "bad_field", "error"),
    ("typing maybe", '{"type":"typing","on":"maybe"}', "bad_field", "on"),
    ("typing with a ref", f'{{"type":"typing","on":true,"ref":"{REF}"}}', "bad_field", "ref"),
    ("renew without a token", '{"type":"renew"}', "bad_field", "token"),
    ("renew with garbage", '{"type":"renew","token":"garbage"}', "bad_token", "token"),
    ("a key that stands twice", f'{{"type":"prompt","ref":"{REF}","text":"hi","text":"ho"}}', "duplicate_key", "text"),
    ("a key twice within", f'{{"type":"result","ref":"{REF}","call":"c","value":{{"a":1,"a":2}}}}', "duplicate_key", "a"),
    ("half a surrogate pair", f'{{"type":"prompt","ref":"{REF}","text":"\\ud83d"}}', "bad_field", "text"),
    ("a pair the wrong way round", f'{{"type":"prompt","ref":"{REF}","text":"\\ude00\\ud83d"}}', "bad_field", "text"),
    ("half a pair within", f'{{"type":"result","ref":"{REF}","call":"c","value":[{{"a":"\\udfff"}}]}}', "bad_field", "value[0].a"),
    ("half a pair in a name", f'{{"type":"result","ref":"{REF}","call":"c","value":{{"\\ud800":1}}}}', "bad_field", "value"),
    ("half a pair as a type", '{"type":"\\ud800"}', "bad_field", "type"),
    ("65 bits", f'{{"type":"result","ref":"{REF}","call":"c","value":{1 << 64}}}', "bad_field", "value"),
    ("65 bits below nothing", f'{{"type":"result","ref":"{REF}","call":"c","value":{-(1 << 63) - 1}}}', "bad_field", "value"),
    ("ten thousand digits", f'{{"type":"result","ref":"{REF}","call":"c","value":{"9" * 10_000}}}', "bad_field", "value"),
    ("1e999", f'{{"type":"result","ref":"{REF}","call":"c","value":[0,1e999]}}', "bad_field", "value[1]"),
    ("NaN", f'{{"type":"result","ref":"{REF}","call":"c","value":NaN}}', "bad_field", "value"),
    ("-Infinity", f'{{"type":"result","ref":"{REF}","call":"c","value":{{"a":-Infinity}}}}', "bad_field", "value.a"),
    ("33 levels", f'{{"type":"result","ref":"{REF}","call":"c","value":{"[" * 32}{"]" * 32}}}', "too_deep", "value" + "[0]" * 31),
    ("30,000 levels", "[" * 30_000 + "]" * 30_000, "too_deep", None),
    ("30,000 levels left open", '{"a":' * 10_000, "too_deep", None),
    ("61 KiB of text", f'{{"type":"prompt","ref":"{REF}","text":"{"x" * 61 * 1024}"}}', "too_large", "text"),
    ("61 KiB in an unknown field", f'{{"type":"prompt","ref":"{REF}","text":"hi","x":"{"x" * 61 * 1024}"}}', "too_large", "x"),
    (
        "20 KiB that would be stored as 100",
        f'{{"type":"result","ref":"{REF}","call":"c","value":[{"1e15," * 4000}1]}}',
        "too_large",
        "value",
    ),
]


@pytest.fixture
async def server(store: str, serve: Serve) -> AsyncIterator[Service]:
    async with serve(Counting(), store=store) as server:
        yield server


# ---- one malformed frame ----


@pytest.mark.parametrize(("frame", "code", "at"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
async def test_a_malformed_frame_is_answered_by_one_error_that_names_the_field(
    server: Service, frame: str, code: str, at: str | None
) -> None:
    """Exactly one error, with its code, the path of the field and a sentence; then a prompt is served as if nothing had been."""
    async with visit(server) as ann:
        error = await ann.answer(frame)
        assert (error["type"], error["code"], error.get("at")) == ("error", code, at)
        assert len(error["text"]) > 10
        assert (await ann.answer(prompt()))["status"] == "applied"
        assert (await ann.until("end"))["id"].startswith("1-"), "what was malformed has opened no epoch"


@both_servers
async def test_a_binary_frame_is_answered_by_an_error(server: Service) -> None:
    """A complete word in a binary frame is no word."""
    async with visit(server) as ann:
        assert (await ann.answer(json.dumps(prompt()).encode()))["code"] == "binary"
        assert (await ann.answer(b""))["code"] == "binary"
        assert (await ann.answer(b"\xff\xfe"))["code"] == "binary"


@both_servers
@pytest.mark.parametrize("size", [MAX_FRAME - 1, MAX_FRAME])
async def test_64_kib_is_a_frame(server: Service, size: int) -> None:
    async with visit(server) as ann:
        assert (await ann.answer("x" * size))["code"] == "not_json"


@both_servers
async def test_64_kib_and_one_byte_closes_1009_and_nobody_else(server: Service) -> None:
    async with visit(server) as ann, visit(server, name="bob") as bob:
        await ann.send("x" * (MAX_FRAME + 1))
        assert (await ann.closed())[0] == 1009
        assert (await bob.answer(prompt()))["status"] == "applied"


@both_servers
@pytest.mark.parametrize("text", [b"\xff", b'{"type":"typing","on":true}\xc3', b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80"])
async def test_text_that_is_not_utf_8_closes_1007_and_nobody_else(server: Service, text: bytes) -> None:
    """Also a surrogate in three bytes, an overlong zero, and a code point past the last one."""
    async with visit(server) as ann, visit(server, name="bob") as bob:
        await ann.send(text, text=True)
        assert (await ann.closed())[0] == 1007
        assert (await bob.answer(prompt()))["status"] == "applied"


async def test_an_error_about_an_endless_field_fits_into_a_frame(server: Service) -> None:
    """A name as long as the frame, and one that JSON writes with six bytes a character, are told in short."""
    async with visit(server) as ann:
        for name in ("n" * 58_000, "\x01" * 9_000, "é" * 29_000):
            answer = await ann.answer(json.dumps({"type": "typing", "on": True, name: 1}, ensure_ascii=name.isascii()))
            assert answer["code"] == "bad_field"
            assert len(json.dumps(answer)) < 5_000
            assert name.startswith(answer["at"])
            assert len(answer["at"]) > 50


# ---- many ----


@both_servers
async def test_ten_thousand_malformed_frames_in_a_row(server: Service) -> None:
    """Each is answered, the connection goes on, and somebody else's prompts are answered all the same."""

    async def prompts_meanwhile(bob: Visitor) -> list[str]:
        ends = []
        for _ in range(5):
            await bob.send(prompt())
            ends.append((await bob.until("end"))["reason"])
        return ends

    async with visit(server) as ann, visit(server, "other", name="bob") as bob:
        frames = [row[1] for row in MALFORMED if len(row[1]) < 200]
        meanwhile = asyncio.create_task(prompts_meanwhile(bob))
        sending = asyncio.create_task(shout(ann, [frames[i % len(frames)] for i in range(10_000)]))
        codes = [(await ann.until("error"))["code"] for _ in range(10_000)]
        await sending
        assert await meanwhile == ["done"] * 5
        assert len(codes) == 10_000
        assert (await ann.answer(prompt()))["status"] == "applied"


@both_servers
async def test_a_flood_closes_4408_and_the_others_do_not_notice(store: str, serve: Serve) -> None:
    """With room for 1,000 small frames: the 1,001st closes; a large frame counts for hundreds; the other client talks on."""
    clock = [0.0]
    async with serve(Counting(), store=store, budget=lambda: Budget(1_000, 10, clock=lambda: clock[0])) as server, visit(server) as bob:
        async with visit(server, name="ann") as ann:
            for _ in range(1_000):
                await ann.send("")
            for _ in range(1_000):
                assert (await ann.receive())["code"] == "not_json"
            clock[0] = 0.1  # one more, and no more
            await ann.send("")
            assert (await ann.receive())["code"] == "not_json"
            await ann.send("")
            assert (await ann.closed())[0] == 4408
        async with visit(server, name="ann") as ann:
            for _ in range(4):
                await ann.send("x" * 64_000)
            assert (await ann.closed())[0] == 4408
        async with visit(server, name="ann") as ann:
            for _ in range(60):
                await ann.send({"type": "typing", "on": True})
            assert (await ann.closed())[0] == 4408
        assert (await bob.answer(prompt()))["status"] == "applied"
        await bob.until("end")


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("{" + ",".join(f'"{i}":0' for i in range(7000)) + ',"6999":1}', id="a late duplicate among thousands"),
        pytest.param("[" + "[]," * 20_000 + "[]]", id="twenty thousand lists"),
        pytest.param("[" * 65_000, id="65,000 levels"),
        pytest.param(json.dumps({"type": "prompt", "ref": REF, "text": "\ud800" * 9_000}), id="thousands of halves of pairs"),
        pytest.param('{"a":' + "9" * 65_000 + "}", id="65,000 digits"),
    ],
)
async def test_no_frame_takes_long_to_read(server: Service, frame: str) -> None:
    """The worst that fits into a frame holds up the loop, and so everybody, for less than 100 ms of CPU (typically 1-20 ms)."""
    async with visit(server) as ann:
        took = []
        for _ in range(3):
            then = time.thread_time()
            assert (await ann.answer(frame))["type"] == "error"
            took.append(time.thread_time() - then)
        assert min(took) < 0.1


# ---- words that are well formed, and wrong ----


@both_servers
async def test_a_word_of_60_kib_comes_back_down(server: Service) -> None:
    """The largest word that is taken, in characters of one and of four bytes, goes down whole; a byte more is refused."""
    async with visit(server) as ann:
        for letter in ("x", "\U0001f600"):
            word = prompt()
            room = MAX_WORD - len(json.dumps(word, ensure_ascii=False, separators=(",", ":")).encode()) + len("hi")
            text = letter * (room // len(letter.encode())) + "x" * (room % len(letter.encode()))
            answer = await ann.answer(json.dumps({**word, "text": text}, ensure_ascii=False, separators=(",", ":")))
            assert answer["status"] == "applied"
            spoken = next(frame for frame in ann.seen if isinstance(frame, Prompt) and frame.id == answer["id"])
            assert spoken.text == text
            more = await ann.answer(json.dumps({**prompt(), "text": text + "x"}, ensure_ascii=False, separators=(",", ":")))
            assert (more["code"], more["at"]) == ("too_large", "text")


@both_servers
async def test_no_frame_of_a_server_is_over_the_limit(server: Service) -> None:
    """The client's own limit at 64 KiB: the largest word reaches it."""
    async with visit(server, max_size=MAX_FRAME) as ann:
        await ann.send(json.dumps(prompt("x" * (MAX_WORD - 200))))
        assert (await ann.until("prompt"))["id"] == "1-0"


@both_servers
async def test_the_sender_is_who_came_in(server: Service) -> None:
    """Whatever a client calls itself, its words carry the name in its token."""
    async with visit(server, name="ann") as ann, visit(server, name="bob") as bob:
        assert (await ann.answer({**prompt(), "from": "bob"}))["at"] == "from"
        await ann.answer(prompt())
        await bob.send({"type": "typing", "on": True})
        assert (await ann.until("typing"))["from"] == "bob"
        assert (await bob.until("prompt"))["from"] == "ann"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ({"type": "stop", "turn": "7-0/agent"}, "no turn"),
        ({"type": "stop", "turn": "nonsense"}, "<prompt id>/<agent>"),
        ({"type": "stop", "turn": ""}, "<prompt id>/<agent>"),
        ({"type": "stop", "turn": "99999999999999999999-0/agent"}, "<prompt id>/<agent>"),
        ({"type": "stop", "turn": "0-0/agent"}, "no turn"),
        ({"type": "edit", "turn": "1-0/nobody", "text": "x"}, "no turn"),
        ({"type": "edit", "turn": "0-5/nobody", "text": "x"}, "no turn"),
        ({"type": "edit", "turn": "1-1/agent", "text": "x"}, "no turn"),
        ({"type": "answer", "call": "unknown", "text": "x"}, "no call"),
        ({"type": "claim", "call": ""}, "no call"),
        ({"type": "result", "call": "unknown", "value": 1}, "no call"),
        ({"type": "prompt", "text": "x", "to": "nobody"}, "no agent"),
    ],
)
async def test_a_word_about_what_never_was_is_refused_and_not_logged(server: Service, word: dict[str, Any], hint: str) -> None:
    """The receipt says `refused` with a reason that says what to do; the next word has the next id."""
    async with visit(server) as ann:
        await ann.answer(prompt())
        await ann.until("end")
        receipt = await ann.answer({**word, "ref": ref()})
        assert receipt["status"] == "refused"
        assert hint in receipt["reason"]
        assert "id" not in receipt
        assert (await ann.answer(prompt()))["id"] == "2-0"


async def test_words_after_the_end_of_a_turn_are_too_late(server: Service) -> None:
    """They stand in the log all the same, and start nothing."""
    async with visit(server) as ann:
        await ann.answer(prompt())
        await ann.until("end")
        for n, word in enumerate(
            [{"type": "stop", "turn": "1-0/agent"}, {"type": "stop"}, {"type": "edit", "turn": "1-0/agent", "text": "x"}]
        ):
            receipt = await ann.answer({**word, "ref": ref()})
            assert (receipt["status"], receipt["id"]) == ("too_late", f"{n + 2}-0")
        assert (await ann.answer(prompt("next")))["id"] == "5-0"
        assert (await ann.until("content"))["text"] == "you said: next"


async def test_the_second_answer_to_an_ask_is_too_late(store: str, serve: Serve) -> None:
    async with serve(asking(), store=store) as server, visit(server) as ann, visit(server, name="bob") as bob:
        await ann.answer(prompt())
        await bob.until("ask")
        answers = [(bob, "Bob"), (ann, "Ann")]
        receipts = [await visitor.answer({"type": "answer", "ref": ref(), "call": "q", "text": name}) for visitor, name in answers]
        assert [receipt["status"] for receipt in receipts] == ["applied", "too_late"]
        assert (await bob.until("content"))["text"] == "thanks, Bob"


@pytest.mark.parametrize(
    ("call", "word", "hint"),
    [
        ("q", {"type": "result", "value": 1}, "`answer` it"),
        ("q", {"type": "claim"}, "`answer` it"),
        ("on-server", {"type": "answer", "text": "yes"}, "on the server"),
        ("on-server", {"type": "result", "value": 1}, "on the server"),
        ("on-server", {"type": "claim"}, "on the server"),
        ("on-client", {"type": "answer", "text": "yes"}, "`claim` it"),
        ("on-approval", {"type": "result", "value": 1}, "yes or no"),
        ("on-approval", {"type": "claim"}, "yes or no"),
    ],
)
async def test_the_wrong_word_for_a_call_is_refused(store: str, serve: Serve, call: str, word: dict[str, Any], hint: str) -> None:
    """An ask is answered, an action on the client claimed and given its result; what runs on the server is not the client's."""
    calls: list[AnyPacket] = [
        Action(call="on-server", name="f", arguments={}, on="server"),
        Ask(call="q", text="?"),
        Action(call="on-client", name="f", arguments={}, on="client"),
        Action(call="on-approval", name="f", arguments={}, on="approve"),
    ]

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        for packet in calls[history.pieces :]:
            yield packet

    async with serve(agent, store=store) as server, visit(server) as ann:
        await ann.answer(prompt())
        await ann.until("action", call="on-approval")
        receipt = await ann.answer({**word, "ref": ref(), "call": call})
        assert receipt["status"] == "refused"
        assert hint in receipt["reason"]


async def test_the_result_is_the_claimers_to_give(store: str, serve: Serve) -> None:
    """Of two claims one is applied; a result by the other is refused."""
    agent = scripted([Action(call="c", name="f", arguments={}, on="client"), Content("done")])
    async with serve(agent, store=store) as server, visit(server) as ann, visit(server, name="bob") as bob:
        await ann.answer(prompt())
        await bob.until("action")
        claims = [(await v.answer({"type": "claim", "ref": ref(), "call": "c"}))["status"] for v in (ann, bob)]
        assert claims == ["applied", "too_late"]
        theft = await bob.answer({"type": "result", "ref": ref(), "call": "c", "value": "stolen"})
        assert (theft["status"], "ann" in theft["reason"]) == ("refused", True)
        assert (await ann.answer({"type": "result", "ref": ref(), "call": "c", "value": None}))["status"] == "applied"
        assert (await ann.until("end"))["reason"] == "done"


async def test_a_ref_is_used_once(server: Service) -> None:
    """The same word again is a duplicate, another word under its ref is refused, and another person's ref is another ref."""
    async with visit(server) as ann, visit(server, name="bob") as bob:
        word = prompt()
        assert (await ann.answer(word))["id"] == "1-0"
        again = await ann.answer(word)
        assert (again["status"], again["id"], again["was"]) == ("duplicate", "1-0", "applied")
        assert (await ann.answer({**word, "text": "other"}))["status"] == "refused"
        assert (await bob.answer(word))["status"] == "applied"


# ---- an agent's bad output ----


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (Ask(call="c", text="x" * MAX_FRAME), "no packet"),
        (Action(call="c", name="f", arguments={"x": "x" * MAX_FRAME}, on="server"), "no packet"),
        ("just a string", "no packet"),
        (None, "no packet"),
        (Content("\ud800"), "no packet"),
        (Content(7), "no packet"),  # type: ignore[arg-type]  # what an agent without types may say
        (Action(call="c", name="f", arguments={"x": {1, 2}}, on="server"), ""),
        (Action(call="c", name="f", arguments={"x": float("nan")}, on="server"), ""),
        (Action(call="c", name="f", arguments={"x": 1 << 70}, on="server"), ""),
    ],
    ids=str,
)
async def test_an_agents_bad_packet_ends_its_turn_and_nothing_else(store: str, serve: Serve, said: Any, sentence: str) -> None:
    """The person gets a sentence, every client can read the log, and the next prompt is served."""

    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        yield Content("before")
        if history.prompt.text == "bad":
            yield said

    async with serve(agent, store=store) as server, visit(server) as ann:
        await ann.answer(prompt("bad"))
        end = await ann.until("end")
        assert end["turn"] == "1-0/agent"
        if end["reason"] == "failed":
            assert sentence in end["text"]
        await ann.answer(prompt("good"))
        assert (await ann.until("end", turn="2-0/agent"))["reason"] == "done"


@both_servers
async def test_an_agents_text_over_64_kib_is_split(store: str, serve: Serve) -> None:
    """200,000 characters of six bytes each in JSON arrive whole, in frames under the limit."""
    text = "\x01é\U0001f600z" * 50_000
    async with serve(scripted([Content(text)]), store=store) as server, visit(server, max_size=MAX_FRAME) as ann:
        await ann.answer(prompt())
        await ann.until("end")
        pieces = [frame for frame in ann.seen if isinstance(frame, Content)]
        assert "".join(piece.text for piece in pieces) == text
        assert [p.n for p in pieces] == [1 + sum(q.k for q in pieces[:i]) for i in range(len(pieces))]


# ---- anything at all ----

NAMES = st.sampled_from(["type", "ref", "text", "to", "turn", "call", "value", "error", "on", "token", "from", "id", "prev"]) | st.text(
    max_size=5
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["1-0/agent", "q", REF])
)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)
SHAPED = st.fixed_dictionaries(
    {"type": st.sampled_from(["prompt", "stop", "edit", "answer", "result", "claim", "renew", "typing", "takeover", "end"])},
    optional={
        "ref": st.sampled_from([REF, "q" * 20]) | st.from_regex(r"[A-Za-z0-9_-]{16,64}", fullmatch=True) | LEAVES,
        "text": st.text(max_size=40) | JSON,
        "to": st.sampled_from([None, "agent", "nobody"]) | JSON,
        "turn": st.from_regex(r"[0-9]{1,21}-[0-9]{1,2}/(agent|x)?", fullmatch=True) | st.just("1-0/agent") | JSON,
        "call": st.sampled_from(["q", "c", ""]) | JSON,
        "value": JSON,
        "error": st.text(max_size=20) | JSON,
        "on": st.booleans() | JSON,
        "token": st.text(max_size=20) | JSON,
    },
)
FRAMES = SHAPED.map(json.dumps) | JSON.map(json.dumps) | st.text(max_size=60) | st.binary(max_size=60)


@pytest.fixture
async def ann(store: str, serve: Serve) -> AsyncIterator[Visitor]:
    async with serve(asking(), store=store) as server, visit(server) as ann:
        await ann.answer(prompt())
        await ann.until("ask")
        yield ann
        entries = [entry async for entry in log_of(server)]
        assert entries[-1].id, "every entry that the fuzzing made was read back"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=FRAMES)
async def test_any_frame_gets_one_error_or_receipt_and_harms_nothing(ann: Visitor, frame: str | bytes) -> None:
    """All examples go down one connection, which lives through them all. `typing`, well formed, is the one frame without an answer."""
    answers = await ann.answers(frame)
    if not answers:
        assert isinstance(frame, str)
        assert json.loads(frame).keys() == {"type", "on"}
        assert json.loads(frame)["type"] == "typing"
    else:
        assert len(answers) == 1
        assert len(json.dumps(answers)) < MAX_BODY


async def log_of(server: Service) -> AsyncIterator[Any]:
    """The session's log, each entry decoded as a client would."""
    transcript = server.instance.transcript
    opened = await transcript.open("s")
    for entry in await transcript.read(opened.log, START, 100_000):
        yield decode_entry(entry.frame())


def asking() -> Agent:
    async def agent(history: History) -> AsyncIterator[AnyPacket]:
        if not history.pieces:
            yield Ask(call="q" if history.turn == "1-0/agent" else f"q{history.turn}", text="Who?")
        elif (answer := history.answer("q")) and history.turn == "1-0/agent":
            yield Content(f"thanks, {answer.text}")

    return agent


async def shout(visitor: Visitor, frames: list[str]) -> None:
    for frame in frames:
        await visitor.send(frame)
