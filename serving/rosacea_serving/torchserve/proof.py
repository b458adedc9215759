"""Tests a new TorchServe before it receives calls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2

from .errors import BackendDown, BackendFailed

if TYPE_CHECKING:
    from rosacea_model.config import GeneratorConfig
    from rosacea_model.files.modelfile import ModelFile

    from .backend import TorchServeBackend
    from .options import TorchServeOptions

RETRY_SECONDS = 0.2
LABEL_BYTES = 4  # of one weight, as float32
LONGEST_WAIT_SECONDS = 3600.0  # the startup timeout is shorter


def proof_item(config: GeneratorConfig) -> render_pb2.RenderItem:
    """The test face of a worker: the zero label if the model is conditional."""
    return render_pb2.RenderItem(
        seed=0,
        truncation_psi=1.0,
        noise_mode=faces_pb2.NOISE_MODE_CONST,
        format=faces_pb2.IMAGE_FORMAT_JPEG,
        jpeg_quality=90,
        label=bytes(LABEL_BYTES * config.c_dim),
    )


async def prove(backend: TorchServeBackend, model: ModelFile) -> None:
    """Wait until a worker has drawn a face with this exact model; BackendFailed if it used another or could not draw
    the face."""
    job = render_pb2.RenderJob(items=[proof_item(model.config)])
    while True:
        try:
            result = await backend.render(model.name, job, LONGEST_WAIT_SECONDS)
            break
        except BackendDown:
            await asyncio.sleep(RETRY_SECONDS)
    if result.digest != model.digest:
        raise BackendFailed(f"{model.name}: the worker must have loaded {model.digest}, it has {result.digest}")
    failure = result.outcomes[0].failure
    if failure.reason:
        raise BackendFailed(f"{model.name}: seed 0 must be drawn, got {failure.reason}: {failure.message}")


async def warm_up(backend: TorchServeBackend, options: TorchServeOptions) -> None:
    """Send empty jobs until Java's compiler has warmed up: the first jobs take several times as long."""
    for count in range(options.warmup_jobs):
        model = options.models[count % len(options.models)]
        with suppress(BackendDown):
            await backend.render(model.name, render_pb2.RenderJob(), LONGEST_WAIT_SECONDS)
