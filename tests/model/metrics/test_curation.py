"""Curation: every check drops what it is for and nothing else, and the same rule keeps the same faces."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rosacea_model.metrics.audit.spaces import PerceptualSpace, PixelSpace
from rosacea_model.metrics.curation import Curation, CurationCheck, CurationRule, Curator, curate
from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.images import ArrayImages
from rosacea_model.phantom.redness import mean_regions, measure
from rosacea_model.phantom.series import Series, draw_series

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

NONE = CurationRule(bars=False, copy=0, redness=0, score=0, alike=0)
SPACES = (PixelSpace(), PerceptualSpace())


@cache
def phantoms(seed: int, count: int) -> Pixels:
    return np.stack([face.image for face in draw_series(Series(seed, count, 32, False), workers=1)])


def chosen(faces: Pixels, rule: CurationRule, *, count: int | None = None, **more: Any) -> Curation:
    training = ArrayImages(phantoms(1, 60), labels=np.eye(2, dtype=np.float32)[np.arange(60) % 2])
    curator = Curator(training, SPACES, rule, **more)
    return curate(ArrayImages(faces), range(100, 100 + len(faces)), curator, count=count)


def with_bar(image: Pixels) -> Pixels:
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).rectangle((6, 11, 26, 16), fill=(20, 20, 20))
    return np.asarray(picture)


def changed(place: int, change: Callable[[Pixels], Pixels]) -> Pixels:
    faces = phantoms(2, 20).copy()
    faces[place] = change(faces[place])
    return faces


def red(image: Pixels) -> Pixels:
    """The central face much redder, the rest as it is."""
    region = mean_regions(32).face[:, :, None] / mean_regions(32).face.max()
    return np.asarray(np.clip(image * (1 - region * [0.0, 0.6, 0.6]), 0, 255), np.uint8)


@pytest.mark.parametrize(
    ("check", "rule", "faces"),
    [
        (
            CurationCheck.copy,
            CurationRule(bars=False, redness=0, alike=0),
            lambda: changed(5, lambda image: phantoms(1, 60)[7, :, ::-1]),
        ),
        (CurationCheck.redness, CurationRule(bars=False, copy=0, alike=0), lambda: changed(5, red)),
        (
            CurationCheck.alike,
            CurationRule(bars=False, copy=0, redness=0),
            lambda: changed(5, lambda image: phantoms(2, 20)[1] // 9 * 9),
        ),
    ],
)
def test_a_check_drops_what_it_is_for_and_says_why(
    check: CurationCheck, rule: CurationRule, faces: Callable[[], Pixels]
) -> None:
    found = chosen(faces(), rule)
    decision = found.decisions[5]

    assert decision.dropped_for == check
    assert decision.seed == 105
    assert set(found.dropped) == {check}
    assert len(found.seeds) >= 12
    if check == CurationCheck.copy:
        assert "from training image 7, below" in decision.why
    if check == CurationCheck.alike:
        assert "from seed 101 in pixel, below" in decision.why


def test_a_bar_over_the_eyes_is_dropped_first() -> None:
    found = chosen(changed(5, with_bar), CurationRule())

    assert found.decisions[5].dropped_for == CurationCheck.bar


def test_a_rule_without_checks_keeps_everything_and_one_with_a_count_stops_there() -> None:
    assert chosen(phantoms(2, 20), NONE).seeds == list(range(100, 120))
    stopped = chosen(phantoms(2, 20), NONE, count=3)
    assert stopped.seeds == [100, 101, 102]
    assert len(stopped.decisions) == 3


def test_the_same_rule_keeps_the_same_faces_and_more_candidates_change_none_before_them() -> None:
    rule = CurationRule(bars=False, copy=0.05, redness=0.3, alike=0.2)
    first, again = (chosen(phantoms(2, 20)[:count], rule) for count in (20, 20))

    assert first.decisions == again.decisions
    shorter = chosen(phantoms(2, 20)[:9], rule).decisions
    assert [each.kept for each in shorter] == [each.kept for each in first.decisions[:9]]
    assert 0 < len(first.seeds) < 20


def test_redness_is_that_of_the_training_images_of_the_class() -> None:
    contrast = measure(phantoms(1, 60), mean_regions(32)).contrast
    curator = Curator(
        ArrayImages(phantoms(1, 60), labels=np.eye(2, dtype=np.float32)[(contrast > np.median(contrast)).astype(int)]),
        SPACES[:1],
        CurationRule(bars=False, copy=0, alike=0, redness=0.1),
        label=np.array([0, 1], np.float32),
    )

    low, high = curator.limits.redness
    assert np.median(contrast) <= low < high <= contrast.max()


def test_a_class_that_no_training_image_has_is_refused() -> None:
    with pytest.raises(MetricError, match=r"no training image has the label \[0.5, 0.5\]"):
        chosen(phantoms(2, 4), CurationRule(), label=np.array([0.5, 0.5], np.float32))


@pytest.mark.parametrize("share", [-0.1, 0.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(MetricError, match=r"copy must be a share from 0 to below 0\.5 of the training images, got"):
        CurationRule(copy=share)
