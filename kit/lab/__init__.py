"""Lab: what the notebooks need: an instance beside the cells, ways to see what happened in it, and exercises."""

from kit.lab.check import check, hint, solution
from kit.lab.start import Lab, finish, start
from kit.lab.thread import run

__all__ = ["Lab", "check", "finish", "hint", "run", "solution", "start"]
