"""Exercises: the learner's copies follow the solutions, and each exercise tells right from wrong, with a sentence that helps."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from kit import lab
from kit.agents.demo import import_client
from kit.lab.check import Exercise, Outcome, exercises
from tests.notebooks.build import SOLUTIONS, NoSolution, learners, number_of, stub, text_of
from tests.notebooks.chapters import chapters, code
from tests.notebooks.save import NOTEBOOKS

BACKOFF = """import random
class Backoff:
    def __init__(self, base=0.5, limit=15.0, rng=None):
        self.base, self.limit, self.rng = base, limit, rng or random.Random()
        self.tries = 0
    def next(self):
        cap = 0.0 if self.tries == 0 else min(self.limit, {cap})
        self.tries += 1
        return self.rng.uniform({low}, cap)
    def reset(self):
        self.tries = 0
"""
MY_CLIENT = """async def my_client(url, token, shelf):
    headers, backoff = {'Authorization': f'Bearer {token}'}, client.Backoff()
    while True:
        where = urlencode({key: shelf[key] for key in ('after', 'log') if key in shelf})
        with suppress(OSError, WebSocketException):
            async with connect(f'{url}?{where}', additional_headers=headers, subprotocols=['kit.v1'], ping_interval=None) as socket:
                while True:
                    async with asyncio.timeout(25):
                        frame = json.loads(await socket.recv())
                    match frame['type']:
                        case 'hello':
                            if frame['status'] == 'fresh':
                                shelf['log'] = frame['log']
                            for word in list(shelf['words'].values()):
                                await socket.send(json.dumps(word))
                            continue
                        case 'receipt':
                            shelf['words'].pop(frame['ref'], None)
                            continue
                        case 'beat':
                            continue
                    shelf['after'] = frame.get('after', frame.get('id'))
                    shelf['log'] = frame.get('log', shelf['log'])
                    yield frame
        await asyncio.sleep(backoff.next())
"""
CRITIC = """async def critic(history):
    said = ''
    for name, document in sorted(history.documents.items()):
        long = [f'line {{n}}' for n, line in enumerate(document.text.splitlines(), 1) if len(line) > {length} and name.endswith('.py')]
        said += f"@coder too long: {{', '.join(long)}} of {{name}}\\n" if long else ''
    if not {once}:
        yield Content(said or 'Nothing is too long.')
"""
RESUMES = """from openai import APIConnectionError
async def resumes(client, prompt):
    id, last = None, None
    while True:
        try:
            if id is None:
                stream = await client.responses.create(model='kit-scripted', input=prompt, stream=True, background={background})
            else:
                stream = await client.responses.retrieve(id, stream=True, starting_after={after})
            async with stream:
                async for event in stream:
                    last = event.sequence_number
                    if event.type == 'response.created':
                        id = {id}
                    if event.type == 'response.output_text.delta':
                        yield event.delta
                    if event.type == 'response.completed':
                        return
        except {error}:
            continue
"""
ASSEMBLED = """def assembled(pieces):
    calls = {{}}
    for piece in pieces:
        id, name, arguments = calls.get({index}, ('', '', ''))
        function = piece.get('function') or {{}}
        calls[{index}] = ({id}, function.get('name') or name, {arguments})
    return [calls[index] for index in {order}]
