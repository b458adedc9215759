"""Careless command lines, other data and unreadable pictures are told in one line that says what to do."""

from __future__ import annotations

import json
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from rosacea_model.commands import train as cli
from rosacea_model.data.dataset import LabelledImages
from rosacea_model.data.errors import DataRejected
from rosacea_model.files.modelfile import verify
from rosacea_model.training import checkpoint
from rosacea_model.training.config import TrainConfig
from rosacea_model.training.errors import PictureUnreadable
from rosacea_model.training.feed import RankShare, feed
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.reporting.records import read_stats

from .runs import Squares, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A flat folder: there are no labels."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number, image in enumerate(Squares().images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def classes(data: Path, tmp_path: Path) -> Path:
    """The same in two class folders."""
    for number, path in enumerate(sorted(data.iterdir())):
        target = tmp_path / "classes" / ("small" if number % 2 else "large") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path / "classes"


def invoke(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(cli.train)
    return CliRunner().invoke(app, list(map(str, arguments)))


def refused(*arguments: object) -> str:
    """What a command says that is refused as a mistake of its user."""
    result = invoke(*arguments)
    assert isinstance(result.exception, ValueError), result.output
    return str(result.exception)


def train(data: Path, run: Path, *options: object) -> Any:
    result = invoke("--data", data, "--outdir", run, "--device", "cpu", *options)
    assert result.exit_code == 0, result.exception
    return result


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    train(data, tmp_path / "run", "--preset", "smoke-16", "--kimg", 0.004)
    return tmp_path / "run"


def test_a_gpu_that_is_not_there_is_told_before_anything_is_made(data: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")

    told = refused("--data", data, "--outdir", tmp_path / "run", "--device", "cuda")

    assert "device cuda: torch" in told
    assert "use cpu" in told
    assert not (tmp_path / "run").exists()


def test_labels_that_are_not_there_are_told(data: Path, tmp_path: Path) -> None:
    told = refused("--data", data, "--outdir", tmp_path / "run", "--preset", "smoke-16", "--cond")

    assert told == f"--cond needs labels, and {data} has none: neither class folders nor a dataset.json"


def test_a_picture_that_cannot_be_learnt_from_is_named_before_there_is_a_run(data: Path, tmp_path: Path) -> None:
    odd = sorted(data.iterdir())[3]
    Image.open(odd).convert("L").save(odd)

    error = invoke("--data", data, "--outdir", tmp_path / "run", "--preset", "smoke-16", "--kimg", "0.01").exception

    assert isinstance(error, DataRejected) and f"{odd.name}: it is 16x16 and grey" in str(error)
    assert "Put the file back" not in str(error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["", "run", "deep/er"])
def test_a_run_inside_of_its_own_data_is_refused(data: Path, place: str) -> None:
    told = refused("--data", data, "--outdir", data / place, "--preset", "smoke-16", "--device", "cpu")

    assert told.startswith(f"--outdir must lie outside of --data ({data})")
    assert not [path for path in data.iterdir() if path.suffix != ".png"]


def test_a_source_with_settings_of_another_version_is_refused_by_their_names(
    data: Path, run: Path, tmp_path: Path
) -> None:
    (path,) = checkpoint.existing(run / "checkpoints")
    content = json.loads((path / checkpoint.MANIFEST_NAME).read_text())["content"]
    content["facts"]["config"]["lookahead"] = 2
    checkpoint._write_manifest(path / checkpoint.MANIFEST_NAME, content)

    told = refused("--data", data, "--outdir", tmp_path / "next", "--device", "cpu", "--init-from", run)

    assert told == f"--init-from {path}: the training config holds lookahead, which this version does not know"


def test_a_run_that_began_with_other_networks_goes_on_without_being_told_them_again(
    data: Path, run: Path, tmp_path: Path
) -> None:
    train(data, tmp_path / "next", "--preset", "smoke-16", "--init-from", run, "--kimg", 0.004, "--gamma", 2)
    shutil.rmtree(run)
    begun = TrainConfig.from_json((tmp_path / "next" / "train.json").read_text())
    assert (begun.ada_kimg, begun.gamma) == (100, 2)

    result = train(data, tmp_path / "next", "--kimg", 0.008, "--resume")

    assert f"resumes {tmp_path / 'next'} at step 1, 0.004 kimg" in result.stdout
    went_on = TrainConfig.from_json((tmp_path / "next" / "train.json").read_text())
    assert went_on.total_kimg == 0.008
    went_on.check_continues(begun)
    assert read_stats(tmp_path / "next")[-1]["step"] == 2
    same = ("--preset", "smoke-16", "--init-from", run, "--gamma", 2)
    train(data, tmp_path / "next", *same, "--kimg", 0.012, "--resume")
    assert read_stats(tmp_path / "next")[-1]["step"] == 3, "the same command goes on too, though its source is gone"


def test_resuming_as_another_preset_or_with_another_setting_is_refused(data: Path, run: Path) -> None:
    command = ["--data", data, "--outdir", run, "--device", "cpu", "--resume"]

    assert "batch was 4 in this run, got 8" in refused(*command, "--preset", "demo-64")
    assert "gamma was 1 in this run, got 3" in refused(*command, "--preset", "smoke-16", "--gamma", 3)
    assert "num_fp16_res was 4 in this run, got 0" in refused(*command, "--precision", "fp32")


def test_resuming_where_there_is_no_run_says_that_it_begins(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    result = train(data, run, "--preset", "smoke-16", "--kimg", 0.004, "--resume")

    assert f"begins anew: there is no checkpoint in {run}" in result.stdout


def test_a_damaged_config_is_told_by_its_path(data: Path, run: Path) -> None:
    (run / "train.json").write_text('{"resol')

    told = refused("--data", data, "--outdir", run, "--device", "cpu", "--resume")

    assert told.startswith(f"{run / 'train.json'}: not the config of a run that this version can read: ")


def test_the_labels_of_a_run_are_learnt_on_without_being_asked_for_again(classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(classes, run, "--preset", "smoke-16", "--kimg", 0.004, "--cond")

    train(classes, run, "--kimg", 0.008, "--resume")

    assert read_stats(run)[-1]["step"] == 2


def test_folder_names_are_kept_as_class_names_in_checkpoints_and_snapshots(classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(classes, run, "--preset", "smoke-16", "--kimg", 0.004, "--cond")

    kept = checkpoint.read_newest(run / "checkpoints", print)
    assert kept is not None and kept.facts["classes"] == ["large", "small"]
    assert [verify(path).classes for path in (run / "snapshots").glob("kimg-*")] == [("large", "small")]


def test_a_run_does_not_go_on_with_other_data(data: Path, run: Path) -> None:
    (data / "11.png").unlink()
    before = (run / "stats.jsonl").read_text()

    told = refused("--data", data, "--outdir", run, "--device", "cpu", "--kimg", 0.008, "--resume")

    assert told.startswith("the data of this run was 12 images of digest ")
    assert "got 11 images" in told
    assert (run / "stats.jsonl").read_text() == before


def sorted_by_name(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.png"), key=lambda path: path.name)


def rename(folder: Path) -> None:
    (folder / "large" / "00.png").rename(folder / "large" / "zz.png")


def relabel(folder: Path) -> None:
    labels = [[f"{path.parent.name}/{path.name}", 1 - number % 2] for number, path in enumerate(sorted_by_name(folder))]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def repaint(folder: Path) -> None:
    Image.effect_noise((16, 16), 99).convert("RGB").save(folder / "large" / "00.png")


@pytest.mark.parametrize("change", [rename, relabel, repaint])
def test_a_fingerprint_tells_names_contents_and_labels_apart(change: Callable[[Path], None], classes: Path) -> None:
    before = LabelledImages(classes).fingerprint()
    assert LabelledImages(classes).fingerprint() == before

    change(classes)

    assert LabelledImages(classes).fingerprint() != before


def test_a_fingerprint_tells_subsets_and_the_contents_of_zips_apart(data: Path, tmp_path: Path) -> None:
    zips = []
    for turned in (0, 90):
        zips.append(tmp_path / f"{turned}.zip")
        with zipfile.ZipFile(zips[-1], "w") as file:
            for path in sorted(data.iterdir()):
                pixels = Image.open(path).rotate(turned)
                pixels.save(tmp_path / "turned.bmp")
                pixels.save(tmp_path / "turned.png", compress_level=0)  # of the same size
                file.write(tmp_path / "turned.png", path.name)

    told = [LabelledImages(path).fingerprint()["digest"] for path in zips]
    told += [LabelledImages(data, subset=8, seed=seed).fingerprint()["digest"] for seed in (0, 1)]

    assert len(set(told)) == 4


class Torn(Squares):
    """A set of which one image cannot be read any more."""

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if index == 7:
            raise DataRejected("faces/7.png: cannot be decoded: truncated")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_told_with_its_name_and_what_to_do(workers: int) -> None:
    batches = feed(Torn(), seed=0, mirror=False, share=RankShare(batch=12), position=0, workers=workers)

    with pytest.raises(PictureUnreadable) as caught:
        next(batches)

    told = str(caught.value)
    assert told.startswith("faces/7.png: cannot be decoded: truncated. Put the file back as it was")
    assert "`rosacea data prepare`" in told
    assert "\n" not in told


def test_a_disk_without_room_is_told_with_the_place_and_what_to_do_and_the_checkpoint_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rosacea_model.files.weights.save", full)

    with pytest.raises(OSError, match=r"No space left on device: make room and go on with --resume: ") as caught:
        training_loop(smoke(2), Run(path=tmp_path, images=Squares()))

    assert caught.value.filename == str(tmp_path)
    assert [path.name for path in checkpoint.existing(tmp_path / "checkpoints")] == ["step-00000002"]
