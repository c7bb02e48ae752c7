"""Filling: the arguments of a tool out of a prompt, as far as a JSON schema and a few rules of thumb go.

A choice is taken where its value stands in the prompt, text where it stands in quotes or after "to", "saying" and the like, numbers
in their order, a switch is on unless the prompt says off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NOTHING = object()
_QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”|`([^`]*)`|(?<!\w)\'([^\']*)\'(?!\w)')
_AFTER = re.compile(r"\b(?:to|saying|says|called|named|as|with|about|for)\s+(.+?)[\s.?!]*$", re.IGNORECASE)
_OFF = re.compile(r"\b(?:off|no|not|false|disable|hide|close|stop)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Filled:
    """Arguments, and whether all that the schema requires was found in the prompt rather than made up."""

    arguments: dict[str, Any]
    found: bool


def fill(schema: Mapping[str, Any], prompt: str) -> Filled:
    """Arguments for an object schema. What is required and not in the prompt gets its default, null, or the type's empty value."""
    quoted = [next(g for g in groups if g is not None) for groups in (m.groups() for m in _QUOTED.finditer(prompt))]
    numbers = re.findall(r"-?\d+(?:\.\d+)?", _QUOTED.sub(" ", prompt))
    arguments: dict[str, Any] = {}
    found = True
    for name, raw in schema.get("properties", {}).items():
        prop = _resolved(raw, schema)
        value = _from_prompt(prop, prompt, quoted, numbers)
        if value is _NOTHING and name in schema.get("required", ()):
            found = found and "default" in prop
            value = _made_up(prop, prompt)
        if value is not _NOTHING:
            arguments[name] = value
    return Filled(arguments, found)


def _from_prompt(prop: Mapping[str, Any], prompt: str, quoted: list[str], numbers: list[str]) -> Any:
    """The value of one property, taken off the front of `quoted` or `numbers` where it came from there."""
    if "enum" in prop:
        return next((v for v in prop["enum"] if re.search(rf"(?<!\w){re.escape(str(v))}(?!\w)", prompt, re.IGNORECASE)), _NOTHING)
    match prop.get("type"):
        case "integer":
            whole = next((n for n in numbers if "." not in n), None)
            return _NOTHING if whole is None else int(numbers.pop(numbers.index(whole)))
        case "number" if numbers:
            return float(numbers.pop(0))
        case "boolean" if re.search(r"\b(?:on|true|yes|enable|show|open)\b", prompt, re.IGNORECASE) or _OFF.search(prompt):
            return not _OFF.search(prompt)
        case "string" if quoted:
            return quoted.pop(0)
        case "string" if after := _AFTER.search(prompt):
            return after[1]
        case "array" if quoted and prop.get("items", {}).get("type", "string") == "string":
            taken, quoted[:] = list(quoted), []
            return taken
    return _NOTHING


def _made_up(prop: Mapping[str, Any], prompt: str) -> Any:
    if "default" in prop:
        return prop["default"]
    if "enum" in prop:
        return prop["enum"][0]
    if prop.get("nullable"):
        return None
    return {"integer": 0, "number": 0, "boolean": True, "string": prompt, "array": [], "object": {}}.get(str(prop.get("type")))


def _resolved(prop: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The property with `$ref` followed and `X | None` written as X, nullable."""
    if "$ref" in prop:
        prop = {**prop, **schema.get("$defs", {}).get(str(prop["$ref"]).rpartition("/")[2], {})}
    kinds = prop.get("anyOf") or ([{"type": t} for t in prop["type"]] if isinstance(prop.get("type"), list) else None)
    if kinds:
        inner = next((k for k in kinds if k.get("type") != "null"), {})
        rest = {k: v for k, v in prop.items() if k not in ("anyOf", "type")}
        return {**rest, **_resolved(inner, schema), "nullable": len(kinds) > 1}
    return dict(prop)
