"""Text: an entry in words, and any text so that nothing obeys it. (On a page, widgets/text.js does the same.)"""

from __future__ import annotations

import json
from typing import assert_never
from unicodedata import category

from msgspec import UNSET

from kit.packets import (
    Action,
    Answer,
    Ask,
    Claim,
    Content,
    Document,
    Edit,
    End,
    Entry,
    Patch,
    Prompt,
    Result,
    Stop,
    Takeover,
    Thought,
    ToolResult,
    Write,
)

_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of control characters, of what reorders or hides (bidi, tags), of surrogates, and of separators of lines."""


def text_of(entry: Entry) -> str:
    """What an entry says, in one line."""
    match entry:
        case Thought(text=text) | Content(text=text) | Prompt(text=text):
            return text
        case Action(name=name, arguments=arguments, on=on):
            where = "once you answer yes" if on == "approve" else f"on {on}"
            return f"{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())}) {where}"
        case ToolResult(call=call, value=value, error=error) | Result(call=call, value=value, error=error):
            return f"{call}: {json.dumps(value, ensure_ascii=False) if error is UNSET else f'failed, {error}'}"
        case Ask(text=text, choices=choices):
            return f"{text} ({' / '.join(choices)})" if choices else text
        case Answer(call=what, text=text) | Edit(turn=what, text=text):
            return f"{what}: {text}"
        case Stop(turn=turn):
            return turn or "all"
        case Claim(call=what) | Takeover(turn=what):
            return what
        case Write(name=name, text=text):
            return f"{name}: {text}"
        case Patch(base=base, splices=splices):
            return f"after {base}: {', '.join(f'at {s.at} -{s.delete} +{s.insert!r}' for s in splices)}"
        case Document(name=name, kind=kind):
            return f"{name} ({kind})"
        case End(reason=reason, text=text):
            return f"{reason}: {text}" if text else reason
        case _:
            assert_never(entry)


def inert(text: str, keep: str = "") -> str:
    """The text with everything that a screen would obey made visible, but for what is to be kept.

    What joins or separates letters, and makes some emoji, always is.
    """
    return "".join(c if c in "\u200c\u200d" or c in keep or category(c) not in _OBEYED else f"<U+{ord(c):04X}>" for c in text)
