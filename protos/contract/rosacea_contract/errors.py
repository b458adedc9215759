"""The errors that a call can end with. The service raises them, and the client raises the same ones.

FaceError
  InvalidRequest     the request can never succeed as written; also a ValueError
    InvalidSpec        the same, with the fields that break a rule
  NotFound           no such model or revision
  Denied             the caller is not let in
    Unauthenticated    the service wants credentials, or does not accept these
    Forbidden          the caller is known, and may not do this
  Overloaded         the service is at capacity, or this caller over its quota (`quotas`): try again later
  Unavailable        no worker can answer now, or the service cannot be reached
  DeadlineExceeded   the answer did not come in time, or cannot
  ServerError        the service failed, or the model could not draw this face
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rosacea_contract.reasons import Quota, Violation

MAX_VIOLATIONS = 16  # a status travels in HTTP/2 trailers, which hold 8 KiB


class FaceError(Exception):
    """Base of the errors that a call to the service can end with. `reason` is a `Reason` where the cause is known.

    `request_id` is the name that the service's log has for the call, if it sent one.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
        quotas: Sequence[Quota] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        self.quotas = tuple(quotas)
        self.request_id = request_id


class InvalidRequest(FaceError, ValueError):
    """The request can never succeed as written; `violations` tells which fields are at fault."""


class InvalidSpec(InvalidRequest):
    """A request that breaks the rules, with all the rules it breaks (the first 16, if there are more)."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        assert violations, "an InvalidSpec needs a violation"
        first = violations[0]
        super().__init__(
            _summary(violations),
            reason=first.reason,
            metadata=first.limits,
            violations=violations[:MAX_VIOLATIONS],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return InvalidSpec, (self.violations,)


class NotFound(FaceError):
    """No model or revision of that name."""


class Denied(FaceError):
    """The caller is not let in, by the service or by a proxy on the way; base of Unauthenticated and Forbidden."""


class Unauthenticated(Denied):
    """The service does not know who the caller is."""


class Forbidden(Denied):
    """The caller is known, and may not do this."""


class Overloaded(FaceError):
    """The service is at capacity; `retry_after_seconds` says when to ask again. Nothing was started.

    Where it could have taken the call but for what this caller has under way, `quotas` says so.
    """


class Unavailable(FaceError):
    """The service cannot be reached, is starting or draining, or the connection to it broke."""


class DeadlineExceeded(FaceError):
    """The answer did not come in time, or cannot be ready by the call's deadline."""


class ServerError(FaceError):
    """The service failed, or its model could not draw a face."""


def _summary(violations: Sequence[Violation]) -> str:
    shown = "; ".join(violation.description for violation in violations[:3])
    return shown if len(violations) <= 3 else f"{shown}; and {len(violations) - 3} more problems"
