"""Widgets: what a notebook shows of a session, drawn by the page itself."""

from kit.widgets.panel import Panel

__all__ = ["Panel"]
