"""Metrics `grpc_server_*`, with the names and labels of go-grpc-prometheus, which existing dashboards use.

All label sets are there from the start, made from the descriptors of the services. A method that we do not have counts
as `unknown`: names that callers make up never become label values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import grpc
from prometheus_client import Counter, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from prometheus_client import CollectorRegistry

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LABELS = ("grpc_type", "grpc_service", "grpc_method")
CODES = {
    grpc.StatusCode.OK: "OK",
    grpc.StatusCode.CANCELLED: "Canceled",
    grpc.StatusCode.UNKNOWN: "Unknown",
    grpc.StatusCode.INVALID_ARGUMENT: "InvalidArgument",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DeadlineExceeded",
    grpc.StatusCode.NOT_FOUND: "NotFound",
    grpc.StatusCode.ALREADY_EXISTS: "AlreadyExists",
    grpc.StatusCode.PERMISSION_DENIED: "PermissionDenied",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "ResourceExhausted",
    grpc.StatusCode.FAILED_PRECONDITION: "FailedPrecondition",
    grpc.StatusCode.ABORTED: "Aborted",
    grpc.StatusCode.OUT_OF_RANGE: "OutOfRange",
    grpc.StatusCode.UNIMPLEMENTED: "Unimplemented",
    grpc.StatusCode.INTERNAL: "Internal",
    grpc.StatusCode.UNAVAILABLE: "Unavailable",
    grpc.StatusCode.DATA_LOSS: "DataLoss",
    grpc.StatusCode.UNAUTHENTICATED: "Unauthenticated",
}
# No service here answers with these; should one ever come, it is counted all the same.
NEVER_ANSWERED = ("AlreadyExists", "FailedPrecondition", "Aborted", "OutOfRange", "DataLoss")


@dataclass(frozen=True)
class Method:
    """A served gRPC method, as metric labels."""

    type: str
    service: str
    name: str

    @property
    def labels(self) -> tuple[str, str, str]:
        return self.type, self.service, self.name

    @property
    def path(self) -> str:
        return f"{self.service}/{self.name}"


UNKNOWN = Method("unknown", "unknown", "unknown")


class GrpcMetrics:
    """Counts the calls of these services."""

    def __init__(self, registry: CollectorRegistry, services: Iterable[ServiceDescriptor]) -> None:
        self._methods = {f"/{each.path}": each for service in services for each in methods(service)}
        started = Counter("grpc_server_started", "Calls that came in.", LABELS, registry=registry)
        handled = Counter(
            "grpc_server_handled", "Calls that ended, by their status.", (*LABELS, "grpc_code"), registry=registry
        )
        received = Counter("grpc_server_msg_received", "Messages from callers.", LABELS, registry=registry)
        sent = Counter("grpc_server_msg_sent", "Messages to callers.", LABELS, registry=registry)
        seconds = Histogram(
            "grpc_server_handling_seconds",
            "From a call's arrival to its status.",
            LABELS,
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        # Every call looks these up, which costs several times what the counting does.
        self._started, self._handled = cache(started.labels), cache(handled.labels)
        self._received, self._sent, self._seconds = cache(received.labels), cache(sent.labels), cache(seconds.labels)
        for method in self._methods.values():
            for metric in (self._started, self._received, self._sent, self._seconds):
                metric(*method.labels)
            for code in CODES.values():
                if code not in NEVER_ANSWERED:
                    self._handled(*method.labels, code)
        self._started(*UNKNOWN.labels)
        self._handled(*UNKNOWN.labels, CODES[grpc.StatusCode.UNIMPLEMENTED])

    def find(self, path: str) -> Method:
        """The method of a path such as `/grpc.health.v1.Health/Check`; UNKNOWN where there is none."""
        return self._methods.get(path, UNKNOWN)

    def started(self, method: Method) -> None:
        self._started(*method.labels).inc()

    def received(self, method: Method) -> None:
        self._received(*method.labels).inc()

    def sent(self, method: Method) -> None:
        self._sent(*method.labels).inc()

    def handled(self, method: Method, code: grpc.StatusCode, seconds: float) -> None:
        self._handled(*method.labels, CODES[code]).inc()
        if method is not UNKNOWN:
            self._seconds(*method.labels).observe(seconds)


def methods(service: ServiceDescriptor) -> list[Method]:
    """List the methods of a gRPC service."""
    return [Method(kind(each), service.full_name, each.name) for each in service.methods]


def kind(method: MethodDescriptor) -> str:
    """The type label: unary, client_stream, server_stream or bidi_stream."""
    kinds = {
        (False, False): "unary",
        (True, False): "client_stream",
        (False, True): "server_stream",
        (True, True): "bidi_stream",
    }
    return kinds[method.client_streaming, method.server_streaming]
