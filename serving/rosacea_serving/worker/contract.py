"""Constants shared by gateway and worker, beside the messages in `render.proto`. Imports nothing."""

from __future__ import annotations

INPUT_NAME = "job"  # under which TorchServe passes a RenderJob on
SELF_TEST_FAILED = "the self-test has failed"  # begins the one line that tells of it
THREADS_VARIABLE = "ROSACEA_WORKER_THREADS"  # torch threads of a worker
ENGINE_VARIABLE = "ROSACEA_WORKER_ENGINE"  # what draws on a CPU
PRECISION_VARIABLE = "ROSACEA_WORKER_PRECISION"
