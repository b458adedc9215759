"""A run can be read while it goes on and after it: figures, sheets, snapshots, report; and its golden numbers."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from rosacea_model import model
from rosacea_model.commands import train as cli
from rosacea_model.sample import latents
from rosacea_model.training.config import TrainConfig
from rosacea_model.training.feed import to_unit
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.reporting import grids, report
from rosacea_model.training.reporting.records import curve, read_best, read_stats
from rosacea_model.training.reporting.report import write_report

from .runs import Squares, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rosacea_model.training.state import TrainState

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "smoke-16.txt"
TOLERANCE = 1e-5  # across machines; the file is rewritten by `python -m tests.model.training.test_observe`
OBSERVED = re.compile(r"img_per_s|s_per_kimg|eta_s|elapsed_s|memory")


def smoke_figures(path: Path) -> list[dict[str, float]]:
    """The figures of four steps of smoke-16, one tick a step."""
    training_loop(smoke(4, tick_kimg=0.004, snap_kimg=0.008), Run(path=path, images=Squares()))
    return [{name: value for name, value in record.items() if not OBSERVED.match(name)} for record in read_stats(path)]


def test_four_steps_of_smoke_16_are_as_recorded(tmp_path: Path) -> None:
    wanted = [json.loads(line) for line in GOLDEN.read_text().splitlines()]

    figures = smoke_figures(tmp_path)

    assert len(figures) == len(wanted) == 5, "the start and four steps"
    for record, want in zip(figures, wanted, strict=True):
        assert record.keys() == want.keys()
        for name, value in want.items():
            assert record[name] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), (want["step"], name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    training_loop(smoke(6, tick_kimg=0.004, snap_kimg=0.004, keep_last=2), Run(path=path, images=Squares()))
    return path


def test_every_tick_is_a_line_of_json(run: Path) -> None:
    records = read_stats(run)

    assert [record["step"] for record in records] == [0, 1, 2, 3, 4, 5, 6]
    wanted = {
        "kimg",
        "p",
        "signs/real",
        "r1_penalty",
        "path_length",
        "G/loss",
        "D/loss",
        "img_per_s",
        "s_per_kimg",
        "eta_s",
        "memory_gb",
        "distance",
        "leak_orientation",
        "leak_color",
    }
    assert wanted <= records[1].keys()


def test_without_a_terminal_a_tick_is_one_line_to_grep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training_loop(smoke(2, tick_kimg=0.004), Run(path=tmp_path, images=Squares()))

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tick ")]
    assert len(lines) == 2
    assert re.match(r"tick kimg 0\.004 img_per_s \S+ s_per_kimg \S+ eta_s \S+ p 0\.25 signs/real ", lines[0])


def test_on_a_terminal_there_is_a_live_table_with_progress_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal

    training_loop(smoke(2, tick_kimg=0.004), Run(path=tmp_path, images=Squares()))

    output = capsys.readouterr().out
    assert "first figures after 0.004 kimg" in output
    assert re.search(r"progress .*█+░+ 50\.0%", output)
    assert re.search(r"progress .*█+ 100\.0%", output)
    assert re.search(r"time left .*\d:\d\d:\d\d", output)
    assert "tick kimg" not in output


def test_a_resumed_run_forgets_the_figures_of_lost_steps(tmp_path: Path) -> None:
    training_loop(smoke(2, tick_kimg=0.004), Run(path=tmp_path, images=Squares()))
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"kimg": 0.012, "step": 3}\n{"kimg": 0.016, "st')

    training_loop(smoke(3, tick_kimg=0.004), Run(path=tmp_path, images=Squares(), resume=True))

    assert [record["step"] for record in read_stats(tmp_path)] == [0, 1, 2, 3]
    assert "G/loss" in read_stats(tmp_path)[3]


def test_the_last_and_the_best_snapshots_are_kept(run: Path) -> None:
    best = json.loads((run / "snapshots" / "best.json").read_text())
    distances = {f"kimg-{record['kimg']:010.3f}": record["distance"] for record in read_stats(run)[1:]}

    kept = {path.name for path in (run / "snapshots").glob("kimg-*")}

    assert best["snapshot"] == min(distances, key=lambda name: distances[name])
    assert kept == {*sorted(distances)[-2:], best["snapshot"]}
    checkpoints = {path.name for path in (run / "checkpoints").iterdir()}
    assert checkpoints == {"step-00000005", "step-00000006", f"step-{best['step']:08d}"}


class Brightness:
    """Ranks snapshots by something that the distance of patches would not: the darker, the better."""

    figure, name = "kid", "mean level"

    def __call__(self, reals: NDArray[np.uint8], fakes: NDArray[np.uint8]) -> float:
        assert reals.shape[1:] == fakes.shape[1:] == (16, 16, 3)
        return float(fakes.mean())


def test_a_measure_of_the_run_ranks_its_snapshots_and_one_of_another_measure_does_not_count(tmp_path: Path) -> None:
    training_loop(smoke(2, snap_kimg=0.004), Run(path=tmp_path, images=Squares()))
    assert read_best(tmp_path)["measure"].startswith("sliced Wasserstein")

    training_loop(smoke(4, snap_kimg=0.004), Run(path=tmp_path, images=Squares(), resume=True, measure=Brightness()))

    later = [record for record in read_stats(tmp_path) if "kid" in record]
    assert read_best(tmp_path) == {
        "snapshot": read_best(tmp_path)["snapshot"],
        "step": read_best(tmp_path)["step"],
        "distance": pytest.approx(min(record["kid"] for record in later)),
        "measure": "mean level",
    }


def test_a_snapshot_is_a_model_that_draws_what_the_sheet_shows(run: Path) -> None:
    loaded = model.load(run / "snapshots" / "kimg-000000.024")

    drawn = loaded.synthesize(loaded.map(latents([2], loaded.config.z_dim)))

    sheet = np.asarray(Image.open(run / "grids" / "fakes-000000.024.png"))
    assert sheet.shape == (32, 32, 3), "four images of 16 px, two by two"
    wanted = grids.to_levels(drawn)[0].astype(int)
    assert np.abs(sheet[16:, :16].astype(int) - wanted).max() <= 1


def test_a_run_can_be_as_long_as_the_clock_says(tmp_path: Path) -> None:
    training_loop(smoke(3, snap_minutes=0.001), Run(path=tmp_path, images=Squares(), after_step=slowly))

    assert len(list((tmp_path / "snapshots").glob("kimg-*"))) > 1


def slowly(state: TrainState) -> None:
    import time

    time.sleep(0.1)


@pytest.mark.slow
def test_the_distance_is_zero_for_the_same_and_larger_for_other_images() -> None:
    reals = to_unit(torch.from_numpy(Squares(256, 32).images))

    assert grids.distance(reals, reals) == 0
    noise = torch.randn(reals.shape, generator=torch.Generator().manual_seed(0))
    half = grids.distance(reals, reals[:128])
    assert 0 < half < 0.2
    assert grids.distance(reals, reals + 0.5) > 2 * half, "another brightness"
    assert grids.distance(reals, reals + 0.2 * noise) > 2 * half, "another texture"
    assert grids.distance(reals, reals[..., ::2, :].repeat_interleave(2, dim=2)) > 2 * half, "less detail"
    assert grids.distance(reals, reals[:1].expand(64, -1, -1, -1)) > 2 * half, "one image is not the set"


def test_layout_sees_where_things_are_which_the_distance_does_not() -> None:
    reals = grids.pyramid(to_unit(torch.from_numpy(Squares(256, 32).images)))[-1]
    reals = reals + torch.linspace(1, -1, 16)[:, None]  # bright at the top
    other, upside_down = reals[128:], reals[:128].flip(2)

    assert grids.layout(reals[:128], reals[:128]) == pytest.approx(0, abs=1e-6)
    assert grids.layout(reals[:128], upside_down) > 3 * grids.layout(reals[:128], other)
    flat = reals[:128].mean(dim=(0, 2, 3), keepdim=True).expand_as(other)
    assert grids.layout(reals[:128], flat) == pytest.approx(1, rel=0.01)
    average = reals[:128].mean(dim=0, keepdim=True).expand_as(other)
    assert grids.layout(reals[:128], other) < grids.layout(reals[:128], average) < 1


def test_a_report_is_one_page_that_needs_nothing_else(run: Path) -> None:
    (run / "datasheet.json").write_text('{"title": "<squares> & more"}')

    page = write_report(run).read_text()

    assert page.count("<polyline") >= 10
    assert page.count("data:image/png;base64,") == 4
    assert "&lt;squares&gt; &amp; more" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_a_figure_of_snapshots_is_drawn_where_it_was_measured_and_not_between() -> None:
    records = [{"kimg": float(kimg), "p": 0.1 * kimg, "distance": 5.0 if kimg < 4 else 2.0} for kimg in range(6)]

    assert curve("distance", records) == [(0, 5), (4, 2)]
    assert [kimg for kimg, _ in curve("p", records)] == list(range(6))
    assert report._chart("Distance", ["distance"], "", records).count("<circle") == 2


def test_a_report_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a run directory, it holds no train\.json"):
        write_report(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for number, image in enumerate(Squares().images):
        target = folder / ("small" if number % 2 else "large") / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(target)
    return folder


def invoke(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(cli.train)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_dry_run_prints_the_config_and_makes_nothing(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    result = invoke("--data", data, "--outdir", out, "--preset", "smoke-16", "--gamma", 3, "--cond", "--dry-run")

    config = TrainConfig.from_json(result.stdout)
    assert (config.gamma, config.resolution, config.label_width, config.ada_interval) == (3, 16, 2, 2)
    assert not out.exists()


# What follows the data, and so is no option.
OF_THE_DATA = {"resolution", "img_channels", "label_width"}
SHORT: dict[str, tuple[str, object]] = {
    "--kimg": ("total_kimg", 0.5),
    "--map-depth": ("mapping_layers", 3),
    "--cbase": ("channel_base", 512),
    "--cmax": ("channel_max", 16),
    "--target": ("ada_target", 0.5),
    "--freezed": ("freeze_d", 1),
}
STATED: dict[str, object] = {
    "mirror": True,
    "total_kimg": 0.5,
    "batch": 8,
    "batch_gpu": 4,
    "seed": 7,
    "z_dim": 24,
    "w_dim": 40,
    "mapping_layers": 3,
    "channel_base": 512,
    "channel_max": 16,
    "num_fp16_res": 1,
    "conv_clamp": None,
    "d_architecture": "skip",
    "mbstd_group": 2,
    "freeze_d": 1,
    "glr": 0.01,
    "dlr": 0.02,
    "beta1": 0.5,
    "beta2": 0.9,
    "adam_eps": 1e-7,
    "gamma": 3,
    "r1_interval": 5,
    "pl_weight": 1,
    "pl_interval": 6,
    "pl_batch_shrink": 1,
    "pl_decay": 0.1,
    "style_mixing": 0.5,
    "ema_kimg": 7,
    "ema_rampup": None,
    "aug": "fixed",
    "augpipe": "bg",
    "ada_target": 0.5,
    "ada_interval": 7,
    "ada_kimg": 8,
    "p": 0.25,
    "p_max": 0.75,
    "tick_kimg": 0.125,
    "snap_kimg": 0.25,
    "snap_minutes": None,
    "keep_last": 9,
    "grid_images": 5,
    "tensorboard": True,
    "device": "cpu",
    "threads": 1,
    "workers": 2,
    "tf32": True,
    "bad_steps": 4,
}


def test_every_setting_is_an_option(data: Path, tmp_path: Path) -> None:
    flags: list[object] = []
    for name, value in STATED.items():
        flag = f"--{name.replace('_', '-')}"
        flags += [flag] if value is True else [flag, "none" if value is None else value]

    result = invoke("--data", data, "--outdir", tmp_path / "run", "--preset", "smoke-16", *flags, "--dry-run")

    assert result.exit_code == 0, result.output
    config = TrainConfig.from_json(result.stdout)
    assert {name: getattr(config, name) for name in STATED} == STATED
    assert {field.name for field in dataclasses.fields(TrainConfig)} == set(STATED) | OF_THE_DATA


def test_short_names_stand_beside_the_long_ones(data: Path, tmp_path: Path) -> None:
    flags = [word for flag, (_, value) in SHORT.items() for word in (flag, value)]

    result = invoke("--data", data, "--outdir", tmp_path / "run", "--preset", "smoke-16", *flags, "--dry-run")

    config = TrainConfig.from_json(result.stdout)
    assert {flag: getattr(config, name) for flag, (name, _) in SHORT.items()} == {
        flag: value for flag, (_, value) in SHORT.items()
    }


def test_the_same_command_with_resume_goes_on(data: Path, tmp_path: Path) -> None:
    command = ["--data", data, "--outdir", tmp_path / "run", "--preset", "smoke-16", "--cond", "--device", "cpu"]
    first = invoke(*command, "--kimg", 0.008)
    assert first.exit_code == 0, first.output
    again = invoke(*command, "--kimg", 0.012)
    assert "pass --resume" in str(again.exception)

    second = invoke(*command, "--kimg", 0.012, "--resume")

    assert second.exit_code == 0, second.output
    assert read_stats(tmp_path / "run")[-1]["step"] == 3
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_torchruns_module_ends_errors_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rosacea_model.training", "--data", str(tmp_path / "no"), "--outdir", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'no'}: neither a folder nor a file\n"


def test_settings_of_a_run_come_from_a_file_and_the_environment_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "train.toml"
    file.write_text(f'data = "{data}"\npreset = "smoke-16"\ncond = true\nbatch = 8\ngamma = 3\nsnap_minutes = "none"\n')
    monkeypatch.setenv("ROSACEA_TRAIN_GAMMA", "4")
    monkeypatch.setenv("ROSACEA_TRAIN_PL_WEIGHT", "0")

    result = invoke("--config", file, "--outdir", tmp_path / "run", "--pl-weight", 1, "--dry-run")

    config = json.loads(result.output)
    assert (config["batch"], config["gamma"], config["pl_weight"], config["snap_minutes"]) == (8, 4, 1, None)
    assert config["label_width"] == 2 and config["z_dim"] == 32


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text("".join(json.dumps(record) + "\n" for record in smoke_figures(Path(folder))))
