"""Asgi: an instance of the kit under uvicorn, or several workers of it, on plain asyncio like full.py."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import threading

import uvicorn
from uvicorn.supervisors import Multiprocess

from kit import asgi
from kit.auth import ANY_SESSION, Door
from tests.bench.child import say
from tests.bench.full import agent

OPTIONS = "KIT_BENCH"
"""Each worker reads in the environment what it is to do."""


def application() -> asgi.App:
    return asgi.app(agent, **json.loads(os.environ[OPTIONS]))


def main(workers: int = 1, secret: str = "", **options: object) -> None:
    secret = secret or secrets.token_urlsafe(32)
    os.environ[OPTIONS] = json.dumps({"secret": secret, **options})
    config = uvicorn.Config(
        f"{__spec__.name}:application",
        factory=True,
        port=0,
        workers=workers,
        loop="asyncio",
        log_level="critical",
        timeout_worker_healthcheck=60,
        **asgi.UVICORN,
    )
    listening = config.bind_socket()
    listening.listen(config.backlog)  # whoever dials before the workers are up waits there
    say(url=f"ws://127.0.0.1:{listening.getsockname()[1]}", token=Door(secret, None).issue("bench", ANY_SESSION, 3600.0))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    if workers == 1:
        uvicorn.Server(config).run([listening])
    else:
        Multiprocess(config, [listening]).run()


def _end_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
