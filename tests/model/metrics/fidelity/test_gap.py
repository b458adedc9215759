"""The gap between training and hold-out, and the path length: cases whose answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rosacea_model import GeneratorConfig
from rosacea_model.fresh import fresh_model
from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.fidelity.gap import holdout_gap
from rosacea_model.metrics.fidelity.path import path_length
from rosacea_model.model import load

from ..encoders import BlockEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TINY = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=16, mapping_layers=2, channel_base=64, channel_max=8, c_dim=4)
TRIALS = 100


def drawn(seed: int, count: int = 120) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, 10))


def copies(rows: NDArray[np.float64], share: float, seed: int) -> NDArray[np.float64]:
    """Fresh rows, of which a share are rows of the training set, hardly changed."""
    fakes = drawn(seed)
    count = int(share * len(fakes))
    fakes[:count] = rows[:count] + 0.01 * drawn(seed + 1, count)
    return fakes


def test_a_model_that_copies_nothing_has_a_gap_of_0_within_the_interval() -> None:
    found = [holdout_gap(drawn(seed), drawn(seed + 1000, 40), drawn(seed + 2000)) for seed in range(TRIALS)]

    assert np.mean([each.low <= 0 <= each.high for each in found]) >= 0.9
    assert abs(np.mean([each.value for each in found])) < 3 * np.std([each.value for each in found]) / TRIALS**0.5


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_copies_of_training_images_make_a_gap(share: float) -> None:
    train = drawn(1)
    found = holdout_gap(train, drawn(2, 60), copies(train, share, 3))

    assert found.low > 0
    assert found.value > holdout_gap(train, drawn(2, 60), copies(train, share / 3, 3)).value


def test_a_gap_needs_images_that_differ() -> None:
    with pytest.raises(MetricError, match="all have the same features"):
        holdout_gap(np.ones((5, 3)), np.ones((4, 3)), np.ones((6, 3)))


class ScaledBlocks(BlockEncoder):
    def encode(self, images: Any) -> NDArray[np.float32]:
        return 2 * super().encode(images)


def test_path_lengths_grow_with_the_square_of_features_and_follow_the_seed(tmp_path: Path) -> None:
    model = load(fresh_model(tmp_path, TINY, seed=0, name="fresh").path)
    labels = np.eye(4, dtype=np.float32)

    found = path_length(model, BlockEncoder(), pairs=12, seed=0, labels=labels)

    assert found.low > 0
    assert found == path_length(model, BlockEncoder(), pairs=12, seed=0, labels=labels)
    assert found.value == pytest.approx(path_length(model, ScaledBlocks(), pairs=12, seed=0, labels=labels).value / 4)
    assert found.value != path_length(model, BlockEncoder(), pairs=12, seed=1, labels=labels).value


def test_a_path_length_is_a_derivative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(fresh_model(tmp_path, TINY, seed=0, name="fresh").path)
    labels = np.eye(4, dtype=np.float32)
    expected = path_length(model, BlockEncoder(), pairs=12, seed=0, labels=labels).value
    monkeypatch.setattr("rosacea_model.metrics.fidelity.path.STEP", 5e-4)

    assert path_length(model, BlockEncoder(), pairs=12, seed=0, labels=labels).value == pytest.approx(
        expected, rel=0.05
    )
