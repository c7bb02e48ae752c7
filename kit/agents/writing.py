"""Writing: how a model writes documents of its session: what its calls of `write_document` become, carried out once.

A call becomes an action that says, too, which part of the document it goes `over`, as it stood when the model was shown it: whoever carries
it out writes over that and nothing else, whatever people have typed since. What is written carries the call, and how much of its text
stands by then (in `at`, which no client sees): a turn that is taken over in the middle goes on there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from kit.history import Copy, History
from kit.packets import Action, At, Document, Over, ToolResult, Write

PIECE = 8_000
"""Characters in one packet: so many are never split by the log, which keeps the place only with the last part."""
KINDS = {".py": "python", ".mmd": "mermaid", ".md": "markdown"}
ONCE = "`instead_of` does not stand exactly once in the document as it was shown to you"
LATE = "the turn was taken over while you were writing, and the document may have changed: look at it as it stands now, and write it again"
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,30}$")]


async def write_document(name: Name, text: str, instead_of: str = "") -> None:
    """Write a document of this session, which all who are here see, and may change while you write.

    `text` becomes the whole document; or, with `instead_of`, takes the place of that part, which must stand in the document exactly once.
    Ends in .py for Python, in .mmd for a Mermaid diagram.
    """
    raise NotImplementedError("it is carried out as packets: `written`")


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of an action: the model's, and what it goes over."""

    name: Name
    text: str
    instead_of: str = ""
    over: Over | None = None
    refused: str = ""


def asked(action: Action) -> dict[str, Any]:
    """The arguments as the model gave them: what a document is written over is not its own."""
    ours = ("over", "refused") if action.name == write_document.__name__ else ()
    return {name: value for name, value in action.arguments.items() if name not in ours}


def planned(action: Action, copy: Copy | None, *, shown: bool) -> Action:
    """The action of a call, with what it goes over. `copy`: the document, where there is one; `shown`: it is what the model was shown."""
    try:
        order = msgspec.convert(action.arguments, Order)
    except msgspec.ValidationError:
        return action
    if order.over or order.refused:  # these are not the model's to give
        return replace(action, arguments={"not_taken": action.arguments})
    more: dict[str, object] = {}
    if order.instead_of:
        once = copy is not None and copy.text.count(order.instead_of) == 1
        more = {"over": copy.change(order.instead_of, "").over} if copy and once else {"refused": ONCE}
    elif copy:
        more = {"over": Over(base=copy.id, at=0, delete=len(copy.text))} if shown else {"refused": LATE}
    return replace(action, arguments={**action.arguments, **msgspec.to_builtins(more)})


def written(action: Action, history: History) -> Iterator[Document | Write | ToolResult]:
    """What is left to be said of an action: the document where it is new, the text from where it stands, the result."""
    try:
        order = msgspec.convert(action.arguments, Order)
    except msgspec.ValidationError as error:
        yield ToolResult(call=action.call, error=f"bad arguments: {error}")
        return
    if order.refused:
        yield ToolResult(call=action.call, error=order.refused)
        return
    stands = [at.sequence or 0 for said in history.said if isinstance(said, Write) and (at := said.at) and at.response == action.call]
    if not any(isinstance(entry, Document | Write) and entry.name == order.name for entry in history):
        yield Document(name=order.name, kind=KINDS.get(PurePath(order.name).suffix, "text"))
    for begin in range(max(stands), len(order.text), PIECE) if stands else range(0, max(len(order.text), 1), PIECE):
        text = order.text[begin : begin + PIECE]
        over = order.over if begin == 0 else None
        yield Write(name=order.name, text=text, over=over, at=At(action.call, begin + len(text)))
    yield ToolResult(call=action.call, value="written")
