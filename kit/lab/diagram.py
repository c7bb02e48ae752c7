"""Diagram: a source in the language Mermaid, as a cell shows it: JupyterLab draws it with the Mermaid that it carries.

It stores the drawing with the notebook; where nothing draws (a terminal, a forge's page without it) the source says the same.
"""

from __future__ import annotations


class Diagram(str):
    """The source of a diagram: `Diagram("flowchart LR\\n  a --> b")`. A broken one is shown as it is, with Mermaid's own complaint."""

    __slots__ = ()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/vnd.mermaid": str(self), "text/plain": str(self)}

    def __repr__(self) -> str:
        return str(self)
