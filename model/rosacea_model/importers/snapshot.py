"""Reads snapshots of StyleGAN2-ADA and of StyleGAN3's stylegan2 configs from pickle records."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from ..config import Architecture, GeneratorConfig
from ..errors import CheckpointRejected
from ..files.tensors import mismatch
from .unpickler import (
    FAILURES,
    FLOATS,
    MAX_FILE_BYTES,
    SNAPSHOT_READERS,
    Record,
    StoredTensor,
    converted,
    interpret,
    reject,
    shown,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np

MAX_MODULES = 4096
NAME = re.compile(r"\w{1,64}", re.ASCII)
STYLEGAN3_LAYER = re.compile(r"synthesis\.(input|L\d+_)")

SIZES = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
SYNTHESIS_SIZES = ("channel_base", "channel_max", "num_fp16_res", "conv_clamp", "architecture")
# Arguments of forks that say what trains, or how fast, and change no number of what is drawn: any plain value.
TRAINING_ONLY = frozenset({"freeze_layers", "freeze_embed", "freeze_affine", "freeze_ws", "w_avg_beta", "ema_beta"})
# Arguments that this implementation leaves no choice about, or that change no number, and what they may be.
FIXED_SYNTHESIS: Mapping[str, tuple[object, ...]] = {
    "resample_filter": ([1, 3, 3, 1],),
    "activation": ("lrelu",),
    "use_noise": (True,),
    "block_kwargs": ({},),
    "layer_kwargs": ({},),
    "fused_modconv_default": (True, False, "inference_only"),
    "fp16_channels_last": (True, False),
    "channels_last": (True, False),
}
FIXED_MAPPING: Mapping[str, tuple[object, ...]] = {
    "embed_features": (None,),
    "layer_features": (None,),
    "activation": ("lrelu",),
    "lr_multiplier": (0.01,),
}


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """A network of a snapshot: its constructor arguments, and its tensors under the reference's names."""

    class_name: str
    init_kwargs: dict[str, Any]
    tensors: dict[str, Tensor]  # parameters and buffers
    parameters: frozenset[str]  # which of them are parameters; frozen layers are not
    modules: dict[str, dict[str, object]]  # each submodule's plain attributes, and its `class_name`


@dataclass(frozen=True, kw_only=True)
class ReferenceSnapshot:
    """Networks saved by a training run. Files made only for inference may lack `G` and `D`."""

    G: NetworkRecord | None
    D: NetworkRecord | None
    G_ema: NetworkRecord
    augment_p: float | None  # None: trained without augmentation
    training_set_kwargs: dict[str, object]
    notes: tuple[str, ...] = ()  # what was done to the numbers


def read_snapshot(path: Path) -> ReferenceSnapshot:
    """Read a snapshot in this process without running any code in it. CheckpointRejected says why it is refused.

    For files of unknown origin prefer `importer.import_checkpoint`, which also bounds memory and time.
    """
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            reject(f"{path}: a snapshot may have at most {MAX_FILE_BYTES} bytes, got {size}", "file size")
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointRejected(f"{path}: cannot be read: {error.strerror}") from error
    return parse_snapshot(data)


def parse_snapshot(data: bytes) -> ReferenceSnapshot:
    """Parse a snapshot from bytes."""
    try:
        return _snapshot(interpret(io.BytesIO(data), SNAPSHOT_READERS), budget=2 * len(data))
    except FAILURES as error:
        raise unreadable("snapshot", error) from error


def generator_config(record: NetworkRecord) -> GeneratorConfig:
    """Derive the generator's config from its constructor arguments, and check every tensor against it."""
    _refuse_other_generators(record)
    config = _config(record)
    tensors = record.tensors.items()
    if differences := mismatch(config, {name: tuple(tensor.shape) for name, tensor in tensors}):
        reject(f"the generator's tensors do not fit its arguments: {differences}", "tensors")
    if others := [name for name, tensor in tensors if tensor.dtype != torch.float32]:
        reject(f"the generator's tensors must be float32, {len(others)} are not ({others[0]})", "tensors")
    return config


