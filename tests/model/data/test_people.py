"""Who is in the pictures: one person's stay together, and faces are found, counted and turned upright."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rosacea_model.commands import data
from rosacea_model.commands.data import app
from rosacea_model.data.errors import DataRejected
from rosacea_model.data.screening.faces import DetectedFace, FaceFinder
from rosacea_model.data.screening.people import people
from rosacea_model.phantom.identity import sample_phantom
from rosacea_model.phantom.render import render

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HAS_FACES = all(importlib.util.find_spec(name) for name in ("dlib", "face_recognition_models"))
needs_faces = pytest.mark.skipif(not HAS_FACES, reason="needs the extra: pip install '.[faces]'")


def portrait(person: int, picture: int, size: int = 128) -> Image.Image:
    """A phantom's person in another light, pose and state of the disease."""
    who, how = sample_phantom(9, person), sample_phantom(1000 + picture, 6 * person + picture)
    condition = replace(how.condition, glasses=who.condition.glasses, beard=who.condition.beard)
    return Image.fromarray(render(replace(who, scene=how.scene, condition=condition), size).image)


def embeddings(people_count: int, each: int, spread: float, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (people_count, 128))
    centres *= 0.6 / np.linalg.norm(centres, axis=1, keepdims=True)
    return (np.repeat(centres, each, axis=0) + rng.normal(0, spread, (people_count * each, 128))).astype(np.float32)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_pictures_of_one_person_are_grouped_however_alike_all_faces_are(scale: float) -> None:
    found = people(scale * embeddings(20, 6, 0.02))

    assert found == [list(range(first, first + 6)) for first in range(0, 120, 6)]


def test_people_of_whom_there_is_one_picture_each_are_in_no_group() -> None:
    assert people(embeddings(60, 1, 0)) == []
    assert people(embeddings(1, 1, 0)) == people(np.zeros((0, 128), np.float32)) == []


def test_the_same_picture_twice_is_one_person() -> None:
    one = embeddings(30, 1, 0)

    assert people(np.concatenate([one, one[4:5]])) == [[4, 30]]


def test_without_the_extra_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(DataRejected, match=r"pip install 'rosacea\[faces\]'"):
        FaceFinder()


@needs_faces
def test_the_command_groups_people_and_names_pictures_without_one_face(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for person in range(3):
        for picture in range(3):
            portrait(person, picture).save(folder / f"{person}-{picture}.png")
    Image.new("RGB", (128, 128), (90, 120, 90)).save(folder / "meadow.png")
    pair = Image.new("RGB", (256, 128))
    for place in range(2):
        pair.paste(portrait(3 + place, 0), (128 * place, 0))
    pair.save(folder / "two.png")

    arguments = ["faces", str(folder), "--out", str(tmp_path / "people.csv"), "--align", str(tmp_path / "aligned")]
    result = CliRunner().invoke(app, [*arguments, "--resolution", "128"], catch_exceptions=False)

    report = json.loads((tmp_path / "people.json").read_text())
    assert report["without_a_face"] == ["meadow.png"] and report["several_faces"] == {"two.png": 2}
    with (tmp_path / "people.csv").open() as file:
        subjects = {row["file"]: row["subject"] for row in csv.DictReader(file)}
    for name, subject in subjects.items():
        assert {other[0] for other, same in subjects.items() if same == subject} == {name[0]}
    assert len(subjects) >= 7 and (tmp_path / "people-people.png").exists()
    assert "9 pictures with one face, 1 without, 1 with several" in result.output
    assert all(eyes_are_level(path) for path in (tmp_path / "aligned").glob("*.png"))


def test_prepare_keeps_the_people_that_it_finds_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    for person in range(8):
        for picture in range(3):
            noise = np.random.default_rng(10 * person + picture).integers(0, 256, (32, 32, 3)).astype(np.uint8)
            noise[0, 0] = person  # what the stand-in for the networks knows people by
            Image.fromarray(noise).save(tmp_path / "pictures" / f"{picture}-{person}.png")
    monkeypatch.setattr(data, "FaceFinder", ByFirstPixel)
    arguments = ["prepare", str(tmp_path / "pictures"), "--out", str(tmp_path / "data.zip"), "--resolution", "32"]

    result = CliRunner().invoke(app, [*arguments, "--holdout", "0.3", "--people"], catch_exceptions=False)
    alone = CliRunner().invoke(app, [*arguments[:4], "--people"])

    report = json.loads((tmp_path / "data-report.json").read_text())
    held = [entry["file"][2:] for entry in report["images"] if "holdout" in entry["zip"]]
    assert 0 < len(held) < 24 and all(held.count(person) == 3 for person in held)
    assert "24 look like another one, in 8 groups" in result.output and (tmp_path / "data-people.png").exists()
    assert isinstance(alone.exception, ValueError) and "need a holdout above 0" in str(alone.exception)


class ByFirstPixel:
    """Finds one face in every picture, of the person that its first pixel names."""

    def find(self, image: Image.Image) -> list[DetectedFace]:
        person = int(np.asarray(image)[0, 0, 0])
        return [DetectedFace(2, 2, 30, 30, 1.0, ((10, 12), (20, 12)), embeddings(8, 1, 0)[person])]


def eyes_are_level(path: Path) -> bool:
    with Image.open(path) as image:
        (face,) = FaceFinder().find(image)
    (left, top), (right, bottom) = face.eyes
    return abs(top - bottom) < 6 and abs((left + right) / 2 - 64) < 6 and abs(right - left - 0.36 * 128) < 8
