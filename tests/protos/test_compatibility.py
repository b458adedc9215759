"""The public API keeps its promises: whoever was built against the frozen one can talk to this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rosacea.v1 import reasons_pb2
from rosacea_contract.reasons import Reason

from .compatibility import breaking_changes, current, facts, golden

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor_pb2 import FileDescriptorSet


def test_nothing_that_was_promised_has_changed() -> None:
    assert breaking_changes(golden(), current()) == []


def test_everything_there_is_was_promised() -> None:
    assert sorted(set(facts(current())) - set(facts(golden()))) == [], "run `make proto-freeze`"


def test_the_reasons_are_those_of_the_proto() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in reasons_pb2.ErrorReason.DESCRIPTOR.values_by_name}

    assert names - {"UNSPECIFIED"} == set(Reason)


def message(files: FileDescriptorSet, name: str) -> object:
    return next(each for each in files.file[0].message_type if each.name == name)


def remove_field(files: FileDescriptorSet) -> None:
    del message(files, "Face").field[0]  # type: ignore[attr-defined]


def renumber_field(files: FileDescriptorSet) -> None:
    message(files, "Face").field[0].number = 99  # type: ignore[attr-defined]


def retype_field(files: FileDescriptorSet) -> None:
    message(files, "Face").field[0].type = 9  # type: ignore[attr-defined]


def rename_field(files: FileDescriptorSet) -> None:
    message(files, "Face").field[0].name = "place"  # type: ignore[attr-defined]


def make_field_repeated(files: FileDescriptorSet) -> None:
    message(files, "Face").field[0].label = 3  # type: ignore[attr-defined]


def move_field_out_of_its_oneof(files: FileDescriptorSet) -> None:
    message(files, "FaceSpec").field[1].ClearField("oneof_index")  # type: ignore[attr-defined]


def remove_method(files: FileDescriptorSet) -> None:
    del files.file[0].service[0].method[0]


def make_answer_a_stream(files: FileDescriptorSet) -> None:
    files.file[0].service[0].method[0].server_streaming = True


def renumber_enum_value(files: FileDescriptorSet) -> None:
    files.file[0].enum_type[0].value[1].number = 99


def remove_message(files: FileDescriptorSet) -> None:
    del files.file[0].message_type[0]


def rename_package(files: FileDescriptorSet) -> None:
    files.file[0].package = "rosacea.v2"


def remove_file(files: FileDescriptorSet) -> None:
    del files.file[1]


BREAKS = [
    remove_field, renumber_field, retype_field, rename_field, make_field_repeated, move_field_out_of_its_oneof,
    remove_method, make_answer_a_stream, renumber_enum_value, remove_message, rename_package, remove_file,
]  # fmt: skip


@pytest.mark.parametrize("change", BREAKS, ids=[change.__name__ for change in BREAKS])
def test_a_change_that_breaks_clients_is_noticed(change: Callable[[FileDescriptorSet], None]) -> None:
    new = current()
    change(new)

    assert breaking_changes(current(), new)


def test_an_addition_breaks_nobody() -> None:
    new = current()
    new.file[0].message_type.add(name="Fresh").field.add(name="number", number=1)
    new.file[0].service[0].method.add(name="Fresh", input_type=".rosacea.v1.Fresh")
    new.file[0].enum_type[0].value.add(name="FRESH", number=9)

    assert breaking_changes(current(), new) == []
