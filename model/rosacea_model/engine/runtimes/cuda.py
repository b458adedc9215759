"""The networks in the form for a GPU, and what can be put on top of it: a compiler and a CUDA graph."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from .arranged import ArrangedSynthesis
from .folded import FoldedMapping
from .hardware import compute_repeatably, hardware
from .recorded import record_on_cuda, recorded
from .runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...model import Model
    from .arranged import Compiler
    from .recorded import Record

log = logging.getLogger("rosacea.engine")

MICRO_BATCH = 8
MOST_SHAPES = 128  # for which one function is compiled; torch's own limit is fewer than a network has layers


def cuda_runtime(
    model: Model,
    micro_batch: int = MICRO_BATCH,
    *,
    half: torch.dtype = torch.float16,
    compiles: bool = False,
    records: bool = False,
    record: Record = record_on_cuda,
) -> Runtime:
    """The arranged networks, for any device and micro-batch.

    With `compiles` what follows each convolution is compiled at load, if Triton is installed. With `records` a
    micro-batch is one CUDA graph. What cannot be done is left out, with a warning in the log. `half` is the type of the
    blocks that the configuration has in float16.
    """
    compute_repeatably()  # before anything is recorded: a recording keeps its kernels
    words = [f"torch {torch.__version__} arranged", str(half).removeprefix("torch.")]
    network = model.generator.synthesis
    with torch.inference_mode():
        synthesis: Any = compiled(network, half, *example(model, micro_batch)) if compiles else None
        words += ["compiled"] * (synthesis is not None)
        synthesis = synthesis or ArrangedSynthesis(network, half)
        recording = recorded(synthesis, *example(model, micro_batch), record) if records else None
        words += ["CUDA graph"] * (recording is not None)
    mapping = FoldedMapping(model.generator.mapping)
    return Runtime(mapping, recording or synthesis, micro_batch, " ".join(words), hardware(model.device))


def example(model: Model, micro_batch: int) -> tuple[Tensor, list[Tensor]]:
    """Zeros in the shapes of what synthesis is called with."""
    with torch.inference_mode():
        ws = torch.zeros(micro_batch, model.config.num_ws, model.config.w_dim, device=model.device)
        shapes = model.generator.synthesis.noise_shapes()
        return ws, [torch.zeros(micro_batch, 1, *shape, device=model.device) for shape in shapes]


def compiled(
    network: Any, half: torch.dtype, ws: Tensor, noises: Sequence[Tensor], compiler: Compiler | None = None
) -> ArrangedSynthesis | None:
    """The compiled form, after a first call; None, with a warning in the log, where that cannot be had."""
    if compiler is None and find_spec("triton") is None:
        log.warning("drawing without compiled passes: triton is not installed")
        return None
    try:
        synthesis = ArrangedSynthesis(network, half, compiler or _compile)
        with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
            synthesis(ws, noises)
    except RuntimeError as error:
        log.warning("drawing without compiled passes: %s", error)
        return None
    return synthesis


def _compile(function: Any) -> Any:
    return torch.compile(function, dynamic=False, fullgraph=True)
