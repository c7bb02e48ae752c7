"""What every test has: a store, on fakeredis and on a real server, and a run that fails when anything was skipped."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import TimeoutError as StoreTimeout
from redis.retry import Retry

from kit.lab.hosted import serve as serve_asgi
from kit.lab.instances import Serve
from kit.lab.ports import free_ports
from kit.server import serve as serve_websockets
from tests import kernels
from tests.prerequisites import redis_server

# A slow machine is no bug, and a run must fail for what was changed, not for what was drawn: `make soak` draws anew each time.
settings.register_profile("kit", deadline=None, derandomize=True)
settings.load_profile("kit")

# ---- the store ----


class RealStore:
    """A Redis-compatible server of this test run's own, on a free port of loopback. It keeps nothing unless told to.

    Tests of faults restart it (it forgets everything, or comes back with what it had, under a new run id) and freeze it.
    """

    def __init__(self, directory: Path, port: int | None = None, **options: object) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or free_ports(1)[0]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and return when it answers; raises RuntimeError with its log when it does not come up."""
        options = {"bind": "127.0.0.1", "port": self.port, "save": "", "appendonly": "no", "dir": self._directory}
        options |= self._options
        command = [redis_server(), *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            with self.client() as client:
                client.ping()
        except BaseException as error:
            self.kill()
            if not isinstance(error, StoreConnectionError):
                raise
            raise RuntimeError(f"{command[0]} did not come up:\n{self._log.read_text(errors='replace')}") from None

    def client(self) -> Redis:
        """A plain client, which waits up to 10 s for a server that is just starting or loading."""
        patient = Retry(ConstantBackoff(0.02), 500, supported_errors=(StoreConnectionError, StoreTimeout))
        return Redis.from_url(self.url, retry=patient)

    def empty(self) -> None:
        """Forget everything, and be up: whatever the test before did to it."""
        if not self.alive:
            self.start()
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        """`kill -9`, and gone when this returns; `start` begins again on the same port, with nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def save(self) -> None:
        """Write all that it holds now to its dump, with which it comes back when it is started."""
        with self.client() as client:
            client.save()

    def come_back_old(self) -> None:
        """Kill it and start it again on the same port, under a new run id: with what it held when it was saved, if it was."""
        self.kill()
        self.start()

    def restart(self, *, keep: bool = False) -> None:
        """The same, but empty, or (`keep`) with all that it held."""
        dump = self._directory / "dump.rdb"
        dump.unlink(missing_ok=True)
        if keep:
            self.save()
        self.come_back_old()
        dump.unlink(missing_ok=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Frozen inside the block (SIGSTOP): its sockets stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


class RealCluster:
    """Three servers of this test run's own as a cluster, each with a third of the slots. One that is down takes only its own with it."""

    def __init__(self, directory: Path) -> None:
        options: dict[str, object] = {"cluster_enabled": "yes", "cluster_require_full_coverage": "no", "cluster_node_timeout": 2000}
        ports, buses = (free := free_ports(6))[:3], free[3:]
        self.servers = [RealStore(directory / str(at), at, cluster_port=bus, **options) for at, bus in zip(ports, buses, strict=True)]
        for server, bus, first, last in zip(self.servers, buses, (0, 5461, 10923), (5460, 10922, 16383), strict=True):
            with server.client() as client, self.servers[0].client() as meeting:
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                if server is not self.servers[0]:
                    meeting.execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus)
        self.formed()

    @property
    def url(self) -> str:
        """Of one server, which is enough to find the others."""
        return self.servers[0].url

    def formed(self) -> None:
        """Return when each server knows all the others, and takes commands: after a start that is two seconds by Valkey's own rule."""
        wanted = {"cluster_state": "ok", "cluster_known_nodes": "3", "cluster_slots_ok": "16384"}
        for server in self.servers:
            with server.client() as client:
                while not wanted.items() <= client.execute_command("CLUSTER INFO").items():
                    time.sleep(0.02)

    def empty(self) -> None:
        for server in self.servers:
            server.empty()
        self.formed()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStore]:
    server = RealStore(tmp_path_factory.mktemp("store"))
    yield server
    server.kill()


@pytest.fixture
def real_store(_server: RealStore) -> RealStore:
    """The real server, empty: for tests that restart, kill or freeze it."""
    _server.empty()
    return _server


@pytest.fixture
def real_store_url(real_store: RealStore) -> str:
    """The URL of the real server, empty: for tests whose instances are processes."""
    return real_store.url


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    cluster = RealCluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill()


@pytest.fixture
def real_cluster(_cluster: RealCluster) -> RealCluster:
    """Three real servers as one cluster, empty."""
    _cluster.empty()
    return _cluster


@pytest.fixture(params=["fakeredis", "real"])
def store(request: pytest.FixtureRequest) -> str:
    """A store's URL, empty; the test runs once on fakeredis (`fake://<name>`, shared by all who name it) and once on the real server."""
    if request.param == "fakeredis":
        return f"fake://{uuid4().hex}"
    url: str = request.getfixturevalue("real_store_url")
    return url


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Serve:
    """`kit.server.serve`; in a test that is `@both_servers`, it runs once more with `kit.lab.hosted.serve`."""
    return {"websockets": serve_websockets, "asgi": serve_asgi}[getattr(request, "param", "websockets")]


# ---- nothing is skipped ----


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say why a run without a failed test fails."""
    if count := _not_run(terminalreporter):
        terminalreporter.write_line(f"{count} tests were skipped or expected to fail: that counts as failure", red=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A skipped test proves nothing, and neither does one that is expected to fail: the run fails."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == pytest.ExitCode.OK and _not_run(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _not_run(reporter: Any) -> int:
    return sum(len(reporter.stats.get(outcome, ())) for outcome in ("skipped", "xfailed", "xpassed"))


# ---- others' races ----


class _Loggers(dict[str, Any]):
    """All loggers. pytest goes through them before and after each test, without the lock that another thread takes to add one."""

    def values(self) -> Any:
        return list(super().values())


def pytest_configure(config: pytest.Config) -> None:
    """Loggers as above; and nbval's kernels talk by Unix sockets, as do those that they start."""
    logging.Logger.manager.loggerDict = _Loggers(logging.Logger.manager.loggerDict)
    sockets = tempfile.TemporaryDirectory(prefix="kernel-", dir=kernels.SHORT, ignore_cleanup_errors=True)
    config.add_cleanup(sockets.cleanup)
    patch = pytest.MonkeyPatch()
    patch.setattr("nbval.kernel.KernelManager", kernels.manager_of(Path(sockets.name)))
    patch.setenv("IPYTHONDIR", kernels.profile(Path(sockets.name)))
    config.add_cleanup(patch.undo)


def pytest_collection_finish() -> None:
    """What was imported is there to stay. Tests that look for leaks collect garbage hundreds of times, and would go through all of it."""
    if not gc.get_freeze_count():  # pytester runs a session inside one
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """nbval gives a cell 5 s for its output, whatever its options say; on a busy machine that is too short."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60
