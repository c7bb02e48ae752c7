"""The store fixtures and the rule that nothing is skipped: what every other test stands on."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import TimeoutError as StoreTimeoutError

from tests.conftest import RealStore

pytest_plugins = ["pytester"]


def _impatient(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=0.05, retry=None)


def test_each_test_gets_an_empty_store(store: str, real_store: RealStore) -> None:
    """Whatever a test before left in the real server is gone; a fakeredis is a new one by its name."""
    if store.startswith("fake://"):
        assert len(store) > len("fake://")
        return
    assert store == real_store.url
    with real_store.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


test_the_next_test_does_too = test_each_test_gets_an_empty_store


def test_restart_forgets_everything_under_a_new_run_id(real_store: RealStore) -> None:
    """As a crash without persistence."""
    with real_store.client() as client:
        client.set("key", "value")
        before = client.info("server")["run_id"]
        real_store.restart()
        assert client.get("key") is None
        assert client.info("server")["run_id"] != before


def test_restart_can_keep_what_was_stored(real_store: RealStore) -> None:
    """As a crash right after a save; the restart after that one forgets again."""
    with real_store.client() as client:
        client.set("key", "value")
        real_store.restart(keep=True)
        assert client.get("key") == b"value"
        real_store.restart()
        assert client.get("key") is None


async def test_a_paused_store_holds_the_call_and_answers_afterwards(real_store: RealStore) -> None:
    """Its sockets stay open: a call neither fails nor returns until it goes on."""
    async with AsyncRedis.from_url(real_store.url, socket_timeout=None) as client:
        await client.ping()
        with real_store.paused():
            held = asyncio.ensure_future(client.ping())
            with pytest.raises(StoreTimeoutError), _impatient(real_store.url) as other:
                await asyncio.to_thread(other.ping)
            assert not held.done()
        assert await held


def test_a_killed_store_refuses_and_can_be_started_again(real_store: RealStore) -> None:
    """On the same port: clients find it again."""
    url = real_store.url
    real_store.kill()
    with pytest.raises(StoreConnectionError), _impatient(url) as client:
        client.ping()
    real_store.start()
    with Redis.from_url(url) as client:
        assert client.ping()


def test_a_store_that_a_test_left_dead_is_up_for_the_next(real_store: RealStore) -> None:
    """One test's fault is not another's."""
    real_store.kill()
    real_store.empty()
    with real_store.client() as client:
        assert client.ping()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("def test(): pass", pytest.ExitCode.OK),
        ("import pytest\ndef test(): pytest.skip('no time')", pytest.ExitCode.TESTS_FAILED),
        ("import pytest\n@pytest.mark.xfail\ndef test(): assert 0", pytest.ExitCode.TESTS_FAILED),
        ("import pytest\n@pytest.mark.skipif(True, reason='not here')\ndef test(): pass", pytest.ExitCode.TESTS_FAILED),
        ("import pytest\npytest.importorskip('no_such_module')", pytest.ExitCode.TESTS_FAILED),
    ],
    ids=["passed", "skipped", "expected to fail", "skipped by a condition", "skipped as a file"],
)
def test_a_run_that_skips_anything_fails(pytester: pytest.Pytester, body: str, code: pytest.ExitCode) -> None:
    """Green means that everything was run."""
    pytester.makepyfile("def test_passes(): pass", test_one=body)
    result = pytester.runpytest_inprocess("-p", "tests.conftest", "-p", "no:asyncio")
    assert result.ret == code
    assert ("that counts as failure" in result.stdout.str()) == (code != pytest.ExitCode.OK)


def test_a_logger_may_be_made_while_pytest_goes_through_all() -> None:
    """By another thread, as the lab's does at its start."""
    for _ in logging.Logger.manager.loggerDict.values():
        logging.getLogger(f"test {uuid4()}")
