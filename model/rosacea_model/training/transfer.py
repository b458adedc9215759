"""Initialises training from trained networks, reporting the origin of every tensor.

A source that does not fit to the last tensor is refused, with both sides named, unless a partial start is allowed.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from ..files import weights
from ..files.modelfile import MANIFEST_NAME, verify
from . import checkpoint
from .config import TrainConfig
from .errors import TransferMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from ..config import GeneratorConfig
    from .state import TrainState

Status = Literal["matched", "adapted", "fresh", "unused"]
STATUSES: tuple[Status, ...] = ("matched", "adapted", "fresh", "unused")
# What the two sides are compared in first, because a tensor's name alone would not tell what is the matter.
COMPARED = {
    "mapping_layers": "mapping depth",
    "label_width": "label width",
    "img_channels": "image channels",
    "resolution": "resolution",
    "z_dim": "z width",
    "w_dim": "w width",
    "channel_base": "channel base",
    "channel_max": "channel maximum",
}
SHOWN = 3
EMBEDDING, FIRST_LAYER = "mapping.embed.weight", "mapping.fc0.weight"


@dataclass(frozen=True, kw_only=True)
class StartingNetworks:
    """Networks to start from. A model folder has only the averaged generator."""

    path: Path
    config: GeneratorConfig
    G: Mapping[str, Tensor]
    G_ema: Mapping[str, Tensor]
    D: Mapping[str, Tensor] | None
    allow_partial: bool = False

    def apply(self, state: TrainState) -> TransferReport:
        """Copy matching tensors into a fresh state; TransferMismatch if that is incomplete and not allowed."""
        report = self.compare(state)
        if not report.complete and not self.allow_partial:
            raise TransferMismatch(report.refusal())
        for module, tensors in ((state.G, self.G), (state.G_ema, self.G_ema), (state.D, self.D or {})):
            _copy(module, tensors)
        return report

    def compare(self, state: TrainState) -> TransferReport:
        """Report how every tensor would match, without copying any."""
        entries = [*_entries("G", state.G, self.G), *_entries("D", state.D, self.D or {})]
        return TransferReport(
            source=self.path,
            differences=_differences(self.config, state.config),
            holds_d=self.D is not None,
            entries=tuple(entries),
        )


@dataclass(frozen=True, kw_only=True)
class TensorMatch:
    """How one tensor matched, with both shapes."""

    network: str
    name: str
    status: Status
    source_shape: tuple[int, ...] | None
    target_shape: tuple[int, ...] | None

    def __str__(self) -> str:
        shapes = " -> ".join(
            "-" if shape is None else "x".join(map(str, shape)) or "scalar"
            for shape in (self.source_shape, self.target_shape)
        )
        return f"{self.status:8} {self.network}.{self.name} {shapes}"


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """The match of every tensor of both sides."""

    source: Path
    differences: tuple[str, ...]
    holds_d: bool
    entries: tuple[TensorMatch, ...]

    @property
    def complete(self) -> bool:
        """Whether all tensors match on both sides."""
        return not self.differences and all(entry.status == "matched" for entry in self.entries)

    def counts(self) -> dict[Status, int]:
        found = Counter(entry.status for entry in self.entries)
        return {status: found[status] for status in STATUSES}

    def summary(self) -> str:
        return ", ".join(f"{count} {status}" for status, count in self.counts().items())

    def lines(self) -> list[str]:
        """The report, one line per tensor, with totals."""
        return [*map(str, self.entries), *self.differences, f"{self.source}: {self.summary()}"]

    def refusal(self) -> str:
        """Message that explains why the starting networks do not fit."""
        reasons = list(self.differences)
        if not self.holds_d:
            reasons.append("the source holds no discriminator, it would start fresh")
        for status in STATUSES[1:]:
            names = [f"{entry.network}.{entry.name}" for entry in self.entries if entry.status == status]
            if names:
                more = ", ..." if len(names) > SHOWN else ""
                reasons.append(f"{len(names)} {status} ({', '.join(names[:SHOWN])}{more})")
        return f"{self.source} does not fit in full: {'; '.join(reasons)}. Pass --allow-partial to start all the same"


def load_source(path: Path, *, allow_partial: bool = False) -> StartingNetworks:
    """Load networks from a model folder, a run, a checkpoint, or a foreign snapshot (.pkl, .pt)."""
    if not path.exists():
        raise ValueError(f"--init-from must name a model folder, a run or a snapshot, got {path}")
    if path.is_file() and not path.with_name(MANIFEST_NAME).exists():
        parts = _from_checkpoint(path)
    elif (path / checkpoint.MANIFEST_NAME).exists() or (path / "checkpoints").exists():
        parts = _from_run(path)
    elif path.is_file() or (path / MANIFEST_NAME).exists():
        parts = _from_model(path)
    else:
        raise ValueError(f"--init-from must name a model folder, a run or a snapshot, got {path}")
    return StartingNetworks(path=path, allow_partial=allow_partial, **parts)


def _from_model(path: Path) -> dict[str, Any]:
    file = verify(path)
    tensors = weights.read(file)
    return {"config": file.config, "G": tensors, "G_ema": tensors, "D": None}


def _from_run(path: Path) -> dict[str, Any]:
    found = (
        checkpoint.read(path)
        if (path / checkpoint.MANIFEST_NAME).exists()
        else checkpoint.read_newest(path / "checkpoints", lambda text: print(f"warning: {text}"))
    )
    if found is None:
        raise ValueError(f"{path}: there is no checkpoint in this run")
    networks = {network: _network(found.tensors, network) for network in ("G", "G_ema", "D")}
    try:
        config = TrainConfig.from_json(json.dumps(found.facts["config"])).generator()
    except ValueError as error:
        raise ValueError(f"--init-from {found.path}: {error}") from error
    return {"config": config, **networks}


def _from_checkpoint(path: Path) -> dict[str, Any]:
    """Load a foreign checkpoint with the reader of `rosacea model import`."""
    from ..importers.formats import NETWORKS_NAME
    from ..importers.importer import import_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        report = import_checkpoint(path, Path(folder) / "model", "source", networks=True)
        tensors = safetensors.torch.load_file(Path(folder) / "model" / NETWORKS_NAME)
    print(*(f"{path}: {note}" for note in report.notes), sep="\n")
    networks = {network: _network(tensors, network) or None for network in ("G", "G_ema", "D")}
    return {"config": report.config, **networks}


def _network(tensors: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """Select one network's tensors from names like `G_ema:mapping.w_avg`."""
    parted = ((*name.partition(":"), tensor) for name, tensor in tensors.items())
    return {name: tensor for owner, _, name, tensor in parted if owner == network}


