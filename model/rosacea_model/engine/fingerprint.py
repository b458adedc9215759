"""The fingerprint: what determines the exact bytes of an image, besides the request."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..model import Model


def cpu_name() -> str:
    """CPU model name, since libraries choose kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def fingerprint(model: Model, micro_batch: int) -> str:
    """SHA-256 of everything besides the request that determines the exact bytes."""
    if model.device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(model.device)} cudnn {torch.backends.cudnn.version()}"
    else:
        hardware = f"{cpu_name()} {torch.backends.cpu.get_cpu_capability()} threads {torch.get_num_threads()}"
    parts = [model.file.digest, version("rosacea"), version("torch"), hardware, f"micro-batch {micro_batch}"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
