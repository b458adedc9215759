"""Whether a change of the public API breaks those who were built against the one before, and how.

    python -m tests.protos.compatibility --freeze      # take the API as it is; `make proto-freeze`

The API that was promised lies in `protos/api.binpb`, a FileDescriptorSet, which buf reads as well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from rosacea.v1 import faces_pb2, reasons_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GOLDEN = Path(__file__).resolve().parents[2] / "protos" / "api.binpb"
PUBLIC = (faces_pb2, reasons_pb2)
# What makes a field the same on the wire, in JSON and in generated code.
FIELD = ("number", "type", "label", "type_name", "proto3_optional", "json_name", "oneof")

Facts = dict[str, Any]


def current() -> FileDescriptorSet:
    """The API as it is compiled now."""
    files = FileDescriptorSet()
    for module in PUBLIC:
        file = files.file.add()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            known = module.DESCRIPTOR.message_types_by_name[message.name].fields_by_name
            for field in message.field:  # what Python leaves out, and buf looks at
                field.json_name = known[field.name].camelcase_name
    return files


def golden() -> FileDescriptorSet:
    """The API that was promised."""
    return FileDescriptorSet.FromString(GOLDEN.read_bytes())


def breaking_changes(old: FileDescriptorSet, new: FileDescriptorSet) -> list[str]:
    """What was promised and is no more: removed, renumbered, renamed or retyped. Additions break nobody."""
    before, after = facts(old), facts(new)
    return [f"{name}: {_difference(fact, after.get(name))}" for name, fact in before.items() if after.get(name) != fact]


def facts(files: FileDescriptorSet) -> Facts:
    """Every promise by the full name of the thing it is about."""
    return {name: fact for file in files.file for name, fact in _file_facts(file)}


def _difference(before: Any, after: Any) -> str:
    if after is None:
        return "removed"
    changed = {key: (value, after.get(key)) for key, value in before.items() if after.get(key) != value}
    return ", ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in changed.items())


def _file_facts(file: FileDescriptorProto) -> Iterator[tuple[str, Facts]]:
    yield file.name, {"package": file.package, "syntax": file.syntax}
    for message in file.message_type:
        yield from _message_facts(file.package, message)
    for enum in file.enum_type:
        yield from _enum_facts(file.package, enum)
    for service in file.service:
        for method in service.method:
            yield (
                f"{file.package}.{service.name}.{method.name}",
                {
                    "takes": method.input_type,
                    "gives": method.output_type,
                    "takes a stream": method.client_streaming,
                    "gives a stream": method.server_streaming,
                    "idempotency": method.options.idempotency_level,
                },
            )


def _message_facts(parent: str, message: Any) -> Iterator[tuple[str, Facts]]:
    name = f"{parent}.{message.name}"
    yield name, {}
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        every: Mapping[str, Any] = {"oneof": oneof}
        yield f"{name}.{field.name}", {key: every[key] if key in every else getattr(field, key) for key in FIELD}
    for inner in message.nested_type:
        yield from _message_facts(name, inner)
    for enum in message.enum_type:
        yield from _enum_facts(name, enum)


def _enum_facts(parent: str, enum: Any) -> Iterator[tuple[str, Facts]]:
    yield f"{parent}.{enum.name}", {}
    for value in enum.value:
        yield f"{parent}.{enum.name}.{value.name}", {"number": value.number}


def freeze() -> None:
    """Promise the API as it is, unless that would break what was promised before."""
    if GOLDEN.exists() and (broken := breaking_changes(golden(), current())):
        raise ValueError("these changes break clients:\n" + "\n".join(broken))
    GOLDEN.write_bytes(current().SerializeToString(deterministic=True))


if __name__ == "__main__":
    if sys.argv[1:] != ["--freeze"]:
        sys.exit("usage: python -m tests.protos.compatibility --freeze")
    try:
        freeze()
    except ValueError as error:
        sys.exit(str(error))
