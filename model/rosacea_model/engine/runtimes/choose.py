"""Which runtime draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...engines import EngineName, Precision, check_engine
from .pytorch import torch_runtime

if TYPE_CHECKING:
    from ...model import Model
    from .runtime import Runtime


def choose_runtime(model: Model, name: EngineName = "auto", precision: Precision = "exact") -> Runtime:
    """The runtime of a name for a model; `auto` is torch, which was within some percent of the fastest at every size.

    ValueError for what does not go together, is not installed, or cannot draw on the device of the model.
    """
    check_engine(name, precision)
    if name in ("auto", "torch"):
        return torch_runtime(model)
    if model.device.type != "cpu":
        raise ValueError(f"the engine {name} draws on a CPU only, got {model.device}")
    from .graphs import onnxruntime_runtime, openvino_runtime

    return onnxruntime_runtime(model) if name == "onnxruntime" else openvino_runtime(model, bf16=precision == "bf16")
