"""The real gateway with fake workers that write the seed into the pixels, and jobs that read from it."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rosacea_model import GeneratorConfig

from ...serving.hosted import SETTINGS, hosted
from .reader import read_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ...serving.hosted import Hosted

# Readers are forked from a process that has imported torch once; no thread runs there.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([read_alone.__module__])
IMAGE_BYTES = 16 * 16 * 3
CONFIG = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, c_dim=3, channel_base=256)


def gateway(port: int = 0, grace_seconds: float = 30.0) -> AbstractContextManager[Hosted]:
    """A gateway whose faces are raw images of the right size."""
    update = {"address": f"127.0.0.1:{port}", "max_batch": 32, "queue_images": 4096, "grace_seconds": grace_seconds}
    return hosted(SETTINGS.model_copy(update=update), replace(CONFIG))


@pytest.fixture
def faces() -> Iterator[Hosted]:
    with gateway() as running:
        running.workers.image_bytes = IMAGE_BYTES
        yield running


class Job:
    """A reader in a process of its own."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self.out = folder / f"out-{len(list(folder.iterdir()))}.txt"
        self.out.touch()
        arguments = {"out": str(self.out), "state": str(folder / "state.json"), **told}
        self.process = FORKS.Process(target=read_alone, args=(arguments,))
        self.process.start()

    def rows(self) -> list[tuple[int, int, str, int]]:
        """Epoch, index, digest and label of every sample it has handed out so far, in order."""
        lines = self.out.read_text().splitlines(keepends=True)
        return [tuple(row) for line in lines if line.endswith("\n") for row in json.loads(line)]

    def wait(self) -> list[tuple[int, int, str, int]]:
        self.process.join(280)
        assert self.process.exitcode == 0, "what went wrong is in the captured output"
        return self.rows()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    started: list[Job] = []

    def start(**told: Any) -> Job:
        started.append(Job(tmp_path, told))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.join()
