"""Travel: a session as it was at any id, with a slider: `Travel(session)`. The page rebuilds the view; the kernel may be busy."""

from __future__ import annotations

from html import escape

from traitlets import Unicode

from kit.lab.view import SessionView
from kit.packets import frame_of, stored
from kit.widgets.widget import Widget, module, style


class Travel(Widget):
    """What had been said up to `id`, of all that the session holds now. The slider sets `id`, and so may a cell."""

    _esm = module("text.js", "view.js", "travel.js")
    _css = style("travel.css")
    session = Unicode().tag(sync=True)
    frames = Unicode().tag(sync=True)
    id = Unicode().tag(sync=True)

    def __init__(self, session: SessionView, id: str | None = None) -> None:
        self._session = session
        said = session.transcript
        if not said or (id is not None and id not in {entry.id for entry in said}):
            raise ValueError(f"session {session.name!r} holds no {id or 'entry'}: name an id that stands in it")
        frames = b",".join(frame_of(entry.id, stored(entry), getattr(entry, "prev", "")) for entry in said)
        super().__init__(session=session.name, frames=f"[{frames.decode()}]", id=id or said[-1].id)

    def twin(self) -> tuple[str, str]:
        title, then = f"Session {self.session} as it was at {self.id}", self._session.at(self.id)
        return f"{title}\n{then!r}", f"<p>{escape(title)}</p>{then._repr_html_()}"
