"""Player: what the embedded model says while a tape is in it.

Like the scripted model it remembers nothing: which run comes next is read off the conversation, by what the assistant has said and called.
So each new session begins the tape anew, an instance that takes a turn over is given exactly the rest of a half-said answer, and a person
who steers goes on to the next run. Prompts do not count: they need not be on the tape, and a learner may ask in other words.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

from kit.agents.conversation import Call, Item, Message
from kit.agents.embedded.events import Event
from kit.agents.embedded.requests import Json, Refuse, Request
from kit.agents.tape import Dialect, Run, Tape


class Place(NamedTuple):
    """Where a conversation stands on a tape: in which run, how many characters of it are told, and how many of its calls."""

    run: int = 0
    told: int = 0
    called: int = 0


def place(runs: Sequence[Run], items: Sequence[Item]) -> Place:
    """Words that are not on the tape are passed over: they were said before it began."""
    at, asked = Place(), False
    for item in items:
        run = runs[at.run] if at.run < len(runs) else None
        match item:
            case Message("user"):
                silent = run is not None and not run.text and not run.calls
                at = Place(at.run + 1) if at[1:] != (0, 0) or (asked and silent) else at
                asked = True
            case Message("assistant", text):
                at = _after(runs, at, text)
            case Call(name=name) if run and run.calls[at.called : at.called + 1] == [name]:
                at = at._replace(called=at.called + 1)
                at = Place(at.run + 1) if at.called == len(run.calls) else at
    return at


def _after(runs: Sequence[Run], at: Place, text: str) -> Place:
    """The place after a text, which may be that of several runs: where one was cut, the next one goes on with it."""
    here = at
    while here.run < len(runs):
        run = runs[here.run]
        rest = run.text[here.told :]
        if run.ended == "cut" and text.startswith(rest):
            text, here = text[len(rest) :], Place(here.run + 1)
            if not text:
                return here
        else:
            return here._replace(told=here.told + len(text)) if rest.startswith(text) else at
    return at


def play(tape: Tape, dialect: Dialect, asked: Request, head: Json, *, timed: bool) -> tuple[Run, list[Event]]:
    """The run that comes next, and its events; of one that is half told the rest. Its ids are those of `head`. Raises Refuse.

    `timed`: each event waits as long as it did on the tape.
    """
    if not asked.stream and not asked.background:
        raise Refuse(400, "A tape is played as a stream: ask with stream=True.", param="stream")
    # Of a run that was lost before it had said anything the next one is the repetition; what it called then, nobody was told.
    runs = [run for run in tape.runs if run.text or run.ended == "whole"]
    at = place(runs, asked.items())
    if at.run >= len(runs):
        raise Refuse(400, f"The tape is over: its {len(runs)} answers were given. Begin a new session to hear them again.")
    run = runs[at.run]
    if run.dialect != dialect:
        raise Refuse(400, f'The tape was recorded in the other dialect: ask it with dialect="{run.dialect}".')
    left = enumerate(_left(run, at))
    return run, [Event(_under(data, head, number), token, wait if timed else None) for number, (wait, data, token) in left]


def _under(data: Json, head: Json, number: int) -> Json:
    """An event as the next of the response or completion that `head` begins: an id of its own for each time that it is played."""
    if "choices" in data:
        return {**data, "id": head["id"]}
    numbered = {**data, "sequence_number": number} if data.get("sequence_number") is not None else data
    if isinstance(response := data.get("response"), dict):
        return {**numbered, "response": {"tools": [], **response, "id": head["id"], "background": head["background"]}}
    return numbered


def _left(run: Run, at: Place) -> Iterator[tuple[float, Json, bool]]:
    """What is left of a run: the seconds before each event, the event, and whether it is a token."""
    told, gone, before = at.told, _gone(run, at.called), 0.0
    for moment, heard in zip(run.moments, run.heard, strict=True):
        wait, before, data = moment.at - before, moment.at, moment.data
        if at.told or at.called:
            if heard.thought or data.get("output_index") in gone:  # once content has begun, the thought is over
                continue
            if text := heard.content:
                told, text = max(told - len(text), 0), text[told:]
                if not text:
                    continue
                data = _saying(data, text)
            data = _without(data, gone)
        yield wait, data, heard.token


def _gone(run: Run, called: int) -> set[int]:
    """The indices, in the output or among the chunk's calls, of so many calls."""
    return {index for index, _ in [call for heard in run.heard for call in heard.calls][:called]}


def _saying(data: Json, text: str) -> Json:
    """The event with this text as its content."""
    if "choices" not in data:
        return {**data, "delta": text}
    return _with_delta(data, content=text)


def _without(data: Json, gone: Container[int]) -> Json:
    """The event without these calls."""
    match data:
        case {"response": {"output": [*output]} as response}:
            return {**data, "response": {**response, "output": [item for i, item in enumerate(output) if i not in gone]}}
        case {"choices": [{"delta": {"tool_calls": [*calls]}}, *_]}:
            return _with_delta(data, tool_calls=[call for call in calls if call["index"] not in gone])
    return data


def _with_delta(data: Json, **changed: Any) -> Json:
    first, *others = data["choices"]
    return {**data, "choices": [{**first, "delta": {**first["delta"], **changed}}, *others]}
