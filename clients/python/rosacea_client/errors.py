"""What can go wrong with a request for faces, and nothing else: no gRPC error ever reaches a caller.

FaceError
  InvalidRequest       the request can never succeed as written; also a ValueError
    InvalidSpec          the same, found before anything was sent
  NotFound             no model of that name
  Denied               the service wants credentials, or does not accept these
  Overloaded           the service is at capacity, or this caller over its quota (`quotas`): try again later
  Unavailable          the service cannot be reached, is not ready yet, or the connection to it broke
  DeadlineExceeded     the answer did not come in time
  Cancelled            the call was given up
  IntegrityError       the answer is damaged, or is not what was asked for
  ServerError          the service failed; asking again may help or not
"""

from __future__ import annotations

import grpc

from rosacea_contract.errors import FaceError, InvalidRequest, InvalidSpec

__all__ = [
    "Cancelled", "DeadlineExceeded", "Denied", "FaceError", "IntegrityError", "InvalidRequest", "InvalidSpec",
    "NotFound", "Overloaded", "ServerError", "Unavailable",
]  # fmt: skip


class NotFound(FaceError):
    """No model of that name."""


class Denied(FaceError):
    """The service wants credentials, or does not accept these."""


class Overloaded(FaceError):
    """The service is at capacity; `retry_after_seconds` says when to ask again.

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
