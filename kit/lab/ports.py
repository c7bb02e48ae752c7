"""Ports: some that are free, and stay free for whoever stops and starts again at the same place."""

from __future__ import annotations

import socket
from contextlib import suppress
from random import SystemRandom

LOW, HIGH = 15_000, 32_000
"""Below those that systems hand out by themselves (Linux from 32768 on): there, another would soon have one whose owner is down."""


def free_ports(count: int) -> list[int]:
    """So many of loopback, each another. Raises RuntimeError where there are not so many."""
    free: list[int] = []
    for port in SystemRandom().sample(range(LOW, HIGH), min(100 * count, HIGH - LOW)):
        if len(free) == count:
            break
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
    if len(free) < count:
        raise RuntimeError(f"fewer than {count} ports are free between {LOW} and {HIGH}")
    return free
