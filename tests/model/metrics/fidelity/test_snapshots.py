"""What ranks the snapshots of a training run."""

from __future__ import annotations

import numpy as np
import pytest

from rosacea_model.metrics.encoders.builtin import BuiltinEncoder
from rosacea_model.metrics.fidelity.kernel import kernel_distance
from rosacea_model.metrics.fidelity.snapshots import KidMeasure

from ..encoders import random_pixels


def test_snapshots_are_ranked_by_kid_over_all_pairs() -> None:
    reals, near = random_pixels(24, 64), random_pixels(16, 64, seed=1)
    far = near // 2
    measure, encode = KidMeasure(), BuiltinEncoder().encode

    found = [measure(reals, fakes) for fakes in (near, far)]

    one, *others = (encode(images).astype(np.float64) for images in (reals, near, far))
    assert found == pytest.approx([1000 * kernel_distance(one, other) for other in others])
    assert found[0] < found[1] / 10
