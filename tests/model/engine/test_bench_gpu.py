"""The benchmark for GPUs runs where there is none, and hides nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from ...bench import bench_gpu
from ...bench.bench_gpu import Bench, has_failed, main, run, smoke
from ...conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from torch import Tensor

SMALL = ["--device", "cpu", "--smoke", "--out"]


def test_every_part_is_measured_and_written(tmp_path: Path) -> None:
    out = tmp_path / "new" / "gpu.json"
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.bench.bench_gpu", *SMALL, str(out)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())["results"]
    printed = done.stdout
    assert list(results) == list(Bench("cpu", smoke("cpu")).parts())
    assert all(name in printed for name in results)
    speeds = results["images a second of synthesis"]
    assert {(row["px"], row["micro-batch"], row["name"]) for row in speeds} == {
        (px, batch, name) for px in (8, 16) for batch in (1, 2) for name in ("plain", "arranged")
    }
    assert all(row["changed"] == 0 for row in results["images that depend on their batch"])
    alike = [row for row in results["float16 against float32, in levels"] if row["name"] == "float32, plain"]
    assert all(row["largest"] <= 1 for row in alike)
    for row in results["milliseconds of a job"]:
        assert row["drawn"] > row["waiting"] + row["noise"] > 0
        assert (row["noise"] > 0) is (row["noise_mode"] == "random")


def test_an_image_that_depends_on_its_batch_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    true = bench_gpu.shuffled

    def one_changed(*given: object) -> object:
        return [(place, image ^ (place == 3)) for place, image in true(*given)]  # type: ignore[arg-type]

    monkeypatch.setattr(bench_gpu, "shuffled", one_changed)

    rows = list(Bench("cpu", smoke("cpu")).invariance())

    assert [row["changed"] for row in rows] == [1, 1]


def test_a_part_that_fails_is_told_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(bench: Bench) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Bench, "invariance", fail)
    monkeypatch.setattr(Bench, "speeds", lambda bench: iter([{"px": 8}]))

    assert main([*SMALL, str(tmp_path / "gpu.json")]) == 1
    assert "failed: RuntimeError: out of memory" in capsys.readouterr().out
    results = json.loads((tmp_path / "gpu.json").read_text())["results"]
    assert isinstance(results["milliseconds of a job"], list)


def test_a_form_that_fails_is_told_and_the_others_are_measured() -> None:
    def fail(*given: object) -> Tensor:
        raise RuntimeError("no kernel")

    bench = Bench("cpu", smoke("cpu"))
    bench.limit = 1.0
    forms = bench.forms(bench.models[0], 2)
    forms["broken"] = replace(forms["plain"], synthesize=fail)

    rows = list(bench.in_turn(bench.models[0], forms))

    assert [row["name"] for row in rows] == ["broken", "plain", "arranged"]
    assert rows[0] == {"name": "broken", "failed": "no kernel"}
    assert has_failed(rows) and not has_failed(rows[1:])


def test_what_there_is_no_time_for_is_named() -> None:
    results = run(Bench("cpu", smoke("cpu")), minutes=-1)

    assert set(results.values()) == {"not measured: -1 minutes were over"}
