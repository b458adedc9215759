"""What of the hardware changes bytes, since libraries choose kernels by it, and how they are kept from more."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """A device, as the fingerprint states it."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} cudnn {torch.backends.cudnn.version()}"
    return f"{cpu_name()} {torch.backends.cpu.get_cpu_capability()} threads {torch.get_num_threads()}"


def cpu_name() -> str:
    """CPU model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def compute_repeatably() -> None:
    """Have CUDA's libraries choose the same kernels each time, and round float32 as float32."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # TF32 keeps 10 bits of the mantissa: float32 blocks would leave the golden numbers by far.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
