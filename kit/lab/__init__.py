"""Lab: what the notebooks need: an instance beside the cells, and ways to see what happened in it."""

from kit.lab.start import Lab, start
from kit.lab.thread import run

__all__ = ["Lab", "run", "start"]
