"""`rosacea data phantom`: the zip, its labels and its ground truth, whatever the number of processes."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from rosacea_model.commands.phantom import phantom
from rosacea_model.data.dataset import LabelledImages
from rosacea_model.data.writer import OWN_NAMES
from rosacea_model.data.zipread import MAX_ENTRIES, MAX_MEMBER_BYTES
from rosacea_model.phantom import Subtype, render, sample_phantom, series
from rosacea_model.phantom.histograms import draw, facts_of
from rosacea_model.phantom.series import (
    BATCH,
    MAX_COUNT,
    TRUTH_FACES,
    LabelKind,
    Series,
    class_names,
    label_of,
    truth_name,
    write_series,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

app = typer.Typer()
app.command()(phantom)


def run(*args: str) -> str:
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    return result.output


def write(path: Path, series: Series, labels: LabelKind = LabelKind.both, workers: int = 1) -> Sequence[int]:
    return list(write_series(path, series, labels, workers=workers))


def test_the_zip_holds_the_faces_their_labels_and_their_truth(tmp_path: Path) -> None:
    out = tmp_path / "faces.zip"
    run("--out", str(out), "--count", "6", "--resolution", "32", "--seed", "5", "--labels", "severity")

    with zipfile.ZipFile(out) as archive:
        truth = [json.loads(line) for line in archive.read(truth_name(0)).splitlines()]
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        for index, facts in enumerate(truth):
            image = np.asarray(Image.open(io.BytesIO(archive.read(facts["name"]))))
            spec = sample_phantom(5, index)
            np.testing.assert_array_equal(image, render(spec, 32).image)
            assert facts | {"name": ""} == json.loads(json.dumps(spec.attributes())) | {"name": ""}
            assert labels[facts["name"]] == spec.condition.grade
    assert len(truth) == 6


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    series = Series(seed=1, count=BATCH * 3 + 5, resolution=16, confounders=True)
    assert write(tmp_path / "one.zip", series)[-1] == series.count
    assert write(tmp_path / "two.zip", series, workers=2)[-1] == series.count

    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_longer_series_begins_with_the_shorter(tmp_path: Path) -> None:
    for count in (3, 5):
        write(tmp_path / f"{count}.zip", Series(seed=1, count=count, resolution=16, confounders=False))

    with zipfile.ZipFile(tmp_path / "3.zip") as short, zipfile.ZipFile(tmp_path / "5.zip") as long:
        names = [name for name in short.namelist() if name.endswith(".png")]
        assert len(names) == 3
        assert all(short.read(name) == long.read(name) for name in names)


@pytest.mark.parametrize(("labels", "classes"), [("severity", 4), ("subtype", 4), ("both", 10), ("none", 0)])
def test_every_label_has_a_name(labels: str, classes: int) -> None:
    kind = LabelKind(labels)
    faces = [render(sample_phantom(0, index), 16) for index in range(60)]
    found = {label_of(face, kind) for face in faces}

    assert len(class_names(kind)) == classes
    assert found == ({None} if kind is LabelKind.none else set(range(classes)))


def test_both_names_subtype_and_grade() -> None:
    names = class_names(LabelKind.both)
    for index in range(40):
        face = render(sample_phantom(3, index), 16)
        label = label_of(face, LabelKind.both)
        assert label is not None
        kind, severity = face.attributes["subtype"], face.attributes["severity"]
        assert names[label] == (kind if kind == Subtype.healthy else f"{kind} {severity}")


def test_maps_are_written_beside_when_asked_for(tmp_path: Path) -> None:
    run(
        "--out",
        str(tmp_path / "a.zip"),
        "--count",
        "2",
        "--resolution",
        "16",
        "--workers",
        "1",
        "--maps",
        str(tmp_path / "maps"),
    )

    with np.load(tmp_path / "maps" / "00000001.npz") as maps:
        np.testing.assert_array_equal(maps["haemoglobin"], render(sample_phantom(0, 1), 16).haemoglobin)


def test_an_odd_resolution_is_refused_with_its_value(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "a.zip"), "--resolution", "100", "--count", "1"])

    assert result.exit_code == 2
    assert "got 100" in result.output
    assert not list(tmp_path.iterdir())


def test_histograms_draw_every_attribute() -> None:
    page = draw([facts_of(0, index) for index in range(24)], "24 phantoms")

    assert page.size == (720, 994)
    assert len(page.getcolors(100_000) or []) > 10


def test_the_truth_of_the_largest_set_fits_what_readers_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "TRUTH_FACES", 2)
    write(tmp_path / "a.zip", Series(seed=0, count=5, resolution=16, confounders=True))

    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist() if info.filename.endswith(".jsonl")}
        assert [len(archive.read(f"phantoms/{number:05d}.jsonl").splitlines()) for number in range(3)] == [2, 2, 1]
    assert max(sizes.values()) / 2 * TRUTH_FACES < MAX_MEMBER_BYTES / 2
    assert MAX_COUNT + MAX_COUNT // TRUTH_FACES + len(OWN_NAMES) <= MAX_ENTRIES


def test_labels_are_as_wide_as_there_are_classes_however_few_are_drawn(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path / f"{seed}.zip", Series(seed=seed, count=2, resolution=16, confounders=True))

        dataset = LabelledImages(tmp_path / f"{seed}.zip")

        assert dataset.label_dim == 10 and list(dataset.classes) == class_names(LabelKind.both)
