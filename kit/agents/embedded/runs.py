"""Runs: one response of the Responses API while it is made, for as long as it is kept.

A foreground run is pulled by its connection and ends with it; a background run has a task of its own and keeps its events for
whoever comes back for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from kit.agents.embedded.events import Event
from kit.agents.embedded.requests import Json


class Run:
    """One response of the Responses API: its state as the API shows it, and in background mode the events so far."""

    def __init__(self, head: Json, items: list[Any]) -> None:
        self.response = head
        self.items = items
        self.events: list[Event] = []
        self.task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def over(self) -> bool:
        return self.response["status"] != "in_progress"

    def note(self, event: Event) -> None:
        if "response" in event.data:
            self.response = event.data["response"]
        elif event.data["type"] == "response.output_item.done":
            self.response = {**self.response, "output": [*self.response["output"], event.data["item"]]}

    def publish(self, event: Event | None) -> None:
        """Keep an event for those who follow, or (None) tell them that there will be no other."""
        self.events += [event] if event else []
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def foreground(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """The events as they come; a run that is left before its end is cancelled."""
        try:
            async with aclosing(events):
                async for event in events:
                    self.note(event)
                    yield event
        finally:
            if not self.over:
                self.response = {**self.response, "status": "cancelled"}

    async def background(self, events: AsyncGenerator[Event, None]) -> None:
        try:
            async with aclosing(self.foreground(events)) as noted:
                async for event in noted:
                    self.publish(event)
        finally:
            self.publish(None)

    async def follow(self, after: int) -> AsyncGenerator[Event, None]:
        """The events with a sequence number above `after`, until the run is over."""
        at = max(after + 1, 0)
        while True:
            while at < len(self.events):
                yield self.events[at]
                at += 1
            if self.over:
                return
            await self._news.wait()
