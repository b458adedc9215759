"""What training sees of a data set."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from rosacea_model.data.dataset import LabelledImages
from rosacea_model.data.errors import DataRejected
from rosacea_model.data.writer import DatasetWriter

from .test_writer import images

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["zip", "folder"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Ten images in three classes, as a zip and as a folder."""
    path = tmp_path / "data.zip"
    with DatasetWriter(path) as writer:
        for number, image in enumerate(images(10)):
            writer.add(image, number % 3)
    if request.param == "folder":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "data")
        return tmp_path / "data"
    return path


def test_images_and_one_hot_labels_come_by_index(data: Path) -> None:
    dataset = LabelledImages(data)

    image, label = dataset[4]

    assert (len(dataset), dataset.resolution, dataset.channels, dataset.label_dim) == (10, 16, 3, 3)
    assert image.dtype == np.uint8 and (image == images(10)[4].transpose(2, 0, 1)).all()
    assert label.dtype == np.float32 and label.tolist() == [0, 1, 0]


def test_the_mirror_doubles_the_set(data: Path) -> None:
    dataset = LabelledImages(data, mirror=True)

    assert len(dataset) == 20
    assert (dataset[13][0] == dataset[3][0][:, :, ::-1]).all() and (dataset[13][1] == dataset[3][1]).all()
    with pytest.raises(IndexError):
        dataset[20]


def test_a_subset_is_chosen_by_its_seed(data: Path) -> None:
    names = [[LabelledImages(data, subset=5, seed=seed).name(index) for index in range(5)] for seed in (1, 1, 2)]

    assert names[0] == names[1] != names[2] and len(set(names[0])) == 5


def test_labels_can_be_left_out(data: Path) -> None:
    assert LabelledImages(data, labels=False)[0][1].shape == (0,)


def test_vectors_stay_vectors(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data.zip") as writer:
        for image in images(2):
            writer.add(image, [0.25, 2.0])

    assert LabelledImages(tmp_path / "data.zip")[1][1].tolist() == [0.25, 2.0]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loader_workers_read_the_same_as_one_process(data: Path, start: str) -> None:
    dataset = LabelledImages(data, mirror=True)
    alone = [dataset[index] for index in range(len(dataset))]

    loader = DataLoader(dataset, batch_size=1, num_workers=2, multiprocessing_context=start)

    for (image, label), (expected, expected_label) in zip(loader, alone, strict=True):
        assert (image[0].numpy() == expected).all() and (label[0].numpy() == expected_label).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"resolution": 32}, "resolution must be 32, got 16"),
        ({"channels": 1}, "must have 1 channels, got 3"),
        ({"subset": 11}, "subset must be from 1 to 10, got 11"),
        ({"subset": 0}, "subset must be from 1 to 10, got 0"),
    ],
)
def test_what_does_not_fit_is_said(data: Path, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(DataRejected, match=told):
        LabelledImages(data, **arguments)


def test_an_image_unlike_the_first_is_named(tmp_path: Path) -> None:
    for name, size in (("a.png", (16, 16)), ("b.png", (32, 32)), ("c.png", (16, 12))):
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "d.png").write_bytes(b"nonsense")
    dataset = LabelledImages(tmp_path)

    expected = (r"b\.png: resolution", r"c\.png: must be square", r"d\.png: wrong format")
    for index, told in enumerate(expected, 1):
        with pytest.raises(DataRejected, match=told):
            dataset[index]
    with pytest.raises(DataRejected, match=r"3 of 4 images .*c\.png: must .*d\.png: wrong .*a\.png: it is") as refused:
        dataset.check()
    assert "rosacea data prepare" in str(refused.value)


def write_mixed(folder: Path, modes: str) -> None:
    """Sixteen pixels a side, grey (L) or in colour (C); or larger (B)."""
    for number, mode in enumerate(modes):
        image = Image.new("RGB", (32, 32) if mode == "B" else (16, 16), (7, 7, 7))
        (image.convert("L") if mode == "L" else image).save(folder / f"{number}.png")


@pytest.mark.parametrize(
    ("modes", "told"),
    [
        ("CCCCCLCC", r"1 of 8 images .*: 5\.png: it is 16x16 and grey, and 7 others are 16x16 and in colour"),
        ("LCCCCLCC", r"2 of 8 .*0\.png: it is 16x16 and grey, and 6 others are .* in colour; 5\.png"),
        ("LLLCLLLL", r"1 of 8 .*3\.png: it is 16x16 and in colour, and 7 others are 16x16 and grey"),
        ("BCCCCCCC", r"1 of 8 .*0\.png: it is 32x32 and in colour, and 7 others are 16x16 and in colour"),
    ],
)
def test_grey_among_colour_is_told_before_a_run(tmp_path: Path, modes: str, told: str) -> None:
    write_mixed(tmp_path, modes)

    with pytest.raises(DataRejected, match=told):
        LabelledImages(tmp_path).check()


def test_a_grey_image_is_read_as_colour_beside_others(tmp_path: Path) -> None:
    write_mixed(tmp_path, "CCL")

    image = LabelledImages(tmp_path)[2][0]

    assert image.shape == (3, 16, 16) and (image == 7).all()


def test_a_cut_file_is_told_before_a_run_by_the_process_whose_share_it_is(tmp_path: Path) -> None:
    write_mixed(tmp_path, "CCCCCC")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:-9])
    dataset = LabelledImages(tmp_path)

    dataset.check(rank=0, world=2)
    with pytest.raises(DataRejected, match=r"1 of 3 images .*: 3\.png: truncated"):
        dataset.check(rank=1, world=2)


def test_a_missing_label_is_told_with_its_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["a.png", 0]]}))

    with pytest.raises(DataRejected, match=r"1 of 2 images have no label, such as b\.png"):
        LabelledImages(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match="no images in it"):
        LabelledImages(tmp_path)


def test_a_vanished_file_is_told_by_its_name(tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number}.png")
    data = LabelledImages(tmp_path)
    (tmp_path / "1.png").unlink()

    with pytest.raises(DataRejected, match=r"1\.png: unreadable: No such file"):
        data[1]
