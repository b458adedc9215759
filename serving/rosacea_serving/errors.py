"""Errors of a call, and the gRPC status of each.

ServiceError
  Unauthenticated    the caller is nobody that the service knows
  Forbidden          the caller is known, and may not do this
  InvalidRequest     the request can never succeed as written
  ModelNotFound      no such model or revision
  Overloaded         try again later; with quotas where it is the caller's own share that is used up
  TooLate            the deadline comes before the answer can
  Unavailable        no worker can answer now
  FaceFailed         the model could not draw this face
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from rosacea_contract.errors import InvalidSpec
from rosacea_contract.reasons import DOMAIN, Quota, Reason

from .observe.record import current_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from rosacea_contract.reasons import Violation


class ServiceError(Exception):
    """A call that ends with an error its caller can act on."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        limits: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
        quotas: Sequence[Quota] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.limits = dict(limits or {})
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        self.quotas = tuple(quotas)


class Unauthenticated(ServiceError):
    """The caller could not be authenticated."""


class Forbidden(ServiceError):
    """The caller is authenticated but not authorised."""


class InvalidRequest(ServiceError):
    """The request can never succeed as written; its violations name the fields."""

    @classmethod
    def from_spec(cls, error: InvalidSpec) -> InvalidRequest:
        first = error.violations[0]
        return cls(first.reason, str(error), limits=first.limits, violations=error.violations)


class ModelNotFound(ServiceError):
    """No model or revision of that name is served."""


class Overloaded(ServiceError):
    """The queue is full, or too long for the call's deadline, or the caller has its share; nothing was started."""

    @classmethod
    def by_share(
        cls, caller_kind: str, message: str, *, limits: Mapping[str, str], retry_after_seconds: float
    ) -> Overloaded:
        """The caller's quota, not the service's capacity, is exhausted."""
        quota = Quota(caller_kind, message)
        return cls(
            Reason.QUOTA_EXCEEDED, message, limits=limits, retry_after_seconds=retry_after_seconds, quotas=[quota]
        )


class TooLate(ServiceError):
    """The answer cannot be ready by the call's deadline, not even without a queue, or it was not."""


class Unavailable(ServiceError):
    """No worker can answer now: starting, restarting or draining."""


class FaceFailed(ServiceError):
    """The model could not draw this face, or the worker failed at it."""


def unauthenticated() -> Unauthenticated:
    """The error for invalid credentials, the same whatever is wrong with them."""
    return Unauthenticated(Reason.CREDENTIALS_REQUIRED, "valid credentials are required")


def shutting_down() -> Unavailable:
    """The error while the service shuts down: another replica, or this one after its restart, may answer."""
    return Unavailable(Reason.SHUTTING_DOWN, "the service is shutting down", retry_after_seconds=1.0)


def no_worker() -> Unavailable:
    """The error while no worker is available. The cause is only logged: it may contain internal addresses."""
    return Unavailable(Reason.BACKEND_UNAVAILABLE, "no worker can answer now", retry_after_seconds=1.0)


STATUS: dict[type[ServiceError], int] = {
    Unauthenticated: code_pb2.UNAUTHENTICATED,
    Forbidden: code_pb2.PERMISSION_DENIED,
    InvalidRequest: code_pb2.INVALID_ARGUMENT,
    ModelNotFound: code_pb2.NOT_FOUND,
    Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    TooLate: code_pb2.DEADLINE_EXCEEDED,
    Unavailable: code_pb2.UNAVAILABLE,
    FaceFailed: code_pb2.INTERNAL,
}


def to_status(error: Exception) -> status_pb2.Status:
    """The gRPC status for an exception. Anything but our own errors becomes INTERNAL without its text."""
    if isinstance(error, InvalidSpec):
        error = InvalidRequest.from_spec(error)
    if not isinstance(error, ServiceError):
        error = FaceFailed(Reason.INTERNAL, "internal error")
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.limits)
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
