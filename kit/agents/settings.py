"""Settings: which model is asked, where and with what key; the only place that reads the environment for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from kit.history import AgentError

OPENAI = "https://api.openai.com/v1"


class Environment(NamedTuple):
    """OPENAI_API_KEY, OPENAI_BASE_URL and KIT_MODEL; an empty variable is as good as none."""

    api_key: str | None
    base_url: str | None
    model: str | None


def environment(env: Mapping[str, str] = os.environ) -> Environment:
    """What the environment says of the model."""
    return Environment(*(env.get(name, "").strip() or None for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KIT_MODEL")))


def is_openai(url: str) -> bool:
    """Whether it is OpenAI's own, in whatever region; a proxy before it is not known for what it is."""
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def usable_key(key: str | None, url: str) -> str:
    """The key as it can be sent. Raises AgentError where there is none though OpenAI wants one, or one that no header can carry."""
    key = (key or "").strip()
    if not key and is_openai(url):
        raise AgentError("There is no API key: set OPENAI_API_KEY, or OPENAI_BASE_URL to a server that needs none.")
    if not re.fullmatch("[!#-&(-~]*", key):
        raise AgentError("The API key holds a space, a quote, a line break or a letter that no key has: copy it into OPENAI_API_KEY again.")
    return key or "none"  # the client wants one even for servers that do not
