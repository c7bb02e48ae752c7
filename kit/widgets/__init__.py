"""Widgets: what a notebook shows of a session, drawn by the page itself."""

from kit.widgets.panel import Panel
from kit.widgets.wire import WireView

__all__ = ["Panel", "WireView"]
