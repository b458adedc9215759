"""Prints the devices torch can use, as one line of JSON. A separate program, because only workers may load torch.

    python -P probe.py      ->      {"gpus": [{"name": "NVIDIA H200", "trouble": ""}], "trouble": ""}

Every GPU that torch lists computes something: a driver or a build that does not fit the GPU shows at the first kernel.
"""

from __future__ import annotations

import ctypes
import json
import os
import warnings
from typing import Any

DRIVER = "libcuda.so.1"


def main() -> None:
    print(json.dumps(look()))


def look() -> dict[str, Any]:
    """List the GPUs with what is wrong with each, or why there is none."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return nothing(f"there is no NVIDIA driver here ({DRIVER})")
    try:
        import torch
    except Exception as error:
        return nothing(f"torch cannot be imported: {first_line(error)}")
    return look_at(torch)


def look_at(torch: Any) -> dict[str, Any]:
    """List the GPUs of a loaded torch. Whatever it raises becomes the answer."""
    if not torch.version.cuda:
        return nothing(f"torch {torch.__version__} is built without CUDA")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        except Exception as error:
            return nothing(first_line(error))
    if not count:
        return nothing(first_line(caught[0].message) if caught else no_gpu(torch.__version__))
    return {"gpus": [examine(torch, index) for index in range(count)], "trouble": ""}


def no_gpu(version: str) -> str:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"torch {version} sees no GPU" + ("" if hidden is None else f" with CUDA_VISIBLE_DEVICES={hidden!r}")


def examine(torch: Any, index: int) -> dict[str, str]:
    """The GPU's name and, if multiplying two matrices fails, the error."""
    name = f"GPU {index}"
    try:
        name = str(torch.cuda.get_device_name(index))
        ones = torch.ones(8, 8, device=f"cuda:{index}")
        total = float((ones @ ones).sum())
    except Exception as error:
        return {"name": name, "trouble": first_line(error)}
    return {"name": name, "trouble": "" if total == 8**3 else f"it adds 512 ones up to {total:g}"}


def nothing(trouble: str) -> dict[str, Any]:
    return {"gpus": [], "trouble": trouble}


def first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


if __name__ == "__main__":
    main()
