"""Lab: what the notebooks need: an instance beside the cells, ways to see what happened in it, and exercises."""

from kit.lab.again import catch_up, reset
from kit.lab.check import check, hint, solution
from kit.lab.resume import check_resume
from kit.lab.rooms import open_room
from kit.lab.start import Lab, finish, start
from kit.lab.succession import check_agent
from kit.lab.thread import run

__all__ = [
    "Lab",
    "catch_up",
    "check",
    "check_agent",
    "check_resume",
    "finish",
    "hint",
    "open_room",
    "reset",
    "run",
    "solution",
    "start",
]
