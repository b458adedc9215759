"""Translates gRPC statuses to our errors."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from rosacea_client.errors import STATUS, FaceError, ServerError
from rosacea_client.rpc.transport import transport_error
from rosacea_contract.reasons import DOMAIN, Quota, Reason, Violation

if TYPE_CHECKING:
    import grpc


def from_rpc(error: grpc.RpcError, target: str = "the service", request_bytes: int | None = None) -> FaceError:
    """Our error for a failed call, with the details that the service sent.

    `request_bytes` is the length of the request, where it is known.
    """
    call: Any = error  # grpc's are calls as well, those of grpc.aio answer to the same names
    code, message = call.code(), call.details() or ""
    found = _details(call)
    info = found.info if found.info.domain == DOMAIN else error_details_pb2.ErrorInfo()
    delay = found.retry.retry_delay.ToTimedelta().total_seconds() if found.retry.HasField("retry_delay") else None
    if not info.reason and (broken := transport_error(code, message, target, request_bytes)):
        broken.retry_after_seconds = delay
        return broken
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
    """google.rpc details of a failed call; missing ones are empty."""

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
                detail.Unpack(message)  # does nothing where it is of another type
    except (ValueError, DecodeError):  # details that contradict the status say nothing reliable
        return _Details()
    return found


def _violation(pb: error_details_pb2.BadRequest.FieldViolation) -> Violation:
    reason = Reason(pb.reason) if pb.reason in Reason.__members__ else Reason.INVALID_FIELD
    return Violation(pb.field, reason, pb.description)
