"""Widgets: what a notebook shows of a session, drawn by the page itself."""

from kit.widgets.faults import Faults
from kit.widgets.panel import Panel
from kit.widgets.store import StoreView
from kit.widgets.travel import Travel
from kit.widgets.wire import WireView

__all__ = ["Faults", "Panel", "StoreView", "Travel", "WireView"]
