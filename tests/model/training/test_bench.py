"""The benchmark of training runs, and what it compares is the same training."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from rosacea_model.networks import ops
from rosacea_model.training.distributed import Ranks
from rosacea_model.training.state import TrainState
from rosacea_model.training.step import Passes

from ...bench.plain import plain_training
from .runs import ROOT, Squares, equal, smoke
from .runs import one_thread as one_thread  # for every test here


@pytest.mark.long
def test_the_benchmark_runs() -> None:
    command = [sys.executable, "-m", "tests.bench.bench_train", "--smoke"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)

    assert done.returncode == 0, done.stderr
    head, row = done.stdout.splitlines()[-2:]
    assert head.split("  ")[:4] == ["resolution", "plain img/s", "ours img/s", "ratio"]
    assert row.split()[0] == "16"


@pytest.mark.parametrize("name", ["generator", "path_length", "discriminator", "r1"])
def test_every_pass_has_the_gradients_of_the_plain_way(name: str) -> None:
    reals = torch.from_numpy(Squares().images[:4])
    found = []
    for manner in (plain_training(), nullcontext()):
        with manner:
            state = TrainState(smoke(1, aug="fixed", p=0.5))
            getattr(Passes(state, Ranks()), name)(reals, None)
        found.append({key: value for key, value in state.save().items() if key.endswith("/exp_avg_sq")})

    # The first step of Adam keeps the squares of the gradients.
    plain, ours = found
    assert plain.keys() == ours.keys() and plain
    for key, squares in plain.items():
        near = 1e-4 * float(squares.sqrt().norm()) + 1e-7
        torch.testing.assert_close(ours[key].sqrt(), squares.sqrt(), rtol=0, atol=near, msg=key)
    assert equal(plain, ours), "two different ways of computing are not equal to the last bit"


@pytest.mark.parametrize("stride", [1, 2])
def test_the_filters_have_right_gradients_of_both_orders(stride: int) -> None:
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kernel = torch.arange(16.0, dtype=torch.float64).view(4, 4)

    def filtered(x: torch.Tensor) -> torch.Tensor:
        return ops.low_pass(x, kernel, padding=1, stride=stride)

    for function in (filtered, lambda x: ops.upsample(x, kernel)):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)
