"""Widget: what all widgets here have in common: files as one module and one style, an ear, and a twin for pages without widgets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anywidget

HERE = Path(__file__).parent


def module(*names: str) -> str:
    """The files as one ES module, in the given order, which is that of their imports.

    anywidget takes one module, as text, and its blob URL has no neighbours to import from. The files stay plain ES modules, which any
    page loads as they are, so nothing is built: with one scope for all, their imports are left out. A name that two files declare is
    a SyntaxError in the browser, so the files cannot drift into clashing unseen.
    """
    text = re.sub(r"^import .*;\n", "", _joined(names), flags=re.MULTILINE)
    return re.sub(r"^export (?!default)", "", text, flags=re.MULTILINE)


def style(*names: str) -> str:
    """The panel's style, and over it these."""
    return _joined(("panel.css", *names))


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join((HERE / name).read_text("utf-8") for name in names)


class Widget(anywidget.AnyWidget):
    """An anywidget with a twin: JupyterLab prefers the widget's own type, a forge's page and a terminal know only text and HTML."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(lambda _, message, buffers: self.heard(message))

    def heard(self, message: Any) -> None:
        """A page says something. That comes in a thread which may not wait for the loop: it is handed over, and no more."""

    def twin(self) -> tuple[str, str]:
        """What is shown where no script runs, as text and as HTML."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if (bundled := super()._repr_mimebundle_(**kwargs)) is None:
            return None
        formats, metadata = bundled
        text, html = self.twin()
        return {**formats, "text/plain": text, "text/html": html}, metadata
