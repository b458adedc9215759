"""The authenticated identity of a caller."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LONGEST_NAME = 256


@dataclass(frozen=True)
class Identity:
    """A caller's name, and how it was proven: `kind` is certificate, token, key or clientip."""

    kind: str
    name: str

    @property
    def principal(self) -> str:
        return f"{self.kind}:{self.name}"


class Cause(StrEnum):
    """Why credentials were rejected: for the operator's log and metrics, never for callers."""

    NONE = "none"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"  # no key of that id, or not that secret
    KEY_NOT_IN_FORCE = "key_not_in_force"  # expired, revoked or not valid yet
    TOKEN = "token"  # signature, issuer, audience, times  # noqa: S105
    NO_ISSUER_KEYS = "no_issuer_keys"  # the issuer's keys cannot be had
    TOO_MANY_FAILURES = "too_many_failures"


class Refused(Exception):
    """The credentials do not identify the caller."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


def is_name(name: object) -> bool:
    """Whether the text is usable as a principal's name: short and printable."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()
