"""Agents: history in, packets out. An agent keeps nothing; see `kit/history.py` for what it is given."""

from kit.history import HAND_OVER, Agent, AgentError, History

__all__ = ["HAND_OVER", "Agent", "AgentError", "History"]
