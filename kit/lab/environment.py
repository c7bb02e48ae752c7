"""Environment: the versions that the notebooks rest on. `python -m kit doctor` looks at the whole machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

OLDEST = (3, 11)
NEEDED = {"ipykernel": ((7, 4), (8,)), "anywidget": ((0, 11), (1,)), "websockets": ((17,), (18,))}
"""From, and below, which version: where the kit would break in silence, and not at an import."""


def complaint(python: Sequence[int] = tuple(sys.version_info[:2]), installed: Callable[[str], str] = version) -> str | None:
    """What is in the way of the notebooks, in one sentence."""
    remedy = "run `make lab` and open the notebooks from there"
    if tuple(python) < OLDEST:
        return f"this kernel runs Python {python[0]}.{python[1]}, and the kit needs {OLDEST[0]}.{OLDEST[1]} or newer: {remedy}"
    for name, (oldest, above) in NEEDED.items():
        try:
            found = installed(name)
        except PackageNotFoundError:
            return f"{name} is not installed in this kernel's Python ({sys.executable}): {remedy}"
        numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdecimal())
        if not oldest <= numbers < above:
            return f"{name} {found} is installed, and the kit needs {_dotted(oldest)} or newer, below {_dotted(above)}: {remedy}"
    return None


def _dotted(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))
