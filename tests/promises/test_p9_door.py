"""P9: nothing reaches an agent before authentication; refusals come before the 101, in a fixed order; what expires closes 4401.

Requests are raw: the client libraries would not send most of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import jwt
import pytest
from websockets import InvalidStatus
from websockets.asyncio.client import connect

from kit.client import connect as connect_kit
from kit.lab.instances import Serve
from kit.service import Service
from tests.conftest import RealStore
from tests.support import UPGRADE, Counting, Json, bearer, both_servers, masked, prompt, request, stop_clock, visit

SECRET = "a secret of the tests, of 64 bytes, so that HS512 would take it too"
PAGE = "http://127.0.0.1:8888"
EVIL = "https://evil.example"


@pytest.fixture
def agent() -> Counting:
    return Counting()


@pytest.fixture
async def server(store: str, agent: Counting, serve: Serve) -> AsyncIterator[Service]:
    async with serve(agent, store=store, secret=SECRET, origins=[PAGE]) as server:
        yield server


def claims(**changed: object) -> Json:
    """The claims of a good token, with changes; None leaves a claim out. It is a minute old, as the test may have stopped the clock."""
    now = int(time.time())
    good = {"iss": "kit", "aud": "kit", "sub": "ann", "session": "*", "iat": now - 60, "nbf": now - 60, "exp": now + 3600}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def forged(secret: str = SECRET, algorithm: str | None = "HS256", headers: Json | None = None, **changed: object) -> str:
    return jwt.encode(claims(**changed), secret, algorithm=algorithm, headers=headers)


async def ticket_for(server: Service, session: str = "s", origin: str | None = PAGE, name: str = "ann") -> str:
    target = f"/ticket?session={session}" + (f"&origin={origin}" if origin else "")
    reply = await request(server, target, {"Authorization": f"Bearer {server.token(name)}"}, method="POST")
    assert reply.status == 200
    ticket: str = json.loads(reply.body)["ticket"]
    return ticket


# ---- the order of refusals ----

WRONG = {
    404: ("path", "/nowhere"),
    426: ("Upgrade", None),
    403: ("Origin", EVIL),
    401: ("Authorization", "Bearer nonsense"),
    400: ("Sec-WebSocket-Protocol", "chat"),
}


@both_servers
@pytest.mark.parametrize("status", list(WRONG))
async def test_the_first_reason_counts(server: Service, agent: Counting, status: int) -> None:
    """404, 426, 403, 401, 400: with this and all later things wrong, this one is told."""
    headers, path = {**bearer(server.token("ann")), "Origin": PAGE}, "/s/demo"
    for later, (what, value) in WRONG.items():
        if list(WRONG).index(later) < list(WRONG).index(status):
            continue
        if what == "path":
            path = str(value)
        elif value is None:
            del headers[what]
        else:
            headers[what] = value
    reply = await request(server, path, headers, then=masked(json.dumps(prompt())))
    assert reply.status == status
    assert reply.body.strip()
    assert agent.prompts == []


@both_servers
async def test_with_nothing_wrong_the_door_opens(server: Service) -> None:
    reply = await request(server, "/s/demo", {**bearer(server.token("ann")), "Origin": PAGE})
    assert (reply.status, reply.headers["sec-websocket-protocol"]) == (101, "kit.v1")


@both_servers
async def test_a_refusal_says_what_its_status_demands(server: Service) -> None:
    """RFC 9110: a 401 names the scheme (15.5.2), a 426 the protocol (15.5.22)."""
    assert (await request(server, "/s/demo", {"Upgrade": "h2c"})).headers["upgrade"] == "websocket"
    assert (await request(server, "/s/demo")).headers["www-authenticate"] == "Bearer"


@both_servers
@pytest.mark.parametrize(
    "target",
    ["/", "/s", "/s/", "/s/a/b", "/s/a%62", "/s/a.b", "/s/" + "x" * 65, "//[/s/x", "//host/s/x", "/s/x#y", "*", "/ticket", "/S/x"],
)
async def test_any_other_path_is_404(server: Service, target: str) -> None:
    """A session's name is 1 to 64 characters of A-Z a-z 0-9 _ -, and so is no path, no escape and no other host."""
    assert (await request(server, target, bearer(server.token("ann")))).status == 404


@both_servers
@pytest.mark.parametrize("name", ["x", "x" * 64, "A-Z_09"])
async def test_these_are_sessions(server: Service, name: str) -> None:
    assert (await request(server, f"/s/{name}", bearer(server.token("ann")))).status == 101


