"""Scribe: what a turn writes into documents, brought there from the log of its session.

A turn says `write` in its session's log, like all that it says: fenced, numbered, once. Only what stands there is brought into the
document's log, in order, and before the turn says anything more. So a document never holds what its session does not, a stopped turn
writes nothing more, and whoever takes a turn over brings what the one before had said and not brought. It may stand in the document's log
twice; the fold takes it in once (kit/document.py).

It is appended there in the epoch that was heard there: refused after a word that was not heard, it is appended again after reading that.
So an agent never writes on top of a text that it has not seen, and no keystroke waits for an agent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import replace

from kit.document import MAX_TEXT, Text, document_session
from kit.ears import Ears
from kit.feed import Feed
from kit.history import AgentError, Copy, History
from kit.log import Gone, Log, Stored, Unheard
from kit.packets import AnyPacket, Document, EntryId, Write, stored

OPENING = EntryId(0, 1)
"""Where the `document` stands in its log: before anything that a person can say."""


class Scribe:
    """One turn's hand in the documents of its session: their feeds are open from when it first needs them until the block ends."""

    def __init__(self, session: str, ears: Ears) -> None:
        self._session, self._ears = session, ears
        self._feeds: dict[str, Feed] = {}
        self._ends = AsyncExitStack()
        self._kept: dict[Log, float] = {}

    async def __aenter__(self) -> Scribe:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._ends.aclose()

    async def check(self, said: Document | Write) -> None:
        """Raises AgentError where it can't be brought into its document."""
        try:
            text = await self._text(said.name)
            if isinstance(said, Write) and said.over:
                EntryId.parse(said.over.base)
        except ValueError as error:
            raise AgentError(f"The agent wrote into a document that can't be: {error}") from None
        if len(text) > MAX_TEXT:
            raise AgentError(f"The document {said.name!r:.80} is full: it holds {MAX_TEXT} characters.")

    async def bring(self, packets: Iterable[AnyPacket]) -> None:
        """Bring what a turn has said, as it stands in the session's log, into its documents. May be asked again at any time."""
        for packet in packets:
            if isinstance(packet, Document | Write):
                await self._bring(packet)

    async def _bring(self, packet: Document | Write) -> None:
        while True:
            text, feed = await self._text(packet.name), self._feeds[packet.name]
            try:
                if text.opened is None:
                    await self._open(feed, packet)
                elif isinstance(packet, Document) or packet.n <= text.written.get(packet.turn, 0):
                    return
                else:
                    await feed.append([(stored(packet), None)])
                    await self._keep(feed)
                    return
            except Unheard:
                await feed.catch_up()
            except Gone:
                await self._ears.reopen(feed.log.session)

    async def _keep(self, feed: Feed) -> None:
        """Or what only agents write would go a day after it was begun: a packet renews nothing. Not each time, as it takes a command."""
        now = time.monotonic()
        if now > self._kept.get(feed.log, -math.inf) + feed.transcript.ttl / 4:
            await feed.transcript.keep(feed.log)
            self._kept[feed.log] = now

    async def _open(self, feed: Feed, packet: Document | Write) -> None:
        opening = packet if isinstance(packet, Document) else Document(name=packet.name, kind="text", from_=packet.from_, turn=packet.turn)
        await feed.transcript.begin(feed.log, [Stored(OPENING, stored(opening))])
        await feed.catch_up()

    async def _text(self, name: str) -> Text:
        if name not in self._feeds:
            self._feeds[name] = await self._ends.enter_async_context(self._ears.holding(document_session(self._session, name)))
        return (await self._feeds[name].projection()).text

    async def read(self, history: History) -> History:
        """The history with the documents that were opened in it, and by this turn since, as they stand now."""
        copies = {}
        for name in {entry.name for entry in history if isinstance(entry, Document | Write)} | self._feeds.keys():
            await self._text(name)
            await self._feeds[name].catch_up()
            text = await self._text(name)
            copies[name] = Copy(name, text.read(), str(text.head))
        return replace(history, documents=copies) if copies else history
