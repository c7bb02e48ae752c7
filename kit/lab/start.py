"""Start: an instance, its store and an embedded model beside the cells, once for each kernel; for a chapter a cold one."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from kit.agents import model
from kit.agents.demo import default_agent, import_client
from kit.agents.tape import Tape
from kit.auth import Identity
from kit.doctor import essentials
from kit.ending import end
from kit.history import Agent
from kit.lab.finish import Finished, Unfinished, Watch, is_foreign, is_strict
from kit.lab.thread import loop, run
from kit.lab.trace import Trace
from kit.lab.view import SessionView
from kit.log import SESSION, session_name
from kit.server import Server, serve
from kit.store import StoreError, StoreTooOld, open_store

TICKET_HOURS = 12
MEMORY = "fake://lab"
"""Where a lab is that no chapter began: it outlives the lab, so that the next one goes on with it."""


class CannotStart(Exception):
    """Something is in the way; the sentence says what, and what to do."""


class Lab:
    """What `start` started: `url` of the instance, its `server`, the embedded `model`, and the `trace` of what passes."""

    current: ClassVar[Lab | None] = None

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.loop = loop()
        self.trace = Trace()
        self.watch = Watch()
        self.server: Server
        self.model: model.Server
        self._leave = asyncio.Event()
        self._life: asyncio.Task[None]
        self._guests: set[asyncio.Task[None]] = set()
        self.serving: dict[str, Any] = {}
        """What `serve` was given: another instance that is given the same is one of the lab's."""
        self.ports: list[Callable[[], Collection[int]]] = [lambda: [self.server.port]]
        """The local ports of sockets that are the lab's own."""

    @property
    def url(self) -> str:
        """Where the instance listens: `ws://127.0.0.1:PORT`."""
        return self.server.url

    def token(self, name: str = "you", session: str = "*") -> str:
        """A token for programs, good for a day."""
        return self.server.token(name, session, ttl=24 * 3600.0)

    def session(self, name: str = "demo") -> SessionView:
        """A session to talk to from cells. Displayed, it shows its transcript."""
        return SessionView(session_name(name), self.server.instance)

    def add(self, **agents: Agent) -> None:
        """Let more agents answer here: `add(parrot=my_agent)`, then `session.prompt(..., to="parrot")`."""
        self.server.instance.agents.update({name: self.trace.observed(agent) for name, agent in agents.items()})

    def issue_ticket(self, session: str, origin: str, deliver: Callable[[str], None]) -> None:
        """A page of this Jupyter asks, over the widget's comm, for a ticket: let its Origin in, and deliver one later.

        The comm is Jupyter's own, behind its login, and the page's script says its origin truthfully or harms only itself.
        """

        async def issue() -> None:
            self.server.door.origins.add(origin)
            who = Identity("you", session, time.time() + TICKET_HOURS * 3600)
            deliver(await self.server.door.ticket(who, session, origin))

        if urlsplit(origin).scheme in ("http", "https") and SESSION.fullmatch(session):
            self.beside(issue())

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside the cells; when the lab ends, it is cancelled."""

        def begin() -> None:
            task = self.loop.create_task(work)
            self._guests.add(task)
            task.add_done_callback(self._guests.discard)

        self.loop.call_soon_threadsafe(begin)

    def cut(self, session: str | None = None) -> None:
        """Drop the sockets of a session (or all), without a word, as a bad network does."""
        run(self.server.cut(session))

    def close(self) -> None:
        """End the instance and the model; the next `start` begins anew."""
        try:
            run(self._end())
        finally:  # interrupted, it ends all the same
            if Lab.current is self:
                Lab.current = None

    async def _begin(self, *what: Any) -> None:
        """Return when the instance listens; raises what kept it from that."""
        ready: asyncio.Future[None] = self.loop.create_future()
        self._life = asyncio.create_task(self._live(ready, *what))
        try:
            await asyncio.wait({ready, self._life}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # an interrupt: nobody would find it any more
            await end({self._life})
            raise
        if self._life.done():
            self._life.result()

    async def _live(
        self,
        ready: asyncio.Future[None],
        agents: Agent | Mapping[str, Agent] | None,
        store: str,
        pace: float | None,
        tape: Tape | None,
        options: dict[str, Any],
    ) -> None:
        # A secret fresh in each kernel: no token of an earlier one is good here. One packet a piece, so that the ids in the notebook's
        # text are the ids on the learner's screen.
        self.serving = {"secret": secrets.token_urlsafe(32), "join": False, "create_connection": self.trace.connection, **options}
        async with model.serve(pace=pace) as self.model, open_store(store) as opened:
            answering = agents or default_agent(self.model.url, tape=tape)
            named = answering if isinstance(answering, Mapping) else {"agent": answering}
            observed = {name: self.trace.observed(agent) for name, agent in named.items()}
            async with serve(observed, store=self.trace.watch(opened), **self.serving) as self.server:
                ready.set_result(None)
                if not agents:  # while somebody reads on: what the first prompt needs
                    self.beside(asyncio.to_thread(import_client))
                await self._leave.wait()
                await end(self._guests)

    async def _end(self) -> None:
        self._leave.set()
        await asyncio.wait({self._life})

    def _repr_html_(self) -> str:
        return f"<p>The lab is open: an instance at <code>{self.url}</code>, beside your cells.</p>"

    def __repr__(self) -> str:
        return f"The lab is open: an instance at {self.url}, beside your cells."


def start(
    chapter: str | None = None,
    *,
    agents: Agent | Mapping[str, Agent] | None = None,
    store: str | None = None,
    pace: float | None = 50.0,
    tape: Tape | None = None,
    **options: Any,
) -> Lab:
    """Start the lab, or give the one that runs. A chapter begins cold each time: what ran before is closed, its store and trace are empty.

    Other arguments than the running lab's replace it, at the same port, so that the panels that are open find their way back.
    `agents`: your agent, or several by name; None: the demo on the embedded model (or, with OPENAI_API_KEY set, on a real one).
    `store`: a URL; None: this process's memory. `pace`: of the embedded model, in tokens per second. `tape`: what the demo's model says
    is written down on it. `options` go to `serve`. Raises CannotStart, which says what is in the way.
    """
    if unfit := next((check for check in essentials() if not check.ok), None):
        raise CannotStart(f"{unfit.found}: {unfit.remedy}; or run `make lab` and open the notebooks from there")
    if agents and tape:
        raise CannotStart("tape= is for the demo, and agents= are your own: give the tape to yours, by openai_agent(tape=...)")
    wanted = {"agents": agents, "store": store, "pace": pace, "tape": tape, **options}
    if running := Lab.current:
        is_default = agents is None and store is None and tape is None and not options and pace == 50.0
        if chapter is None and (is_default or running.options == wanted):
            return running
        options.setdefault("port", running.server.port)
        running.close()
        running.watch.end()
    lab = Lab(wanted)
    memory = MEMORY if chapter is None else f"fake://{chapter}-{secrets.token_hex(8)}"
    try:
        run(lab._begin(agents, store or memory, pace, tape, options))
    except (*StoreError, StoreTooOld) as error:
        raise CannotStart(f"The lab could not start: {error}. Is the store running, and may this machine listen on 127.0.0.1?") from None
    Lab.current = lab
    return lab


def finish() -> Finished:
    """The last cell of a chapter: raises Unfinished where a task runs or failed, or a socket is open, that is not the lab's own."""
    lab = Lab.current
    if lab is None:
        raise Unfinished("no lab is open: run the notebook from its first cell")
    own = {port for ports in lab.ports for port in ports()}
    left = lab.watch.report(own, urlsplit(lab.model.url).port or 0)
    if is_strict():  # a test looks behind the lab, too; a learner's panels go on
        lab.close()
        left += run(_still_there())
    if left:
        raise Unfinished("\n".join(left))
    return Finished()


async def _still_there() -> list[str]:
    """What runs on the kit's loop after the lab was closed."""
    await asyncio.sleep(0)  # the callbacks of what has just ended
    left = [task for task in asyncio.all_tasks() if not is_foreign(task)]
    return [f"the lab left a task behind: {task.get_name()} ({task.get_coro()})" for task in left]
