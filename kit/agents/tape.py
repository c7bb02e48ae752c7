"""Tape: what a model said, event by event and in its own time, kept in a file and played without the model.

    tape = Tape()
    agent = openai_agent(tape=tape)               # talk to it, and then
    tape.save("oslo.tape")
    server.play(Tape.load("oslo.tape"))           # the embedded model says it again

For the demo `lab.start(tape=tape)` does it, and on the command line `--tape FILE` and `--play FILE`.

**Kept** of each run: the model's name and the events of the HTTP stream: what it thought, said and called, how many tokens, and when.
**Not kept**: the key and every other header, the address, what was asked (instructions, prompts, tools, what they gave), also where the
provider repeats it, and of an error the sentence, which may name your organization; `Tape(prompts=True)` keeps these. What the model says
is the tape: if it says your name, the tape does.
A request that was refused is not kept: the refusal may quote the key.

A tape is meant for one agent in one session: of several it holds the runs in the order in which they began, and plays them as one talk.
Its file is JSON, line by line: the tape, then each run, its events, and how it ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta, Struct

from kit.agents.embedded.heard import Heard, hear
from kit.whole import beside, write_whole

Json = dict[str, Any]
Dialect = Literal["responses", "chat"]
VERSION = 1
OF_RESPONSE = ("id", "object", "created_at", "model", "status", "error", "incomplete_details", "output", "usage")
"""What is kept of a response: its other fields repeat what was asked, and who asked."""
FAILED = ("response.failed", "error")
"""Events with which a provider gives a run up."""
NOT_KEPT = "(what the provider said of it is not on the tape)"
OF_CHUNK = ("id", "object", "created", "model", "choices", "usage")
"""What is kept of a chunk; others add to it, such as what their filters found in the prompt."""


class BadTape(Exception):
    """A tape can't be read, or can't be saved; the sentence says where, why, and what to do."""


class NotSaved(BadTape):
    """Its file can't be written: `why`."""

    def __init__(self, path: Path | str, why: str | None) -> None:
        super().__init__(f"a tape can't be saved to {path}: {why}. If something was said, it is still in memory: save it elsewhere")
        self.why = why


class Head(Struct, tag="tape", forbid_unknown_fields=True):
    version: int


class Begin(Struct, tag="run", forbid_unknown_fields=True):
    dialect: Dialect
    model: str
    asked: Json | None = None


class Moment(Struct, tag="event", forbid_unknown_fields=True):
    """An event, `at` so many seconds after its run was asked for."""

    at: Annotated[float, Meta(ge=0, le=86_400)]
    data: Json


class End(Struct, tag="end", forbid_unknown_fields=True):
    """How the stream ended: whole, left by the client (a stop), or cut."""

    how: Literal["whole", "left", "cut"]


_LINE = msgspec.json.Decoder(Head | Begin | Moment | End)


@dataclass
class Run:
    """One answer of the model: up to its end, or to the tools that it called."""

    dialect: Dialect
    model: str
    asked: Json | None = None
    moments: list[Moment] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    ended: Literal["whole", "left", "cut"] = "cut"

    def add(self, at: float, data: Json) -> None:
        """Raises msgspec.ValidationError where the event is none of the dialect."""
        self.heard.append(hear(self.dialect, data))
        self.moments.append(Moment(at, data))

    def has(self, data: Json) -> bool:
        """Whether an event that the provider numbers stands here."""
        number, last = data.get("sequence_number"), self.moments[-1].data.get("sequence_number") if self.moments else None
        return number is not None and last is not None and bool(number <= last)

    @property
    def failed(self) -> bool:
        """Whether the provider gave it up: then it is asked again, as after a cut."""
        return any(moment.data.get("type") in FAILED for moment in self.moments)

    @property
    def text(self) -> str:
        return "".join(heard.content for heard in self.heard)

    @property
    def calls(self) -> list[str]:
        """The names of the functions that were called, in their order."""
        return [name for heard in self.heard for _, name in heard.calls]

    @property
    def seconds(self) -> float:
        return self.moments[-1].at if self.moments else 0.0


