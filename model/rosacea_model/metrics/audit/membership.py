"""Membership inference: does the discriminator of a run know its training images from others of their kind?

A discriminator that has learned single images by heart gives them higher scores than the hold-out (Hayes et al. 2019,
LOGAN). The measure is the area under the ROC curve, 1/2 for no difference. As a control the members are split in two
at random and compared with one another, which must come out at 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...networks.discriminator import Discriminator, DiscriminatorConfig
from ...training import checkpoint
from ...training.config import CONFIG_NAME, read_config
from ...training.feed import to_unit
from ...training.state import by_part
from ..errors import MetricError
from ..images import check_alike
from ..intervals import Estimate, delta

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ..images import ImageSource

BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Membership:
    """How well discriminator scores tell members from non-members."""

    auc: Estimate  # members against hold-out; 0.5 = not at all
    control: Estimate  # one half of the members against the other
    step: int  # of the checkpoint


def membership(run: Path, training: ImageSource, holdout: ImageSource, *, seed: int = 0) -> Membership:
    """Compare discriminator scores of a run's newest checkpoint on training images and hold-out.

    Raises MetricError for a run without a checkpoint, and for images or labels that are not what the run was trained
    on.
    """
    judge = Judge(run)
    check_alike(training, holdout)
    companions, skipped = judge.companions(training)
    members = judge.scores(training, companions)[skipped:]
    others = judge.scores(holdout, companions)
    halves = np.array_split(np.random.default_rng(seed).permutation(members), 2)
    return Membership(auc=auc(members, others), control=auc(*halves), step=judge.step)


def auc(one: NDArray[np.float64], other: NDArray[np.float64]) -> Estimate:
    """P(one > other), ties half, with the interval of DeLong, DeLong and Clarke-Pearson (1988)."""
    above = _share_below(np.sort(other), one)
    below = 1 - _share_below(np.sort(one), other)
    return delta(float(above.mean()), above, below, method="DeLong")


def _share_below(ordered: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value the share of `ordered` below it, ties half."""
    sides = [np.searchsorted(ordered, values, side=side) for side in ("left", "right")]
    return np.asarray((sides[0] + sides[1]) / (2 * len(ordered)), np.float64)


class Judge:
    """The discriminator of a run's newest intact checkpoint."""

    def __init__(self, run: Path) -> None:
        found = checkpoint.read_newest(run / "checkpoints", lambda warning: None)
        if found is None:
            raise MetricError(f"{run}: no checkpoint in it, so there is no discriminator to ask")
        config = read_config(run / CONFIG_NAME)
        self.network = Discriminator(
            config.generator(),
            DiscriminatorConfig(architecture=config.d_architecture, mbstd_group_size=config.mbstd_group),
        )
        self.network.load_state_dict(by_part(found.tensors)["D"])
        self.network.eval().requires_grad_(False)
        self.config, self.step = config.generator(), found.step
        self.group = config.mbstd_group

    def companions(self, training: ImageSource) -> tuple[torch.Tensor, int]:
        """The first training images [group - 1, 3, R, R] and how many they are.

        The discriminator scores an image among others, whose variation it sees. Every image gets the same company.
        """
        count = self.group - 1
        first = next(training.batches(max(count, 1)))
        return self._tensor(first.pixels[:count]), count

    def scores(self, images: ImageSource, companions: torch.Tensor) -> NDArray[np.float64]:  # => [N]
        """The logit of each image beside its companions."""
        found = []
        for batch in images.batches(BATCH):
            self._check(images.name, batch.pixels, batch.labels)
            found.append(self.logits(batch.pixels, batch.labels, companions))
        return np.concatenate(found)

    @torch.inference_mode()
    def logits(
        self, images: NDArray[np.uint8], labels: NDArray[np.float32], companions: torch.Tensor
    ) -> NDArray[np.float64]:  # => [n]
        """The logits of some images [n, R, R, 3] with labels [n, c_dim]."""
        pixels, stated = self._tensor(images), torch.from_numpy(labels)
        # Groups are strided: image i, then each companion as often as there are images.
        company = companions.repeat_interleave(len(pixels), dim=0)
        given = stated.repeat(self.group, 1) if self.config.c_dim else None
        logits = self.network(torch.cat([pixels, company]), given)[: len(pixels), 0]
        return np.asarray(logits.double().numpy(), np.float64)

    def _tensor(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        return to_unit(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))))

    def _check(self, name: str, pixels: NDArray[np.uint8], labels: NDArray[np.float32]) -> None:
        config = self.config
        wanted = (config.img_resolution, config.img_channels, config.c_dim)
        got = (pixels.shape[1], pixels.shape[3], labels.shape[1] if config.c_dim else 0)
        if wanted != got:
            raise MetricError(
                f"{name}: the run was trained on {wanted[0]} px, {wanted[1]} channels and labels of width "
                f"{wanted[2]}, got {got[0]}, {got[1]} and {got[2]}"
            )