async def test_a_method_that_is_none_of_ours_is_refused(server: Service) -> None:
    for method in ("PUT", "HEAD", "DELETE", "TRACE"):
        assert (await request(server, "/s/demo", bearer(server.token("ann")), method=method)).status == 405
        assert (await request(server, "/ticket", bearer(server.token("ann")), method=method)).status == 404
    assert (await request(server, "/s/demo", {"Authorization": f"Bearer {server.token('ann')}"}, method="POST")).status == 404


# ---- nothing before authentication ----


@both_servers
async def test_a_word_on_the_heels_of_a_refused_request_reaches_nobody(server: Service, agent: Counting) -> None:
    """The frame is in the same packet as the request: it is never read."""
    word = masked(json.dumps({"type": "prompt", "ref": "r" * 16, "text": "let me in"}))
    for headers in (UPGRADE, bearer("nonsense"), {**bearer(server.token("ann")), "Origin": EVIL}):
        assert (await request(server, "/s/demo", headers, then=word)).status in (401, 403)
    async with visit(server, "demo", name="bob") as bob:  # whatever was under way is done when this one has its end
        assert (await bob.answer(prompt("good")))["id"] == "1-0"
        await bob.until("end")
    assert agent.prompts == ["good"]


@pytest.mark.parametrize("header", ["X-Long", "Cookie", "Authorization", "Sec-WebSocket-Protocol", "Origin"])
async def test_an_oversized_header_is_refused(server: Service, agent: Counting, header: str) -> None:
    """Over 8 KiB in a line is no request that is read on; the server lives."""
    reply = await request(server, "/s/demo", {**UPGRADE, header: "x" * 10_000})
    assert reply.status == 431
    assert (await request(server, "/s/" + "x" * 10_000)).status in (400, 414)
    assert (await request(server, "/s/demo", [(f"X-{i}", "x") for i in range(200)])).status == 431
    assert (await request(server, "/s/demo", bearer(server.token("ann")))).status == 101


@pytest.mark.parametrize(
    ("target", "extra"),
    [
        ("/ticket?session=s", {"Content-Length": "5"}),
        ("/ticket?session=s", {"Transfer-Encoding": "chunked"}),
        ("/s/\xe4", {}),
        ("/s/ x", {}),
    ],
)
async def test_what_is_no_request_is_closed_without_a_word(server: Service, target: str, extra: Json) -> None:
    """A body, which no endpoint takes, and an address that is not ASCII, or two; then the door opens for others."""
    with pytest.raises(asyncio.IncompleteReadError):
        await request(server, target, {"Authorization": f"Bearer {server.token('ann')}", **extra}, method="POST")
    assert (await request(server, "/s/demo", bearer(server.token("ann")))).status == 101


# ---- tokens ----


def lacking(claim: str) -> str:
    return jwt.encode(claims(**{claim: None}), SECRET, algorithm="HS256")


BAD_TOKENS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "no JWT": lambda: "nonsense",
    "alg none": lambda: forged("", None),
    "alg NONE": lambda: relabelled("NONE").rpartition(".")[0] + ".",
    "another secret": lambda: forged("another secret, of 32 bytes or more than that"),
    "another algorithm of the family": lambda: forged(algorithm="HS512"),
    "a key of its own": lambda: forged("another secret, of 32 bytes or more than that", headers={"jwk": {"kty": "oct", "k": "YQ"}}),
    "key confusion": lambda: relabelled("RS256"),
    "the signature cut": lambda: forged()[:-4],
    "claims exchanged": lambda: spliced(forged(), forged("x" * 32, sub="admin")),
    "wrong audience": lambda: forged(aud="other"),
    "wrong issuer": lambda: forged(iss="other"),
    "expired": lambda: forged(exp=int(time.time()) - 1),
    "not yet valid": lambda: forged(nbf=int(time.time()) + 60),
    "an expiry in words": lambda: forged(exp="tomorrow"),
    "an expiry without end": lambda: forged(exp=10**400),
    "a name that is a number": lambda: forged(sub=7),
    "for another session": lambda: forged(session="other"),
    **{f"without {claim}": partial(lacking, claim) for claim in ("iss", "aud", "sub", "session", "nbf", "exp")},
    "a header of 5,000 levels": lambda: "W1tb" * 1_250 + ".e30.e30",
}


