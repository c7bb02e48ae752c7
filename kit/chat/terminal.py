"""Terminal: entries as lines of text, in three colours that are also three glyphs and three words; or, for programs, as frames.

What others wrote is inert here: a terminal obeys control characters, so each is shown by its number; and as a line of a text is always
indented after its first, no text can pose as a line of the transcript.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TextIO, assert_never
from unicodedata import category

import msgspec

from kit.packets import (
    Action,
    Answer,
    Ask,
    Claim,
    Content,
    Document,
    Edit,
    End,
    Entry,
    Gap,
    Prompt,
    Receipt,
    Result,
    Stop,
    Takeover,
    Thought,
    ToolResult,
    encode,
)

THOUGHT, ACTION, PLAIN = "\x1b[38;5;244m", "\x1b[7m", "\x1b[0m"
"""Select Graphic Rendition (ECMA-48 section 8.3.117) for any background: thought grey, action highlighted, all else as it is."""
_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of control characters, of what reorders or hides (bidi, tags), of surrogates, and of separators of lines."""
_HARMLESS = "\t\n\u200c\u200d"  # the last two join or separate letters, and make some emoji


def inert(text: str) -> str:
    """The text with everything that a terminal would obey made visible, and indented after its first line."""
    shown = (c if c in _HARMLESS or category(c) not in _OBEYED else f"<U+{ord(c):04X}>" for c in text)
    return "".join(shown).replace("\n", "\n  ")


def wants_colour(out: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Colour is for people at a terminal who have not declined it (no-color.org)."""
    return out.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"


def line_of(entry: Entry | Gap) -> str:
    """An entry in words: a glyph, its kind, who said it (a word's id with it), and what."""
    match entry:
        case Thought(text=text):
            return f"· thought {_sender(entry)}{text}"
        case Content(text=text):
            return f"• content {_sender(entry)}{text}"
        case Action(call=call, name=name, arguments=arguments):
            where = {"server": "", "client": " (on a client; not on this one)", "approve": " (once you say yes)"}[entry.on]
            return f"▶ action {_sender(entry)}{name}({_json(arguments)}) as {call}{where}"
        case ToolResult(call=call) | Result(call=call):
            return f"◀ result of {call}: " + (f"failed: {entry.error}" if isinstance(entry.error, str) else _json(entry.value))
        case Ask(text=text, choices=choices):
            return f"? ask {_sender(entry)}{text}" + (f" ({' / '.join(choices)})" if choices else "")
        case Document(name=name, kind=kind):
            return f"□ document {_sender(entry)}{name} ({kind})"
        case End(turn=turn, reason=reason, text=more):
            return f"■ end {turn} {reason}" + (f": {more}" if more else "")
        case Prompt(text=text) | Edit(text=text) | Answer(text=text):
            return f"› {type(entry).__name__.lower()} {entry.id} {_sender(entry)}{text}"
        case Stop(turn=what) | Claim(call=what):
            return f"› {type(entry).__name__.lower()} {entry.id} {_sender(entry)}{what or 'everything'}"
        case Takeover(turn=turn, by=by):
            return f"› takeover {entry.id} {turn} is " + ("taken up" if by else "handed over")
        case Gap(reason=reason):
            return f"! gap {reason}: what was read before may be void; all that is kept follows"
        case _:
            assert_never(entry)


class Terminal:
    """Draws entries on `out`, and what is not in the log on `err`. `frames`: as JSON, a line each, receipts among them."""

    def __init__(self, out: TextIO, err: TextIO, *, colour: bool = False, frames: bool = False) -> None:
        self.out, self.err, self.colour, self.frames = out, err, colour, frames
        self._text: tuple[type[Entry], str] | None = None  # kind and turn of the text that is being written

    def note(self, text: str) -> None:
        """A sentence beside the log."""
        self.err.write(("\n" if self._text and self.out.isatty() else "") + f"-- {inert(text)}\n")
        self.err.flush()
        self.interrupted()

    def interrupted(self) -> None:
        """Something else than text was written where people read it, or typed: text begins a line again."""
        if self.out.isatty():
            self._text = None

    def draw(self, entry: Entry | Gap | Receipt) -> None:
        """One entry; pieces of text go on where the last one of their kind and turn ended. Raises BrokenPipeError."""
        if self.frames:
            self._write(encode(entry).decode() + "\n")
            return
        match entry:
            case Receipt(status="refused", reason=reason):
                self.note(f"refused: {reason}")
            case Receipt():
                if "too_late" in (entry.status, entry.was):
                    self.note("too late: it had ended")
            case Thought() | Content() if self._text == (type(entry), entry.turn):
                self._write(self._painted(entry, inert(entry.text)))
            case _:
                self._write(("\n" if self._text else "") + self._painted(entry, inert(line_of(entry))))
                self._text = (type(entry), entry.turn) if isinstance(entry, Thought | Content) else None
                self._write("" if self._text else "\n")

    def _painted(self, entry: Entry | Gap, text: str) -> str:
        style = {Thought: THOUGHT, Action: ACTION}.get(type(entry)) if self.colour else None
        return f"{style}{text}{PLAIN}" if style else text

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def _sender(entry: Entry) -> str:
    return f"{entry.from_}: " if entry.from_ else ""


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
