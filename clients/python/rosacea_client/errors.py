"""The errors that a request for faces can raise. The client translates gRPC's errors to them, so that none reaches a
caller.

All but two are those of `rosacea_contract.errors`, which the service raises.

FaceError
  InvalidRequest       the request can never succeed as written; also a ValueError
    InvalidSpec          the same, found before anything was sent
  NotFound             no model of that name
  Denied               the caller is not let in, by the service or by a proxy on the way
    Unauthenticated      the service wants credentials, or does not accept these
    Forbidden            the caller is known, and may not do this
  Overloaded           the service is at capacity, or this caller over its quota (`quotas`): try again later
  Unavailable          the service cannot be reached, is not ready yet, or the connection to it broke
  DeadlineExceeded     the answer did not come in time
  Cancelled            the call was given up
  IntegrityError       the answer is damaged, or is not what was asked for
  ServerError          the service failed; asking again may help or not
"""

from __future__ import annotations

import grpc

from rosacea_contract.errors import (
    DeadlineExceeded,
    Denied,
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

__all__ = [
    "STATUS", "Cancelled", "DeadlineExceeded", "Denied", "FaceError", "Forbidden", "IntegrityError", "InvalidRequest",
    "InvalidSpec", "NotFound", "Overloaded", "ServerError", "Unauthenticated", "Unavailable",
]  # fmt: skip


class Cancelled(FaceError):
    """The call was cancelled, for instance because the client was closed."""


class IntegrityError(FaceError):
    """The answer is damaged, or is not what was asked for."""


STATUS: dict[grpc.StatusCode, type[FaceError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: ServerError,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequest,
    grpc.StatusCode.ABORTED: ServerError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNIMPLEMENTED: ServerError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: IntegrityError,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
}