def relabelled(algorithm: str) -> str:
    """A token signed with HS256, whose header claims another algorithm: the signature is over the changed header."""
    header = jwt.utils.base64url_encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).decode()
    payload = forged().split(".")[1]
    algorithms = jwt.algorithms.get_default_algorithms()
    signer = algorithms["HS256"]
    signature = signer.sign(f"{header}.{payload}".encode(), signer.prepare_key(SECRET))
    return f"{header}.{payload}.{jwt.utils.base64url_encode(signature).decode()}"


def spliced(good: str, bad: str) -> str:
    """The signature of one token under the claims of another."""
    header, _, signature = good.split(".")
    return f"{header}.{bad.split('.')[1]}.{signature}"


@pytest.mark.parametrize("kind", list(BAD_TOKENS))
async def test_a_bad_token_is_401(server: Service, agent: Counting, kind: str) -> None:
    """As a bearer and in the cookie; the refusal does not repeat it."""
    token = BAD_TOKENS[kind]()
    for headers in (bearer(token), {**UPGRADE, "Origin": PAGE, "Cookie": f"kit_session={token}"}):
        reply = await request(server, "/s/demo", headers)
        assert reply.status == 401
        assert not any(part in reply.body for part in token.split(".") if len(part) > 8)
    assert agent.prompts == []


@both_servers
async def test_a_good_token_is_good(server: Service) -> None:
    """The forger's own token is taken where nothing is changed: the tests above fail for their reason only."""
    assert (await request(server, "/s/demo", bearer(forged()))).status == 101
    assert (await request(server, "/s/demo", bearer(forged(session="demo")))).status == 101
    assert (await request(server, "/s/demo", {**UPGRADE, "Authorization": f"bearer   {forged()}"})).status == 101


@both_servers
@pytest.mark.parametrize(
    "target", ["/s/demo?token={}", "/s/demo?access_token={}", "/s/demo?ticket={}", "/s/demo?authorization=Bearer%20{}"]
)
async def test_a_token_in_the_address_is_not_read(server: Service, target: str) -> None:
    """An address ends up in logs, histories and Referer headers."""
    assert (await request(server, target.format(server.token("ann")))).status == 401


