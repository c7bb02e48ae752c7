"""Where: the line of somebody's own cell on the way to an error. One of a library, or of the check that called it, would not help them."""

from __future__ import annotations

import traceback

from kit.lab.table import shorten


def where(it: object, error: BaseException) -> str:
    """The last such line of the file that the function `it` is from: `line 6 of reduce: return blocks[-1]`; empty where none is."""
    file = getattr(getattr(it, "__code__", None), "co_filename", None)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {own[-1].lineno} of {own[-1].name}: {shorten(own[-1].line or '')}" if own else ""
