"""Replica: a document as one person has it: what its log says, and over that what was typed and does not stand there yet.

What was typed are pieces like the log's, with ids to come: `TYPED`, then `SENT` while one patch of them is under way, then the id that the
patch got. Each stands right before the piece that it was typed before, and what comes from others goes before it: the very place that the
log gives it later. So nothing is computed anew when others type, nothing jumps when a patch arrives, and all replicas end with one text.

A patch is read off these pieces when it is sent, in the text as it stands then. At most one is under way; the rest waits for it, and for
a tenth of a second since the last one, so that typing is a few words of the log and not one for each key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from kit.client import Session, connect
from kit.document import NEVER, SENT, TYPED, Piece, Text, document_session
from kit.ending import end
from kit.packets import MAX_SPLICES, Entry, EntryId, Gap, Patch, Splice, new_ref

PACE = 0.1
"""Seconds between two patches."""
MAX_INSERT = 8_000
"""Characters in one patch, so that it is no word too long: JSON may need six bytes for each."""


class Replica(Text):
    """The text of a document with what was typed here."""

    def __init__(self) -> None:
        super().__init__()
        self._sent: str | None = None  # the ref of the patch under way

    @property
    def text(self) -> str:
        """What the person sees."""
        return self.read(TYPED)

    @property
    def unsettled(self) -> bool:
        """Whether something that was typed does not stand in the log yet."""
        return any((p.came >= SENT or SENT <= p.went < NEVER) and not p.came == p.went == TYPED for p in self._pieces)

    def type(self, at: int, delete: int = 0, insert: str = "") -> None:
        """Change what the person sees."""
        self.splice(TYPED, TYPED, [Splice(at, delete, insert)])

    def take(self, entry: Entry) -> None:
        """Take in the next entry of the log; one's own patch is here already."""
        if isinstance(entry, Patch) and entry.ref == self._sent:
            id = EntryId.parse(entry.id)
            self._settle(TYPED if self.refusal(entry) else id)
            self._reach(id)
        else:
            super().take(entry)

    def refused(self, ref: str) -> None:
        """The patch will not come: what it held waits to be sent again."""
        if ref == self._sent:
            self._settle(TYPED)

    def send(self) -> Patch | None:
        """The next patch to say; None where there is nothing to say, or one under way."""
        if self._sent or not self.opened or not (splices := self._read_off()):
            return None
        patch = new_ref(Patch(base=str(self.head), splices=splices))
        self._sent = patch.ref
        return patch

    def _settle(self, id: EntryId) -> None:
        for piece in self._pieces:
            piece.came = id if piece.came == SENT else piece.came
            piece.went = id if piece.went == SENT else piece.went
        self._sent = None

    def _read_off(self) -> list[Splice]:
        """What was typed, as splices of the text at `head`; from now on it counts as sent.

        What was typed before something that has gone since is put before what stands, as whoever reads the patch will.
        """
        splices: list[Splice] = []
        kept: list[Piece] = []
        typed: list[Piece] = []
        at, room = 0, MAX_INSERT
        for piece in [*self._pieces, None]:
            if piece and piece.came == TYPED:
                typed += [piece] if piece.went == NEVER else []  # else typed and taken back
            elif piece and not (piece.text and piece.stands(self.head)):
                kept.append(piece)
            else:
                for mine in typed:
                    rest = [Piece(mine.text[room:], TYPED)] if 0 < room < len(mine.text) else []
                    mine.text = mine.text[:room] if rest else mine.text
                    if len(mine.text) <= room and _add(splices, Splice(at, 0, mine.text)):
                        mine.came, room = SENT, room - len(mine.text)
                    kept += [mine, *rest]
                typed = []
                if piece:
                    if piece.went == TYPED and _add(splices, Splice(at, len(piece.text))):
                        piece.went = SENT
                    kept.append(piece)
                    at += len(piece.text)
        self._pieces = kept
        return splices


def _add(splices: list[Splice], more: Splice) -> bool:
    """Add a splice, to the one before where it goes on there; False where a patch has no room for it."""
    last = splices[-1] if splices else None
    if last and last.at + last.delete == more.at and not (last.delete and more.insert):
        splices[-1] = Splice(last.at, last.delete + more.delete, last.insert + more.insert)
    elif len(splices) < MAX_SPLICES:
        splices.append(more)
    else:
        return False
    return True


class SharedDocument:
    """A document of a session, open in this program. `lost`: what was typed into a log that is gone; `problem`: why nothing is taken."""

    def __init__(self, session: Session, pace: float) -> None:
        self.session = session
        self.replica = Replica()
        self.lost = ""
        self.problem: str | None = None
        self._pace = pace
        self._typed = asyncio.Event()
        self._changed = asyncio.Condition()
        self._failure: Exception | None = None

    @property
    def text(self) -> str:
        return self.replica.text

    def type(self, at: int, delete: int = 0, insert: str = "") -> None:
        """Delete so many characters at a place of the text, and insert these."""
        self.replica.type(at, delete, insert)
        self._typed.set()

    async def until(self, what: Callable[[str], bool]) -> str:
        """Wait for a text; gives it. Raises what ended the session: NotLetIn."""
        await self._wait_for(lambda: what(self.text))
        return self.text

    async def settled(self) -> None:
        """Wait until all that was typed here stands in the log. Raises what ended the session: NotLetIn."""
        await self._wait_for(lambda: not self.replica.unsettled)

    async def _wait_for(self, what: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or what())
        if self._failure:
            raise self._failure

    async def _tend(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as fault:  # noqa: BLE001  # whoever waits for the document must hear of it
            self._failure = fault
            async with self._changed:
                self._changed.notify_all()

    async def _read(self) -> None:
        async for entry in self.session:
            if isinstance(entry, Gap):
                self.lost += "".join(piece.text for piece in self.replica._pieces if piece.came >= SENT and piece.went == NEVER)
                self.replica = Replica()
            else:
                self.replica.take(entry)
            self._typed.set()
            async with self._changed:
                self._changed.notify_all()

    async def _say(self) -> None:
        while True:
            await self._typed.wait()
            self._typed.clear()
            if patch := self.replica.send():
                receipt = await self.session.say(patch)
                self.problem = receipt.reason if receipt.status == "refused" else None
                if self.problem:
                    self.replica.refused(patch.ref)
                    self._typed.set()
                await asyncio.sleep(10 * self._pace if self.problem else self._pace)


@asynccontextmanager
async def connect_document(
    url: str, *, session: str, name: str, token: str | Callable[[], Awaitable[str]], pace: float = PACE, **options: Any
) -> AsyncIterator[SharedDocument]:
    """The document `name` of a session, kept up while the block runs; arguments as for `kit.client.connect`. `pace`: seconds."""
    async with connect(url, session=document_session(session, name), token=token, **options) as there:
        document = SharedDocument(there, pace)
        tasks = [asyncio.create_task(document._tend(work), name=f"{name}: {work.__name__}") for work in (document._read, document._say)]
        try:
            yield document
        finally:
            await end(tasks)
