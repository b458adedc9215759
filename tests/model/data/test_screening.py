"""Near duplicates, bars over the eyes and enlarged pictures: found where they are, and not where they are not."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rosacea_model.data.screening.alignment import SIDE
from rosacea_model.data.screening.bars import find_bar
from rosacea_model.data.screening.hashes import groups, near_duplicates, thumbnail
from rosacea_model.data.screening.upscaled import find_enlargement

from .faces import barred, cropped, encoded, face, phantom, reopened

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

pytestmark = pytest.mark.slow  # together they take half a minute

DISTINCT = 400
SOME = 200


def thumbnails(images: list[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([thumbnail(image) for image in images])


@pytest.fixture(scope="module")
def phantoms() -> list[Image.Image]:
    return [phantom(number, 128) for number in range(DISTINCT)]


def recompressed(image: Image.Image) -> Image.Image:
    return reopened(encoded(image, "JPEG", quality=70))


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def without_border(image: Image.Image) -> Image.Image:
    return cropped(image).resize(image.size, Image.Resampling.LANCZOS)


def all_at_once(image: Image.Image) -> Image.Image:
    return recompressed(mirrored(without_border(image)))


def test_distinct_phantoms_hold_no_duplicate(phantoms: list[Image.Image]) -> None:
    assert near_duplicates(thumbnails(phantoms)) == []


def test_distinct_faces_drawn_otherwise_hold_no_duplicate() -> None:
    assert near_duplicates(thumbnails([face(number, 128) for number in range(SOME)])) == []


@pytest.mark.parametrize("change", [recompressed, mirrored, without_border, all_at_once])
def test_a_changed_copy_is_found_and_no_other(
    phantoms: list[Image.Image], change: Callable[[Image.Image], Image.Image]
) -> None:
    copies = [change(image) for image in phantoms[:SOME]]

    pairs = near_duplicates(thumbnails([*phantoms, *copies]))

    wrong = [pair for pair in pairs if pair.second - pair.first != DISTINCT]
    assert wrong == [] and len(pairs) >= 0.95 * SOME


def test_hundreds_of_copies_of_one_picture_are_one_group() -> None:
    image = phantom(0, 128)
    copies = [reopened(encoded(image, "JPEG", quality=quality)) for quality in range(50, 95)] * 10

    pairs = near_duplicates(thumbnails(copies))

    (group,) = groups(len(copies), ((pair.first, pair.second) for pair in pairs))
    assert len(group) == len(copies) and len(pairs) < 2 * len(copies)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_plain_pictures_are_no_duplicates_by_their_detail(count: int) -> None:
    assert near_duplicates(np.full((count, SIDE, SIDE), 128, np.uint8)) == []


def test_groups_are_what_pairs_connect() -> None:
    assert groups(7, [(5, 1), (1, 2), (6, 4)]) == [[1, 2, 5], [4, 6]]


def test_bars_of_any_colour_are_found_and_faces_left_alone(phantoms: list[Image.Image]) -> None:
    alarms = sum(find_bar(image) is not None for image in phantoms[:SOME])
    found = sum(find_bar(barred(image, number)) is not None for number, image in enumerate(phantoms[:SOME]))

    assert alarms <= 0.005 * SOME and found >= 0.95 * SOME, (alarms, found)


def test_grey_and_recompressed_faces_raise_no_alarm(phantoms: list[Image.Image]) -> None:
    grey = [reopened(encoded(image.convert("L"), "JPEG", quality=60)) for image in phantoms[:100]]

    assert sum(find_bar(image) is not None for image in grey) <= 1


def test_enlarged_pictures_are_found_and_others_left_alone() -> None:
    pictures = [*(phantom(number, 256) for number in range(30)), *(face(number, 256) for number in range(30))]
    pictures += [reopened(encoded(image, "JPEG", quality=85)) for image in pictures]
    pictures += [face(number, 512).resize((256, 256), Image.Resampling.LANCZOS) for number in range(20)]
    enlarged = [image.resize((512, 512), Image.Resampling.LANCZOS) for image in pictures[:60]]

    assert sum(find_enlargement(image) is not None for image in pictures) <= 0.01 * len(pictures)
    assert sum(find_enlargement(image) is not None for image in enlarged) >= 0.95 * len(enlarged)


def small_thumbnail(number: int) -> NDArray[np.uint8]:
    return thumbnail(phantom(number, 64))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_five_thousand_distinct_phantoms_show_no_near_duplicate() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        faces = np.stack(list(pool.map(small_thumbnail, range(5_000), chunksize=100)))

    assert near_duplicates(faces) == []
    assert near_duplicates(np.concatenate([faces[:50], faces[7:8]])) != [], "it finds none at all"
