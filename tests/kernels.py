"""Kernels that talk by Unix sockets: a TCP port is found free, let go of, and may be another's by the time that the kernel binds it."""

from __future__ import annotations

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


def manager(folder: Path) -> partial[KernelManager]:
    """Makes managers of such kernels. The system allows a socket's path about 100 characters."""
    return partial(KernelManager, transport="ipc", ip=f"{folder}/socket")


def ipython(folder: Path) -> str:
    """What IPYTHONDIR is to be, so that a kernel that a kernel starts (chapter 09) does so too."""
    startup = folder / "ipython" / "profile_default" / "startup" / "sockets.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(_STARTUP.format(folder=folder))
    return str(folder / "ipython")
