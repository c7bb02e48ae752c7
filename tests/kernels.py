"""Kernels that talk by Unix sockets: a TCP port is found free, let go of, and may be another's by the time that the kernel binds it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from jupyter_client.manager import KernelManager

_STARTUP = """
import os
from jupyter_client import manager

class KernelManager(manager.KernelManager):
    def __init__(self, transport="ipc", ip=f"{folder}/{{os.getpid()}}", **options):
        super().__init__(transport=transport, ip=ip, **options)

manager.KernelManager = KernelManager
del KernelManager, manager, os
"""


SHORT = "/tmp" if os.name == "posix" else None
"""Where a folder of sockets is made: systems allow a path of about 100 characters, and the usual place has 50 of them on macOS."""


def manager_of(folder: Path) -> partial[KernelManager]:
    """Makes managers of such kernels."""
    return partial(KernelManager, transport="ipc", ip=f"{folder}/socket")


def profile(folder: Path) -> str:
    """What IPYTHONDIR is to be, so that a kernel that a kernel starts (chapter 09) does so too."""
    startup = folder / "ipython" / "profile_default" / "startup" / "sockets.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(_STARTUP.format(folder=folder))
    return str(folder / "ipython")
