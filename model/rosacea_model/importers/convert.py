"""Converts a checkpoint to a model folder and a report; its content, not its suffix, decides its format."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from ..files import weights
from ..files.tensors import is_buffer
from .formats import NETWORKS_NAME, OLD_TORCH, PICKLE, ZIP
from .mean_latent import NOTE as MEAN_NOTE
from .rosinality import load_zip, read_rosinality
from .snapshot import NetworkRecord, ReferenceSnapshot, generator_config, parse_snapshot, passed_by
from .statedict import find_state, read_state
from .unlike import described
from .unpickler import FAILURES, reject, unreadable

if TYPE_CHECKING:
    from pathlib import Path

    from ..config import GeneratorConfig

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """Contents of a checkpoint: the averaged generator, and the networks training would resume from."""

    kind: str
    config: GeneratorConfig
    G_ema: Tensors
    networks: list[dict[str, Any]]
    notes: list[str]
    G: Tensors | None = None
    D: Tensors | None = None
    augment_p: float | None = None
    card: dict[str, str] = field(default_factory=dict)  # what the model's manifest says beside its source


def convert(data: bytes, folder: Path, name: str, *, with_networks: bool = False) -> dict[str, Any]:
    """Write the checkpoint's generator to `folder`; returns the data of `importer.ImportReport`.

    `with_networks` writes all three networks beside it, for a run to start from.
    """
    found = read(data)
    notes = list(found.notes)
    if broken := sum(not bool(torch.isfinite(tensor).all()) for tensor in found.G_ema.values()):
        notes.append(f"{broken} tensors hold NaN or infinity: its images may fail")
    digest = hashlib.sha256(data).hexdigest()
    facts = {"source": found.kind, "source_sha256": digest, **found.card}
    file = weights.save(folder, found.config, found.G_ema, name=name, **facts)
    if with_networks:
        safetensors.torch.save_file(_all_networks(found), folder / NETWORKS_NAME)
    return {
        "kind": found.kind,
        "networks": found.networks,
        "augment_p": found.augment_p,
        "notes": notes,
        "config": asdict(found.config),
        "digest": file.digest,
        "source_sha256": digest,
    }


def read(data: bytes) -> ForeignCheckpoint:
    """Read the networks of a checkpoint in any supported format."""
    if data.startswith(ZIP):
        return _read_zip(data)
    if data.startswith(OLD_TORCH):
        reject("the file is in torch.save's form before 1.6: load and save it with a later version", "format")
    if data.startswith(PICKLE):
        return _read_snapshot(data)
    if what := described(data):
        reject(f"the file is {what}", "format")
    return reject("the file is neither a snapshot (.pkl) nor a torch.save zip (.pt)", "format")


def _all_networks(found: ForeignCheckpoint) -> Tensors:
    parts = {"G": found.G or found.G_ema, "G_ema": found.G_ema, "D": found.D or {}}
    # Copies: safetensors refuses tensors that share memory.
    return {f"{part}:{name}": tensor.clone() for part, tensors in parts.items() for name, tensor in tensors.items()}


def _read_snapshot(data: bytes) -> ForeignCheckpoint:
    snapshot = parse_snapshot(data)
    notes = ["program text in the file was not run", *passed_by(snapshot.G_ema), *snapshot.notes]
    return ForeignCheckpoint(
        kind="stylegan2-ada snapshot",
        config=generator_config(snapshot.G_ema),
        G_ema=snapshot.G_ema.tensors,
        G=snapshot.G.tensors if snapshot.G else None,
        D=snapshot.D.tensors if snapshot.D else None,
        networks=_networks(snapshot),
        augment_p=snapshot.augment_p,
        notes=notes,
    )


def _networks(snapshot: ReferenceSnapshot) -> list[dict[str, Any]]:
    named = {"G": snapshot.G, "D": snapshot.D, "G_ema": snapshot.G_ema}
    return [_summary(name, record) for name, record in named.items() if record]


def _summary(name: str, record: NetworkRecord) -> dict[str, Any]:
    numbers = sum(tensor.numel() for key, tensor in record.tensors.items() if key in record.parameters)
    return _facts_of(name, record.class_name, record.tensors, numbers)


def _facts_of(name: str, class_name: str, tensors: Tensors, parameters: int | None = None) -> dict[str, Any]:
    if parameters is None:
        parameters = sum(tensor.numel() for key, tensor in tensors.items() if not is_buffer(key))
    return {"name": name, "class_name": class_name, "tensors": len(tensors), "parameters": parameters}


def _read_zip(data: bytes) -> ForeignCheckpoint:
    """Read a torch.save zip: a state dict under the reference's names, or a rosinality checkpoint."""
    try:
        content = load_zip(data)
        if place := find_state(content):
            plain = read_state(*place, content, budget=2 * len(data))
            return _found(
                "state dict", plain.key, plain.config, plain.tensors, plain.notes, plain.mean_is_ours, D=plain.d
            )
        theirs = read_rosinality(content, budget=2 * len(data))
        return _found(
            "rosinality checkpoint",
            theirs.key,
            theirs.config,
            theirs.tensors,
            theirs.notes,
            theirs.mean_is_ours,
            G=theirs.g,
            D=theirs.d,
        )
    except (*FAILURES, zipfile.BadZipFile) as error:
        raise unreadable(".pt file", error) from error


def _found(
    kind: str,
    key: str,
    config: GeneratorConfig,
    tensors: Tensors,
    notes: tuple[str, ...],
    mean_is_ours: bool,
    *,
    G: Tensors | None = None,  # noqa: N803 (the field's names)
    D: Tensors | None = None,  # noqa: N803
) -> ForeignCheckpoint:
    networks = [_facts_of(key, "Generator", tensors), *([_facts_of("d", "Discriminator", D)] if D else [])]
    return ForeignCheckpoint(
        kind=kind,
        config=config,
        G_ema=tensors,
        G=G,
        D=D,
        networks=networks,
        notes=list(notes),
        card={"note": MEAN_NOTE} if mean_is_ours else {},
    )
