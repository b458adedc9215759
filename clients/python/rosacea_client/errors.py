"""What can go wrong with a request for faces, and nothing else: no gRPC error ever reaches a caller.

FaceError
  InvalidRequest       the request can never succeed as written; also a ValueError
    InvalidSpec          the same, found before anything was sent
  NotFound             no model of that name
  Denied               the service wants credentials, or does not accept these
  Overloaded           the service has its hands full, or this caller its share (`quotas`): try again later
  Unavailable          the service cannot be reached, or is not ready yet
  DeadlineExceeded     the answer did not come in time
  Cancelled            the call was given up
  IntegrityError       the answer is damaged, or is not what was asked for
  ServerError          the service failed; asking again may help or not
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from rosacea_client.reasons import DOMAIN, Quota, Reason, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    """The service cannot be reached, or is not ready yet."""


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


def from_rpc(error: grpc.RpcError, target: str = "the service") -> FaceError:
    """The error of our own that a failed call stands for, with the details that the service sent along."""
    call: Any = error       # grpc's are calls as well, those of grpc.aio answer to the same names
    code, message = call.code(), call.details() or ""
    found = _details(call)
    info = found.info if found.info.domain == DOMAIN else error_details_pb2.ErrorInfo()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not info.reason and "larger than max" in message:
        hint = "the answer is too large, ask for fewer faces at a time or stream them"
        return InvalidRequest(f"{hint}: {message}")
    if code is grpc.StatusCode.UNAVAILABLE and not info.reason:
        message = f"no answer from {target}: {message}"
    delay = found.retry.retry_delay.ToTimedelta().total_seconds() if found.retry.HasField("retry_delay") else None
    return STATUS.get(code, ServerError)(
        message or f"{target} answered {code.name}",
        reason=info.reason,
        metadata=info.metadata,
        violations=[_violation(violation) for violation in found.bad_request.field_violations],
        retry_after_seconds=delay,
        quotas=[Quota(violation.subject, violation.description) for violation in found.quota.violations],
        request_id=found.request.request_id,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Details:
    """The google.rpc details of a failed call; what did not come is empty."""

    info: error_details_pb2.ErrorInfo = dataclasses.field(default_factory=error_details_pb2.ErrorInfo)
    bad_request: error_details_pb2.BadRequest = dataclasses.field(default_factory=error_details_pb2.BadRequest)
    quota: error_details_pb2.QuotaFailure = dataclasses.field(default_factory=error_details_pb2.QuotaFailure)
    request: error_details_pb2.RequestInfo = dataclasses.field(default_factory=error_details_pb2.RequestInfo)
    retry: error_details_pb2.RetryInfo = dataclasses.field(default_factory=error_details_pb2.RetryInfo)


def _details(call: Any) -> _Details:
    found = _Details()
    try:
        status = rpc_status.from_call(call)
        for detail in status.details if status else ():
            for message in vars(found).values():
                detail.Unpack(message)      # does nothing where it is of another type
    except (ValueError, DecodeError):    # details that contradict the status say nothing reliable
        return _Details()
    return found


def _violation(pb: error_details_pb2.BadRequest.FieldViolation) -> Violation:
    reason = Reason(pb.reason) if pb.reason in Reason.__members__ else Reason.INVALID_FIELD
    return Violation(pb.field, reason, pb.description)


def _summary(violations: Sequence[Violation]) -> str:
    shown = "; ".join(violation.description for violation in violations[:3])
    return shown if len(violations) <= 3 else f"{shown}; and {len(violations) - 3} more problems"
