"""Faults: how a provider fails, to be told to the embedded model.

`server.fail_next(rate_limited(retry_after=0.5), Cut(after=3))`: the next request is refused, the one after it cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refuse:
    """The request is answered by an error, in the shape of OpenAI's."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        kind = "requests" if self.status == 429 else "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Stall:
    """After so many events (or, not streamed, before the answer) nothing comes, and the connection stays open."""

    after: int = 2


@dataclass(frozen=True)
class Cut:
    """After so many events the connection is dropped. `clean`: the body ends as if all had been said, but nothing terminal was."""

    after: int = 3
    clean: bool = False


@dataclass(frozen=True)
class Fail:
    """After so many events the model itself fails, and says so in its stream."""

    after: int = 3


Fault = Refuse | Stall | Cut | Fail


class Refused(Exception):
    """Ends a request with `refuse`."""

    def __init__(self, refuse: Refuse) -> None:
        super().__init__(refuse.message)
        self.refuse = refuse


def wrong_key(key: str = "") -> Refuse:
    """401: the key is not known. A key is shown by its first characters only."""
    shown = f": {key[:4]}***" if key else ""
    return Refuse(401, f"Incorrect API key provided{shown}.", code="invalid_api_key")


def rate_limited(retry_after: float = 1.0) -> Refuse:
    """429: too many requests; come back after so many seconds."""
    headers = {"retry-after": f"{retry_after:g}"}
    return Refuse(429, f"Rate limit reached. Please try again in {retry_after:g}s.", code="rate_limit_exceeded", headers=headers)


def server_error() -> Refuse:
    """500: the provider's own fault."""
    return Refuse(500, "The server had an error while processing your request.", code="server_error")


def bad_request(message: str, param: str | None) -> Refuse:
    """400, naming the field."""
    return Refuse(400, message, code="invalid_value", param=param)
