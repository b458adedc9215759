"""Devices as users state them: cpu, cuda or cuda:N."""

from __future__ import annotations

import torch


def usable_device(name: str) -> torch.device:
    """The device of a name; ValueError if it is none, or if torch sees no such GPU here."""
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or not (number.isdecimal() or name == kind):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {name!r}")
    device = torch.device(name)
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name}: torch {torch.__version__} sees {torch.cuda.device_count() or 'no'} GPUs here; use cpu, "
            "or install a build of torch for CUDA and its driver"
        )
    return device
