"""A pickle writer that writes what it is told, and snapshots in the reference's layout made with it."""

from __future__ import annotations

import io
import pickle
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rosacea_model.files.tensors import expected_tensors, is_buffer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rosacea_model.config import GeneratorConfig

PERSIST = ("torch_utils.persistence", "_reconstruct_persistent_obj")
TENSOR = ("torch._utils", "_rebuild_tensor_v2")
PARAMETER = ("torch._utils", "_rebuild_parameter")
STORAGE = ("torch.storage", "_load_from_bytes")


@dataclass(frozen=True)
class Call:
    """Any global, called with any arguments."""

    function: tuple[str, str]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Code:
    """Opcodes as they are, to stand where a value would."""

    opcodes: bytes


def written(value: object) -> bytes:
    return b"\x80\x04" + encoded(value) + b"."


def encoded(value: Any) -> bytes:
    if isinstance(value, Code):
        return value.opcodes
    if isinstance(value, Call):
        return named(*value.function) + encoded(value.arguments) + b"R"
    if isinstance(value, dict):
        items = b"".join(encoded(key) + encoded(item) for key, item in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(encoded, value)) + b"t"
    return pickle.dumps(value, 4)[2:-1] if not isinstance(value, str | bytes | list) else framed(value)


def framed(value: str | bytes | list[Any]) -> bytes:
    """Text, bytes and lists without the frames and memo entries that the pickler adds."""
    if isinstance(value, list):
        return b"](" + b"".join(map(encoded, value)) + b"e"
    data = value.encode() if isinstance(value, str) else value
    return (b"X" if isinstance(value, str) else b"B") + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    return encoded(module) + encoded(name) + b"\x93"


def storage(numbers: torch.Tensor) -> Call:
    """What torch itself writes for a storage inside a pickle."""
    buffer = io.BytesIO()
    typed = torch.storage.TypedStorage(wrap_storage=numbers.untyped_storage(), dtype=numbers.dtype, _internal=True)
    torch.save(typed, buffer, _use_new_zipfile_serialization=False)
    return Call(STORAGE, (buffer.getvalue(),))


def tensor(numbers: torch.Tensor, **geometry: Any) -> Call:
    shape = {"offset": 0, "size": tuple(numbers.shape), "stride": tuple(numbers.stride()), **geometry}
    return Call(TENSOR, (storage(numbers), *shape.values(), False, Call(("collections", "OrderedDict"), ())))


def module(class_name: str, **state: Any) -> Call:
    parts = {"_parameters": {}, "_buffers": {}, "_modules": {}, **state}
    meta = {"type": "class", "version": 6, "module_src": "", "class_name": class_name, "state": parts}
    return Call(PERSIST, (meta,))


def generator(config: GeneratorConfig, tensors: Mapping[str, torch.Tensor] | None = None) -> Call:
    """A generator in the reference's layout; with random weights unless some are given."""
    if tensors is None:
        draw = torch.Generator().manual_seed(0)
        tensors = {name: torch.randn(shape, generator=draw) for name, shape in expected_tensors(config).items()}
    keys = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    kwargs = {
        **{key: getattr(config, key) for key in keys},
        "mapping_kwargs": {"num_layers": config.mapping_layers},
        "synthesis_kwargs": {
            "channel_base": config.channel_base,
            "channel_max": config.channel_max,
            "num_fp16_res": config.num_fp16_res,
            "conv_clamp": config.conv_clamp,
        },
    }
    return tree("Generator", tensors, _init_args=(), _init_kwargs=kwargs)


def tree(class_name: str, tensors: Mapping[str, torch.Tensor], **state: Any) -> Call:
    children: dict[str, dict[str, torch.Tensor]] = {}
    groups: dict[str, dict[str, Call]] = {"_parameters": {}, "_buffers": {}}
    for name, value in tensors.items():
        head, _, rest = name.partition(".")
        if rest:
            children.setdefault(head, {})[rest] = value
        elif is_buffer(name):
            groups["_buffers"][name] = tensor(value)
        else:
            hooks = Call(("collections", "OrderedDict"), ())
            groups["_parameters"][name] = Call(PARAMETER, (tensor(value), True, hooks))
    below = {name: tree("Part", part) for name, part in children.items()}
    return module(class_name, **groups, _modules=below, **state)


def holding(value: Any) -> bytes:
    """A snapshot-like file with `value` in it, where a reader has to look."""
    return written({"G_ema": module("Generator", _parameters={"weight": value}), "training_set_kwargs": {}})
