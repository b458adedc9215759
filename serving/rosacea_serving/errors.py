"""The gRPC status of each error of `rosacea_contract.errors`, and the errors that several modules raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from rosacea_contract.errors import (
    DeadlineExceeded,
    FaceError,
    Forbidden,
    InvalidRequest,
    InvalidSpec,
    NotFound,
    Overloaded,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from rosacea_contract.reasons import DOMAIN, Quota, Reason

from .observe.record import current_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from rosacea_contract.reasons import Violation


def over_quota(
    caller_kind: str, message: str, *, metadata: Mapping[str, str], retry_after_seconds: float
) -> Overloaded:
    """The error where the caller's quota, not the service's capacity, is exhausted."""
    quota = Quota(caller_kind, message)
    return Overloaded(
        message,
        reason=Reason.QUOTA_EXCEEDED,
        metadata=metadata,
        retry_after_seconds=retry_after_seconds,
        quotas=[quota],
    )


def unauthenticated() -> Unauthenticated:
    """The error for invalid credentials, the same whatever is wrong with them."""
    return Unauthenticated("valid credentials are required", reason=Reason.CREDENTIALS_REQUIRED)


def shutting_down() -> Unavailable:
    """The error while the service shuts down: another replica, or this one after its restart, may answer."""
    return Unavailable("the service is shutting down", reason=Reason.SHUTTING_DOWN, retry_after_seconds=1.0)


def no_worker() -> Unavailable:
    """The error while no worker is available. The cause is only logged: it may contain internal addresses."""
    return Unavailable("no worker can answer now", reason=Reason.BACKEND_UNAVAILABLE, retry_after_seconds=1.0)


STATUS: dict[type[FaceError], int] = {
    Unauthenticated: code_pb2.UNAUTHENTICATED,
    Forbidden: code_pb2.PERMISSION_DENIED,
    InvalidRequest: code_pb2.INVALID_ARGUMENT,
    InvalidSpec: code_pb2.INVALID_ARGUMENT,
    NotFound: code_pb2.NOT_FOUND,
    Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    DeadlineExceeded: code_pb2.DEADLINE_EXCEEDED,
    Unavailable: code_pb2.UNAVAILABLE,
    ServerError: code_pb2.INTERNAL,
}


def reason_of(error: Exception) -> Reason:
    """The reason that an answer and metrics give for an error, from a closed set."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, Reason) else Reason.INTERNAL


def to_status(error: Exception) -> status_pb2.Status:
    """The gRPC status for an exception. Anything but our own errors becomes INTERNAL without its text."""
    if not isinstance(error, FaceError) or type(error) not in STATUS:
        error = ServerError("internal error", reason=Reason.INTERNAL)
    info = error_details_pb2.ErrorInfo(reason=reason_of(error), domain=DOMAIN, metadata=error.metadata)
    details: list[Message] = [info]
    if error.violations:
        details.append(_bad_request(error.violations))
    if error.quotas:
        details.append(_quota_failure(error.quotas))
    if error.retry_after_seconds is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_seconds)))
    if call := current_call():
        details.append(error_details_pb2.RequestInfo(request_id=call.id))
    return status_pb2.Status(code=STATUS[type(error)], message=str(error), details=[_pack(each) for each in details])


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    fields = [
        error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.description, reason=each.reason)
        for each in violations
    ]
    return error_details_pb2.BadRequest(field_violations=fields)


def _quota_failure(quotas: Sequence[Quota]) -> error_details_pb2.QuotaFailure:
    violations = [
        error_details_pb2.QuotaFailure.Violation(subject=each.subject, description=each.description) for each in quotas
    ]
    return error_details_pb2.QuotaFailure(violations=violations)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(1000 * seconds))
    return duration


def _pack(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
