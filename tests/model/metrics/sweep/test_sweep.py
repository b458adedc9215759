"""A sweep's runs: which there are, that killed ones go on and finished ones are left alone; and the report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from rosacea_model import Engine, GeneratorConfig
from rosacea_model.commands.measuring.sweep import sweep
from rosacea_model.fresh import fresh_model
from rosacea_model.metrics.fidelity.kernel import kid
from rosacea_model.metrics.images import DatasetImages, all_pixels
from rosacea_model.metrics.sweep.plan import SweepData, SweepPlan, arguments, factorial, study
from rosacea_model.metrics.sweep.report import write_sweep_report
from rosacea_model.metrics.sweep.snapshots import SnapshotJudge
from rosacea_model.metrics.sweep.training import SweepTrainer
from rosacea_model.phantom.series import LabelKind, Series, write_series
from rosacea_model.sample import FaceSample
from rosacea_model.training.config import resolve
from rosacea_model.training.reporting.records import read_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rosacea_model.metrics.encoders.protocol import Levels

DATA = SweepData(resolution=32)
# In the place of `rosacea train`: takes its options, writes its records, a kimg in 20 ms, and goes on where it was.
# The run that a file beside it names waits at 10 kimg for as long as that file is there.
TRAINER = """
    import json, os, sys, time
    from pathlib import Path
    words = [word for word in sys.argv[1:] if word != "--resume"]
    options = dict(zip(words[::2], words[1::2]))
    folder = Path(options["--outdir"])
    folder.mkdir(parents=True, exist_ok=True)
    if options["--gamma"] == "7":
        sys.exit("error: the loss is not finite")
    stats = folder / "stats.jsonl"
    kimg = len(stats.read_text().splitlines()) if stats.exists() else 0
    print("roughly: quick", flush=True)
    with (folder / "starts").open("a") as file:
        file.write(f"{os.getpid()} {kimg}\\n")
    waits = Path(__file__).with_name("waits")
    while kimg < float(options["--total-kimg"]):
        while kimg == 10 and waits.exists() and waits.read_text() == folder.name:
            time.sleep(0.01)
        time.sleep(0.02)
        kimg += 1
        value = float(options["--gamma"]) + 0.1 * int(options["--seed"]) + 1 / kimg
        with stats.open("a") as file:
            file.write(json.dumps({"kimg": kimg, "distance": value, "layout": value, "s_per_kimg": 0.02}) + "\\n")
"""
# The sweep in a process of its own, without torch.
SWEEP = """
    import sys
    from pathlib import Path
    from rosacea_model.metrics.sweep.plan import SweepData, factorial
    from rosacea_model.metrics.sweep.training import SweepTrainer
    data = SweepData(resolution=32)
    plan = factorial({"gamma": [1.0, 2.0]}, range(2), preset="auto", stated={"total_kimg": 20}, data=data)
    trainer = SweepTrainer(plan=plan, outdir=Path(sys.argv[1]), common=["--data", "x"], say=lambda line: None,
                           program=[sys.executable, sys.argv[2]])
    list(trainer.train_all())
