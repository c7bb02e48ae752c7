"""Terminal: entries as lines of text, in three colours that are also three glyphs and three words.

What others wrote is inert here: a terminal obeys control characters, so each is shown as a picture of itself; and as a line of a text
is always indented after its first, no text can pose as a line of the transcript.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO, assert_never

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
    Result,
    Stop,
    Takeover,
    Thought,
    ToolResult,
)

Theme = Literal["light", "dark"]
STYLES: Mapping[Theme, Mapping[str, str]] = {
    "dark": {"thought": "38;5;245", "action": "1;30;43"},
    "light": {"thought": "38;5;242", "action": "1;97;44"},
}
"""Select Graphic Rendition (ECMA-48 section 8.3.117) on either background: thought grey, action highlighted, all else as it is."""
GAPS = {
    "trimmed": "the beginning is no longer kept; what is kept follows",
    "lost": "the store lost what stood here; what it still has follows",
    "other log": "this is another log than the one read before; all of it follows",
    "future": "the log ends before the place that was read up to; all of it follows",
}

# C0, DEL, C1, and what reorders or hides: bidi controls (UAX 9), line and paragraph separators, tags. Newline and tab stay.
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)} | {0x7F: "\u2421"}
_NAMED = (*range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xE0000, 0xE0080))
_INERT = _PICTURES | {code: f"<U+{code:04X}>" for code in _NAMED}


def inert(text: str) -> str:
    """The text with everything that a terminal would obey made visible."""
    return text.translate(_INERT)


def flat(text: str) -> str:
    """The same, on one line."""
    return inert(text).replace("\n", "\u240a")


def wants_colour(out: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Colour is for people at a terminal who have not declined it (no-color.org)."""
    return out.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"


class Terminal:
    """Draws entries on `out`, and what is not in the log on `err`."""

    def __init__(self, out: TextIO, err: TextIO, *, colour: bool) -> None:
        self.out, self.err, self.colour = out, err, colour
        self.theme: Theme = "dark"
        self.gone = False
        """Nobody reads any more: the pipe behind `out` is closed."""
        self._text: tuple[str, str] | None = None  # kind and turn of the text that is being written
        self._held = ""  # its last newlines, which count only when more text follows
        self._names: dict[str, str] = {}

    def frame(self, frame: str) -> None:
        """A frame as it came."""
        self._write(frame + "\n")

    def note(self, text: str) -> None:
        """A sentence beside the log."""
        self.typed(newline=True)
        self.err.write(f"-- {flat(text)}\n")
        self.err.flush()

    def typed(self, *, newline: bool = False) -> None:
        """The line that text was being written on is over: somebody pressed Enter, or (`newline`) something else is to be said."""
        if self._text and newline:
            self._write("\n")
        self._text, self._held = None, ""

    def draw(self, entry: Entry | Gap) -> None:
        """One entry; pieces of text go on where the last one of their kind and turn ended."""
        match entry:
            case Thought(text=text):
                self._piece("thought", "\u00b7", entry, text)
            case Content(text=text):
                self._piece("content", "\u2022", entry, text)
            case Action(name=name, call=call):
                self._names[call] = name
                where = {"server": "", "client": " (on a client)", "approve": " (once it is approved)"}[entry.on]
                self._line(f"\u25b6 action {_sender(entry)}{name}({_json(entry.arguments)}){where}", style="action")
            case ToolResult() | Result():
                came = f"failed: {entry.error}" if isinstance(entry.error, str) else _json(entry.value)
                self._line(f"\u25c0 result of {self._names.get(entry.call, entry.call)}: {came}")
            case Ask(text=text, choices=choices):
                self._line(f"? ask {_sender(entry)}{text}" + "".join(f"\n{i}) {choice}" for i, choice in enumerate(choices or (), 1)))
            case Prompt(text=text):
                self._line(f"\u203a prompt {entry.id} {_sender(entry)}{text}")
            case Edit(text=text):
                self._line(f"\u203a edit {entry.id} {_sender(entry)}{text}")
            case Answer(text=text):
                self._line(f"\u203a answer {entry.id} {_sender(entry)}{text}")
            case Stop():
                self._line(f"\u203a stop {entry.id} {_sender(entry)}{entry.turn or 'everything'}")
            case Claim(call=call):
                self._line(f"\u203a claim {entry.id} {_sender(entry)}{self._names.get(call, call)}")
            case Takeover(turn=turn, by=by):
                self._line(f"\u203a takeover {entry.id} {turn} " + ("is taken up" if by else "is handed over"))
            case Document(name=name, kind=kind):
                self._line(f"\u25a1 document {_sender(entry)}{name} ({kind})")
            case End(reason=reason, text=more):
                self._line(f"\u25a0 end {entry.turn} {reason}" + (f": {more}" if more else ""))
            case Gap(reason=reason):
                self._line(f"! gap {reason}: {GAPS[reason]}")
            case _:
                assert_never(entry)

    def _piece(self, kind: str, glyph: str, packet: Thought | Content, text: str) -> None:
        if self._text != (kind, packet.turn):
            self.typed(newline=True)
            self._write(self._paint(flat(f"{glyph} {kind} {_sender(packet)}"), kind))
            self._text = kind, packet.turn
        text = self._held + inert(text)
        shown = text.rstrip("\n")
        self._held = text[len(shown) :]
        self._write(self._paint(_indented(shown), kind))

    def _line(self, text: str, style: str = "") -> None:
        self.typed(newline=True)
        self._write(self._paint(_indented(inert(text)), style) + "\n")

    def _paint(self, text: str, style: str) -> str:
        code = STYLES[self.theme].get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text else text

    def _write(self, text: str) -> None:
        if self.gone:
            return
        try:
            self.out.write(text)
            self.out.flush()
        except BrokenPipeError:
            self.gone = True
            if self.out is sys.stdout:  # what is still buffered would fail again when the interpreter ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _sender(entry: Entry) -> str:
    return f"{entry.from_}: " if entry.from_ else ""


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
