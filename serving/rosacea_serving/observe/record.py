"""The record of one call, filled in while it runs and used by its log line, trace and errors."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea_contract.install import missing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span

    from ..settings import Settings
    from .tracing import CallTrace, ServerTracing

REQUEST_ID = "x-request-id"
GOOD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# How keys and tokens of well-known services, and ours, begin.
SECRET_PREFIX = re.compile(
    r"(rsk_|rosacea[_-]|sk[_-]|pk_|rk_|gh[opusr]_|github_|glpat|xox[a-z]-|AKIA|ASIA|AIza|hf_|npm_|pypi-|dop_|eyJ|ya29)"
)
WORD = re.compile(r"[A-Za-z0-9]+")
# Parts of ids that are longer than a word and no secret: hexadecimal numbers as of UUIDs and traces, and ULIDs.
LONG_PART = re.compile(r"[0-9a-f]{,32}|[0-9A-F]{,32}|[0-9]{,64}|[0-7][0-9A-HJKMNP-TV-Z]{25}")
MAX_WORD = 15
MIXED_LENGTH = 20


@dataclass(eq=False, kw_only=True)
class CallRecord:
    """Record of one call. It never holds seeds, latents, keys or names of callers."""

    id: str
    method: str  # SERVICE/METHOD, of those that there are
    principal_kind: str = "clientip"  # how the caller is known, not who it is
    images: int = 0  # drawn for it so far
    trace: CallTrace | None = None  # None unless this call is traced


_current: ContextVar[CallRecord | None] = ContextVar("rosacea_call", default=None)


def current_call() -> CallRecord | None:
    """The record of the current call; None outside of a call."""
    return _current.get()


def begin_call(record: CallRecord) -> None:
    """Make this the current call of this task and of tasks it starts."""
    # Never reset: grpc runs every call in a task of its own, but may end a stream in yet another one.
    _current.set(record)


def request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's request id if it is safe to log; otherwise a new one."""
    for name, value in metadata:
        if name == REQUEST_ID and isinstance(value, str) and GOOD_ID.fullmatch(value) and not is_like_a_secret(value):
            return value
    return os.urandom(16).hex()


def is_like_a_secret(text: str) -> bool:
    """Whether an id looks like a key or token: by its prefix, or by long parts of mixed characters."""
    if SECRET_PREFIX.match(text):
        return True
    if any(len(part) > MAX_WORD and not LONG_PART.fullmatch(part) for part in WORD.findall(text)):
        return True
    kinds = (str.islower, str.isupper, str.isdigit)
    return len(text) >= MIXED_LENGTH and all(any(map(kind, text)) for kind in kinds)


def job_span(
    waits: Iterable[tuple[CallRecord | None, float]], model: str, images: int
) -> AbstractContextManager[Span | None]:
    """Context manager for the trace span of a job, from each image's call and queue time; no span if no call is
    traced."""
    longest: dict[CallTrace, float] = {}
    for record, seconds in waits:
        if record is not None and record.trace is not None:
            longest[record.trace] = max(seconds, longest.get(record.trace, 0.0))
    return next(iter(longest)).job(longest, model, images) if longest else nullcontext()


def tracing_of(settings: Settings) -> ServerTracing | None:
    """The tracing that the settings ask for, or None. ValueError if its packages are not installed."""
    if settings.traces_endpoint is None:
        return None
    try:
        from .tracing import export_to

        return export_to(settings.traces_endpoint, settings.traces_ratio)
    except ModuleNotFoundError as error:
        raise ValueError(missing("traces_endpoint", str(error.name), "otel")) from error