"""


def planned(gammas: list[float], seeds: int = 2, kimg: float = 6) -> SweepPlan:
    return factorial({"gamma": gammas}, range(seeds), preset="auto", stated={"total_kimg": kimg}, data=DATA)


def trainer_of(plan: SweepPlan, folder: Path, lines: list[str]) -> SweepTrainer:
    program = folder / "trainer.py"
    program.write_text(textwrap.dedent(TRAINER))
    return SweepTrainer(
        plan=plan,
        outdir=folder / "sweep",
        common=["--data", "faces.zip"],
        say=lines.append,
        program=[sys.executable, str(program)],
    )


def starts(folder: Path) -> dict[str, list[list[int]]]:
    """Of each run the process and the kimg of every start."""
    return {
        path.parent.name: [[int(word) for word in line.split()] for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("runs/*/starts"))
    }


def test_every_combination_meets_every_seed_and_seeds_are_paired() -> None:
    plan = factorial(
        {"gamma": [2.0, 5.0, 10.0], "freeze_d": [0, 7]}, range(3), preset="small-data", stated={"batch": 8}, data=DATA
    )

    found = {(run.config.gamma, run.config.freeze_d, run.config.seed) for run in plan.runs}
    assert found == {(gamma, freeze, seed) for gamma in (2, 5, 10) for freeze in (0, 7) for seed in range(3)}
    assert len({run.name for run in plan.runs}) == len(plan.runs) == 18
    assert [run.seed for run in plan.runs[:6]] == [0] * 6  # a stopped sweep is a paired sweep of fewer seeds
    assert {run.config.batch for run in plan.runs} == {8}


def test_a_run_is_what_its_command_line_says() -> None:
    plan = factorial(
        {"gamma": [0.05]},
        [3],
        preset="small-data",
        stated={"mirror": False, "total_kimg": 4.0},
        data=DATA,
        kimg_scale=0.5,
    )
    words = arguments(plan.runs[0])

    assert words[:2] == ["--preset", "small-data"]
    assert "--no-mirror" in words
    stated = dict(zip(words[::2], words[1::2], strict=False))
    assert stated["--preset"] == "small-data"
    assert words[words.index("--total-kimg") + 1] == "2"
    assert words[words.index("--snap-kimg") + 1] == "10"
    assert (plan.runs[0].config.total_kimg, plan.runs[0].config.gamma, plan.runs[0].config.seed) == (2, 0.05, 3)


def test_the_ten_experiments_are_the_study_s_at_its_size() -> None:
    plan = study([0], stated={}, data=SweepData(resolution=512), source=resolve("auto", resolution=512).generator())

    configs = {run.cell: run.config for run in plan.runs}
    table = {cell: (each.gamma, each.freeze_d, each.augpipe, each.total_kimg) for cell, each in configs.items()}
    assert len(table) == 10
    assert table["exp01"] == (6.5536, 0, "bgc", 3000)
    assert table["exp08"] == (2, 13, "bg", 5000)
    assert [run.cell for run in plan.runs if not run.transfer] == ["exp01", "exp02", "exp06"]
    assert {(run.config.batch, run.config.mirror) for run in plan.runs} == {(8, True)}


def test_at_other_sizes_r1_keeps_its_ratio_to_the_heuristic_and_freezing_its_share() -> None:
    plan = study([0, 1], stated={"channel_max": 32}, data=DATA, kimg_scale=0.001, source=_source(32))

    first, ninth = plan.runs[0].config, plan.runs[8].config
    assert first.gamma == pytest.approx(0.0002 * 32**2 / 8)
    assert (ninth.freeze_d, first.total_kimg, first.channel_max) == (round(17 * 10 / 22), 3, 32)
    assert len(plan.runs) == 20
    with pytest.raises(
        ValueError, match="experiments 03, 04, 05, 07, 08, 09, 10 of rff300 start from trained networks"
    ):
        study([0], stated={}, data=DATA)


def _source(resolution: int) -> Any:
    return resolve("auto", {"channel_max": 32}, resolution=resolution).generator()


def test_finished_runs_are_left_alone_and_failed_ones_stop_nobody(tmp_path: Path) -> None:
    lines: list[str] = []
    trainer = trainer_of(planned([1.0, 7.0, 3.0]), tmp_path, lines)

    *_, outcomes = trainer.train_all()
    list(trainer.train_all())

    failed = {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure}
    assert failed == dict.fromkeys(("gamma-7-seed-0", "gamma-7-seed-1"), "error: the loss is not finite")
    assert {name: len(each) for name, each in starts(tmp_path / "sweep").items()} == dict.fromkeys(
        ("gamma-1-seed-0", "gamma-1-seed-1", "gamma-3-seed-0", "gamma-3-seed-1"), 1
    )
    assert lines[0] == f"run 1 of 6: gamma 1, seed 0, in {tmp_path}/sweep/runs/gamma-1-seed-0"
    assert lines[1] == "  roughly: quick"


def test_a_sweep_that_is_killed_takes_its_run_along_and_goes_on_where_it_was(tmp_path: Path) -> None:
    program = tmp_path / "trainer.py"
    program.write_text(textwrap.dedent(TRAINER))
    command = [sys.executable, "-c", textwrap.dedent(SWEEP), str(tmp_path), str(program)]
    second, waits = tmp_path / "runs" / "gamma-2-seed-0", tmp_path / "waits"
    waits.write_text(second.name)
    running = subprocess.Popen(command)
    while len(records_of(second)) < 10:
        time.sleep(0.01)
        assert running.poll() is None

    running.send_signal(signal.SIGKILL)
    running.wait()
    process = starts(tmp_path)["gamma-2-seed-0"][0][0]
    while _alive(process):
        time.sleep(0.01)
    waits.unlink()
    subprocess.run(command, check=True)

    found = starts(tmp_path)
    assert {name: len(each) for name, each in found.items()} == {
        "gamma-1-seed-0": 1,
        "gamma-2-seed-0": 2,
        "gamma-1-seed-1": 1,
        "gamma-2-seed-1": 1,
    }
    assert found["gamma-2-seed-0"][1][1] == 10  # it went on, and did not begin anew
    for name in found:
        assert [json.loads(line)["kimg"] for line in records_of(tmp_path / "runs" / name)] == list(range(1, 21))


def records_of(run: Path) -> list[str]:
    file = run / "stats.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_report_names_the_best_and_holds_everything_in_one_file(tmp_path: Path) -> None:
    trainer = trainer_of(planned([1.0, 2.0, 3.0]), tmp_path, [])

    told = write_sweep_report(trainer, list(trainer.train_all())[-1], {"images": 300, "digest": "abc"})

    figures = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    page = (tmp_path / "sweep" / "sweep.html").read_text()
    assert told == f"{tmp_path}/sweep/sweep.html: {figures['recommendation']}"
    assert figures["verdicts"][0]["winner"] == "gamma 1"
    assert figures["verdicts"][0]["means"]["gamma 1"] == pytest.approx(1.05 + (1 / 5 + 1 / 6) / 2)
    assert figures["runs"][0]["curves"]["distance"][:2] == [[1, 2.0], [2, 1.5]]
    assert page.count("<svg") == 2 and page.count("<polygon") == 6
    assert "bands: 95% intervals for comparing combinations" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "rosacea train --data faces.zip --outdir" in page


class MeanColour:
    """An encoder in three lines: the mean colour, counted."""

    name, digest, resize, dimension, comparable, unrounded = "mean colour", "0", "not resized", 3, False, False

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, images: Levels) -> NDArray[np.float32]:
        self.encoded += len(images)
        mean: NDArray[np.float32] = images.mean(axis=(1, 2), dtype=np.float32) / 255
        return mean


def test_snapshots_are_judged_by_kid_and_never_twice(phantoms: Path, tmp_path: Path) -> None:
    encoder = MeanColour()
    config = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=16, channel_base=64, channel_max=8, mapping_layers=2)
    snapshots = tmp_path / "run" / "snapshots"
    for kimg in (1, 2):
        fresh_model(snapshots / f"kimg-{kimg:010.3f}", config, seed=kimg, name="tiny")
    reals = DatasetImages(phantoms, labels=False)
    judge = SnapshotJudge(reals=reals, encoder=encoder, folder=tmp_path, fakes=12, seen=False)

    found, again = judge.curve(tmp_path / "run"), judge.curve(tmp_path / "run")

    faces = Engine.load(snapshots / "kimg-000002.000").render([FaceSample(seed=seed) for seed in range(12)])
    expected = kid(MeanColour().encode(all_pixels(reals)), MeanColour().encode(faces), seed=0).value
    assert [kimg for kimg, _ in found] == [1, 2]
    assert found[1][1] == pytest.approx(expected)
    assert again == found
    assert encoder.encoded == 12 + 12 + len(reals)
    assert "8 images that the runs were not trained on (p.zip), by the encoder mean colour" in judge.words


def test_a_report_of_a_sweep_in_the_making_shows_each_run_and_recommends_nothing(tmp_path: Path) -> None:
    trainer = trainer_of(planned([1.0, 2.0], kimg=2.5), tmp_path, [])

    after_each = [
        (write_sweep_report(trainer, outcomes, {}), (tmp_path / "sweep" / "sweep.html").read_text())
        for outcomes in trainer.train_all()
    ]

    assert after_each[0][0].endswith("No recommendation: no seed has a finished run of every combination.")
    assert "No recommendation: gamma 1 has the lowest distance at the end, but 1 seed tells nothing" in after_each[2][0]
    assert after_each[0][1].count("One line for each run.") == 2
    assert "Recommended: gamma 1." in after_each[-1][0]


def run_command(*words: object) -> Any:
    app = typer.Typer()
    app.command()(sweep)
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "p.zip"
    list(write_series(path, Series(seed=0, count=8, resolution=16, confounders=False), LabelKind.severity, workers=1))
    return path


def test_the_dry_run_prints_the_command_of_each_run(phantoms: Path, tmp_path: Path) -> None:
    factors = ("--r1-gamma", "2,5,10", "--freeze-d", "0,4", "--seeds", 2)
    place = ("--data", phantoms, "--outdir", tmp_path / "s")
    done = run_command(*place, *factors, "--preset", "smoke-16", "--kimg", 2, "--dry-run")

    commands = done.output.splitlines()
    folder = f"{tmp_path}/s/runs/gamma-2_freeze_d-0-seed-0"
    assert len(commands) == 12
    assert commands[0].startswith(f"rosacea train --data {phantoms} --device auto --outdir {folder} --resume")
    assert commands[0].endswith("--total-kimg 2 --gamma 2 --freeze-d 0 --seed 0")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--r1-gamma", "2,x"), "--r1-gamma must be numbers with commas between, such as 2,5,10, got '2,x'"),
        (("--r1-gamma", "2,2"), "gamma must be given different values, got 2.0, 2.0"),
        (("--freeze-d", "0.5"), "--freeze-d must be whole numbers with commas between"),
        (("--freeze-d", "40"), "freeze_d must be at most 7 at 16 px, got 40"),
        (("--preset", "rff300", "--r1-gamma", "2"), "has its own values of R1 and freeze-D"),
        (("--seeds", "600", "--r1-gamma", "2,5"), "a sweep may have 1000 runs, got 1200"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_it_starts(
    phantoms: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = run_command("--data", phantoms, "--outdir", tmp_path / "s", *words)

    assert message in str(done.exception)
    assert not (tmp_path / "s").exists()


@pytest.mark.long
def test_three_gammas_by_two_seeds_survive_kill_9_and_are_those_of_an_undisturbed_sweep(tmp_path: Path) -> None:
    data = tmp_path / "p.zip"
    list(write_series(data, Series(seed=1, count=300, resolution=32, confounders=True), LabelKind.severity, workers=1))
    options = (
        "--preset small-data --r1-gamma 0.0078,0.039,0.195 --seeds 2 --kimg 0.2 --snap-kimg 0.1 --tick-kimg 0.1 "
        "--batch 8 --cbase 256 --cmax 16 --z-dim 16 --w-dim 16 --grid-images 4 --threads 1 --device cpu --fakes 20"
    )

    def command(out: str) -> list[str]:
        code = "import typer; from rosacea_model.commands.measuring.sweep import sweep; typer.run(sweep)"
        return [
            sys.executable,
            "-c",
            code,
            "--data",
            str(data),
            "--outdir",
            str(tmp_path / out),
            *options.split(),
        ]

    running = subprocess.Popen(command("killed"), start_new_session=True)
    second = tmp_path / "killed" / "runs" / "gamma-0.039-seed-0"
    # A checkpoint comes before its snapshot is measured; a run that is killed in between has no measure there.
    while not any(record["kimg"] for record in read_stats(second)):
        time.sleep(0.1)
        assert running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    subprocess.run(command("killed"), check=True)
    subprocess.run(command("calm"), check=True)

    found = [json.loads((tmp_path / out / "sweep.json").read_text()) for out in ("killed", "calm")]
    for one, other in zip(found[0]["runs"], found[1]["runs"], strict=True):
        for measure in ("distance", "layout"):
            assert one["curves"][measure] == other["curves"][measure], one["name"]
        for (_, kid_of_one), (_, kid_of_other) in zip(one["curves"]["KID"], other["curves"]["KID"], strict=True):
            assert kid_of_one == pytest.approx(kid_of_other, rel=1e-9)  # sums of mapped files, in another order
    weights = [sorted((tmp_path / out).glob("runs/*/snapshots/*/generator.safetensors")) for out in ("killed", "calm")]
    assert [path.read_bytes() for path in weights[0]] == [path.read_bytes() for path in weights[1]]
    assert len(weights[0]) == 12
    assert len(found[0]["runs"]) == 6
    assert found[0]["recommendation"] == found[1]["recommendation"]
