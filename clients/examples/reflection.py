"""Calls the service by reflection as grpcurl does, without our packages or generated stubs.

    pip install grpcio-reflection
    python reflection.py 127.0.0.1:7433 face.png

With grpcurl itself:

    grpcurl -plaintext -d '{"spec": {"seeds": {"values": [7]}, "label": {"classIndex": 2}}}' \\
        127.0.0.1:7433 rosacea.v1.FaceService/GenerateFaces

A service tells its methods on loopback alone, unless it was started with --reflection.
"""

import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "rosacea.v1.FaceService"


class Reflected:
    """Calls methods by name, with requests as JSON."""

    def __init__(self, channel: grpc.Channel) -> None:
        database = ProtoReflectionDescriptorDatabase(channel)
        self._service = descriptor_pool.DescriptorPool(database).FindServiceByName(SERVICE)
        self._channel = channel

    def methods(self) -> list[str]:
        return [method.name for method in self._service.methods]

    def call(self, method: str, request: dict[str, Any]) -> Any:
        found = self._service.methods_by_name[method]
        question, answer = (message_factory.GetMessageClass(each) for each in (found.input_type, found.output_type))
        stub: Any = self._channel.unary_unary(f"/{SERVICE}/{method}", question.SerializeToString, answer.FromString)
        return stub(json_format.ParseDict(request, question()), timeout=60)


def main(address: str, file: Path) -> None:
    with grpc.insecure_channel(address) as channel:
        service = Reflected(channel)
        print("methods:", ", ".join(service.methods()))
        model = service.call("GetModel", {}).model
        print(f"model: {model.name}, {model.resolution} px, {model.label_dim} classes")
        spec: dict[str, Any] = {"seeds": {"values": [7]}, "truncationPsi": 0.7, "format": "IMAGE_FORMAT_PNG"}
        if model.label_dim:
            spec["label"] = {"classIndex": model.label_dim - 1}
        answer = service.call("GenerateFaces", {"spec": spec})
    file.write_bytes(answer.faces[0].image)
    print(f"{file}: seed {answer.faces[0].seed} of {answer.provenance.model}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
