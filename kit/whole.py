"""Whole: a file is written whole or not at all. What stood there before stands there until all of the new one does."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def beside(target: Path) -> Path:
    """A new name in the same folder: what is written there takes the target's place at once."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def write_whole(target: Path, pieces: Iterable[bytes]) -> None:
    """Write the file. Raises OSError; then nothing new stands there."""
    new = beside(target)
    try:
        with new.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())  # a full disk may say so only now
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
