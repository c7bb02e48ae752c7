"""Standing: where a turn stands, read off its history: what is left to tell, to run, to wait for.

The packets' `at` says where the provider's stream stood. With a sequence number it is a cursor; without one, on the last call of a run
of the model, it says that the run was told whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kit.history import History
from kit.packets import Action, Ask, At, Content, Thought


class Left(NamedTuple):
    """What is known of a run of which the end was not told.

    The `cursor` of its response, if the provider keeps one; how many characters were told `since` (of a piece that was split); and
    which of its `calls` were told. Without a cursor the run is repeated, and the calls that it makes again are not told again.
    """

    cursor: At | None = None
    since: int = 0
    calls: tuple[Action | Ask, ...] = ()


NOTHING = Left()


def left_of(history: History) -> Left:
    """The run at the end of what was said in this turn, as far as it was told."""
    since, calls = 0, list[Action | Ask]()
    for packet in reversed(history.said):
        match packet:
            case Action() | Ask() if packet.at is None or packet.at.sequence is not None:
                calls.insert(0, packet)
            case Thought(text=text) | Content(text=text) if packet.at is None and not calls:
                since += len(text)
            case Thought() | Content() if not calls:
                return Left(packet.at, since)
            case _:  # where the run began, or its last call
                break
    return Left(calls[0].at if calls else None, 0, tuple(calls))


def without(history: History, calls: Sequence[Action | Ask]) -> History:
    """The history without some calls that were told."""
    ids = {call.call for call in calls}
    return History(tuple(e for e in history if not (isinstance(e, Action | Ask) and e.call in ids)), history.turn) if ids else history


def due(history: History) -> Action | None:
    """The first action of the turn that can be run here and now, or was declined."""
    actions = (packet for packet in history.said if isinstance(packet, Action) and history.result(packet.call) is None)
    return next((a for a in actions if a.on == "server" or (a.on == "approve" and history.answer(a.call))), None)


def waiting(history: History) -> bool:
    """Whether the turn has an ask without an answer or an action without a result."""
    return any(
        history.answer(packet.call) is None if isinstance(packet, Ask) else history.result(packet.call) is None
        for packet in history.said
        if isinstance(packet, Action | Ask)
    )


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
