"""Every RPC that a gateway answers, as it was registered, and calls of each with any bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import MethodDescriptor

    from rosacea_serving.gateway import Gateway


class Registry:
    """As much of a server as registration uses: keeps the names of services."""

    def __init__(self) -> None:
        self.services: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        self.services |= {handler.service_name() for handler in handlers}

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        self.services.add(service)


def rpcs_of(gateway: Gateway) -> list[MethodDescriptor]:
    """The methods of all its services, by their descriptors."""
    registry: Any = Registry()
    gateway.register(registry)
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in sorted(registry.services)]
    return [method for service in services for method in service.methods]


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def call(
    channel: grpc.Channel, method: MethodDescriptor, metadata: Sequence[tuple[str, str]] = (), data: bytes = b""
) -> Any:
    """How the call ends: None for the first answer, else the grpc.RpcError."""
    path: Any = path_of(method)
    try:
        if method.client_streaming:
            streams: Any = channel.stream_stream(path)
            answers = streams(iter([data]), timeout=120, metadata=metadata)
        elif method.server_streaming:
            streams = channel.unary_stream(path)
            answers = streams(data, timeout=120, metadata=metadata)
        else:
            unary: Any = channel.unary_unary(path)
            unary(data, timeout=120, metadata=metadata)
            return None
        next(answers)
        answers.cancel()
    except grpc.RpcError as error:
        return error
    return None
