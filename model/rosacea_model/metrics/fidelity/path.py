"""Perceptual path length: how much images change along a small step between two latents (Karras et al. 2019, 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ...sample import latents
from ..errors import MetricError
from ..intervals import Estimate, first_order, normal

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from ...model import Model
    from ..encoders.protocol import Encoder

STEP = 1e-4  # of the way between the two latents
CHUNK = 8  # pairs drawn at once
KEPT = (1, 99)  # percentiles outside of which a pair does not count, as in the paper


def path_length(
    model: Model,
    encoder: Encoder,
    *,
    pairs: int,
    seed: int,
    labels: NDArray[np.float32] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
    """Mean squared change of features over the squared step, from the first of two latents in W, without truncation.

    With the features of `encoder` in place of LPIPS, so that it compares with other numbers of this encoder only. Both
    latents of a pair take one row of `labels` [M, c_dim].
    """
    if pairs < 2:
        raise MetricError(f"a path length needs at least 2 pairs, got {pairs}")
    lengths: list[float] = []
    for first in range(0, pairs, CHUNK):
        places = range(first, min(first + CHUNK, pairs))
        starts, ends = (_mapped(model, [seed + 2 * place + end for place in places], places, labels) for end in (0, 1))
        near, far = (_features(model, encoder, ws) for ws in (starts, starts + STEP * (ends - starts)))
        lengths.extend(np.square((far - near) / STEP).sum(axis=1))
        progress(len(lengths), pairs)
    low, high = np.percentile(lengths, KEPT)
    kept = np.array([each for each in lengths if low <= each <= high])
    return normal(float(kept.mean()), first_order(kept), n=pairs, seed=seed, method=f"{pairs} pairs", lowest=0)


def _mapped(model: Model, seeds: list[int], places: range, labels: NDArray[np.float32] | None) -> Tensor:
    rows = None if labels is None else labels[[place % len(labels) for place in places]]
    return model.map(latents(seeds, model.config.z_dim), rows)


def _features(model: Model, encoder: Encoder, ws: Tensor) -> NDArray[np.float64]:
    levels = torch.clamp(model.synthesize(ws) * 127.5 + 128, 0, 255).permute(0, 2, 3, 1)
    return encoder.encode(levels.cpu().numpy()).astype(np.float64)
