"""What can go wrong with a request for faces, and nothing else: no gRPC error ever reaches a caller.

FaceError
  InvalidRequest       the request can never succeed as written; also a ValueError
    InvalidSpec          the same, found before anything was sent
  NotFound             no model of that name
  Denied               the service wants credentials, or does not accept these
  Overloaded           the service has its hands full, or this caller its share (`quotas`): try again later
  Unavailable          the service cannot be reached, is not ready yet, or the connection to it broke
  DeadlineExceeded     the answer did not come in time
  Cancelled            the call was given up
  IntegrityError       the answer is damaged, or is not what was asked for
  ServerError          the service failed; asking again may help or not
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rosacea_client.reasons import Quota, Violation

MAX_VIOLATIONS = 16    # a status travels in HTTP/2 trailers, which hold 8 KiB


class FaceError(Exception):
    """Base of everything this package raises on purpose. `reason` is a `Reason` where the cause is known.

    `request_id` is the name that the service's log has for the call, where it told one.
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
    """No model of that name."""


class Denied(FaceError):
    """The service wants credentials, or does not accept these."""


class Overloaded(FaceError):
    """The service has its hands full; `retry_after_seconds` tells when to ask again.

    Where it could have taken the call but for what this caller has under way, `quotas` says so.
    """


class Unavailable(FaceError):
    """The service cannot be reached, is not ready yet, or the connection to it broke."""


class DeadlineExceeded(FaceError):
    """The answer did not come in time."""


class Cancelled(FaceError):
    """The call was given up."""


class IntegrityError(FaceError):
    """The answer is damaged, or is not what was asked for."""


class ServerError(FaceError):
    """The service failed."""


STATUS: dict[grpc.StatusCode, type[FaceError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: ServerError,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequest,
    grpc.StatusCode.ABORTED: ServerError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNIMPLEMENTED: ServerError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: IntegrityError,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
}


def _summary(violations: Sequence[Violation]) -> str:
    shown = "; ".join(violation.description for violation in violations[:3])
    return shown if len(violations) <= 3 else f"{shown}; and {len(violations) - 3} more problems"
