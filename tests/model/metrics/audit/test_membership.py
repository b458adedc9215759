"""Membership inference: a discriminator that knows its training images by heart gives itself away, others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rosacea_model.metrics.audit.membership import Judge, membership
from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.images import ArrayImages
from rosacea_model.training.state import TrainState

from .runs import config, written

if TYPE_CHECKING:
    from pathlib import Path


def images(seed: int, count: int = 43, side: int = 16) -> ArrayImages:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    return ArrayImages(pixels, name=f"images-{seed}", labels=np.zeros((count, 0), np.float32))


def learned(state: TrainState, members: ArrayImages, others: ArrayImages) -> TrainState:
    """Teach the discriminator the difference, image by image."""
    pixels = torch.from_numpy(np.concatenate([members.pixels, others.pixels])).permute(0, 3, 1, 2) / 127.5 - 1
    signs = torch.cat([torch.ones(len(members)), -torch.ones(len(others))])
    optimiser = torch.optim.Adam(state.D.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        chosen = torch.randperm(len(pixels), generator=generator)[:32]
        loss = torch.nn.functional.softplus(-signs[chosen] * state.D(pixels[chosen])[:, 0]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return state


def test_a_discriminator_that_knows_its_images_tells_them_apart_and_the_control_stays_at_a_half(tmp_path: Path) -> None:
    members, others = images(1), images(2, 40)

    found = membership(written(tmp_path / "run", learned(TrainState(config()), members, others)), members, others)

    assert found.auc.low > 0.7
    assert found.control.low < 0.5 < found.control.high
    assert found.step == 7


def test_intervals_for_an_untrained_discriminator_cover_a_half(tmp_path: Path) -> None:
    run = written(tmp_path / "run", TrainState(config()))
    found = [membership(run, images(2 * pair + 10), images(2 * pair + 11)) for pair in range(20)]

    for kind in ("auc", "control"):
        intervals = [getattr(each, kind) for each in found]
        assert sum(each.low <= 0.5 <= each.high for each in intervals) >= 17
        assert abs(sum(each.value for each in intervals) / 20 - 0.5) < 0.05


def test_the_score_of_an_image_does_not_depend_on_the_others(tmp_path: Path) -> None:
    judge = Judge(written(tmp_path / "run", TrainState(config())))
    company, skipped = judge.companions(images(1))
    whole, part = (judge.scores(ArrayImages(images(1).pixels[20:end]), company) for end in (43, 23))

    assert skipped == 3
    np.testing.assert_allclose(whole[:3], part, rtol=1e-4, atol=1e-5)


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="no checkpoint in it, so there is no discriminator to ask"):
        membership(tmp_path, images(1), images(2))


def test_images_that_the_run_was_not_trained_on_are_refused(tmp_path: Path) -> None:
    run = written(tmp_path / "run", TrainState(config()))

    with pytest.raises(MetricError, match="the run was trained on 16 px, 3 channels and labels of width 0, got 32"):
        membership(run, images(1, side=32), images(2, side=32))
