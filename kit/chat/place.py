"""Place: where a person stands in a session, and the small file that keeps it while the program is not running."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from kit.packets import Action, Answer, Ask, Edit, End, Entry, EntryId, Gap, Prompt, Result, ToolResult


class Place(Struct, kw_only=True):
    """The cursor (`log` and `after`), and what the entries before it left open."""

    log: str | None = None
    after: str | None = None
    turns: list[str] = []
    """In the order in which they were opened."""
    waiting: dict[str, Ask | Action] = {}
    """By call: the questions and actions that want somebody to answer, approve or run them, oldest first."""

    def __post_init__(self) -> None:
        if self.after is not None:
            EntryId.parse(self.after)

    def learn(self, entry: Entry | Gap) -> None:
        """What the entry opens or closes."""
        match entry:
            case Gap():
                self.turns, self.waiting = [], {}
            case Prompt(id=id, to=agent):
                self.turns.append(f"{id}/{agent}")
            case Edit(id=id, turn=turn) if turn in self.turns:  # one that came too late opens nothing
                self.turns.append(f"{id}/{turn.partition('/')[2]}")
            case Ask(call=call) | Action(call=call, on="approve" | "client"):
                self.waiting[call] = entry
            case Answer(call=call) | Result(call=call) | ToolResult(call=call):
                self.waiting.pop(call, None)
            case End(turn=turn):
                self.turns = [other for other in self.turns if other != turn]
                self.waiting = {call: of for call, of in self.waiting.items() if of.turn != turn}
            case _:
                pass


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