def _differences(source: GeneratorConfig, config: TrainConfig) -> tuple[str, ...]:
    renamed = {"label_width": source.c_dim, "resolution": source.img_resolution}
    problems = []
    for name, words in COMPARED.items():
        theirs, ours = renamed.get(name, getattr(source, name, None)), getattr(config, name)
        if theirs != ours:
            problems.append(f"{words}: the source has {theirs}, this run {ours}")
    return tuple(problems)


def _entries(network: str, module: nn.Module, source: Mapping[str, Tensor]) -> list[TensorMatch]:
    target = module.state_dict()
    entries = []
    for name in [*target, *(name for name in source if name not in target)]:
        theirs = tuple(source[name].shape) if name in source else None
        ours = tuple(target[name].shape) if name in target else None
        entries.append(
            TensorMatch(
                network=network, name=name, status=_status(theirs, ours), source_shape=theirs, target_shape=ours
            )
        )
    return entries


def _status(theirs: tuple[int, ...] | None, ours: tuple[int, ...] | None) -> Status:
    if theirs is None or ours is None:
        return "fresh" if theirs is None else "unused"
    if theirs == ours:
        return "matched"
    return "adapted" if len(theirs) == len(ours) else "fresh"


@torch.no_grad()
def _copy(module: nn.Module, source: Mapping[str, Tensor]) -> None:
    targets = module.state_dict()
    learns_labels = EMBEDDING in targets and EMBEDDING not in source
    for name, target in targets.items():
        if name not in source or source[name].ndim != target.ndim:
            continue
        if name == FIRST_LAYER and learns_labels:
            add_labels(source[name], target)
        else:
            adapt(name, source[name], target)


def add_labels(source: Tensor, target: Tensor) -> None:  # [out, z_dim] to [out, z_dim + embedding]
    """Initialise the first layer of a conditional mapping network from an unconditional one, so that labels have no
    effect at first.

    Labels then gain their influence in training, from nothing. A generator that is given them at once on little data
    may draw one picture for each (Shahbazi et al. 2022, "Collapse by Conditioning").
    """
    target.zero_()
    # Weights are divided by the root of the width when they are used (equalised learning rate).
    known = min(source.shape[1], target.shape[1])
    rows = min(len(source), len(target))
    target[:rows, :known] = source[:rows, :known] * math.sqrt(target.shape[1] / source.shape[1])


def adapt(name: str, source: Tensor, target: Tensor) -> None:
    """Initialise a tensor from one of another shape: colour channels by their mean, others where they overlap."""
    if source.shape != target.shape and "rgb." in name and "affine" not in name:
        axis = 1 if "fromrgb.weight" in name else 0
        if "fromrgb.bias" not in name and source.shape[axis] != target.shape[axis]:
            # The sum over what comes in stays the same; each channel that goes out is like the others.
            scale = source.shape[axis] / target.shape[axis] if axis == 1 else 1.0
            source = source.mean(dim=axis, keepdim=True) * scale
            source = source.expand(*(target.shape[i] if i == axis else size for i, size in enumerate(source.shape)))
    overlap = tuple(slice(0, min(pair)) for pair in zip(source.shape, target.shape, strict=True))
    target[overlap] = source[overlap].to(target.device, target.dtype)
