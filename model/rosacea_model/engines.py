"""The engines that draw on a CPU, by name. Needs no torch, so that the gateway can check what it is asked for."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

from rosacea_contract.install import missing

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
Precision = Literal["exact", "bf16"]
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}  # what installs them


def check_engine(name: str, precision: str) -> None:
    """Raise ValueError for names that are none, do not go together, or need an extra that is not installed."""
    if name not in get_args(EngineName):
        raise ValueError(f"engine must be one of {', '.join(get_args(EngineName))}, got {name!r}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be exact or bf16, got {precision!r}")
    if precision == "bf16" and name != "openvino":
        raise ValueError(f"precision bf16 needs the engine openvino, got {name!r}")
    extra = EXTRAS.get(name)
    if extra is not None and (find_spec(name) is None or find_spec("onnx") is None):
        raise ValueError(missing(f"the engine {name}", name, extra))
