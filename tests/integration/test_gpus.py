"""A real TorchServe that is told of GPUs spreads its workers over them. They draw on the CPU: there need be no GPU."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from rosacea_model import demo
from rosacea_model.files import archive
from rosacea_model.files.modelfile import verify
from rosacea_serving.models.deployment import torchserve_options
from rosacea_serving.settings import Settings
from rosacea_serving.torchserve import Supervisor
from rosacea_serving.torchserve.devices import Devices

from ..waiting import HANG_SECONDS, eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

# Notes the GPU that TorchServe gives to this worker and the GPUs that the worker may see.
HANDLER = """
import os
from types import SimpleNamespace
from rosacea_serving.worker.handler import FaceHandler

class Handler(FaceHandler):
    def initialize(self, context):
        properties = dict(context.system_properties)
        with open({notes!r}, "a") as notes:
            notes.write(f"{{properties.pop('gpu_id', None)}} of {{os.environ['CUDA_VISIBLE_DEVICES']}}\\n")
        super().initialize(SimpleNamespace(system_properties=properties))
"""


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (Devices(("4", "7")), {"0 of 4,7": 1, "1 of 4,7": 1}),
        pytest.param(
            Devices(("4", "6", "7")), {"0 of 4,6,7": 1, "1 of 4,6,7": 1, "2 of 4,6,7": 1}, marks=pytest.mark.long
        ),
        (Devices(), {"None of -1": 1}),
    ],
)
async def test_each_gpu_has_its_workers(
    devices: Devices, expected: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setattr(archive, "HANDLER", HANDLER.format(notes=str(notes)))
    options = torchserve_options(verify(demo.folder()), Settings(worker_threads=1, warmup_jobs=0), devices)
    supervisor = Supervisor(options)
    await supervisor.start()
    try:
        await supervisor.wait_ready(HANG_SECONDS)  # ready is who has one worker
        await eventually(lambda: len(supervisor.worker_pids()) == options.workers)
        await eventually(lambda: len(notes.read_text().splitlines()) == options.workers)
    finally:
        await supervisor.stop()

    assert Counter(notes.read_text().splitlines()) == expected