"""


class Wrong(NamedTuple):
    """A plausible wrong answer, as its cell, and a part of what the check must say about it."""

    cell: str
    told: str


WRONG: Mapping[str, tuple[Wrong, ...]] = {
    "1.1": (
        Wrong(
            "import base64, hashlib\n"
            "def accept_key(key):\n"
            "    digest = hashlib.sha1(f'{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11'.encode()).hexdigest()\n"
            "    return base64.b64encode(digest.encode()).decode()",
            "here it got their hexadecimal letters",
        ),
        Wrong(
            "import base64, hashlib\n"
            "def accept_key(key):\n"
            "    return base64.b64encode(hashlib.sha1(f'{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11'.encode()).digest())",
            "it gave a bytes object, where a str is expected",
        ),
        Wrong(
            "import base64, hashlib\n"
            "def accept_key(key):\n"
            "    digest = hashlib.sha1(base64.b64decode(key) + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()\n"
            "    return base64.b64encode(digest).decode()",
            "the key was read as base64",
        ),
        Wrong(
            "import base64, hashlib\n"
            "def accept_key(key):\n"
            "    return base64.b64encode(hashlib.sha256(f'{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11'.encode()).digest()).decode()",
            "that is SHA-256",
        ),
        Wrong(
            "import base64, hashlib\n"
            "def accept_key(key):\n"
            "    return str(base64.b64encode(hashlib.sha1(f'{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11'.encode()).digest()))",
            "`.decode()` makes them text",
        ),
        Wrong(
            "import hashlib\n"
            "def accept_key(key):\n"
            "    return hashlib.sha1(f'{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11'.encode()).hexdigest()",
            "base64 is missing",
        ),
        Wrong(
            "import base64, hashlib\n"
            "def accept_key(key):\n"
            "    print(base64.b64encode(hashlib.sha1(f'{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11'.encode()).digest()).decode())",
            "a function gives what it `return`s",
        ),
    ),
    "1.2": (
        Wrong(
            "def text_frame(text, mask):\n"
            "    payload = bytes(a ^ b for a, b in zip(text.encode(), mask))\n"
            "    return bytes([0b1000_0001, 0b1000_0000 | len(payload)]) + mask + payload",
            "the mask begins anew with the fifth",
        ),
        Wrong(
            "def text_frame(text, mask):\n"
            "    length = 0b1000_0000 | len(text)\n"
            "    return bytes([0b1000_0001, length]) + mask + utils.apply_mask(text.encode(), mask)",
            "the length counts bytes",
        ),
        Wrong(
            "def text_frame(text, mask):\n"
            "    payload = text.encode()\n"
            "    return bytes([0b1000_0001, len(payload)]) + mask + utils.apply_mask(payload, mask)",
            "they differ from byte 2 on: 00000010 instead of 10000010",
        ),
    ),
    "2.1": (
        Wrong(
            'def safe_claims(token, secret):\n    return jwt.decode(token, secret, algorithms=["HS256"], audience="kit")',
            "of another issuer",
        ),
        Wrong(
            "def safe_claims(token, secret):\n"
            '    algorithm = jwt.get_unverified_header(token)["alg"]\n'
            '    return jwt.decode(token, secret, algorithms=[algorithm], audience="kit", issuer="kit", options={"require": ["exp"]})',
            "alg: HS512, where HS256 is agreed on",
        ),
        Wrong(
            'def safe_claims(token, secret):\n    return jwt.decode(token, secret, algorithms=["HS256"], issuer="kit")',
            "not told that tokens for the audience 'kit' are meant for it",
        ),
        Wrong(
            "def safe_claims(token, secret):\n"
            "    try:\n"
            '        return jwt.decode(token, secret, algorithms=["HS256"], audience="kit", issuer="kit")\n'
            "    except jwt.PyJWTError:\n"
            "        return None",
            "it gave None, where an error should come out",
        ),
    ),
    "2.2": (
        Wrong(
            "def may_connect(origin, allowed):\n    return origin is None or any(origin.startswith(page) for page in allowed)",
            "https://good.example.evil.example",
        ),
        Wrong(
            "from urllib.parse import urlsplit\n"
            "def may_connect(origin, allowed):\n"
            "    return origin is None or urlsplit(origin).netloc in {urlsplit(page).netloc for page in allowed}",
            "the same host without TLS",
        ),
        Wrong(
            "def may_connect(origin, allowed):\n    return origin is None or any(origin.endswith(page) for page in allowed)",
            "a scheme that ends like a good one",
        ),
    ),
    "2.3": (
        Wrong(
            "async def take_once(store, ticket):\n    value = await store.get(ticket)\n    await store.delete(ticket)\n    return value",
            "20 of them got its value: between two commands others are served",
        ),
        Wrong(
            "spent = set()\n"
            "async def take_once(store, ticket):\n"
            "    if ticket in spent:\n"
            "        return None\n"
            "    spent.add(ticket)\n"
            "    return await store.get(ticket)",
            "another instance, with a memory of its own",
        ),
        Wrong(
            "import asyncio\n"
            "lock = asyncio.Lock()\n"
            "async def take_once(store, ticket):\n"
            "    async with lock:\n"
            "        value = await store.get(ticket)\n"
            "        await store.delete(ticket)\n"
            "        return value",
            "a lock or a set in this process does not stop it",
        ),
    ),
    "3.1": (
        Wrong(
            "def reduce(blocks, kind, text):\n"
            "    if blocks and blocks[-1][0] == kind:\n"
            "        return (*blocks[:-1], (kind, blocks[-1][1] + text))\n"
            "    return (*blocks, (kind, text))",
            "two blocks",
        ),
        Wrong("def reduce(blocks, kind, text):\n    return [*blocks, (kind, text)]", "tuple"),
    ),
    "3.2": (
        Wrong(
            "def join(pieces, limit):\n"
            "    out = []\n"
            "    for kind, text in pieces:\n"
            "        if out and out[-1][0] == kind:\n"
            "            out[-1] = (kind, out[-1][1] + text, out[-1][2] + 1)\n"
            "        else:\n"
            "            out.append((kind, text, 1))\n"
            "    return out",
            "up to the limit",
        ),
        Wrong(
            "def join(pieces, limit):\n"
            "    out = []\n"
            "    for kind, text in pieces:\n"
            "        if out and out[-1][0] == kind and len(out[-1][1]) + len(text) < limit:\n"
            "            out[-1] = (kind, out[-1][1] + text, out[-1][2] + 1)\n"
            "        else:\n"
            "            out.append((kind, text, 1))\n"
            "    return out",
            "up to the limit",
        ),
    ),
    "4.1": (
        Wrong(
            "async def texts(ask, prompt):\n"
            "    async with await ask(input=prompt) as stream:\n"
            "        async for event in stream:\n"
            '            if event.type == "response.output_text.delta":\n'
            "                yield event",
            "which is no text: yield its `delta`",
        ),
        Wrong(
            "async def texts(ask, prompt):\n"
            "    async for event in await ask(input=prompt):\n"
            '        if event.type == "response.output_text.delta":\n'
            "            yield event.delta",
            "more tokens, for nobody",
        ),
        Wrong(
            "import asyncio\n"
            "async def texts(ask, prompt):\n"
            "    try:\n"
            "        async with await ask(input=prompt) as stream:\n"
            "            async for event in stream:\n"
            '                if event.type == "response.output_text.delta":\n'
            "                    yield event.delta\n"
            "    except asyncio.CancelledError:\n"
            "        pass",
            "it kept the cancellation for itself",
        ),
    ),
    "4.2": (
        Wrong(
            "def outcome(log, stop):\n"
            "    live = set()\n"
            "    for entry in log:\n"
            "        if isinstance(entry, Prompt):\n"
            "            live.add(f'{entry.id}/{entry.to}')\n"
            "        elif isinstance(entry, End):\n"
            "            live.discard(entry.turn)\n"
            '    return "applied" if (stop.turn in live if stop.turn else live) else "too_late"',
            "a second stop, said before the first one's `end` is there",
        ),
        Wrong(
            "def outcome(log, stop):\n    return 'too_late' if not log or isinstance(log[-1], End) else 'applied'",
            "two turns, one has ended",
        ),
    ),
    "4.3": (
        Wrong(
            "async def run_once(session, action, function):\n"
            '    if (await session.claim(action.call)).status != "applied":\n'
            "        return False\n"
            "    try:\n"
            "        await session.result(action.call, function(action.arguments))\n"
            "    except Exception as error:\n"
            "        await session.result(action.call, error=str(error))\n"
            "    return True",
            "item 1 is a dict, where an int is expected",
        ),
        Wrong(
            "async def run_once(session, action, function):\n"
            '    if (await session.claim(action.call)).status == "applied":\n'
            "        try:\n"
            "            await session.result(action.call, function(**action.arguments))\n"
            "        except Exception as error:\n"
            "            await session.result(action.call, error=str(error))\n"
            "        return True",
            "True in the one tab, False in the other",
        ),
        Wrong(
            "async def run_once(session, action, function):\n"
            '    if await session.claim(action.call) == "applied":\n'
            "        await session.result(action.call, function(**action.arguments))\n"
            "        return True\n"
            "    return False",
            "nobody paid",
        ),
        Wrong(
            "async def run_once(session, action, function):\n"
            '    if (await session.claim(action.call)).status != "applied":\n'
            "        return False\n"
            "    try:\n"
            "        value = function(**action.arguments)\n"
            "    except Exception as error:\n"
            "        value = str(error)\n"
            "    await session.result(action.call, value)\n"
            "    return True",
            "say `error=...`",
        ),
        Wrong(
            "async def run_once(session, action, function):\n"
            '    if (await session.claim(action.call)).status != "applied":\n'
            "        return False\n"
            "    try:\n"
            "        await session.result(action.call, function(**action.arguments))\n"
            "        return True\n"
            "    except Exception as error:\n"
            "        await session.result(action.call, error=str(error))\n"
            "        return False",
            "it was run here all the same",
        ),
        Wrong(
            "async def run_once(session, action, function):\n"
            "    await session.result(action.call, function(**action.arguments))\n"
            "    return True",
            "it was paid twice",
        ),
        Wrong(
            "async def run_once(session, action, function):\n"
            "    await session.claim(action.call)\n"
            "    await session.result(action.call, function(**action.arguments))\n"
            "    return True",
            "run it only where the receipt says `applied`",
        ),
        Wrong(
            "async def run_once(session, action, function):\n"
            '    if (await session.claim(action.call)).status != "applied":\n'
            "        return False\n"
            "    await session.result(action.call, function(**action.arguments))\n"
            "    return True",
            "nobody told the agent",
        ),
    ),
    "5.1": (
        Wrong(
            "async def hold(store, key, by, ms):\n"
            "    if await store.set(key, by, nx=True, px=ms):\n"
            "        return True\n"
            "    if await store.get(key) == by.encode():\n"
            "        return bool(await store.set(key, by, xx=True, px=ms))\n"
            "    return False",
            "we took it from them",
        ),
        Wrong(
            "async def hold(store, key, by, ms):\n    if store.set(key, by, nx=True, px=ms):\n        return True\n    return False",
            "is each command awaited?",
        ),
        Wrong(
            "async def hold(store, key, by, ms):\n    return bool(await store.set(key, by, nx=True, px=ms))",
            "our own is renewed",
        ),
        Wrong(
            "async def hold(store, key, by, ms):\n"
            "    if await store.set(key, by, nx=True, px=ms):\n"
            "        return True\n"
            "    return await store.get(key) == by.encode() and bool(await store.pexpire(key, ms))",
            "was somebody else's by then",
        ),
        Wrong(
            "async def hold(store, key, by, ms):\n    return bool(await store.set(key, by, nx=True, ex=ms))",
            "PX is in milliseconds",
        ),
    ),
    "5.2": (
        Wrong(
            'async def append(store, stream, heard, text):\n    return store.xadd(stream, {"f": text}, id=f"{heard}-*", nomkstream=True)',
            "an `await` is missing",
        ),
        Wrong(
            "async def append(store, stream, heard, text):\n"
            "    last, _ = (await store.xrevrange(stream, count=1))[0]\n"
            '    if int(last.split(b"-")[0]) > heard:\n'
            "        return None\n"
            '    return (await store.xadd(stream, {"f": text}, id=f"{heard}-*")).decode()',
            "IndexError",
        ),
        Wrong(
            "from redis.exceptions import ResponseError\n"
            "async def append(store, stream, heard, text):\n"
            "    try:\n"
            '        id = await store.xadd(stream, {"f": text}, id=f"{heard}-*", nomkstream=True)\n'
            "    except ResponseError:\n"
            "        return None\n"
            "    return id and id.decode()",
            "only `equal or smaller` is a refusal",
        ),
        Wrong(
            'async def append(store, stream, heard, text):\n    return (await store.xadd(stream, {"f": text}, nomkstream=True)).decode()',
            "the next id",
        ),
    ),
    "5.3": (
        Wrong(
            "def first_gap(cursor, entries):\n"
            "    for entry in entries:\n"
            '        if entry["id"] <= cursor:\n'
            '            return entry["id"]\n'
            '        cursor = entry["id"]',
            "3-10 comes after 3-9",
        ),
        Wrong(
            "def first_gap(cursor, entries):\n"
            "    for entry in entries:\n"
            '        epoch, n = map(int, entry["id"].split("-"))\n'
            '        if n and cursor != f"{epoch}-{n - 1}":\n'
            '            return entry["id"]\n'
            '        cursor = entry["id"]',
            "the end of the epoch before is missing",
        ),
    ),
    "6.1": (
        Wrong(BACKOFF.format(cap="self.base * 2 ** (self.tries - 1)", low="0"), "OverflowError"),
        Wrong(BACKOFF.format(cap="self.base * 2 ** min(self.tries - 1, 64)", low="cap / 2"), "all of a delay is by chance"),
        Wrong(BACKOFF.format(cap="self.base * 2 ** min(self.tries - 1, 64)", low="cap"), "all of a delay is by chance"),
        Wrong(BACKOFF.format(cap="self.base * 2 ** min(self.tries - 1, 64)", low="0").replace("self.rng.", "random."), "other dice"),
        Wrong(
            BACKOFF.format(cap="1e99", low="0")
            .replace("min(self.limit, 1e99)", "self.base * 2 ** min(self.tries - 1, 64)")
            .replace("self.rng.uniform(0, cap)", "min(self.limit, self.rng.uniform(0, cap))"),
            "the limit is the cap's",
        ),
    ),
    "6.2": (
        Wrong(
            "def decide(place, frame):\n"
            '    match frame["type"]:\n'
            '        case "hello" if frame["status"] == "fresh":\n'
            '            place["after"] = frame["after"]\n'
            '            place["log"] = frame["log"]\n'
            '            return place, "skip"\n'
            '        case "gap":\n'
            '            return {"after": frame["after"], "log": frame["log"]}, "start over"\n'
            '    return place, "skip"',
            "it changed the `place` that it was given",
        ),
        Wrong(
            "def decide(place, frame):\n"
            "    if frame['type'] == 'gap' or frame.get('status') == 'fresh':\n"
            "        kept = {'after': frame['after'], 'log': frame['log']}\n"
            "        return kept, 'start over' if frame['type'] == 'gap' else 'skip'\n"
            "    if 'id' not in frame or frame['type'] == 'receipt' or frame['id'] <= place['after']:\n"
            "        return place, 'skip'\n"
            "    return place | {'after': frame['id']}, 'draw'",
            "the next entry",
        ),
        Wrong(
            "def decide(place, frame):\n"
            "    if frame['type'] in ('hello', 'gap'):\n"
            "        kept = {'after': frame['after'], 'log': frame['log']}\n"
            "        return kept, 'start over' if frame['type'] == 'gap' else 'skip'\n"
            "    return place, 'skip'",
            "with both halves of the place",
        ),
    ),
    "6.3": (
        Wrong(MY_CLIENT.replace("for key in ('after', 'log')", "for key in ()"), "P2 exactly once is not kept"),
        Wrong(MY_CLIENT.replace("case 'beat'", "case 'beat' | 'gap'"), "P7 honest gap is not kept"),
        Wrong(MY_CLIENT.replace("as socket:", "as socket:\n                backoff.reset()"), "backoff is not kept"),
        Wrong(MY_CLIENT.replace("for key in ('after', 'log')", "for key in ('after',)"), "the new log has as many entries"),
        Wrong(MY_CLIENT.replace("frame.get('log', shelf['log'])", "shelf['log']"), "and later the line is cut"),
        Wrong(MY_CLIENT.replace("shelf['words'].values()", "shelf['words']"), "JSON objects with a `type`"),
        Wrong(
            MY_CLIENT.replace("json.dumps(word))\n", "json.dumps(word))\n                            shelf['words'].clear()\n"),
            "a word stays on the shelf until its receipt comes",
        ),
    ),
    "7.1": (
        Wrong("def asked(log):\n    return sum(isinstance(e, Prompt) and e.re is not None for e in log)", "a person asks again"),
        Wrong(
            "def asked(log):\n"
            "    count = 0\n"
            "    for e in log:\n"
            "        count = count + 1 if isinstance(e, Prompt) and e.re else 0 if isinstance(e, Prompt | Edit | Stop) else count\n"
            "    return count",
            "a person's stop is no new work",
        ),
        Wrong(
            "def asked(log):\n    return sum(isinstance(e, Prompt) and e.from_ != 'you' for e in log)",
            "a person asks, and an agent answers: Prompt from ann, Content",
        ),
    ),
    "7.2": (
        Wrong(
            "def merge(base, edits):\n"
            "    for at, delete, insert in edits:\n"
            "        base = base[:at] + insert + base[at + delete:]\n"
            "    return base",
            "the second one's place is a place of the base",
        ),
        Wrong(
            "def merge(base, edits):\n"
            "    for at, delete, insert in sorted(edits, reverse=True):\n"
            "        base = base[:at] + insert + base[at + delete:]\n"
            "    return base",
            "two delete the same: it is gone once: merge('abcd', [(1, 2, ''), (1, 2, '')])",
        ),
    ),
    "7.3": (
        Wrong(CRITIC.format(length=78, once="False"), "two lines of one document"),
        Wrong(CRITIC.format(length=79, once="False"), "it is not said twice"),
        Wrong(CRITIC.format(length=79, once="False").replace("@coder", "@ coder"), "in that `room` finds nobody who is asked"),
        Wrong(CRITIC.format(length=79, once="False").replace("'Nothing is", "'@coder nothing is"), "of that `room` passes this on"),
        Wrong(CRITIC.format(length=79, once="any(e.from_ == 'critic' for e in history)"), "in another turn: now it speaks"),
    ),
    "8.1": (
        Wrong(RESUMES.format(background=True, after="last", id="None", error="APIConnectionError"), "they differ from character"),
        Wrong(RESUMES.format(background=True, after=0, id="event.response.id", error="APIConnectionError"), "they differ from character"),
        Wrong(RESUMES.format(background=True, after="last", id="event.response.id", error="ValueError"), "it raised APIConnectionError"),
        Wrong(RESUMES.format(background=False, after="last", id="event.response.id", error="APIConnectionError"), "`background=True`"),
        Wrong(
            "async def resumes(client, prompt):\n"
            "    async with await client.responses.create(model='kit-scripted', input=prompt, stream=True) as stream:\n"
            "        async for event in stream:\n"
            "            if event.type == 'response.output_text.delta':\n"
            "                yield event.delta",
            "the stream ends without `response.completed`",
        ),
        Wrong(
            "async def resumes(client, prompt):\n"
            "    shown = ''\n"
            "    while len(shown) < 50:\n"
            "        said = (await client.responses.create(model='kit-scripted', input=prompt)).output_text\n"
            "        yield said\n"
            "        return",
            "it waited for the whole answer",
        ),
    ),
    "8.2": (
        Wrong(
            ASSEMBLED.format(
                index=0, id="piece.get('id') or id", arguments="arguments + (function.get('arguments') or '')", order="sorted(calls)"
            ),
            "two calls in turns",
        ),
        Wrong(
            ASSEMBLED.format(
                index="piece['index']",
                id="piece.get('id', id)",
                arguments="arguments + (function.get('arguments') or '')",
                order="sorted(calls)",
            ),
            "what is known stays",
        ),
        Wrong(
            ASSEMBLED.format(
                index="piece['index']",
                id="piece.get('id') or id",
                arguments="function.get('arguments') or arguments",
                order="sorted(calls)",
            ),
            "one call whose arguments come in three pieces",
        ),
        Wrong(
            ASSEMBLED.format(
                index="piece['index']", id="piece.get('id') or id", arguments="arguments + (function.get('arguments') or '')", order="calls"
            ),
            "in the order of their index",
        ),
    ),
    "9.1": (
        Wrong("from binascii import crc32\ndef slot(key):\n    return crc32(key.encode()) % 16384", "that is CRC-32"),
        Wrong(
            "from binascii import crc_hqx\n"
            "def slot(key):\n"
            "    tag = key.partition('{')[2].partition('}')[0]\n"
            "    return crc_hqx((tag or key).encode(), 0) % 16384",
            "or no second brace: the whole key counts: slot('ann{3')",
        ),
        Wrong(
            "from binascii import crc_hqx\n"
            "def slot(key):\n"
            "    tag = key.partition('{')[2].partition('}')[0]\n"
            "    return crc_hqx((tag if tag and '}' in key else key).encode(), 0)",
            "take it modulo 16,384",
        ),
        Wrong(
            "from binascii import crc_hqx\ndef slot(key):\n    return crc_hqx(key.encode(), 0) % 16384",
            "only what stands between the braces",
        ),
        Wrong(
            "import re\nfrom binascii import crc_hqx\n"
            "def slot(key):\n"
            "    tag = re.search('{(.+?)}', key)\n"
            "    return crc_hqx((tag[1] if tag else key).encode(), 0) % 16384",
            "the whole key counts",
        ),
        Wrong(
            "from binascii import crc_hqx\n"
            "def slot(key):\n"
            "    a, b = key.find('{'), key.find('}')\n"
            "    return crc_hqx((key[a + 1 : b] if 0 <= a < b - 1 else key).encode(), 0) % 16384",
            "the first `}` after it",
        ),
    ),
    "9.2": (
        Wrong("def event(id, data):\n    return f'id: {id}\\n' * bool(id) + f'data: {data}\\n\\n'", "each line is one of data"),
        Wrong(
            "def event(id, data):\n"
            "    lines = [f'data: {line}' for line in data.splitlines()]\n"
            "    return '\\n'.join([f'id: {id}'] * bool(id) + lines + ['', ''])",
            "U+2028",
        ),
        Wrong(
            "def event(id, data):\n"
            "    lines = [f'data: {line}' for line in data.split('\\n')]\n"
            "    return '\\n'.join([f'id: {id}', *lines, '', ''])",
            "there is no id line",
        ),
    ),
}
"""Two at least for each exercise, by its number."""

EXERCISES: dict[str, Exercise] = {
    number: exercise for path in sorted(NOTEBOOKS.glob("exercises/chapter_*.py")) for number, exercise in exercises(path).items()
}
NUMBERS = sorted(EXERCISES, key=lambda number: [int(part) for part in number.split(".")])


def solved() -> dict[str, tuple[str, str]]:
    """By number the cell of each exercise, solved, and what it may use of the cells before it."""
    found = {}
    for notebook in chapters().values():
        cells = code(notebook)
        found |= {number: (source, given(cells[:i])) for i, source in enumerate(cells) if (number := number_of(source))}
    return found


def given(cells: list[str]) -> str:
    """The imports, definitions and constants of some cells."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for source in cells for node in ast.parse(source).body]
    kept = [node for node in nodes if isinstance(node, kinds) or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant))]
    return ast.unparse(ast.Module([*kept], []))


