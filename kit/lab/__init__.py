"""Lab: what the notebooks need: an instance beside the cells, ways to see what happened in it, and exercises."""

from kit.lab.check import check, hint, solution
from kit.lab.resume import check_resume
from kit.lab.rooms import open_room
from kit.lab.start import Lab, finish, start
from kit.lab.succession import check_agent
from kit.lab.thread import run

__all__ = ["Lab", "check", "check_agent", "check_resume", "finish", "hint", "open_room", "run", "solution", "start"]