def passed_by(record: NetworkRecord) -> list[str]:
    """Note the ignored arguments, which matter only for training."""
    given = {
        **record.init_kwargs,
        **_nested(dict(record.init_kwargs), "mapping_kwargs"),
        **_nested(dict(record.init_kwargs), "synthesis_kwargs"),
    }
    found = [f"{name}={shown(given[name])}" for name in sorted(TRAINING_ONLY & set(given))]
    return [f"arguments that change nothing that is drawn: {', '.join(found)}"] if found else []


def _snapshot(content: object, budget: int) -> ReferenceSnapshot:
    if not isinstance(content, dict):
        reject(f"a snapshot must be a dict of networks, got {type(content).__name__}", "snapshot")
    if not isinstance(content.get("G_ema"), Record):
        reject(f"a snapshot must hold a network under G_ema, got the keys {shown(list(content))}", "snapshot")
    reader = _TensorReader(budget)
    records = {key: content.get(key) for key in ("G", "D", "G_ema")}
    networks = {key: _network(value, reader) for key, value in records.items() if isinstance(value, Record)}
    return ReferenceSnapshot(
        G=networks.get("G"),
        D=networks.get("D"),
        G_ema=networks["G_ema"],
        augment_p=_augment_p(content.get("augment_pipe"), reader),
        training_set_kwargs=_plain(content.get("training_set_kwargs")),
        notes=tuple(converted(reader.tensors)),
    )


