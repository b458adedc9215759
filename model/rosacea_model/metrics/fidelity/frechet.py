"""Frechet distance of two sets of features; on features of Inception it is FID (Heusel et al. 2017, equation 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..intervals import Estimate, first_order, normal
from .moments import Moments, blocks, moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .moments import Rows

SMALLEST = 1e-9  # singular values below this part of the largest are no directions


def frechet_distance(one: Moments, other: Moments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982).

    The trace of the root is the sum of the singular values of F1 F2^T for factors C = F^T F: no matrix root, and exact
    for covariances without full rank.
    """
    shared = np.linalg.svd(one.factor @ other.factor.T, compute_uv=False).sum()
    return float(np.square(one.mean - other.mean).sum() + one.trace + other.trace - 2 * shared)


def frechet(reals: Rows, fakes: Rows, *, population: bool = False) -> Estimate:
    """Frechet distance of features [N, D] and [M, D] with its interval.

    Biased upwards by few images: compare only distances of equal N and M, and with the distance of reals to reals. The
    interval is wider than need be where both sets are of one distribution (docs/LOG.md has its coverage). `population`
    divides covariances by N in place of N - 1.
    """
    real, fake = (moments(rows, population=population) for rows in (reals, fakes))
    shifted = fake.mean - real.mean
    left, shared, right = np.linalg.svd(real.factor @ fake.factor.T, full_matrices=False)
    kept = shared > SMALLEST * shared[0] if len(shared) and shared[0] > 0 else np.zeros(len(shared), bool)
    scale = np.sqrt(shared[kept])[:, None]
    value = float(np.square(shifted).sum() + real.trace + fake.trace - 2 * shared.sum())
    influences = (
        _influence(reals, real, -shifted, right[kept] @ fake.factor / scale),
        _influence(fakes, fake, shifted, left.T[kept] @ real.factor / scale),
    )
    # Rounding may leave equal sets a hair below 0.
    n = min(len(reals), len(fakes))
    return normal(max(value, 0.0), first_order(*influences), n=n, method="delta method", lowest=0)


def _influence(
    rows: Rows, own: Moments, shifted: NDArray[np.float64], transport: NDArray[np.float64]
) -> NDArray[np.float64]:  # => [N]
    """How much each row moves the distance, to first order.

    The gradient with respect to the own covariance is I - T with the optimal transport T = transport^T transport from
    it to the other one.
    """
    found = []
    for block in blocks(rows):
        centred = block - own.mean
        found.append(
            2 * centred @ shifted + np.square(centred).sum(axis=1) - np.square(centred @ transport.T).sum(axis=1)
        )
    return np.concatenate(found)