class Tape:
    """The `runs` of one agent in one session, in their order."""

    def __init__(self, *, prompts: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.prompts = prompts
        self.clock = clock
        self.runs: list[Run] = []

    async def record(self, events: AsyncIterator[Any], run: Run, began: float, response: str | None = None) -> AsyncGenerator[Any, None]:
        """The same events, each written down as it passes. What comes of a `response` that was attached to again goes on in its run."""
        if response is not None:
            found = next((begun for begun in self.runs if any(heard.response == response for heard in begun.heard)), None)
            if found is None:  # another instance has its beginning, and half a run can't be played
                async for event in events:
                    yield event
                return
            run, began = found, self.clock() - found.seconds
        run.ended, run.asked = "cut", run.asked if self.prompts else None
        try:
            async for event in events:
                data = event.to_dict()
                if not run.moments:
                    self.runs.append(run)
                if not run.has(data):  # as where an instance that lost its turn has heard on, beside the one that attached
                    run.add(round(max(self.clock() - began, run.seconds), 4), self._kept(data))
                yield event
        except (asyncio.CancelledError, GeneratorExit):
            run.ended = "left"
            raise
        finally:
            if any(heard.terminal for heard in run.heard):
                run.ended = "cut" if run.failed else "whole"

    def _kept(self, data: Json) -> Json:
        if self.prompts:
            return data
        if "choices" in data:
            return {name: value for name, value in data.items() if name in OF_CHUNK}
        data = {name: value for name, value in data.items() if name != "obfuscation"}  # padding, against those who count bytes
        if isinstance(response := data.get("response"), dict):
            data["response"] = {name: value for name, value in response.items() if name in OF_RESPONSE}
            if isinstance(error := response.get("error"), dict):
                data["response"]["error"] = {**error, "message": NOT_KEPT}
        return {**data, "message": NOT_KEPT} if data.get("type") == "error" else data

    @staticmethod
    def check(path: Path | str) -> None:
        """Raises NotSaved where `save` could not write: to be known before a long talk, not after it."""
        target = Path(path)
        try:
            regular = target.is_file() or not target.exists()
            if regular:
                new = beside(target)
                new.touch(exist_ok=False)
                new.unlink()
        except OSError as error:
            raise NotSaved(path, error.strerror) from None
        if not regular:  # replaced, /dev/null would be an ordinary file for everybody
            raise NotSaved(path, "it is no regular file")

    def save(self, path: Path | str) -> None:
        """Write the tape. Raises BadTape where that fails: then nothing new stands there, and what did before still does."""
        if not self.runs:
            raise BadTape(f"{path} was not written: the tape is empty. Give it to openai_agent(tape=...), and ask that agent something")
        try:
            write_whole(Path(path), self._lines())
        except OSError as error:
            raise NotSaved(path, error.strerror) from None

    def _lines(self) -> Iterable[bytes]:
        lines: list[Head | Begin | Moment | End] = [Head(VERSION)]
        for run in self.runs:
            lines += [Begin(run.dialect, run.model, run.asked), *run.moments, End(run.ended)]
        return (msgspec.json.encode(line) + b"\n" for line in lines)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The tape in a file. Raises BadTape, which names the line and the field."""
        try:
            lines = Path(path).read_bytes().splitlines()
        except OSError as error:
            raise BadTape(f"{path} can't be read: {error.strerror}") from None
        tape, open_run = cls(), None
        for number, line in enumerate(lines or [b""], 1):
            try:
                open_run = tape._read(number, _LINE.decode(line), open_run)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
                raise BadTape(f"{path} is no tape that can be played: line {number}: {error}") from None
        if open_run or not tape.runs:
            what = "its last run has no end" if open_run else "there is no run on it"
            raise BadTape(f"{path} is no tape that can be played: {what}. Was it cut off? Copy or record it again")
        return tape

    def _read(self, number: int, line: Head | Begin | Moment | End, run: Run | None) -> Run | None:
        """Add a line; gives the run that is open after it. Raises ValueError where the line can't stand there."""
        match line:
            case Head(version) if number == 1:
                if version != VERSION:
                    raise ValueError(f"this is version {version}, and version {VERSION} is what this kit plays: update the kit")
                return None
            case Begin() if number > 1 and run is None:
                self.runs.append(Run(line.dialect, line.model, line.asked))
                return self.runs[-1]
            case Moment(at, data) if run:
                if at < run.seconds:
                    raise ValueError(f"at {at:g} s is before the event above it, at {run.seconds:g} s - at `$.at`")
                run.add(at, data)
                return run
            case End(how) if run and run.moments:
                run.ended = how
                return None
        expected = "the tape itself" if number == 1 else "an event or the run's end" if run else "a run"
        raise ValueError(f"here should be {expected} - at `$.type`")

    def __repr__(self) -> str:
        runs = [f"{run.model}, {run.dialect}: {len(run.moments)} events in {run.seconds:.1f} s, {run.ended}" for run in self.runs]
        return "\n".join([f"Tape of {len(runs)} run{'' if len(runs) == 1 else 's'}", *(f"  {run}" for run in runs)])
