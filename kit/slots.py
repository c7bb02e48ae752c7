"""Slots: an instance lets so many connections in at a time, and tells the others when it is their turn.

Clients that draw their delays by themselves cannot do better than chance, and chance clumps. The instance sees them all, so it can hand
the time out: no 100 ms gets more than its share, and while anybody waits none gets less. What was told is no reservation: whoever comes
while there is room is let in, so a client that never comes back costs nothing; one that was told comes first, when its slot begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

STEP = 100
"""Milliseconds that a slot lasts."""


class Slot(NamedTuple):
    """`wait`: 0, or the milliseconds after which to try again; `number`: which slot that is, counted from the clock's zero."""

    number: int
    wait: int


class Slots:
    """At most `size` connections are let in during each 100 ms. `clock`: seconds, never backwards."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self._clock = size, clock
        self._now, self._used = 0, 0
        self._told_last, self._told = 0, 0

    def take(self) -> Slot:
        """A place now, or the next one that was promised to nobody else."""
        now = round(self._clock() * 1000)
        number = now // STEP
        if number != self._now:
            self._now, self._used = number, 0
        if self._used < self.size:
            self._used += 1
            return Slot(number, 0)
        if self._told_last <= number:
            self._told_last, self._told = number + 1, 0
        elif self._told == self.size:
            self._told_last, self._told = self._told_last + 1, 0
        self._told += 1
        return Slot(self._told_last, self._told_last * STEP - now)

    def give_back(self, slot: Slot) -> None:
        """Who had a place was refused for another reason."""
        if slot.number == self._now:
            self._used -= 1

    def spread(self, count: int) -> Iterator[int]:
        """The milliseconds after which so many connections that are sent away together may come back."""
        return (i // self.size * STEP for i in range(count))
