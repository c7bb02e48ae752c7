"""Place: where a person stood in a session when the program ended, in a small file."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from kit.packets import Ask, EntryId


class Place(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cursor (`log` and `after`), and what the entries before it left open: turns, and questions to the person."""

    log: str
    after: str
    turns: list[str] = []
    asks: list[Ask] = []

    def __post_init__(self) -> None:
        EntryId.parse(self.after)


class Unreadable(Exception):
    """The file is not what `save` wrote; where it says so, sessions begin at their start."""


def state_folder(env: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where programs of this platform keep what should survive a restart (XDG base directories; %LOCALAPPDATA%)."""
    home = Path.home()
    if platform == "win32":
        base = Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(env.get("XDG_STATE_HOME") or home / ".local" / "state")
        base = base if base.is_absolute() else home / ".local" / "state"  # the specification: a relative path is ignored
    return base / "tokens-on-the-wire"


def load(file: Path, session: str) -> Place | None:
    """The place in a session, None where it was never left; raises Unreadable."""
    return _places(file).get(session)


def save(file: Path, session: str, place: Place) -> None:
    """Keep the place. The file is replaced whole: a crash leaves the old one. Raises OSError.

    Two programs that save at once may lose one of the places; that session then shows a few entries again.
    """
    try:
        places = _places(file)
    except Unreadable:
        places = {}
    if _is_no_file(file):
        raise OSError(errno.EINVAL, "it is no regular file")
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode({**places, session: place}))
    fresh.replace(file)


def _is_no_file(file: Path) -> bool:
    """A device, a pipe, a folder: replaced, /dev/null would be an ordinary file for everybody; read, a pipe would never end."""
    return file.exists() and not file.is_file()


def _places(file: Path) -> dict[str, Place]:
    if _is_no_file(file):
        raise Unreadable(f"{file} is no regular file")
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Place])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise Unreadable(f"{file} can't be read ({error})") from None
