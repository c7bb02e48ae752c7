"""Install: what the peers need and the kit does not, exact versions, into a cache outside the tree."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PYTHON = ("python-socketio==5.18.1", "python-engineio==4.15.1", "bidict==0.24.1", "uvloop==0.23.0", "httptools==0.9.0")
NODE = ("socket.io@4.8.4", "@socket.io/redis-streams-adapter@0.3.1", "resumable-stream@2.2.13", "redis@5.10.0")


class Missing(Exception):
    """The peers of one kind can't be had here; the sentence says why."""


def folder() -> Path:
    """One for each set of versions and each Python."""
    wanted = repr((PYTHON, NODE, sys.version_info[:2], platform.machine()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tokens-on-the-wire" / f"bench-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"


@functools.cache
def environment() -> dict[str, str]:
    """A child's: it finds there what has been installed."""
    path = os.pathsep.join(filter(None, (str(folder() / "python"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "NODE_PATH": str(folder() / "node" / "node_modules"), "NODE_ENV": "production"}


def python() -> None:
    """Raises Missing."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]
    _once("python", lambda target: [*pip, str(target), *PYTHON])


def node() -> None:
    """Raises Missing."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise Missing(f"there is no `{program}` on PATH")
    npm = ["npm", "install", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix"]
    _once("node", lambda target: [*npm, str(target), *NODE])


def _once(kind: str, command: Callable[[Path], list[str]]) -> None:
    target = folder() / kind
    done = target / ".installed"
    if done.exists():
        return
    shutil.rmtree(target, ignore_errors=True)  # what an interrupted run has left
    target.mkdir(parents=True)
    ran = subprocess.run(command(target), capture_output=True, text=True)
    if ran.returncode:
        raise Missing(f"{' '.join(command(target)[:4])} ... failed: {ran.stderr.strip()[-300:]}")
    done.touch()
