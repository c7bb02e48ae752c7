"""Where: the line of somebody's own cell on the way to an error. One of a library, or of the check that called it, would not help them."""

from __future__ import annotations

import sys
import threading
import traceback

from kit.lab.table import shorten


def where(it: object, error: BaseException) -> str:
    """The last such line of the file that the function `it` is from: `line 6 of reduce: return blocks[-1]`; empty where none is."""
    return _last(it, traceback.extract_tb(error.__traceback__))


def at_work(it: object, thread: threading.Thread) -> str:
    """The same of a thread that has not come to an end: where it is now."""
    frame = sys._current_frames().get(thread.ident or 0)
    return _last(it, traceback.extract_stack(frame)) if frame else ""


def _last(it: object, frames: traceback.StackSummary) -> str:
    file = getattr(getattr(it, "__code__", None), "co_filename", None)
    own = [frame for frame in frames if frame.filename == file]
    return f"line {own[-1].lineno} of {own[-1].name}: {shorten(own[-1].line or '')}" if own else ""
