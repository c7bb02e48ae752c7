"""Agents: history in, packets out. An agent keeps nothing; see `kit/history.py` for what it is given."""
