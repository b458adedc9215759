"""Checks that a safetensors file can be loaded: its tensors fit the config, and all values are finite.

Judged by the rules of the safetensors library and of the network, and without either. Needs no torch.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelRejected
from .tensors import mismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader
    from pathlib import Path

    from numpy.typing import NDArray

    from ..config import GeneratorConfig

METADATA = "__metadata__"
# Bytes of one number, and how numpy reads it. bfloat16 is the upper half of a float32.
DTYPES = {"F64": (8, "<f8"), "F32": (4, "<f4"), "F16": (2, "<f2"), "BF16": (2, "<u2")}
ENTRY = {"dtype", "shape", "data_offsets"}
CHUNK_BYTES = 2**22


def parse_json(data: bytes) -> Any:
    """Parse JSON by safetensors' rules: UTF-8, unique names, no NaN; otherwise ValueError or RecursionError."""
    return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)


def check_layout(header: Mapping[str, Any], config: GeneratorConfig, data_bytes: int, path: Path) -> None:
    """Raise ModelRejected unless the entries fill exactly `data_bytes` with exactly the tensors of the config."""
    entries = {name: entry for name, entry in header.items() if name != METADATA}
    for name, entry in entries.items():
        if problem := _entry_problem(entry):
            raise ModelRejected(f"{path}: tensor {name[:80]!r} {problem}")
    if problem := mismatch(config, {name: tuple(entry["shape"]) for name, entry in entries.items()}):
        raise ModelRejected(f"{path}: the tensors do not fit the config: {problem}")
    end = 0
    for start, stop in sorted(tuple(entry["data_offsets"]) for entry in entries.values()):
        if start != end:
            raise ModelRejected(f"{path}: tensors must lie one after the other, got a start at {start} after {end}")
        end = stop
    if end != data_bytes:
        raise ModelRejected(f"{path}: its tensors must have {end} bytes, got {data_bytes}")


def check_metadata(metadata: object, path: Path) -> None:
    """Raise ModelRejected unless the metadata is an object of strings that can be written as UTF-8."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelRejected(f"{path}: safetensors metadata must be a JSON object of strings")
    try:
        "".join([*metadata, *metadata.values()]).encode()
    except UnicodeEncodeError as error:
        raise ModelRejected(f"{path}: safetensors metadata must be UTF-8: {error.reason}") from error


def check_finite(file: BufferedReader, header: Mapping[str, Any], path: Path) -> None:
    """Raise ModelRejected if a tensor contains NaN or infinity. `file` is positioned after its checked header."""
    entries = [(name, entry) for name, entry in header.items() if name != METADATA]
    for name, entry in sorted(entries, key=lambda each: each[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if not all(_finite(part, entry["dtype"]) for part in _parts(file, stop - start)):
            raise ModelRejected(f"{path}: tensor {name!r} must be finite, got NaN or infinity")


def _entry_problem(entry: object) -> str | None:
    if not isinstance(entry, dict) or set(entry) != ENTRY:
        return f"must have {', '.join(sorted(ENTRY))} and nothing else"
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        return f"must be one of {', '.join(DTYPES)}, got {str(entry['dtype'])[:40]!r}"
    if not _are_counts(entry["shape"]):
        return "must have a shape of whole numbers"
    offsets = entry["data_offsets"]
    if not _are_counts(offsets) or len(offsets) != 2:
        return "must have two offsets"
    size = math.prod(entry["shape"]) * DTYPES[entry["dtype"]][0]
    return None if offsets[1] - offsets[0] == size else f"must have {size} bytes, got {offsets[1] - offsets[0]}"


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _parts(file: BufferedReader, length: int) -> Iterator[bytes]:
    for start in range(0, length, CHUNK_BYTES):
        yield file.read(min(CHUNK_BYTES, length - start))


def _finite(data: bytes, dtype: str) -> bool:
    numbers: NDArray[Any] = np.frombuffer(data, DTYPES[dtype][1])
    if dtype == "BF16":
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return bool(np.isfinite(numbers).all())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name must stand once, got one twice")
    return entries


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
