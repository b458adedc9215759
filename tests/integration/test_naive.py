"""The benchmark against a handler that somebody would write runs, with the real TorchServe on both sides."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..conftest import ROOT


@pytest.mark.slow
def test_the_benchmark_runs() -> None:
    command = [sys.executable, "-m", "tests.bench.bench_naive", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.split()[0] == "64"]) == 2, done.stdout
