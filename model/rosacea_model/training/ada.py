"""Controls the augmentation probability p, and detects augmentations that leak into fakes.

Adaptive discriminator augmentation (Karras et al. 2020, section 3): overfitting shows in how surely the discriminator
takes reals for real; p follows it in small steps. Here p has an upper bound, and is clamped at every step, so that it
neither runs away nor winds up while it stands at a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .feed import to_unit

if TYPE_CHECKING:
    from .config import TrainConfig

ORIENTATIONS = 8
ALARM_RATIO = 2.0  # how many times as much as reals fakes may vary before augmentations count as leaking


class AdaController:
    """Adjusts p by the mean sign of the discriminator's output for reals, accumulated since the last adjustment."""

    def __init__(self, config: TrainConfig, p: Tensor) -> None:
        self.p = p  # [] the pipe's own buffer
        self.config = config
        self.sign_sum = torch.zeros([], dtype=torch.float64)
        self.sign_count = torch.zeros([], dtype=torch.float64)

    def record(self, sign_sum: float, sign_count: float) -> None:
        """Accumulate output signs for reals, summed over all ranks."""
        self.sign_sum += sign_sum
        self.sign_count += sign_count

    def adjust(self, step: int) -> None:
        """Every `ada_interval` steps, move p towards the target and reset the accumulation."""
        config = self.config
        if step % config.ada_interval or not self.sign_count:
            return
        overfitting = float(self.sign_sum / self.sign_count)
        direction = (overfitting > config.ada_target) - (overfitting < config.ada_target)
        move = direction * config.batch * config.ada_interval / (config.ada_kimg * 1000)
        self.p.copy_((self.p + move).clamp(0, config.p_max))
        self.sign_sum.zero_()
        self.sign_count.zero_()


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Variation of fakes relative to reals: about 1 for a good generator, less for a poor one."""

    orientation: float
    color: float

    @property
    def alarm(self) -> bool:
        """Whether fakes have rotations or colours that reals lack: p is too high, or the augmentations are
        unsuitable."""
        return max(self.orientation, self.color) > ALARM_RATIO


def leak(reals: Tensor, fakes: Tensor) -> Leak:  # [N, C, H, W], [M, C, H, W], uint8 or in [-1, 1]
    """Compare the spread of simple orientation and colour statistics of fakes and reals.

    A generator that has learnt to rotate or recolour makes images that differ from one another in these more than
    the data does, whatever else it makes of them.
    """
    return Leak(
        orientation=_widest(orientation_statistics(reals), orientation_statistics(fakes)),
        color=_widest(color_statistics(reals), color_statistics(fakes)),
    )


def orientation_statistics(images: Tensor) -> Tensor:  # => [N, ORIENTATIONS + 2]
    """Gradient share of each orientation, and by how much the top half is brighter than the bottom, and the left than
    the right."""
    # One by one: what is computed of an image is several times its size.
    return torch.stack([_orientations(to_unit(image).mean(dim=0)) for image in images])


def _orientations(grey: Tensor) -> Tensor:  # [H, W] => [ORIENTATIONS + 2]
    across = grey[1:-1, 2:] - grey[1:-1, :-2]
    down = grey[2:, 1:-1] - grey[:-2, 1:-1]
    strength = (across.square() + down.square()).sqrt()
    turn = torch.atan2(down, across).remainder(torch.pi) / torch.pi * ORIENTATIONS
    bins = turn.long().clamp(max=ORIENTATIONS - 1).flatten()
    shares = torch.bincount(bins, strength.flatten(), minlength=ORIENTATIONS).to(grey.dtype)
    height, width = grey.shape
    top = grey[: height // 2].mean() - grey[height // 2 :].mean()
    left = grey[:, : width // 2].mean() - grey[:, width // 2 :].mean()
    return torch.cat([shares / (shares.sum() + 1e-8), top[None], left[None]])


def color_statistics(images: Tensor) -> Tensor:  # => [N, 2 C]
    """Mean and contrast of each channel."""
    units = map(to_unit, images)
    return torch.stack([torch.cat([image.mean(dim=(1, 2)), image.std(dim=(1, 2))]) for image in units])


def _widest(reals: Tensor, fakes: Tensor) -> float:
    # The floor keeps data that never varies in something from raising an alarm at the first speck.
    floor = 0.01 * reals.abs().mean().clamp(min=1e-3)
    return float((_deviation(fakes) / (_deviation(reals) + floor)).max())


def _deviation(rows: Tensor) -> Tensor:
    return rows.std(dim=0, correction=min(1, len(rows) - 1))  # 0 for a single one
