"""Doctor: whether this machine has what the kit needs, one line a check, with the remedy.

It runs where packages are missing, so nothing but the standard library is imported at the top. Nothing is sent off the machine, except
to the store that is named; neither a key nor a password is printed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DISTRIBUTION = "tokens-on-the-wire"
PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """What was found. `fatal`: without it nothing runs."""

    ok: bool
    found: str
    remedy: str = ""
    fatal: bool = False

    def __str__(self) -> str:
        return f"OK    {self.found}" if self.ok else f"FAIL  {self.found}: {self.remedy}"


def python(version: tuple[int, int, int] = sys.version_info[:3]) -> Check:
    """The interpreter."""
    found = "Python " + ".".join(map(str, version))
    return Check(
        tuple(version[:2]) >= PYTHON, found, f"the kit needs {PYTHON[0]}.{PYTHON[1]} or newer: make an environment with it", fatal=True
    )


def requirements(project: Path = ROOT / "pyproject.toml") -> list[str]:
    """What the kit needs, as requirement lines: of the checkout's pyproject, else of the installed kit."""
    if project.is_file():
        import tomllib  # here: the line about an older Python must still be printed

        lines: list[str] = tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]
        return lines
    return [line for line in importlib.metadata.requires(DISTRIBUTION) or () if "extra ==" not in line]


def package(requirement: str, installed: Callable[[str], str] = importlib.metadata.version) -> Check:
    """One package: there, and within its bounds (`>=` and `<`, all that the kit uses)."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    remedy = f"python -m pip install '{requirement}', in this environment ({sys.prefix})"
    try:
        version = installed(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(False, f"{name} is not installed", remedy, fatal=True)
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", requirement)
    fits = all((_numbers(version) >= _numbers(bound)) == (operator == ">=") for operator, bound in bounds)
    return Check(fits, f"{name} {version}", remedy, fatal=True)


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]  # type: ignore[index]  # `*` always matches
    return tuple(numbers + [0] * (4 - len(numbers)))


def kit_for_kernels(env: Mapping[str, str] = os.environ, installed: Callable[[str], str] = importlib.metadata.version) -> Check:
    """A kernel runs in the notebooks' folder, not in the checkout: the kit must be importable from there."""
    try:
        return Check(True, f"kit {installed(DISTRIBUTION)} is installed")
    except importlib.metadata.PackageNotFoundError:
        on_path = str(ROOT) in env.get("PYTHONPATH", "").split(os.pathsep)
        return Check(on_path, "kit is " + ("on PYTHONPATH" if on_path else "not installed"), f"python -m pip install --no-deps -e {ROOT}")


def loopback(host: str = "127.0.0.1", patience: float = 2.0) -> Check:
    """A port can be opened, and reached, on this machine."""
    try:
        with socket.create_server((host, 0)) as server:
            server.settimeout(patience)
            with socket.create_connection(server.getsockname()[:2], timeout=patience) as client, server.accept()[0] as peer:
                peer.sendall(b"!")
                return Check(client.recv(1) == b"!", f"a port on {host} can be opened and reached", "something in between swallows bytes")
    except OSError as error:
        return Check(False, f"no port on {host} ({error})", "allow Python to listen on loopback: a firewall or a sandbox forbids it")


async def store(url: str | None = None, patience: float = 5.0) -> Check:
    """A word can be said and read: Lua, streams, and a server that is new enough."""
    from kit.packets import START, Prompt
    from kit.store import StoreError, StoreTooOld, open_store, without_password
    from kit.transcript import Transcript

    shown = without_password(url) if url else "the store in memory (fakeredis)"
    try:
        async with asyncio.timeout(patience), open_store(url) as opened:
            transcript = Transcript(opened, ttl=5.0)
            log = (await transcript.open(f"doctor-{secrets.token_hex(8)}")).log
            await transcript.say(log, Prompt(text="hello", from_="doctor", ref=secrets.token_hex(8)))
            return Check(len(await transcript.read(log, START)) == 1, f"{shown} works", "it lost a word: restart it")
    except StoreTooOld as error:
        return Check(False, shown, str(error))
    except TimeoutError:
        return Check(False, shown, f"no answer within {patience:g} s: is it running, is the address right?")
    except (*StoreError, ValueError) as error:
        remedy = "install fakeredis[lua]" if url is None else "start it, correct the address, or leave --store out"
        return Check(False, f"{shown} ({str(error).replace(url or shown, shown)})", remedy)


def proxy(env: Mapping[str, str] = os.environ) -> Check:
    """Libraries that obey proxy variables must not send what is meant for this machine to the proxy."""
    lower = {name.lower(): value for name, value in sorted(env.items()) if value}  # sorted: as in urllib, the lower-case name wins
    used = sorted({f"{scheme}_proxy" for scheme in ("http", "https", "all", "ws", "wss", "socks")} & lower.keys())
    excluded = [host.strip() for host in lower.get("no_proxy", "").split(",") if host.strip()]
    missing = [] if excluded == ["*"] else [host for host in ("127.0.0.1", "localhost") if host not in excluded]
    if not used:
        return Check(True, "no proxy variables")
    remedy = f"export NO_PROXY={','.join(excluded + missing)} no_proxy={','.join(excluded + missing)}"
    return Check(not missing, f"{', '.join(used)} set, loopback {'not ' if missing else ''}excluded", remedy)


def api_key(env: Mapping[str, str] = os.environ) -> Check:
    """The key of a real model, if there is one. It is never printed."""
    key = env.get("OPENAI_API_KEY")
    if key is None or not key.strip():
        return Check(True, f"OPENAI_API_KEY is {'not set' if key is None else 'empty'}: the embedded model answers")
    usable = key.isascii() and key.strip().isprintable() and not re.search(r"[\s\"']", key.strip())
    return Check(usable, "OPENAI_API_KEY is set", "it holds a space, a quote, a line break or a letter that no key has: copy it again")


def jupyterlab(extensions: Callable[[], Mapping[str, bool]] | None = None) -> Check:
    """JupyterLab, with the proxy by which the panel reaches an instance on another machine."""
    enabled = (extensions or _extensions)()
    missing = [name for name in ("jupyterlab", "jupyter_server_proxy") if not enabled.get(name)]
    found = f"{' and '.join(missing)} not enabled in Jupyter" if missing else "JupyterLab and its server proxy are enabled"
    return Check(not missing, found, f"jupyter server extension enable {' '.join(missing)}")


def _extensions() -> Mapping[str, bool]:
    from jupyter_core.paths import jupyter_config_path
    from jupyter_server.extension.config import ExtensionConfigManager

    configured = ExtensionConfigManager(read_config_path=jupyter_config_path())
    enabled: Mapping[str, bool] = configured.get_jpserver_extensions()  # type: ignore[no-untyped-call]  # it has no types
    return enabled


async def check_all(url: str | None = None) -> list[Check]:
    """Every check, in the order in which one would repair. Where something fatal is found, the ones after it can't even be imported."""
    checks = [python()]
    if checks[0].ok:
        checks += map(package, requirements())
    if all(check.ok for check in checks):
        stores = [await store(), await store(url)] if url else [await store()]
        checks += [kit_for_kernels(), jupyterlab(), loopback(), *stores, proxy(), api_key()]
    return checks


async def report(url: str | None) -> int:
    """Print a line a check; gives the exit status, 1 where one failed."""
    checks = await check_all(url)
    print(*checks, sep="\n")
    return int(not all(check.ok for check in checks))
