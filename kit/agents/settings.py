"""Settings: which model is asked, where and how; the only place that reads the environment for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from kit.agents import AgentError

OPENAI = "https://api.openai.com/v1"


class Environment(NamedTuple):
    """OPENAI_API_KEY, OPENAI_BASE_URL and KIT_MODEL; an empty variable is as good as none."""

    api_key: str | None
    base_url: str | None
    model: str | None


def environment(env: Mapping[str, str] = os.environ) -> Environment:
    """What the environment says of the model."""
    return Environment(*(env.get(name, "").strip() or None for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL")))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Whom to ask, and how. `stall` and `patience` are seconds: without an event, and of a Retry-After that is still sat out."""

    url: str
    key: str
    model: str
    dialect: Literal["responses", "chat"]
    background: bool
    instructions: str
    reasoning: Mapping[str, Any] | None
    extra: Mapping[str, Any]
    stall: float
    patience: float


def usable_key(key: str | None, url: str) -> str:
    """The key as it can be sent. Raises AgentError where there is none though OpenAI wants one, or one that no header can carry."""
    key = (key or "").strip()
    if not key and url == OPENAI:
        raise AgentError("There is no API key: set OPENAI_API_KEY, or OPENAI_BASE_URL to a server that needs none.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise AgentError("The API key holds a space, a line break or a letter that no key has: copy it into OPENAI_API_KEY again.")
    return key or "none"  # the client wants one even for servers that do not


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine, where no proxy must be asked."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
