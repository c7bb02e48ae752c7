"""Wire: the trace of an instance in a notebook's output, as lanes, a table and bytes: `WireView(here.trace)`.

`WireView(here.trace, "wire")` begins with what went over a wire; the store and the agent come back with the view's own filter.

What has been recorded travels with the widget's state, the rest in batches, ten a second: jupyter_server drops comm messages over
1,000 a second. Each batch names the mark that it goes on from; a page that has not come so far asks for what it lacks. Neither state
nor view is saved: a saved notebook holds the twin (twin.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from traitlets import Dict, Unicode

from kit.lab.thread import loop
from kit.lab.trace import Closed, Frame, Handshake, Record, Trace
from kit.widgets.twin import as_html, as_text, raw_of, row_of
from kit.widgets.widget import Widget, module, style

BATCH_EVERY = 0.1
"""Seconds between two messages to the page."""
BATCH = 2_000
"""Records in one message, which the page takes in at once."""
LOADING = 2.0
"""Seconds in which the page may still load its module, deaf to messages: until then a batch begins where the state ended. Without
that a page asks for what it missed, and a kernel that is busy with the next cell does not hear it."""


class WireView(Widget):
    """Shows what a trace has recorded, and what it records from now on: all of it, or only frames, handshakes and closes ("wire")."""

    _esm = module("comm.js", "text.js", "wirebytes.js", "wireview.js")
    _css = style("wireview.css")
    # Its value is made when it is asked for, by a page that (re)loads: all that is kept at that moment.
    recorded = Dict().tag(sync=True, to_json=lambda _, view: view.batch(0))
    shown = Unicode().tag(sync=True)
    _stop: Callable[[], object] | None = None
    """None: it could not be made, and ipywidgets closes it all the same."""

    def __init__(self, trace: Trace, shown: Literal["all", "wire"] = "all") -> None:
        if not isinstance(trace, Trace):
            raise TypeError(f"WireView shows a trace, as in WireView(here.trace); not a {type(trace).__name__}")
        self._trace = trace
        self._loop = loop()
        self._opened = self._sent = trace.mark()  # marks; on the loop only, like what follows
        self._loads_until = self._loop.time() + LOADING
        self._due = self._rests = False
        super().__init__(shown=shown)
        self._stop = trace.listen(self._told)

    def batch(self, after: int, limit: int | None = None) -> dict[str, Any]:
        """Records after a mark as a page takes them in: `first` is the mark before the first of the `rows`; `raw`: their frames' bytes."""
        while True:  # until nothing is recorded between the two looks, for the mark belongs to the records
            end, records = self._trace.mark(), self._trace.since(after)
            if self._trace.mark() == end:
                break
        chosen = records[:limit]
        return {"after": after, "first": end - len(records), "rows": [row_of(r) for r in chosen], "raw": b"".join(map(raw_of, chosen))}

    def close(self) -> None:
        if self._stop:
            self._stop()
        super().close()

    def heard(self, message: Any) -> None:
        match message:
            case {"kit": "since", "mark": int(mark)}:
                self._loop.call_soon_threadsafe(self._resume, max(0, mark))
            case {"kit": "rest"}:
                self._loop.call_soon_threadsafe(self._rest)

    def _told(self, _: Record) -> None:
        """By the thread that records, which may not wait for the loop either."""
        if not self._due:
            self._loop.call_soon_threadsafe(self._soon)

    def _resume(self, mark: int) -> None:
        self._sent, self._loads_until, self._rests = min(mark, self._trace.mark()), 0.0, False  # a page that is behind asks in its turn
        self._soon()

    def _rest(self) -> None:
        """No page shows the view any more: a cell that is run again leaves its old view behind."""
        self._rests = True

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_later(BATCH_EVERY, self._send_batch)

    def _send_batch(self) -> None:
        self._due = False
        end = self._trace.mark()
        loading = self._loop.time() < self._loads_until and end - self._opened <= BATCH
        if self._rests or (after := self._opened if loading else self._sent) == end:
            return
        batch = self.batch(after, BATCH)
        raw = batch.pop("raw")
        self._sent = batch["first"] + len(batch["rows"])
        self.send({"kit": "records", **batch}, [raw])
        if self._sent < end:
            self._soon()

    def twin(self) -> tuple[str, str]:
        records = [r for r in self._trace.records if self.shown == "all" or isinstance(r, Frame | Handshake | Closed)]
        return as_text(records), as_html(records)
