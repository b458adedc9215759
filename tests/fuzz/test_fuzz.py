"""A short run of the fuzzer; `make fuzz` has a long one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ..conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 20_000


@pytest.mark.slow
def test_twenty_thousand_bent_requests_are_answered_or_refused(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.fuzz_requests", f"-runs={RUNS}", "-seed=1"]
    command += [f"-artifact_prefix={tmp_path}/", str(corpus)]
    # Started by Python itself, a program counts the memory of Python as its own peak, which libFuzzer limits.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *command]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)

    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
