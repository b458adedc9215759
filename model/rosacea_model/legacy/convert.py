"""From a checkpoint's bytes to a model folder, with a report; what the file is, its content decides."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import weights
from ..tensors import is_buffer
from .rosinality import parse_rosinality
from .snapshot import NetworkRecord, Snapshot, generator_config, parse_snapshot
from .unpickler import reject

if TYPE_CHECKING:
    from pathlib import Path

    from ..config import GeneratorConfig

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def convert(data: bytes, folder: Path, name: str) -> dict[str, Any]:
    """Write the checkpoint's generator into `folder`; returns what `importer.ImportReport` is made of."""
    facts, config, tensors = _read(data)
    broken = sum(not bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    if broken:
        facts["notes"].append(f"{broken} tensors hold NaN or infinity: its images may fail")
    digest = hashlib.sha256(data).hexdigest()
    file = weights.save(folder, config, tensors, name=name, source=facts["kind"], source_sha256=digest)
    return {**facts, "config": asdict(config), "digest": file.digest, "source_sha256": digest}


def _read(data: bytes) -> tuple[dict[str, Any], GeneratorConfig, dict[str, Tensor]]:
    if data.startswith(ZIP):
        return _read_rosinality(data)
    if data.startswith(OLD_TORCH):
        reject("the file is in torch.save's form before 1.6: load and save it with a later version", "format")
    if data.startswith(PICKLE):
        return _read_snapshot(data)
    return reject("the file is neither a snapshot (.pkl) nor a torch.save zip (.pt)", "format")


def _read_snapshot(data: bytes) -> tuple[dict[str, Any], GeneratorConfig, dict[str, Tensor]]:
    snapshot = parse_snapshot(data)
    config = generator_config(snapshot.G_ema)
    facts = {
        "kind": "stylegan2-ada snapshot",
        "networks": _networks(snapshot),
        "augment_p": snapshot.augment_p,
        "notes": ["program text in the file was not run"],
    }
    return facts, config, snapshot.G_ema.tensors


def _networks(snapshot: Snapshot) -> list[dict[str, Any]]:
    named = {"G": snapshot.G, "D": snapshot.D, "G_ema": snapshot.G_ema}
    return [_summary(name, record) for name, record in named.items() if record]


def _summary(name: str, record: NetworkRecord) -> dict[str, Any]:
    numbers = sum(tensor.numel() for key, tensor in record.tensors.items() if key in record.parameters)
    return _facts_of(name, record.class_name, record.tensors, numbers)


def _facts_of(name: str, class_name: str, tensors: dict[str, Tensor], parameters: int) -> dict[str, Any]:
    return {"name": name, "class_name": class_name, "tensors": len(tensors), "parameters": parameters}


def _read_rosinality(data: bytes) -> tuple[dict[str, Any], GeneratorConfig, dict[str, Tensor]]:
    generator = parse_rosinality(data)
    numbers = sum(tensor.numel() for name, tensor in generator.tensors.items() if not is_buffer(name))
    facts = {
        "kind": "rosinality checkpoint",
        "networks": [_facts_of(generator.key, "Generator", generator.tensors, numbers)],
        "augment_p": None,
        "notes": list(generator.notes),
    }
    return facts, generator.config, generator.tensors
