"""Doctor: whether this machine has what the kit needs, one line a check, with the remedy.

It runs where packages are missing, so nothing but the standard library is imported at the top. Nothing is sent off the machine, except
to the store that is named; neither a key nor a password is printed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import operator
import os
import re
import secrets
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

ROOT = Path(__file__).parent.parent
DISTRIBUTION = "tokens-on-the-wire"
PYTHON = (3, 11)
TEXT_ONLY = ("www-browser", "links", "elinks", "lynx", "w3m")  # what Python's webbrowser falls back to in a terminal


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


_COMPARE = {">=": operator.ge, "<": operator.lt, "!=": operator.ne}


def package(requirement: str, installed: Callable[[str], str] = importlib.metadata.version) -> Check:
    """One package: there, and within its bounds (`>=`, `<` and `!=`, all that the kit uses)."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    remedy = f'python -m pip install "{requirement}", in this environment ({sys.prefix})'
    try:
        version = installed(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(False, f"{name} is not installed", remedy, fatal=True)
    bounds = re.findall(r"(>=|<|!=)\s*([\d.]+)", requirement)
    fits = all(_COMPARE[sign](_numbers(version), _numbers(bound)) for sign, bound in bounds)
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


def port(number: int = 8888) -> Check:
    """JupyterLab's own. It is no failure that another JupyterLab has it: the address that is printed has another number then."""
    try:
        with socket.create_server(("127.0.0.1", number)):
            return Check(True, f"port {number} is free for JupyterLab")
    except OSError:
        return Check(True, f"port {number} is taken: JupyterLab takes one that is free, and prints it")


def browser(env: Mapping[str, str] = os.environ) -> Check:
    """What JupyterLab opens. Where there is none, the printed address does in any, also beyond an ssh tunnel."""
    import webbrowser  # here: it asks the desktop when it is imported

    address = "open the address that JupyterLab prints in any browser"
    named = [shlex.split(choice)[:1] for choice in env.get("BROWSER", "").split(os.pathsep) if choice.strip()]
    if named and not any(shutil.which(program) for (program,) in named):
        return Check(False, f"BROWSER={env['BROWSER']}, which is not here", f"unset BROWSER, or {address}")
    try:
        found = getattr(webbrowser.get(), "name", "")
    except webbrowser.Error:
        return Check(True, f"no browser opens by itself here: {address}")
    if found in TEXT_ONLY:
        return Check(
            False, f"{found} is the only browser here, and runs no scripts", f"{address}; --no-browser keeps {found} from the terminal"
        )
    return Check(True, f"a browser opens by itself{f' ({found})' if found else ''}")


async def store(url: str | None = None, patience: float = 5.0) -> Check:
    """A word can be said and read: Lua, streams, and a server that is new enough."""
    from kit.packets import START, Prompt
    from kit.store import StoreError, StoreTooOld, open_store, without_password
    from kit.transcript import Transcript

    shown = "the store in memory (fakeredis)" if url is None else without_password(url)
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


def proxy() -> Check:
    """Libraries that obey proxy variables must not send what is meant for this machine to the proxy."""
    proxies = getproxies()
    missing = [host for host in ("127.0.0.1", "localhost") if not proxy_bypass(host)]
    excluded = ",".join([*filter(None, [proxies.pop("no", "")]), *missing])
    if not proxies:
        return Check(True, "no proxy variables")
    found = f"{', '.join(f'{scheme}_proxy' for scheme in sorted(proxies))} set, loopback {'not ' if missing else ''}excluded"
    remedy = f"put NO_PROXY={excluded} into the environment" if os.name == "nt" else f"export NO_PROXY={excluded} no_proxy={excluded}"
    return Check(not missing, found, remedy)


def api_key(env: Mapping[str, str] = os.environ) -> Check:
    """The key of a real model, if there is one. It is never printed."""
    from kit.agents.settings import OPENAI, environment, usable_key
    from kit.history import AgentError

    key, url, _ = environment(env)
    if not key:
        return Check(True, f"OPENAI_API_KEY is not set: the {'server at OPENAI_BASE_URL' if url else 'embedded model'} answers")
    try:
        usable_key(key, url or OPENAI)
    except AgentError as error:
        return Check(False, "OPENAI_API_KEY is set", str(error))
    return Check(True, "OPENAI_API_KEY is set")


def essentials() -> Iterator[Check]:
    """Python, and the packages where it is new enough for them. A lab looks at these, too: where it starts may be the wrong kernel."""
    yield (found := python())
    if found.ok:
        yield from map(package, requirements())


async def check_all(url: str | None = None) -> list[Check]:
    """Every check, in the order in which one would repair. Where something fatal is found, the ones after it can't even be imported."""
    checks = [*essentials()]
    if all(check.ok for check in checks):
        stores = [await store()] if url is None else [await store(), await store(url)]
        checks += [kit_for_kernels(), loopback(), port(), browser(), *stores, proxy(), api_key()]
    return checks


async def report(url: str | None) -> int:
    """Print a line a check; gives the exit status, 1 where one failed."""
    checks = await check_all(url)
    print(*checks, sep="\n")
    return int(not all(check.ok for check in checks))
