"""Torch as the runtime: folded networks on a CPU, arranged ones on a GPU, or the networks as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .cuda import cuda_runtime
from .folded import FoldedMapping, FoldedSynthesis
from .hardware import hardware
from .runtime import Runtime

if TYPE_CHECKING:
    from ...model import Model


def torch_runtime(model: Model) -> Runtime:
    """The fastest form that torch has on the device of the model."""
    if model.device.type == "cuda":
        return cuda_runtime(model)
    mapping, synthesis = FoldedMapping(model.generator.mapping), FoldedSynthesis(model.generator.synthesis)
    where = hardware(model.device)
    return Runtime(mapping, synthesis, 1, f"{_version()} folded", where, copies_weights=True)


def plain_runtime(model: Model, micro_batch: int) -> Runtime:
    """The networks as they are, for any device and micro-batch."""
    mapping, synthesis = model.generator.mapping, model.generator.synthesis
    return Runtime(mapping, synthesis, micro_batch, _version(), hardware(model.device))


def _version() -> str:
    return f"torch {torch.__version__}"
