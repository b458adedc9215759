"""Recognises transport errors: those of gRPC itself or of a proxy.

Errors of the service carry an ErrorInfo of its own; what comes without one did not come from the service. A connection
that broke, or a proxy that failed, may not break again: that is Unavailable, whatever status gRPC makes of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import grpc

from rosacea_client import errors

if TYPE_CHECKING:
    from rosacea_client.errors import FaceError

_HTTP = re.compile(r"Received http2 header with status: (\d+)")
_TOO_LARGE = re.compile(r"(Received|Sent) message larger than max \((\d+) vs\. (\d+)\)")
_BROKEN = ("RST_STREAM", "Stream removed", "END_STREAM")
_LATE = "Deadline Exceeded"  # the reason that gRPC gives for some breaks: its own timer ended the call
_UNREADABLE = "Exception deserializing response!"
_NO_STATUS = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)  # what gRPC reports if it received none


def transport_error(code: grpc.StatusCode, message: str, target: str, request_bytes: int | None) -> FaceError | None:
    """The error for a call that ended without the service's ErrorInfo; None if nothing shows that a proxy or the
    connection failed, so that its gRPC status stands.

    `request_bytes` is the length of what was sent: it tells a request that is too large from such an answer.
    """
    if found := _HTTP.search(message):
        return _from_http(int(found[1]), target)
    if found := _TOO_LARGE.search(message):
        return _too_large(found[1], int(found[2]), int(found[3]), request_bytes)
    if message == _UNREADABLE:
        return errors.IntegrityError(f"the answer from {target} cannot be read")
    if code is grpc.StatusCode.UNAVAILABLE and not _is_break(message):
        if "Connection refused" in message:
            hint = "nothing listens there, start one with `rosacea serve`"
            return errors.Unavailable(f"no answer from {target}: {hint} ({message})")
        return errors.Unavailable(f"no answer from {target}: {message}")
    if _is_break(message) and _LATE in message:
        return errors.DeadlineExceeded(f"the answer from {target} was not complete in time ({message})")
    if code in _NO_STATUS or _is_break(message):
        return errors.Unavailable(f"the connection to {target} broke: {message or code.name}")
    return None


def _is_break(message: str) -> bool:
    return any(each in message for each in _BROKEN)


def _from_http(status: int, target: str) -> FaceError:
    said = f"a proxy on the way to {target} answered HTTP {status}"
    if status == 413:
        return errors.InvalidRequest(f"{said}: the request is too large for it, send less at a time")
    if status in {401, 403, 407}:
        return errors.Denied(said)
    if status in {408, 425, 429} or status >= 500:
        return errors.Unavailable(said)
    return errors.ServerError(f"{said}, or no gRPC service listens there")


def _too_large(verb: str, size: int, limit: int, request_bytes: int | None) -> FaceError:
    sizes = f"{size} bytes, at most {limit} are allowed"
    if verb == "Sent" or size == request_bytes:
        return errors.InvalidRequest(f"the request is too large ({sizes}): send less at a time, or stream")
    return errors.InvalidRequest(f"the answer is too large ({sizes}): ask for fewer faces at a time, or stream them")
