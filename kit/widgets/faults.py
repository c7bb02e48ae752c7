"""Faults: buttons that do to a session what networks, platforms and stores do: `faults = Faults(here)`, then `Panel(faults, "demo")`.

Beside the lab's own instance there is a second one, which can fail, over the same store; and a line that leads to it, or to the lab's own
while the second does not run. The panel dials the line. So whatever you press, the lab's own is there to go on, and cells talk to it.

All of it lives on the kit's thread, so what a press does waits for no cell. The press itself comes by Jupyter's comm, and while a cell runs
it may wait for the cell's end: in JupyterLab 4.6 the first press did, and later ones came by a subshell of the kernel, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from html import escape
from typing import Any

from msgspec.structs import replace
from traitlets import Dict, Unicode

from kit.lab.chaos import ENDED_BY, INSTANCE, KNOBS, LINE, STORE, Fault, Schedule, Witness, happen, play, witness
from kit.lab.instances import Node, gate, instances
from kit.lab.line import Line, line
from kit.lab.served import flush, trim
from kit.lab.start import Lab
from kit.lab.thread import run
from kit.widgets.widget import Widget, module, style

PLACES = {what: where for where, all_of_it in (("line", LINE), ("one", INSTANCE), ("store", STORE)) for what in all_of_it}
PLACES |= {ENDED_BY[what]: where for what, where in PLACES.items() if what in ENDED_BY}


class SecondInstance:
    """It can fail; and where the line leads meanwhile."""

    def __init__(self, node: Node, wire: Line, host: Lab) -> None:
        self.node, self._wire, self._host = node, wire, host
        self.state = "runs"
        self._welcome()

    def _welcome(self) -> None:
        """A cold one knows neither the pages that may connect nor the agents that were added since."""
        self.node.server.door.origins = self._host.server.door.origins
        self.node.server.instance.agents = self._host.server.instance.agents
        self._leads("runs")

    def _leads(self, state: str) -> None:
        self.state = state
        self._wire.to = (self.node if state == "runs" else self._host).server.port

    def freeze(self) -> None:
        if self.node.running:
            self._leads("is frozen")
            self.node.freeze()

    def thaw(self) -> None:
        self.node.thaw()
        if self.node.running:
            self._leads("runs")

    async def stop(self) -> None:
        self._leads("is stopped")
        await self.node.stop()

    async def leave(self) -> None:
        self._leads("has left")
        await self.node.leave()

    async def start(self) -> None:
        await self.node.start()
        self._welcome()


class SessionStore:
    """The lab's store, as far as a session can feel it."""

    def __init__(self, url: str, session: str, answers: asyncio.Event) -> None:
        self._url, self._session = url, session
        self.pause, self.resume = answers.clear, answers.set

    async def flush(self) -> None:
        await flush(self._url)

    async def trim(self) -> None:
        await trim(self._url, self._session)


class Faults(Widget):
    """Dial its `url` in place of the lab's. `schedule` is what was done; a cell can do it too (`do`), and do it all again (`replay`)."""

    _esm = module("comm.js", "text.js", "faults.js")
    _css = style("faults.css")
    session = Unicode().tag(sync=True)
    state = Dict().tag(sync=True)

    def __init__(self, host: Lab, session: str = "demo") -> None:
        self._host = host
        self.loop = host.loop
        self.schedule = Schedule()
        self._on: set[str] = set()
        self._begun = 0
        self._stage: dict[str, Any] = {}
        self._seen: Witness
        self._wire: Line
        self._one: SecondInstance
        super().__init__(session=session)
        run(self._begin())
        self.url = self._wire.url

    async def _begin(self) -> None:
        ready: asyncio.Future[None] = self.loop.create_future()
        self._host.beside(self._live(ready))
        await ready

    async def _live(self, ready: asyncio.Future[None]) -> None:
        host, answers, own = self._host, asyncio.Event(), self._host.server
        answers.set()
        store = own.instance.transcript.store
        gate(store, answers)
        serving = {name: value for name, value in host.serving.items() if name != "port"}
        try:
            async with (
                instances(own.instance.agents, 1, store=store.url, answers=answers, **serving) as (node,),
                line(node.server.port) as self._wire,
                witness(host.url, self.session, host.token("witness"), proxy=None) as self._seen,
            ):
                self._one = SecondInstance(node, self._wire, host)
                self._stage = {"line": self._wire, "one": self._one, "store": SessionStore(store.url, self.session, answers)}
                host.ports.append(lambda: {*self._wire.ports(), node.server.port, self._seen.port})
                self._tell("Nothing was done yet")
                ready.set_result(None)
                try:
                    await asyncio.Event().wait()  # until the lab ends
                finally:
                    answers.set()  # paused, its instance could not end either
        except Exception as error:  # noqa: BLE001  # whoever waits for the widget must hear why there is none
            if not ready.done():
                ready.set_exception(error)
        finally:
            self.state = {**self.state, "said": "The lab has ended", "ended": True}

    # ---- what a panel asks of its host ----

    def issue_ticket(self, session: str, origin: str, deliver: Callable[[str], None]) -> None:
        """As the lab's: a ticket stands in the store, and the second instance lets in the same pages."""
        self._host.issue_ticket(session, origin, deliver)

    # ---- what happens ----

    def do(self, what: str, value: float | None = None) -> None:
        """Let something happen now: `do("cut")`, `do("delay", 0.2)`. Returns when it has."""
        run(self._do(what, value))

    def replay(self, schedule: Schedule) -> None:
        """From here on, let each fault happen in its place, as the session goes on. Returns at once: the session is yours to go on with."""
        moved = (replace(fault, after=fault.after + self._seen.count) for fault in schedule.faults)
        self._host.beside(play(Schedule(tuple(moved)), self._seen, self._stage, self._happened))

    def clear(self) -> None:
        """Forget what was done; what follows is counted from here."""
        self.schedule, self._begun = Schedule(), self._seen.count
        self._tell("The record begins anew")

    async def _do(self, what: str, value: float | None) -> None:
        fault = Fault(self._seen.count - self._begun, what, PLACES[what], value)
        self.schedule = Schedule((*self.schedule.faults, fault))
        self._happened(fault)  # told at once: a paused store may keep what follows waiting
        await happen(fault, self._stage)
        self._tell(self.state["said"])

    def _happened(self, fault: Fault) -> None:
        if fault.what in ENDED_BY:
            self._on.add(fault.what)
        self._on -= {begun for begun, over in ENDED_BY.items() if over == fault.what}
        self._tell(f"after {self._seen.count - self._begun} entries: {fault.what}")

    def _tell(self, said: str) -> None:
        knobs = {name: getattr(self._wire, name) for name in KNOBS}
        leads = "the second instance" if self._one.state == "runs" else "the lab's own"
        told = {"said": said, "instance": f"The second instance {self._one.state}; who dials now comes to {leads}."}
        self.state = {**told, "on": sorted(self._on), **knobs, "runs": self._one.node.running, "record": repr(self.schedule)}

    def heard(self, message: Any) -> None:
        match message:
            case {"kit": "fault", "what": str(what), "value": int() | float() | None as value} if what in PLACES:
                self._host.beside(self._do(what, value))
            case {"kit": "clear"}:
                self.loop.call_soon_threadsafe(self.clear)

    def twin(self) -> tuple[str, str]:
        text = f"Faults for session {self.session}: run this notebook to press them.\nDone so far: {self.schedule!r}"
        return text, f"<pre>{escape(text)}</pre>"
