"""What is held out of a data set: a share of every class, and no person or duplicate on both sides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model.data.errors import DataRejected
from rosacea_model.data.prepare import Finding, Result, holdout_path, prepare
from rosacea_model.data.screening.holdout import set_aside
from rosacea_model.data.writer import DatasetWriter

from .faces import encoded, face
from .test_prepare import SIZE, few, options, write_photos
from .test_writer import read_zip

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def sides(result: Result) -> dict[str, bool]:
    return {kept.picture.name: place in result.held_out for place, kept in enumerate(result.kept)}


@pytest.mark.parametrize("seed", range(4))
def test_duplicates_and_persons_stay_on_one_side(photos: Path, tmp_path: Path, seed: int) -> None:
    subjects = tmp_path / "subjects.csv"
    rows = [f"{('healthy', 'rosacea')[number % 2]}/{number:02d}.jpg,person {number // 4}" for number in range(20)]
    subjects.write_text("\n".join(["file,subject", *rows]))

    result = prepare(photos, tmp_path / "data.zip", options(holdout=0.4, seed=seed, subjects=subjects))

    side = sides(result)
    assert side["healthy/00.jpg"] == side["healthy/again.jpg"]
    assert side["healthy/02.jpg"] == side["rosacea/mirrored.png"]
    for person in range(5):
        names = [row.split(",")[0] for row in rows if row.endswith(f"person {person}")]
        assert len({side[name] for name in names}) == 1
    assert 0 < len(result.held_out) <= 0.4 * 23 + 1
    training, held = (read_zip(path.read_bytes()) for path in (tmp_path / "data.zip", tmp_path / "data-holdout.zip"))
    assert sum(name.endswith(".png") for name in {**training}) + sum(name.endswith(".png") for name in held) == 23
    assert holdout_path(tmp_path / "data.zip").name == "data-holdout.zip"


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve persons: a face, another of the same one, and between them a copy of the first, which links the two."""
    root = tmp_path_factory.mktemp("persons")
    rows = ["file,subject"]
    for person in range(12):
        face(person, 96).save(root / f"{person:02d}-a.png")
        (root / f"{person:02d}-b.jpg").write_bytes(encoded(face(person, 96), "JPEG", quality=90))
        face(100 + person, 96).save(root / f"{person:02d}-c.png")
        rows += [f"{person:02d}-{name}, person {person} " for name in ("b.jpg", "c.png")]
    root.with_suffix(".csv").write_text("\n".join(rows))
    return root


def test_an_excluded_copy_still_keeps_its_person_on_one_side(persons: Path, tmp_path: Path) -> None:
    wanted = options(holdout=0.4, subjects=persons.with_suffix(".csv"), exclude=frozenset({Finding.duplicates}))

    result = prepare(persons, tmp_path / "data.zip", wanted)

    side = sides(result)
    out = {result.kept[place].picture.name for place in result.excluded}
    assert out == {f"{person:02d}-b.jpg" for person in range(12)} and 0 < len(result.held_out) < 12
    assert all(side[f"{person:02d}-a.png"] == side[f"{person:02d}-c.png"] for person in range(12))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("a.jpg,anna", "1 of its 1 files are no picture"),
        ("", "0 of its 0 files"),
        ("00-a.png,anna\n00-a.png,berta", "line 3: 00-a.png has two subjects, anna and berta"),
        ("00-a.png,anna\nelse.png,berta", "1 of its 2 files are no picture of the source, such as else.png"),
        ("x" * 200_000 + ",anna", "not readable as a CSV: field larger"),
    ],
)
def test_a_list_of_subjects_that_misses_its_pictures_is_refused(
    persons: Path, tmp_path: Path, rows: str, told: str
) -> None:
    (tmp_path / "subjects.csv").write_text(f"file,subject\n{rows}\n")

    with pytest.raises(DataRejected, match=told):
        prepare(persons, tmp_path / "data.zip", options(holdout=0.3, subjects=tmp_path / "subjects.csv"))


def test_subjects_without_a_holdout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need a holdout"):
        options(subjects=tmp_path / "subjects.csv")


def test_both_parts_of_a_split_have_the_same_classes(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data.zip") as writer:
        for number in range(12):
            writer.add(np.asarray(face(number, SIZE)), 9 if number == 0 else number % 2)

    prepare(tmp_path / "data.zip", tmp_path / "out.zip", options(holdout=0.4))

    for name in ("out.zip", "out-holdout.zip"):
        sheet = json.loads(read_zip((tmp_path / name).read_bytes())["datasheet.json"])
        assert sheet["classes"] == [str(number) for number in range(10)]


def test_a_holdout_of_an_earlier_run_does_not_stay_beside_new_training_data(tmp_path: Path) -> None:
    photos = few(tmp_path / "photos")
    prepare(photos, tmp_path / "data.zip", options(holdout=0.5))
    before = (tmp_path / "data.zip").read_bytes()

    with pytest.raises(DataRejected, match="held out by an earlier run"):
        prepare(photos, tmp_path / "data.zip", options())

    assert (tmp_path / "data.zip").read_bytes() == before


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_a_holdout_that_cannot_be_made_leaves_both_files_alone(tmp_path: Path, share: float) -> None:
    photos = few(tmp_path / "photos")

    with pytest.raises(DataRejected, match=rf"no picture left for it; 0 of 4 .* share of {share} of 4 pictures"):
        prepare(photos, tmp_path / "data.zip", options(holdout=share))

    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_small_classes_together_give_their_share() -> None:
    classes = [number % 10 for number in range(40)]

    held = set_aside([f"key {number}" for number in range(40)], classes, [], share=0.1, seed=0)

    assert len(held) == 4


def test_each_class_gives_its_share_and_order_does_not_matter() -> None:
    keys, classes = [f"key {number}" for number in range(200)], [number % 4 == 0 for number in range(200)]

    held = set_aside(keys, classes, [(0, 4), (8, 1)], share=0.1, seed=3)
    reverse = set_aside(keys[::-1], classes[::-1], [(199, 195), (191, 198)], share=0.1, seed=3)

    assert {keys[place] for place in held} == {keys[::-1][place] for place in reverse}
    assert 17 <= len(held) <= 20 and 4 <= sum(classes[place] for place in held) <= 6
    assert held != set_aside(keys, classes, [], share=0.1, seed=4)