class _TensorReader:
    """Copies tensors from a file up to a total size, which only a file that repeats its bytes can exceed."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.tensors: list[StoredTensor] = []

    def read(self, tensor: StoredTensor) -> Tensor:
        self.budget -= tensor.nbytes
        if self.budget < 0:
            reject("the tensors are larger together than the file that holds them", "tensor bytes")
        self.tensors.append(tensor)
        array: np.ndarray[Any, np.dtype[Any]] = tensor.floats() if tensor.kind in FLOATS else tensor.array()
        return torch.from_numpy(array)


def _network(record: Record, reader: _TensorReader) -> NetworkRecord:
    tensors: dict[str, Tensor] = {}
    parameters: set[str] = set()
    modules: dict[str, dict[str, object]] = {}
    for prefix, module in _walk(record, ""):
        if len(modules) >= MAX_MODULES:
            reject(f"a network may have at most {MAX_MODULES} modules", "module count")
        modules[prefix] = {**_plain(module.state), "class_name": module.class_name}
        for group in ("_parameters", "_buffers"):
            named = {_join(prefix, name): value for name, value in _entries(module, group)}
            tensors.update({name: reader.read(_tensor(name, value)) for name, value in named.items()})
            parameters.update(named if group == "_parameters" else ())
    return NetworkRecord(
        class_name=record.class_name,
        init_kwargs=_init_kwargs(record),
        tensors=tensors,
        parameters=frozenset(parameters),
        modules=modules,
    )


def _walk(record: Record, prefix: str) -> Iterator[tuple[str, Record]]:
    """Yield a module and its descendants with dotted names."""
    if prefix.count(".") > 8:
        reject("modules may be nested at most 10 deep", "nesting depth")
    yield prefix, record
    for name, child in _entries(record, "_modules"):
        if not isinstance(child, Record):
            reject(f"module {_join(prefix, name)} must be a persisted module, got {type(child).__name__}")
        yield from _walk(child, _join(prefix, name))


def _entries(record: Record, group: str) -> Iterator[tuple[str, object]]:
    """Yield the entries of a module's dict of parameters, buffers or submodules, without those that are None (such as
    an absent bias)."""
    entries = record.state.get(group, {})
    if not isinstance(entries, dict):
        reject(f"{shown(record.class_name)}.{group} must be a dict, got {type(entries).__name__}")
    for name, value in entries.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            reject(f"{shown(record.class_name)}.{group} must have plain names, got {shown(name)}")
        if value is not None:
            yield name, value


def _tensor(name: str, value: object) -> StoredTensor:
    if not isinstance(value, StoredTensor):
        reject(f"{name} must be a tensor, got {type(value).__name__}")
    return value


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _plain(entries: object) -> dict[str, object]:
    """Attributes of a pickled module that are single values (number, text, bool) under a text key."""
    if not isinstance(entries, dict):
        return {}
    return {
        key: value
        for key, value in entries.items()
        if isinstance(key, str) and isinstance(value, str | int | float | None)
    }


def _init_kwargs(record: Record) -> dict[str, Any]:
    kwargs = record.state.get("_init_kwargs", {})
    if not isinstance(kwargs, dict) or record.state.get("_init_args", ()) != ():
        reject(f"{shown(record.class_name)} must be made from keyword arguments alone", "_init_args")
    return dict(kwargs)


def _augment_p(pipe: object, reader: _TensorReader) -> float | None:
    if not isinstance(pipe, Record):
        return None
    stored = dict(_entries(pipe, "_buffers")).get("p")
    if stored is None:
        return None
    tensor = _tensor("augment_pipe.p", stored)
    if tensor.size:
        reject(f"augment_pipe.p must be a single number, got {len(tensor.size)} dimensions")
    return float(reader.read(tensor))


def _refuse_other_generators(record: NetworkRecord) -> None:
    classes = {str(module["class_name"]) for module in record.modules.values()}
    if "SynthesisInput" in classes or any(STYLEGAN3_LAYER.match(name) for name in record.tensors):
        reject("StyleGAN3 generators cannot be imported, only StyleGAN2 ones", "SynthesisInput")
    if record.class_name != "Generator":
        reject(f"the network must be of class Generator, got {shown(record.class_name)}", record.class_name)


def _config(record: NetworkRecord) -> GeneratorConfig:
    kwargs = dict(record.init_kwargs)
    mapping = _nested(kwargs, "mapping_kwargs")
    synthesis = _nested(kwargs, "synthesis_kwargs")
    sizes = {name: _take(kwargs, name) for name in SIZES}
    if twice := sorted(set(kwargs) & set(synthesis)):
        reject(f"generator argument {shown(twice[0])} is given twice", twice[0])
    synthesis.update(kwargs)  # StyleGAN3-era files tell the synthesis arguments beside the sizes
    choices = {name: synthesis.pop(name) for name in SYNTHESIS_SIZES if name in synthesis}
    layers = mapping.pop("num_layers", None)
    _refuse_unknown(mapping, FIXED_MAPPING)
    _refuse_unknown(synthesis, FIXED_SYNTHESIS)
    entries = {**_observed(record, sizes["img_resolution"]), **choices}
    entries["mapping_layers"] = _count_mapping_layers(record) if layers is None else layers
    try:
        return GeneratorConfig.from_dict({**sizes, **entries, "conv_clamp": _as_float(entries["conv_clamp"])})
    except ValueError as error:
        raise CheckpointRejected(f"generator argument {shown(error)}", "generator arguments") from error


def _nested(kwargs: dict[str, Any], key: str) -> dict[str, Any]:
    entries = kwargs.pop(key, {})
    if not isinstance(entries, dict):
        reject(f"{key} must be a dict, got {type(entries).__name__}", key)
    return dict(entries)


def _take(kwargs: dict[str, Any], name: str) -> Any:
    return kwargs.pop(name) if name in kwargs else reject(f"generator argument {name} is missing", name)


def _refuse_unknown(kwargs: dict[str, Any], fixed: Mapping[str, tuple[object, ...]]) -> None:
    for name, value in kwargs.items():
        if name in TRAINING_ONLY and isinstance(value, bool | int | float | None):
            continue
        if name not in fixed:
            reject(f"generator argument {shown(name)} is unknown", name)
        if not any(value is allowed or value == allowed for allowed in fixed[name]):
            allowed = " or ".join(map(str, fixed[name]))
            reject(f"generator argument {name} must be {allowed}, got {shown(value)}", name)


def _observed(record: NetworkRecord, resolution: object) -> dict[str, Any]:
    """Values of arguments left at their defaults, which differ between the reference's versions: read from the modules'
    attributes.

    The modules tell what they were built with: the clamp, and which blocks run in float16.
    """
    last = record.modules.get(f"synthesis.b{shown(resolution)}.conv1", {})
    blocks = [module for module in record.modules.values() if module["class_name"] == "SynthesisBlock"]
    architecture = str(blocks[0].get("architecture")) if blocks else "skip"
    return {
        "channel_base": 32768,
        "channel_max": 512,
        "conv_clamp": last.get("conv_clamp"),
        "num_fp16_res": sum(module.get("use_fp16") is True for module in blocks),
        "architecture": architecture if architecture in get_args(Architecture) else "skip",
    }


def _count_mapping_layers(record: NetworkRecord) -> int:
    return sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in record.tensors)


def _as_float(value: object) -> object:
    return float(value) if type(value) is int else value
