"""Place: where a person stands in a session, and the small file that keeps it while the program is not running."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from kit.packets import EntryId


class Place(Struct, frozen=True):
    """The cursor: a log, and the id after which to go on in it; and the id up to which entries were `seen`."""

    log: str | None = None
    after: str | None = None
    seen: str = "0-0"

    def __post_init__(self) -> None:
        for id in (self.after or "0-0", self.seen):
            EntryId.parse(id)


def state_folder(env: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where programs of this platform keep what should survive a restart (XDG base directories; %LOCALAPPDATA%)."""
    named = env.get("LOCALAPPDATA" if platform == "win32" else "XDG_STATE_HOME", "")
    return Path.home() / ".local" / "state" / named / "tokens-on-the-wire"  # an absolute `named` replaces what stands before it


def load(file: Path, session: str) -> Place:
    """The place in a session: its start where it was never left. Raises OSError where the file is not what `save` wrote."""
    return _places(file).get(session) or Place()


def save(file: Path, session: str, place: Place) -> None:
    """Keep the place. The file is replaced whole: a crash leaves the old one. Raises OSError.

    Two programs that save at once may lose one of the places; that session then shows a few entries again.
    """
    places = _places(file)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode({**places, session: place}))
    fresh.replace(file)


def _places(file: Path) -> dict[str, Place]:
    if file.exists() and not file.is_file():  # replaced, /dev/null would be an ordinary file for everybody; read, a pipe would never end
        raise OSError(f"{file} is no regular file")
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Place])
    except FileNotFoundError:
        return {}
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise OSError(f"{file} holds something else: {error}") from None
