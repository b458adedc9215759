"""Bars over the eyes: found in any colour and size of picture, on drawn faces and on a generator's, and no others."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rosacea_model.data.screening.bars import find_bar

from .faces import barred, face, phantom

# A study's released synthetic faces, each looked at: bars.csv says clear, partial or none.
FACES = Path(__file__).parents[4] / "shared" / "data" / "released_faces"


def test_a_bar_is_told_where_it_lies() -> None:
    image = phantom(0, 256)
    ImageDraw.Draw(image).rectangle((64, 110, 191, 140), fill=(0, 0, 0))

    bar = find_bar(image)

    assert bar is not None and bar.angle == 0.0
    assert abs(bar.left - 0.25) < 0.03 and abs(bar.right - 0.75) < 0.03 and 0.42 < bar.top < bar.bottom < 0.56


@pytest.mark.parametrize("box", [(64, 220, 191, 245), (64, 2, 191, 20), (64, 80, 100, 190)])
def test_a_rectangle_elsewhere_or_upright_is_no_bar(box: tuple[int, int, int, int]) -> None:
    image = phantom(0, 256)
    ImageDraw.Draw(image).rectangle(box, fill=(0, 0, 0))

    assert find_bar(image) is None


@pytest.mark.parametrize("size", [128, 256])
def test_phantoms_with_and_without_bars_are_told_apart(size: int) -> None:
    faces = [phantom(number, size) for number in range(8)]

    assert [find_bar(image) for image in faces] == [None] * 8
    assert all(find_bar(barred(image, number)) for number, image in enumerate(faces))


def test_a_bar_close_to_the_skin_in_colour_is_found_by_its_edges() -> None:
    image = face(3, 256)
    red, green, blue = np.asarray(image)[100, 128].tolist()
    ImageDraw.Draw(image).rectangle((64, 106, 191, 140), fill=(red - 22, green - 16, blue - 14))

    assert find_bar(image) is not None


@pytest.mark.slow
@pytest.mark.parametrize("size", [128, 256, 512])
def test_clear_bars_on_a_generators_faces_are_found_and_faces_left_alone(size: int) -> None:
    found = released(size)

    clear, none = found["clear"], found["none"]
    assert sum(clear) >= 0.9 * len(clear) and sum(none) <= 0.01 * len(none), {size: (sum(clear), sum(none))}


def released(size: int) -> dict[str, list[bool]]:
    if not FACES.is_dir():
        pytest.skip("needs the study's released faces, which are not part of this project")
    found: dict[str, list[bool]] = {"clear": [], "partial": [], "none": []}
    with (FACES / "bars.csv").open() as file:
        for row in csv.DictReader(file):
            with Image.open(FACES / row["file"]) as image:
                found[row["bar"]].append(find_bar(image.resize((size, size), Image.Resampling.LANCZOS)) is not None)
    return found
