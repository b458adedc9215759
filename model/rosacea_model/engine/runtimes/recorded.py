"""A CUDA graph of one micro-batch: recorded once, then started as a whole, not kernel by kernel."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from .runtime import Synthesize

    Record = Callable[
        [Callable[[], None]], Callable[[], None]
    ]  # what to run => what runs it again, with the same memory

log = logging.getLogger("rosacea.engine")

WARM_UPS = 3


class RecordedSynthesis:
    """Draws what it is given to record, always in the same memory. RuntimeError if that cannot be recorded."""

    def __init__(self, synthesize: Synthesize, ws: Tensor, noises: Sequence[Tensor], record: Record) -> None:
        """`ws` and `noises` have the shapes of every later call, and are overwritten by it."""
        self.inputs = [ws, *noises]
        self.images = torch.empty(0)

        def run() -> None:
            self.images = synthesize(self.inputs[0], self.inputs[1:])

        self.run_again = record(run)

    def __call__(self, ws: Tensor, noises: Sequence[Tensor]) -> Tensor:
        for own, given in zip(self.inputs, [ws, *noises], strict=True):
            own.copy_(given)
        self.run_again()
        return self.images.clone()


def record_on_cuda(run: Callable[[], None]) -> Callable[[], None]:
    """Record on the current device, after runs in which libraries choose and allocate."""
    beside, stream = torch.cuda.Stream(), torch.cuda.current_stream()
    beside.wait_stream(stream)
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            run()
    stream.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    again: Callable[[], None] = graph.replay
    return again


def recorded(
    synthesize: Synthesize, ws: Tensor, noises: Sequence[Tensor], record: Record = record_on_cuda
) -> RecordedSynthesis | None:
    """A recording, or None, with a warning in the log, if it cannot be made."""
    try:
        return RecordedSynthesis(synthesize, ws, noises, record)
    except RuntimeError as error:
        log.warning("drawing without a CUDA graph, none could be recorded: %s", error)
        return None
