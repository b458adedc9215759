"""The benchmark of engines runs, and what it compares draws the same image."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from rosacea_model.engine.runtimes.pytorch import plain_runtime

from ...bench.bench_engine import contestants, grouped
from ...conftest import ROOT
from .runtimes.cases import inputs
from .runtimes.test_graphs import model


def test_the_benchmark_runs() -> None:
    command = [sys.executable, "-m", "tests.bench.bench_engine", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "of the limit" in done.stdout
    assert "openvino f32" in done.stdout


@pytest.mark.long
@torch.inference_mode()
def test_all_draw_the_same_image() -> None:
    drawn = model("skip")
    ws, noises = inputs(drawn.generator)
    images = {name: draw() for name, draw in contestants(drawn, ws, noises).items() if name != "openvino bf16"}
    want = grouped(plain_runtime(drawn, 1).synthesize, ws, noises)

    assert len(images) == 5
    for name, image in images.items():
        torch.testing.assert_close(image, want, rtol=0, atol=1e-4 * float(want.abs().max()), msg=name)
