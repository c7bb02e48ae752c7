"""Launch: how every test, picture and bench starts Chromium."""

from __future__ import annotations

import os

from playwright.async_api import Browser, Playwright

from tests.prerequisites import chromium

FLAGS = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"]


async def launch(playwright: Playwright) -> Browser:
    """The Chromium of this machine, which asks nothing of any other."""
    root = os.name == "posix" and os.geteuid() == 0  # Chromium's sandbox does not start as root
    return await playwright.chromium.launch(executable_path=chromium(), args=[*FLAGS, *(["--no-sandbox"] if root else [])])
