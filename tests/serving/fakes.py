"""Stand-ins for TorchServe: they answer jobs in process, and note what they were asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_serving.background import Background
from rosacea_serving.torchserve.errors import BackendDown
from rosacea_serving.worker.segments import SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from rosacea_model.config import GeneratorConfig
    from rosacea_serving.observe.backends import Report
    from rosacea_serving.torchserve import TorchServeOptions
    from rosacea_serving.torchserve.supervisor import Event


class FakeWorkers:
    """Answers each item with its seed, as text or as rows of latents.

    `seconds` is how long a job takes, and as long as `paused` none ends until they are stopped; `fail` may raise for a
    job.
    """

    def __init__(self, options: TorchServeOptions, on_state: Callable[[str], None]) -> None:
        self.digests = {model.name: model.digest for model in options.models}
        self.configs = {model.name: model.config for model in options.models}
        self.on_state = on_state
        self.on_event: Callable[[Event], None] = lambda event: None
        self.background = Background()
        self.jobs: list[list[int]] = []
        self.seconds = 0.0
        self.paused = self.stopped = False
        self.running = 0
        self.most_running = 0
        self.poisoned: set[int] = set()
        self.use_segments = True
        self.image_bytes = 0  # pads what is drawn to so many bytes
        self.writer = SegmentWriter()
        self.fail: Callable[[render_pb2.RenderJob], None] = lambda job: None

    async def wait_ready(self, timeout_seconds: float) -> None:
        """They are, once started."""

    def report(self) -> Report | None:
        return None

    async def start(self) -> None:
        self.on_state("starting")
        self.on_state("ready")

    async def stop(self) -> None:
        self.stopped = True
        self.on_state("down")

    async def render(self, model: str, job: render_pb2.RenderJob, timeout_seconds: float) -> render_pb2.RenderResult:
        self.jobs.append([item.seed for item in job.items])
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
            while self.paused:
                if self.stopped:
                    raise BackendDown("the workers have been stopped")
                await asyncio.sleep(0.01)
            self.fail(job)
        finally:
            self.running -= 1
        outcomes = [self._outcome(item, job, slot, self.configs[model]) for slot, item in enumerate(job.items)]
        return render_pb2.RenderResult(outcomes=outcomes, digest=self.digests[model], fingerprint="fake")

    def _outcome(
        self, item: render_pb2.RenderItem, job: render_pb2.RenderJob, slot: int, config: GeneratorConfig
    ) -> render_pb2.RenderOutcome:
        if item.seed in self.poisoned:
            failure = render_pb2.RenderFailure(reason="OUTPUT_NOT_FINITE", message="the image holds NaN or infinity")
            return render_pb2.RenderOutcome(failure=failure)
        image = str(item.seed).encode().ljust(self.image_bytes)
        if item.output != faces_pb2.LATENT_SPACE_UNSPECIFIED:
            rows = 1 if item.output == faces_pb2.LATENT_SPACE_W else config.num_ws
            image = np.full(rows * config.w_dim, item.seed, "<f4").tobytes()
        if job.HasField("segment") and self.use_segments and len(image) <= job.segment.slot_bytes:
            self.writer.write(job.segment.path, slot, job.segment.slot_bytes, image)
            return render_pb2.RenderOutcome(slot_length=len(image))
        return render_pb2.RenderOutcome(image=image)

    @property
    def drawn(self) -> list[int]:
        """Every seed that reached a worker, in order."""
        return [seed for job in self.jobs for seed in job]
