"""gRPC server reflection under both of its names: grpc.reflection.v1 and v1alpha.

grpcio-reflection has v1alpha alone. The two differ in nothing but the name: messages are the same on the wire, so v1 is
the same servicer, and its descriptor is v1alpha's with the other name in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
    from grpc.aio import Server

OLD, NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"


def reflection_services() -> list[ServiceDescriptor]:
    """Service descriptors of both reflection versions."""
    files = [reflection_pb2.DESCRIPTOR, _described_as_new()]
    return [file.services_by_name["ServerReflection"] for file in files]


def add_reflection(services: Sequence[str], server: Server) -> None:
    """Add reflection of these services and of itself to a server."""
    names = [each.full_name for each in reflection_services()]
    servicer = reflection.aio.ReflectionServicer([*services, *names])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(f"{NEW}.ServerReflection", {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handler,))


def _described_as_new() -> FileDescriptor:
    """The v1 descriptor; another library may already have added it to the pool."""
    pool = descriptor_pool.Default()
    name = reflection_pb2.DESCRIPTOR.name.replace("v1alpha", "v1")
    try:
        return pool.FindFileByName(name)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        renamed = text_format.MessageToString(file).replace(OLD, NEW)
        file = text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto())
        file.name = name
        pool.Add(file)
        return pool.FindFileByName(name)
