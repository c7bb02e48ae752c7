"""Standing: where a turn stands, read off its history: what is left to tell, to run, to wait for.

The packets' `at` says where the provider's stream stood. With a sequence number it is a cursor; without one, on the last call of a run
of the model, it says that the run was told whole.
"""

from __future__ import annotations

from typing import NamedTuple

from kit.history import History
from kit.packets import Action, Ask, At, Content, Thought


class Left(NamedTuple):
    """How far a run was told of which the end was not told.

    The `cursor` of its response, if the provider keeps one; how many characters were told `since` (of a piece that was split), and how
    many of its `calls`.
    """

    cursor: At | None = None
    since: int = 0
    calls: int = 0


def left_of(history: History) -> Left:
    """The run at the end of what was said in this turn, as far as it was told."""
    cursor, since, calls = None, 0, 0
    for packet in reversed(history.said):
        match packet:
            case Action() | Ask() if packet.at and packet.at.sequence is not None and not since:
                cursor, calls = packet.at, calls + 1
            case Thought(text=text) | Content(text=text) if packet.at is None and not calls:
                since += len(text)
            case Thought() | Content() if not calls:
                return Left(packet.at, since)
            case _:  # where the run began, or its last call
                break
    return Left(cursor, 0, calls)


def due(history: History) -> Action | None:
    """The first action of the turn that can be run here and now, or was declined."""
    actions = (packet for packet in history.said if isinstance(packet, Action) and history.result(packet.call) is None)
    return next((a for a in actions if a.on == "server" or (a.on == "approve" and history.answer(a.call))), None)


def rounds(history: History) -> int:
    """How many runs of the model with calls were told whole in this turn."""
    return sum(isinstance(p, Action | Ask) and p.at is not None and p.at.sequence is None for p in history.said)


def thoughts(history: History) -> str:
    """What was thought since the last call: the thoughts of the run that is half told, if one is."""
    text = ""
    for packet in reversed(history.said):
        match packet:
            case Thought():
                text = packet.text + text
            case Content():
                pass
            case _:
                break
    return text