SOLVED = solved()


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[lab.Lab]:
    """A lab for the checks that use one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("KIT_STRICT", raising=False)
        import_client()  # else the first check waits for that
        opened = lab.start("00")
        yield opened
        opened.close()


def tried(number: str, cell: str, here: lab.Lab) -> Outcome:
    """Run a cell as the notebook does, then its check."""
    names: dict[str, Any] = {"__name__": "cell", "here": here, "lab": lab}
    exec(SOLVED[number][1], names)
    exec(cell, names)
    return lab.check(number, names[EXERCISES[number].name])


def test_every_exercise_is_a_cell_and_every_cell_an_exercise() -> None:
    """Neither a check without a cell, nor a cell without a check; and both stand in the same chapter."""
    assert set(SOLVED) == set(EXERCISES)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_passes(number: str, here: lab.Lab) -> None:
    """By itself, without the notebook around it."""
    outcome = tried(number, SOLVED[number][0], here)
    assert outcome.passed, outcome


@pytest.mark.parametrize("number", NUMBERS)
def test_the_stub_does_not_pass(number: str, here: lab.Lab) -> None:
    """It runs, and the check says what is missing."""
    outcome = tried(number, stub(SOLVED[number][0]), here)
    assert not outcome.passed
    assert outcome.rows[0][0] == "step"


@pytest.mark.parametrize("number", NUMBERS)
def test_plausible_wrong_answers_are_told_what_is_wrong(number: str, here: lab.Lab) -> None:
    """Two at least, and a sentence that helps."""
    assert len(WRONG.get(number, ())) >= 2, f"WRONG has no two wrong answers to {number}"
    for cell, told in WRONG[number]:
        outcome = tried(number, cell, here)
        assert not outcome.passed, cell
        assert told in repr(outcome)


@pytest.mark.parametrize("number", NUMBERS)
def test_both_hints_say_something(number: str) -> None:
    """And not the same."""
    vague, plain = EXERCISES[number].hints
    assert vague.strip()
    assert plain.strip()
    assert vague != plain


# ---- the learner's copies ----


def test_the_learners_notebooks_are_those_of_the_solutions() -> None:
    """`make notebooks` was run after a solution was changed."""
    stale = []
    for path in sorted(SOLUTIONS.glob("[0-9]*.ipynb")):
        copy = NOTEBOOKS / path.name
        if not copy.is_file() or text_of(learners(nbformat.read(path, as_version=4))) != text_of(nbformat.read(copy, as_version=4)):
            stale.append(path.stem)
    assert stale == []


def test_a_learners_notebook_has_an_exercise_or_is_the_original() -> None:
    """A solution without exercises would be a second copy for nothing."""
    assert [number for number, notebook in chapters().items() if not any(map(number_of, code(notebook)))] == []


CELL = '''# exercise 1.1
def f(x):
    """Twice x."""
    y = x  # solution is no marker here
    # solution: twice as much
    y = 2 * x

    # two lines of it
    # end
    return y'''


def test_a_stub_keeps_all_but_the_solution() -> None:
    """Its place says what is asked for, and it still runs."""
    made = stub(CELL)
    assert made.splitlines() == [
        "# exercise 1.1",
        "def f(x):",
        '    """Twice x."""',
        "    y = x  # solution is no marker here",
        "    ...  # your turn: twice as much",
        "    return y",
    ]
    ast.parse(made)


def test_without_an_end_the_solution_goes_to_the_end_of_the_cell() -> None:
    """As most do."""
    assert stub(CELL.replace("    # end\n", "")).splitlines()[-1] == "    ...  # your turn: twice as much"


def test_an_exercise_without_a_solution_is_refused() -> None:
    """The learner would be given it solved."""
    with pytest.raises(NoSolution, match=r"exercise 1\.1 has no line `# solution: what is asked for`"):
        stub("# exercise 1.1\nx = 1\n# solution:\n")


def test_the_learners_copy_has_no_outputs_of_the_solution() -> None:
    """Ids and tags stay, so that the two can be compared; other cells stay as they are."""
    notebook = new_notebook(
        cells=[new_code_cell("x = 1", execution_count=1), new_code_cell(CELL, outputs=[nbformat.v4.new_output("stream", text="4")])]
    )
    made = learners(notebook)
    assert [cell.source for cell in made.cells] == ["x = 1", stub(CELL)]
    assert [cell.id for cell in made.cells] == [cell.id for cell in notebook.cells]
    assert [cell.outputs for cell in made.cells] == [[], []]
    assert notebook.cells[1].source == CELL
