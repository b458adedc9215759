"""Low frequencies of pictures, by which near duplicates are found among all pairs with products of matrices.

A mirrored picture only changes the sign of its odd columns, so one product of each half answers for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .alignment import SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS = 12  # frequencies per direction in the descriptor
COMMON = 0.9  # share of the mean descriptor taken off: what all faces have in common
BLOCK = 2048  # pictures handled at once
MIN_DETAIL = 24.0  # norm of a descriptor below which a picture is plain, and like no other


def spectra(thumbnails: NDArray[np.uint8], crop: float, shift: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float32]:
    """Weighted low-frequency DCT [n, 12, 12] of pictures [n, 64, 64] cropped by `crop` on each side.

    `shift` moves what is kept down and to the right, in units of `crop`: 1 keeps the lower or right edge.
    """
    down, across = (_cosines()[:BANDS] @ _resampling(crop, part) for part in shift)
    frequency = np.hypot(*np.meshgrid(np.arange(BANDS), np.arange(BANDS), indexing="ij")).astype(np.float32)
    found = np.empty((len(thumbnails), BANDS, BANDS), np.float32)
    for start in range(0, len(thumbnails), BLOCK):
        block = thumbnails[start : start + BLOCK].astype(np.float32)
        # Natural pictures fall off as 1/f: the weight gives every frequency its say, and the mean none.
        found[start : start + BLOCK] = down @ block @ across.T * frequency
    return found


def unit(spectra: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row vector to length 1; rows with almost no detail become zeros."""
    norm = np.sqrt((spectra**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(np.where(norm > MIN_DETAIL, spectra / np.maximum(norm, MIN_DETAIL), 0), np.float32)


def halves(spectra: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Split spectra into the parts that mirroring keeps (even columns) and negates (odd columns), as flat vectors
    scaled together to length 1."""
    norm = np.sqrt((spectra**2).sum(axis=(1, 2), keepdims=True))
    unit = spectra / np.maximum(norm, 1e-6)
    shape = (len(unit), BANDS * BANDS // 2)
    return unit[:, :, 0::2].reshape(shape), unit[:, :, 1::2].reshape(shape)


def _resampling(crop: float, shift: float) -> NDArray[np.float32]:
    """Resampling matrix that stretches 64 samples without `crop` on each side, moved by `shift`, to 64."""
    places = crop * (1 + shift) * SIDE + (np.arange(SIDE) + 0.5) * (1 - 2 * crop) - 0.5
    return np.asarray(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(SIDE))), np.float32)


def _cosines() -> NDArray[np.float32]:
    """The orthonormal DCT-II of 64 samples, frequencies in rows."""
    place, frequency = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE))
    basis = np.cos(np.pi / SIDE * place * frequency) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)
