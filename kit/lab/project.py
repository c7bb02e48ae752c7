"""Project: one's own agent outside of the notebooks: the few files around it, as a platform gets them. A test starts them as it would."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from kit.asgi import UVICORN
from kit.doctor import requirements

KIT = Path(__file__).parents[1]
NEEDED = ("msgspec", "pyjwt", "redis", "starlette", "uvicorn", "websockets")
"""What an instance needs of all that the kit needs."""
MAX_DURATION = 300
"""Seconds after which Vercel closes a socket, where nothing else is set."""
AGENT = '''\
"""The agent. It keeps nothing: it finds its place in what was said, so any instance can go on with it."""

from kit.agents.scripted import scripted
from kit.packets import Content, Thought


def answer(prompt):
    return [Thought(f"{prompt}? I count."), *(Content(f"{n} ") for n in range(1, 201))]


agent = scripted(answer, pace=50)
'''
APP = f'''\
"""The application, for any ASGI server: `uvicorn app:app`."""

import os

from agent import agent
from kit import asgi

app = asgi.app(
    agent,
    store=os.environ["REDIS_URL"],
    secret=os.environ["KIT_SECRET"],
    origins=os.environ.get("ORIGINS", "").split(),
    max_duration={MAX_DURATION - 10} if "VERCEL" in os.environ else None,  # before the platform does it without a word
)
'''


def project(agent: str = AGENT) -> dict[str, str]:
    """The files, by name; `agent` is the text of a module that has an `agent`, or a dict of agents by that name."""
    options = " ".join(f"--{name.replace('_', '-')} {str(value).lower()}" for name, value in UVICORN.items())
    wanted = {re.split(r"[^\w-]", line)[0].lower(): line for line in requirements()}
    on_a_model = wanted["openai"] if "kit.agents.openai" in agent else f"# for an agent on a model: {wanted['openai']}"
    needed = [*(wanted[name] for name in NEEDED), on_a_model]
    return {
        "agent.py": agent,
        "app.py": APP,
        "requirements.txt": "".join(f"{line}\n" for line in needed),
        "Procfile": f"web: exec uvicorn app:app --host ${{HOST:-0.0.0.0}} --port $PORT {options}\n",
        "vercel.json": json.dumps({"framework": "python", "functions": {"app.py": {"maxDuration": MAX_DURATION}}}, indent=2) + "\n",
    }


def write(folder: Path, files: Mapping[str, str] | None = None) -> None:
    """Write a project (None: the one above) into a folder, and the kit beside it, as it is in no index.

    Raises FileExistsError where one of the names is taken: then nothing is written.
    """
    files = project() if files is None else files
    if taken := [name for name in (*files, "kit") if (folder / name).exists()]:
        raise FileExistsError(f"{folder} has {' and '.join(taken)} already: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    shutil.copytree(KIT, folder / "kit", ignore=shutil.ignore_patterns("__pycache__"))
