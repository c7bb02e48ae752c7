"""Chapter 02: each attack is refused before the 101 with its status, and comes through with its one defence taken out.

What an attack is after is the log of the session `demo`, in which a person has said a secret.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import jwt
import pytest

from kit.auth import Door, Identity
from kit.lab.attacks import PUBLIC_KEY, WITHOUT, Answer, knock, read_naively, without
from kit.lab.trace import Command, Handshake, Trace
from kit.packets import Prompt, new_ref
from kit.server import Server, serve
from kit.store import open_store
from tests.support import Counting, Json, masked, prompt, request, stop_clock, visit

KIT = Path(__file__).parents[1] / "kit"
SECRET = "a secret of the tests, which the attacker does not know"
PAGE, OTHER_PAGE, EVIL = "https://app.example", "https://other.example", "https://evil.example"
Sent = tuple[str, dict[str, str], list[str]]
"""What is sent: `?query`, headers, subprotocols beside kit.v1."""


@pytest.fixture
def agent() -> Counting:
    return Counting()


@pytest.fixture
async def server(agent: Counting) -> AsyncIterator[Server]:
    async with serve(agent, secret=SECRET, origins=[PAGE, OTHER_PAGE]) as server:
        await server.instance.say("demo", new_ref(Prompt(text="the code is 4711")), "ann")
        yield server


# ---- the attacks ----


def claims(**changed: object) -> Json:
    now = int(time.time())
    return {"iss": "kit", "aud": "kit", "sub": "mallory", "session": "*", "nbf": now - 60, "exp": now + 60, **changed}


def house_token(**changed: object) -> Callable[[Server], Awaitable[Sent]]:
    """A token that the house itself has signed, for something else than this door, now."""

    async def token(server: Server) -> Sent:
        return "", {"Authorization": f"Bearer {jwt.encode(claims(**changed), SECRET)}"}, []

    return token


async def hijack(server: Server) -> Sent:
    """A page on another origin opens a WebSocket; the browser sends the cookie of whoever looks at that page."""
    return "", {"Origin": EVIL, "Cookie": f"kit_session={server.token('ann')}"}, []


async def unsigned(server: Server) -> Sent:
    """`alg: none` (RFC 7519 section 6)."""
    return "", {"Authorization": f"Bearer {jwt.encode(claims(), None, algorithm='none')}"}, []


async def confused(server: Server) -> Sent:
    """The public key of an asymmetric algorithm as the secret of a symmetric one (RFC 8725 section 2.1)."""
    signer = jwt.get_algorithm_by_name("HS256")
    text = jwt.encode(claims(), "x" * 32).rpartition(".")[0]
    return "", {"Authorization": f"Bearer {text}.{jwt.utils.base64url_encode(signer.sign(text.encode(), PUBLIC_KEY)).decode()}"}, []


def ticket(spent: bool = False, session: str = "demo", origin: str = PAGE) -> Callable[[Server], Awaitable[Sent]]:
    """A ticket brought to `demo` from PAGE, though it was for another session or page, or was used before."""

    async def brought(server: Server) -> Sent:
        ticket = await server.door.ticket(Identity("ann", "*", time.time() + 60), session, origin)
        sent: Sent = "", {"Origin": PAGE}, [f"ticket.{ticket}"]
        if spent:
            assert (await tried(server, sent)).status == 101
        return sent

    return brought


async def logged(server: Server) -> Sent:
    """What stands in a log of addresses is sent again."""
    return f"?token={server.token('ann')}", {}, []


async def nobody(server: Server) -> Sent:
    return "", {}, []


async def oversized(server: Server) -> Sent:
    """A header that the server would have to keep in memory before it knows who sends it."""
    return "", {"Authorization": f"Bearer {server.token('mallory')}", "X-Long": "x" * 100_000}, []


async def tried(server: Server, sent: Sent) -> Answer:
    query, headers, protocols = sent
    return await knock(f"{server.url}/s/demo{query}", headers, ("kit.v1", *protocols))


ATTACKS: dict[str, tuple[int, str, Callable[[Server], Awaitable[Sent]]]] = {
    "a page on another origin, with the cookie": (403, "origin", hijack),
    "alg: none": (401, "algorithm", unsigned),
    "key confusion": (401, "algorithm", confused),
    "a token for another service": (401, "audience", house_token(aud="billing")),
    "a token of another issuer": (401, "issuer", house_token(iss="staging")),
    "an expired token": (401, "expiry", house_token(exp=int(time.time()) - 1)),
    "a token that is not valid yet": (401, "not before", house_token(nbf=int(time.time()) + 3600, exp=int(time.time()) + 7200)),
    "a token for another session": (401, "session", house_token(session="hers")),
    "a ticket again": (401, "single use", ticket(spent=True)),
    "a ticket for another session": (401, "ticket's session", ticket(session="hers")),
    "a ticket of another page": (401, "ticket's page", ticket(origin=OTHER_PAGE)),
    "a token out of a log of addresses": (401, "clean address", logged),
    "no credentials": (401, "before the 101", nobody),
    "an oversized header": (431, "header limit", oversized),
}


@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_the_attack_is_refused_before_the_101(server: Server, attack: str) -> None:
    """With the status of the table, and a sentence instead of the log."""
    status, _, make = ATTACKS[attack]
    answer = await tried(server, await make(server))
    assert answer.status == status
    assert "4711" not in "".join(answer.read)
    assert server.connections == set()


@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_the_attack_succeeds_with_its_one_defence_taken_out(server: Server, attack: str) -> None:
    """The attacker reads what the victim said; when the defence is back, it is refused again."""
    status, defence, make = ATTACKS[attack]
    with without(server, defence):
        answer = await tried(server, await make(server))
        assert (answer.status, "4711" in answer.read[0]) == (101, True)
    assert (await tried(server, await make(server))).status == status


@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_no_other_defence_would_have_stopped_it(server: Server, attack: str) -> None:
    """The table names the defence that counts: with any other one taken out, the attack fails as before."""
    status, defence, make = ATTACKS[attack]
    for other in WITHOUT.keys() - {defence, "before the 101"}:  # who lets everybody in, lets in these too
        with without(server, other):
            assert (await tried(server, await make(server))).status == status, other


async def test_every_defence_has_an_attack() -> None:
    """The one that is missing in the table is tried on the open socket, below."""
    assert {defence for _, defence, _ in ATTACKS.values()} == WITHOUT.keys() - {"expiry on the open socket"}


async def test_good_credentials_come_in(server: Server) -> None:
    """The attacks above fail for their reason only."""
    for make in (house_token(), ticket()):
        assert (await tried(server, await make(server))).status == 101
    assert (await tried(server, ("", {"Origin": PAGE, "Cookie": f"kit_session={server.token('ann')}"}, []))).status == 101


# ---- on the open socket ----


async def until_closed(server: Server, token: str, renewed: str | None = None) -> int:
    """The close code of a connection that came with this token, and may send another."""
    async with visit(server, "demo", token=token) as ann:
        if renewed:
            await ann.send({"type": "renew", "token": renewed})
            await ann.answer(prompt())
        server.door.clock = time.time
        return (await ann.closed())[0]


async def test_a_token_that_runs_out_closes_4401_and_a_renewed_one_goes_on(server: Server) -> None:
    begin = stop_clock(server)
    assert await until_closed(server, jwt.encode(claims(exp=begin + 0.2), SECRET)) == 4401
    begin = stop_clock(server)
    short, longer = (jwt.encode(claims(exp=begin + ttl), SECRET) for ttl in (0.2, 0.7))
    assert await until_closed(server, short, longer) == 4401
    assert time.time() - begin >= 0.7


async def test_without_the_look_at_the_clock_an_expired_token_is_heard(server: Server, agent: Counting) -> None:
    """The defence taken out: the token of a person who left goes on speaking."""
    with without(server, "expiry on the open socket"):
        async with visit(server, token=jwt.encode(claims(exp=stop_clock(server) + 0.1), SECRET)) as mallory:
            server.door.clock = lambda: time.time() + 3600
            assert (await mallory.answer(prompt("still here")))["status"] == "applied"
            await mallory.until("end")
    assert "still here" in agent.prompts


# ---- a flood ----


@pytest.fixture
async def traced(agent: Counting) -> AsyncIterator[tuple[Server, Trace]]:
    trace = Trace()
    async with open_store("fake://") as store, serve(agent, store=trace.watch(store), create_connection=trace.connection) as server:
        yield server, trace


async def test_a_flood_of_strangers_reaches_neither_the_store_nor_an_agent(traced: tuple[Server, Trace], agent: Counting) -> None:
    """Each is 401, and who has a token comes in meanwhile; let in first and asked later, each costs the store something."""
    server, trace = traced
    mark = trace.mark()
    strangers, ann = await asyncio.gather(
        asyncio.gather(*(request(server, f"/s/flood-{n}", then=masked(json.dumps(prompt()))) for n in range(200))),
        knock(f"{server.url}/s/demo", {"Authorization": f"Bearer {server.token('ann')}"}),
    )
    assert Counter(answer.status for answer in strangers) == {401: 200}
    assert ann.status == 101
    assert not [command for command in trace.since(mark).of(Command) if "flood" in command.key]
    assert agent.prompts == []
    with without(server, "before the 101"):
        await asyncio.gather(*(knock(f"{server.url}/s/flood-{n}") for n in range(200)))
    assert len([command for command in trace.since(mark).of(Command) if "flood" in command.key]) >= 200
    assert Counter(record.status for record in trace.since(mark).of(Handshake)) == {401: 200, 101: 201}


# ---- the switches ----


def test_the_kit_has_no_switch() -> None:
    """No argument leaves a defence out; and nothing that is shipped knows the doors of the lesson."""
    assert set(inspect.signature(Door).parameters) == {"secret", "tickets", "origins", "ticket_ttl", "clock"}
    importing = re.compile(r"^\s*(from|import)\s.*\battacks\b", re.MULTILINE)
    assert not [path for path in KIT.rglob("*.py") if importing.search(path.read_text("utf-8"))]


async def test_the_door_is_back_after_the_block_whatever_happens_in_it(server: Server) -> None:
    door = server.door
    with pytest.raises(KeyError), without(server, "no such defence"):
        pass
    with suppress(asyncio.CancelledError), without(server, "origin"):
        assert type(server.door) is WITHOUT["origin"]
        raise asyncio.CancelledError
    assert server.door is door


def test_the_naive_reader_does_look_at_signatures() -> None:
    """It is broken by design of the token, not because it checks nothing."""
    good = jwt.encode(claims(), SECRET)
    assert read_naively(good, SECRET.encode())["sub"] == "mallory"
    with pytest.raises(ValueError, match="does not fit"):
        read_naively(good, b"another")
