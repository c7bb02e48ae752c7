"""The README's agent and the command that serves it, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kit.asgi import UVICORN
from kit.lab.succession import check_agent

README = Path(__file__).parents[1] / "README.md"


def test_the_agent_of_the_readme_goes_on_where_it_was_cut() -> None:
    """It is the first one that people write after it; one that begins anew would say all of it twice."""
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL) if "def parrot" in block]
    names: dict[str, Any] = {}
    exec(block, names)  # the README's own
    outcome = check_agent(names["parrot"], "one two three four")
    assert outcome.passed, outcome


def test_uvicorn_is_started_as_the_kit_asks_of_it() -> None:
    (line,) = re.findall(r"^uvicorn app:app --workers 4 (.*)$", README.read_text("utf-8"), re.MULTILINE)
    assert line == " ".join(f"--{name.replace('_', '-')} {str(value).lower()}" for name, value in UVICORN.items())
