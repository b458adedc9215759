"""Redness as features: the numbers are those of `measure`, in the same pass as another encoder's."""

from __future__ import annotations

import numpy as np
import pytest

from rosacea_model.metrics.encoders.joint import JointEncoder
from rosacea_model.metrics.erythema.encoder import RednessEncoder, box_mean, redness_of
from rosacea_model.phantom.redness import mean_regions, measure

from ..encoders import BlockEncoder, fits, random_pixels


def test_redness_as_features_is_what_is_measured_otherwise() -> None:
    pixels = random_pixels(5, 16)
    expected = measure(list(pixels), mean_regions(16))

    found = redness_of(fits(RednessEncoder(16)).encode(pixels))

    for name in ("index", "contrast", "tone", "a_contrast", "a_spread"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5, abs=1e-5)


def test_large_images_are_measured_at_the_size_of_the_regions() -> None:
    pixels = random_pixels(3, 64)
    large = pixels.repeat(4, axis=1).repeat(4, axis=2)

    assert (RednessEncoder(256).encode(large) == RednessEncoder(64).encode(pixels)).all()
    assert RednessEncoder(256).digest == RednessEncoder(64).digest != RednessEncoder(16).digest


def test_a_joint_encoder_has_the_features_of_both_and_is_no_more_than_the_lesser() -> None:
    pixels, blocks = random_pixels(5, 16), BlockEncoder()
    joint = fits(JointEncoder(blocks, RednessEncoder(16)))

    assert (joint.encode(pixels) == np.concatenate([blocks.encode(pixels), RednessEncoder(16).encode(pixels)], 1)).all()
    assert joint.dimension == 12 + 5
    assert blocks.digest in joint.digest
    assert not joint.unrounded


def test_a_box_mean_is_that_of_numpy() -> None:
    pixels = random_pixels(2, 16)
    expected = pixels.reshape(2, 4, 4, 4, 4, 3).mean(axis=(2, 4))

    assert np.abs(box_mean(pixels, 4) - expected).max() <= 0.5
