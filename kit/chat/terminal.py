"""Terminal: entries as lines of text, in three colours that are also three glyphs and three words; or, for programs, as frames.

What others wrote is inert here: a terminal obeys control characters, so each is shown by its number; and as a line of a text is always
indented after its first, no text can pose as a line of the transcript.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from kit.packets import Action, Ask, Content, Document, End, Entry, Gap, Receipt, Result, Thought, ToolResult, Word, encode
from kit.text import inert, text_of

THOUGHT, ACTION, PLAIN = "\x1b[38;5;244m", "\x1b[7m", "\x1b[0m"
"""Select Graphic Rendition (ECMA-48 section 8.3.117) for any background: thought grey, action highlighted, all else as it is."""
GLYPHS = {Thought: "·", Content: "•", Action: "▶", ToolResult: "◀", Result: "◀", Ask: "?", Document: "□", End: "■"}
"""Of any other entry, which is a word: `›`."""


def shown(text: str) -> str:
    """The text as a terminal may have it: nothing that it would obey but tabs and line ends, and indented after its first line."""
    return inert(text, keep="\t\n").replace("\n", "\n  ")


def wants_colour(out: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Colour is for people at a terminal who have not declined it (no-color.org)."""
    return out.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb" and _draws_sequences()


def _draws_sequences() -> bool:
    """Have Windows' console draw control sequences (learn.microsoft.com: SetConsoleMode); False where it is too old for that."""
    if sys.platform == "win32":
        import ctypes

        system, mode = ctypes.windll.kernel32, ctypes.c_ulong()
        stdout = system.GetStdHandle(-11)
        return bool(system.GetConsoleMode(stdout, ctypes.byref(mode)) and system.SetConsoleMode(stdout, mode.value | 4))
    return True


def line_of(entry: Entry | Gap) -> str:
    """An entry in words: a glyph, its kind, its id where it is a word, who said it (or which turn it ends), and what."""
    if isinstance(entry, Gap):
        return f"! gap {entry.reason}: what was read before may be void; all that is kept follows"
    id = f" {entry.id}" if isinstance(entry, Word) else ""
    who = entry.turn if isinstance(entry, End) else entry.from_
    head = f"{GLYPHS.get(type(entry), '›')} {entry.__struct_config__.tag}{id}"
    return f"{head} {who}: {text_of(entry)}" if who else f"{head} {text_of(entry)}"


class Terminal:
    """Draws entries on `out`, and what is not in the log on `err`. `frames`: as JSON, a line each, receipts among them."""

    def __init__(self, out: TextIO, err: TextIO, *, colour: bool = False, frames: bool = False) -> None:
        self.out, self.err, self.colour, self.frames = out, err, colour, frames
        self._text: tuple[type[Entry], str] | None = None  # kind and turn of the text that is being written

    def note(self, text: str) -> None:
        """A sentence beside the log."""
        self.err.write(("\n" if self._text and self.out.isatty() else "") + f"-- {shown(text)}\n")
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
                self._write(self._painted(entry, shown(entry.text)))
            case _:
                self._write(("\n" if self._text else "") + self._painted(entry, shown(line_of(entry))))
                self._text = (type(entry), entry.turn) if isinstance(entry, Thought | Content) else None
                self._write("" if self._text else "\n")

    def _painted(self, entry: Entry | Gap, text: str) -> str:
        style = {Thought: THOUGHT, Action: ACTION}.get(type(entry)) if self.colour else None
        return f"{style}{text}{PLAIN}" if style else text

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()
