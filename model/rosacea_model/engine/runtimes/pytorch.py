"""Torch as the runtime: folded networks on a CPU, the networks as they are on a GPU."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .folded import FoldedMapping, FoldedSynthesis
from .runtime import Runtime

if TYPE_CHECKING:
    from ...model import Model

CUDA_MICRO_BATCH = 8


def torch_runtime(model: Model) -> Runtime:
    """The fastest form that torch has on the device of the model."""
    if model.device.type == "cuda":
        return plain_runtime(model, CUDA_MICRO_BATCH)
    mapping, synthesis = model.generator.mapping, model.generator.synthesis
    return Runtime(FoldedMapping(mapping), FoldedSynthesis(synthesis), 1, f"{_version()} folded", _hardware(model))


def plain_runtime(model: Model, micro_batch: int) -> Runtime:
    """The networks as they are, for any device and micro-batch."""
    mapping, synthesis = model.generator.mapping, model.generator.synthesis
    return Runtime(mapping, synthesis, micro_batch, _version(), _hardware(model))


def _version() -> str:
    return f"torch {torch.__version__}"


def _hardware(model: Model) -> str:
    if model.device.type == "cuda":
        return f"{torch.cuda.get_device_name(model.device)} cudnn {torch.backends.cudnn.version()}"
    return f"{cpu_name()} {torch.backends.cpu.get_cpu_capability()} threads {torch.get_num_threads()}"


def cpu_name() -> str:
    """CPU model name, since libraries choose kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
