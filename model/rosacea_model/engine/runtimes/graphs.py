"""onnxruntime and OpenVINO as runtimes of the synthesis network on a CPU. The mapping network stays with torch."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...files.onnx_graph import noise_inputs, synthesis_graph
from .folded import FoldedMapping
from .hardware import hardware
from .runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ...model import Model

    Inputs = dict[str, NDArray[np.float32]]


def onnxruntime_runtime(model: Model) -> Runtime:
    """Synthesis by onnxruntime in float32."""
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()  # type: ignore[attr-defined]
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait take the cores from who else has work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    data = synthesis_graph(model.generator.synthesis, model.config)
    session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])  # type: ignore[attr-defined]
    return _runtime(model, lambda inputs: session.run(None, inputs)[0], f"onnxruntime {version('onnxruntime')} f32")


def openvino_runtime(model: Model, *, bf16: bool = False) -> Runtime:
    """Synthesis by OpenVINO in float32, or in bfloat16, which not every CPU has: ValueError where this one has not."""
    import openvino

    core = openvino.Core()  # type: ignore[attr-defined]
    if bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError("precision must be exact: this CPU does not compute in bfloat16")
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    data = synthesis_graph(model.generator.synthesis, model.config)
    request: Any = core.compile_model(core.read_model(data), "CPU", settings).create_infer_request()
    kind = "bf16" if bf16 else "f32"
    return _runtime(model, lambda inputs: request.infer(inputs)[0], f"openvino {version('openvino')} {kind}")


def _runtime(model: Model, infer: Callable[[Inputs], NDArray[np.float32]], description: str) -> Runtime:
    names = ["ws", *(name for name, _ in noise_inputs(model.config))]

    def synthesize(ws: Tensor, noises: Sequence[Tensor]) -> Tensor:
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in (ws, *noises)]
        return torch.from_numpy(np.array(infer(dict(zip(names, arrays, strict=True)))))

    mapping = FoldedMapping(model.generator.mapping)
    versions = f"torch {torch.__version__} {description}"
    return Runtime(mapping, synthesize, 1, versions, hardware(model.device), copies_weights=True)