@both_servers
async def test_other_schemes_and_two_credentials_are_401(server: Service) -> None:
    token = server.token("ann")
    for value in (f"Basic {token}", token, "Bearer", "Bearer ", f"Bearer {token} {token}", f"Bearer {token}, Bearer {token}"):
        assert (await request(server, "/s/demo", {**UPGRADE, "Authorization": value})).status == 401
    twice = [*UPGRADE.items(), ("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert (await request(server, "/s/demo", twice)).status == 401
    assert (await request(server, "/s/demo", [*bearer(token).items(), ("Origin", PAGE), ("Origin", EVIL)])).status in (
        403,
        400,
    )  # uvicorn's
    assert (await request(server, "/cookie", [("Origin", PAGE), ("Origin", EVIL)], method="OPTIONS")).status in (403, 400)


# ---- cookies ----


@both_servers
async def test_the_cookie_counts_only_from_an_allowed_page(server: Service) -> None:
    """The browser sends it from any page: without an Origin 401, from a foreign one 403 (RFC 6455 section 10.2)."""
    cookie = {**UPGRADE, "Cookie": f"kit_session={server.token('ann')}"}
    assert (await request(server, "/s/demo", {**cookie, "Origin": PAGE})).status == 101
    assert (await request(server, "/s/demo", cookie)).status == 401
    for origin in (EVIL, "null", "", PAGE + ".evil.example", PAGE.upper(), PAGE + "/", "http://127.0.0.1"):
        assert (await request(server, "/s/demo", {**cookie, "Origin": origin})).status == 403


@both_servers
@pytest.mark.parametrize("neighbour", ['state={"a": 1}', "a,b=c", "flag", "x[y]=1", 'q="', "=", "_xsrf=2|ab|cd"])
async def test_other_cookies_do_not_hide_it(server: Service, neighbour: str) -> None:
    """Cookies don't know ports: whatever else runs on this host sends its own along."""
    for cookies in (f"{neighbour}; kit_session={server.token('ann')}", f"kit_session={server.token('ann')}; {neighbour}"):
        assert (await request(server, "/s/demo", {**UPGRADE, "Origin": PAGE, "Cookie": cookies})).status == 101
    split = [*UPGRADE.items(), ("Origin", PAGE), ("Cookie", neighbour), ("Cookie", f"kit_session={server.token('ann')}")]
    assert (await request(server, "/s/demo", split)).status == 101


@pytest.mark.parametrize(("origin", "secure"), [(PAGE, False), ("https://agents.example", True)])
async def test_a_cookie_of_a_page_over_tls_never_leaves_it(agent: Counting, serve: Serve, origin: str, secure: bool) -> None:
    """`Secure` (RFC 6265 section 5.2.5): the browser sends it to no plain http address of that host."""
    async with serve(agent, origins=[origin]) as server:
        ticket = await ticket_for(server, origin=origin)
        reply = await request(server, "/cookie", {"Authorization": f"Bearer {ticket}", "Origin": origin}, method="POST")
        assert ("Secure" in reply.headers["set-cookie"].split("; ")) == secure


@both_servers
async def test_a_ticket_becomes_a_cookie_that_opens_the_door(server: Service) -> None:
    """HttpOnly and SameSite=Strict; good for the ticket's session, from an allowed page, until the token that it came from expires."""
    ticket = await ticket_for(server, "demo")
    reply = await request(server, "/cookie", {"Authorization": f"Bearer {ticket}", "Origin": PAGE}, method="POST")
    assert reply.status == 200
    cookie, *attributes = reply.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert (await request(server, "/s/demo", {**UPGRADE, "Origin": PAGE, "Cookie": cookie})).status == 101
    assert (await request(server, "/s/other", {**UPGRADE, "Origin": PAGE, "Cookie": cookie})).status == 401


async def test_a_cookie_needs_a_ticket_of_this_page(server: Service) -> None:
    """A token, a spent ticket and another page's ticket give none."""
    ticket = await ticket_for(server)
    for origin, credential, status in (
        (PAGE, server.token("ann"), 401),
        (EVIL, ticket, 403),
        (PAGE, ticket, 200),
        (PAGE, ticket, 401),
        (None, await ticket_for(server), 401),
    ):
        headers = {"Authorization": f"Bearer {credential}", **({"Origin": origin} if origin else {})}
        reply = await request(server, "/cookie", headers, method="POST")
        assert reply.status == status
        assert ("set-cookie" in reply.headers) == (status == 200)


# ---- tickets ----


def with_ticket(ticket: str, origin: str | None = PAGE) -> Json:
    return {**UPGRADE, "Sec-WebSocket-Protocol": f"kit.v1, ticket.{ticket}", **({"Origin": origin} if origin else {})}


@both_servers
async def test_a_ticket_is_good_once(server: Service) -> None:
    """The subprotocol that is chosen is kit.v1: the ticket is not echoed."""
    ticket = await ticket_for(server)
    first = await request(server, "/s/s", with_ticket(ticket))
    assert (first.status, first.headers["sec-websocket-protocol"]) == (101, "kit.v1")
    again = await request(server, "/s/s", with_ticket(ticket))
    assert again.status == 401
    assert ticket not in again.body


@both_servers
async def test_of_many_who_bring_the_same_ticket_one_comes_in(server: Service) -> None:
    ticket = await ticket_for(server)
    replies = await asyncio.gather(*(request(server, "/s/s", with_ticket(ticket)) for _ in range(10)))
    assert sorted(reply.status for reply in replies) == [101] + [401] * 9


@both_servers
async def test_a_ticket_is_for_its_session_and_its_page(server: Service) -> None:
    """Brought elsewhere it is refused, and used up."""
    for session, origin, status in (("other", PAGE, 401), ("s", None, 401), ("s", EVIL, 403)):
        ticket = await ticket_for(server)
        assert (await request(server, f"/s/{session}", with_ticket(ticket, origin))).status == status
        if status == 401:
            assert (await request(server, "/s/s", with_ticket(ticket))).status == 401


@pytest.mark.parametrize("ticket", ["", "x", "x" * 32, "../kit:shards", "*", "ticket.ticket."])
async def test_a_ticket_that_is_none_is_401(server: Service, ticket: str) -> None:
    assert (await request(server, "/s/s", with_ticket(ticket))).status == 401


@both_servers
async def test_the_subprotocols_may_come_in_two_lines(server: Service) -> None:
    """RFC 6455 section 11.3.4 allows it."""
    headers = {name: value for name, value in UPGRADE.items() if name != "Sec-WebSocket-Protocol"}
    lines = [("Origin", PAGE), ("Sec-WebSocket-Protocol", "kit.v1"), ("Sec-WebSocket-Protocol", f"ticket.{await ticket_for(server)}")]
    assert (await request(server, "/s/s", [*headers.items(), *lines])).status == 101


@both_servers
async def test_a_ticket_without_the_subprotocol_is_400(server: Service) -> None:
    headers = {**with_ticket(await ticket_for(server)), "Sec-WebSocket-Protocol": f"ticket.{await ticket_for(server)}"}
    assert (await request(server, "/s/s", headers)).status == 400


@both_servers
async def test_each_hello_brings_a_page_the_next_ticket(server: Service) -> None:
    """Bound to the same session and page; a program, which has its token, gets none."""
    ticket = await ticket_for(server, name="ann")
    for _ in range(3):
        protocols = ["kit.v1", f"ticket.{ticket}"]
        async with connect(f"{server.url}/s/s", origin=PAGE, subprotocols=protocols, proxy=None) as socket:  # type: ignore[arg-type]
            hello = json.loads(await socket.recv())
            assert hello["ticket"] != ticket
            ticket = hello["ticket"]
    assert (await request(server, "/s/other", with_ticket(ticket))).status == 401
    async with visit(server) as program:
        assert program.hello.ticket is None


@both_servers
async def test_who_may_have_a_ticket(server: Service) -> None:
    """A bearer whose token is good for the session; without a session for a token of all there is none."""
    for authorization, target, status in (
        ("", "/ticket?session=s", 401),
        ("Bearer nonsense", "/ticket?session=s", 401),
        (f"Bearer {server.token('ann')}", "/ticket", 401),
        (f"Bearer {server.token('ann')}", "/ticket?session=*", 401),
        (f"Bearer {server.token('ann', 'mine')}", "/ticket?session=other", 401),
        (f"Bearer {server.token('ann', 'mine')}", "/ticket", 200),
        (f"Bearer {server.token('ann', 'mine')}", "/ticket?session=mine", 200),
        (f"Bearer {server.token('ann')}", "/elsewhere", 404),
    ):
        reply = await request(server, target, {"Authorization": authorization}, method="POST")
        assert (reply.status, "ticket" in reply.body and status == 200) == (status, status == 200)
        assert reply.headers["cache-control"] == "no-store"


async def test_a_ticket_does_not_outlive_its_token(server: Service) -> None:
    reply = await request(
        server, "/ticket?session=s", {"Authorization": f"Bearer {server.token('ann', ttl=60)}", "Origin": PAGE}, method="POST"
    )
    now = time.time()
    server.door.clock = lambda: now + 61
    assert (await request(server, "/s/s", with_ticket(json.loads(reply.body)["ticket"]))).status == 401


# ---- a token that runs out, and one that is renewed ----


@both_servers
async def test_a_token_that_expires_in_mid_connection_closes_4401(server: Service, agent: Counting) -> None:
    """After that nothing that is still sent is heard."""
    async with visit(server, token=forged(exp=stop_clock(server) + 0.1)) as ann:
        await ann.answer(prompt("in time"))
        await ann.until("end")
        server.door.clock = time.time
        code, reason = await ann.closed()
        assert code == 4401
        assert "expired" in reason
    assert agent.prompts == ["in time"]


@both_servers
async def test_a_client_that_ignores_the_close_is_not_heard(server: Service, agent: Counting) -> None:
    """A raw socket goes on sending words after 4401: they reach nobody."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in bearer(forged(exp=stop_clock(server) + 0.1)).items())
    writer.write(f"GET /s/s HTTP/1.1\r\nHost: kit\r\n{lines}\r\n".encode())
    assert b"101 Switching" in await reader.readuntil(b"\r\n\r\n")
    server.door.clock = time.time
    await reader.readuntil(b"expired")  # the reason in the close frame
    writer.write(masked(json.dumps({"type": "prompt", "ref": "r" * 16, "text": "late"})))
    assert b"applied" not in await reader.read()
    writer.close()
    async with visit(server) as bob:
        assert (await bob.answer(prompt("good")))["id"] == "1-0"
        await bob.until("end")
    assert agent.prompts == ["good"]


@both_servers
async def test_a_token_is_renewed_on_the_open_socket(server: Service) -> None:
    """The connection lives past the first token's end and closes at the second one's."""
    now = stop_clock(server)
    async with visit(server, token=forged(exp=now + 0.1)) as ann:
        await ann.send({"type": "renew", "token": forged(exp=now + 0.6)})
        await ann.answer(prompt())
        server.door.clock = time.time
        assert (await ann.closed())[0] == 4401
        assert time.time() >= now + 0.6


async def test_a_renewal_may_shorten(server: Service) -> None:
    """The last good token counts, not the longest."""
    async with visit(server) as ann:
        await ann.send({"type": "renew", "token": forged(exp=stop_clock(server) + 0.1)})
        await ann.answer(prompt())
        server.door.clock = time.time
        assert (await ann.closed())[0] == 4401


@pytest.mark.parametrize(
    ("kind", "token"),
    [
        ("garbage", lambda: "garbage"),
        ("an endless one", lambda: "x" * 60_000),
        ("somebody else's", lambda: forged(sub="bob")),
        ("another session's", lambda: forged(session="other")),
        ("an expired one", lambda: forged(exp=int(time.time()) - 1)),
        ("one of another secret", lambda: forged("x" * 32)),
        ("one of no algorithm", lambda: forged("", None)),
    ],
    ids=str,
)
async def test_a_renewal_that_is_no_good_is_told_and_changes_nothing(server: Service, kind: str, token: Callable[[], str]) -> None:
    """An error at `token` that does not repeat it; the connection goes on under the old one."""
    async with visit(server) as ann:
        value = token()
        error = await ann.answer({"type": "renew", "token": value})
        assert (error["code"], error["at"]) == ("bad_token", "token")
        assert value not in error["text"]
        assert (await ann.answer(prompt()))["status"] == "applied"


@both_servers
async def test_a_renewal_that_is_no_good_gains_no_time(server: Service) -> None:
    async with visit(server, token=forged(exp=stop_clock(server) + 0.1)) as ann:
        assert (await ann.answer({"type": "renew", "token": forged(sub="bob")}))["code"] == "bad_token"
        server.door.clock = time.time
        assert (await ann.closed())[0] == 4401


# ---- nothing is told to the logs ----


@both_servers
async def test_no_credential_is_logged(store: str, serve: Serve, agent: Counting, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, of all libraries: tokens, cookies, tickets and the secret, of visits that come in and of those that are refused."""
    caplog.set_level(logging.DEBUG)
    async with serve(agent, store=store, secret=SECRET, origins=[PAGE]) as server:
        token, fresh, bad = server.token("ann"), server.token("ann", ttl=7200), forged("x" * 32)
        tickets = [await ticket_for(server) for _ in range(3)]
        cookie = {**UPGRADE, "Origin": PAGE, "Cookie": f"kit_session={token}"}
        refused = {**bearer(token), "Origin": EVIL}
        broken = {**UPGRADE, "Origin": PAGE, "Sec-WebSocket-Protocol": f"kit.v1, ticket.{tickets[1]}, ;"}
        for headers in (bearer(token), cookie, refused, bearer(bad), with_ticket(tickets[0]), broken, {**bearer(token), "Upgrade": "h2c"}):
            reply = await request(server, "/s/s", headers)
            assert not any(secret in reply.body for secret in (token, bad))
        await request(server, "/cookie", {"Authorization": f"Bearer {tickets[2]}", "Origin": PAGE}, method="POST")
        async with connect_kit(server.url, session="s", token=token) as session:
            await session.renew(fresh)
            await session.prompt("hi")
            await session.renew(bad)
            await session.prompt("ho")
    records = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "connection open" in records, "the library's records are there, or this test proves nothing"
    signatures = [part for jwt_ in (token, fresh, bad) for part in jwt_.split(".")[1:]]
    for secret in (SECRET, *signatures, *tickets):
        assert secret not in records


@pytest.mark.parametrize("serve", ["websockets", "asgi"], indirect=True)
async def test_the_store_out_of_reach_is_503(agent: Counting, real_store: RealStore, serve: Serve) -> None:
    """A ticket can't be looked up: come back later, rather than a traceback and a 500."""
    async with serve(agent, store=real_store.url, secret=SECRET, origins=[PAGE]) as server:
        ticket = await ticket_for(server)
        real_store.kill()
        reply = await request(server, "/s/s", with_ticket(ticket))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        real_store.start()


@both_servers
async def test_the_plain_client_sees_the_status(server: Service) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"{server.url}/s/demo", proxy=None):
            pass
    assert caught.value.response.status_code == 401
