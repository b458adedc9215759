"""Measures what a colorimeter would: erythema index and individual typology angle, over fixed regions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .drawing.grid import Grid, bump
from .drawing.head import build_head
from .drawing.rosacea import centrofacial
from .drawing.skin import decoding_table
from .render import shrink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .drawing.noise import Field
    from .identity import PhantomSpec

MEASURED_AT = 64  # px: regions are soft, this many pixels do
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = RGB_TO_XYZ.sum(axis=1)  # D65


def erythema_index(image: NDArray[np.uint8], region: Field) -> float:
    """Mean of log10 R - log10 G in linear light over a region [height, width] of weights.

    After Diffey, Oliver and Farr, "A portable instrument for quantifying erythema induced by ultraviolet radiation",
    British Journal of Dermatology 111 (1984) 663-672, with a camera's red and green for its two filters.
    """
    linear = np.maximum(decoding_table()[image], np.float32(1e-4))
    index = np.log10(linear[..., 0]) - np.log10(linear[..., 1])
    return float((index * _weights(image, region)).sum())


def ita(image: NDArray[np.uint8], region: Field) -> float:
    """Individual typology angle in degrees, atan((L* - 50) / b*), of the mean colour over a region of weights.

    Chardon, Cretois and Hourseau, "Skin colour typology and suntanning pathways", International Journal of Cosmetic
    Science 13 (1991) 191-208. Light skin is above 41, dark skin below -30.
    """
    lightness, _a, b = lab(mean_light(image, region))
    return math.degrees(math.atan2(float(lightness) - 50, float(b)))


def a_spread(image: NDArray[np.uint8], region: Field) -> float:
    """Standard deviation of CIELAB a* over the pixels of a region of weights."""
    weights = _weights(image, region)
    inside = weights > 0
    a, share = lab(decoding_table()[image[inside]])[..., 1], weights[inside]
    return float(np.sqrt((share * np.square(a - (share * a).sum())).sum()))


def mean_light(image: NDArray[np.uint8], region: Field) -> NDArray[np.floating]:  # => [3] linear sRGB
    """Mean colour over a region of weights, in linear light."""
    light: NDArray[np.floating] = (decoding_table()[image] * _weights(image, region)[..., None]).sum(axis=(0, 1))
    return light


def lab(linear: NDArray[np.floating]) -> NDArray[np.float64]:  # [..., 3] linear sRGB => [..., 3]
    """CIELAB L*, a*, b* under D65 (CIE 15:2018, section 8.2)."""
    x, y, z = np.moveaxis(_root((linear @ RGB_TO_XYZ.T) / WHITE), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def central_face(spec: PhantomSpec, resolution: int) -> Field:
    """Where rosacea appears: weights [resolution, resolution] over cheeks, nose, forehead and chin."""
    u, v = _coordinates(spec, resolution)
    return _at(centrofacial(spec.identity, spec.scene, u, v) > 0.45, resolution)


def calm_skin(spec: PhantomSpec, face_mask: Field) -> Field:
    """Weights over what rosacea reddens least, the sides of the forehead, where `face_mask` shows bare skin.

    The jaw counts a little: it decides where hair hides the forehead.
    """
    u, v = _coordinates(spec, len(face_mask))
    forehead = bump(np.abs(u), v, (0.34, -0.33), (0.10, 0.06)) > 0.5
    jaw = bump(np.abs(u), v, (0.33, 0.60), (0.08, 0.07)) > 0.5
    return _at(forehead + np.float32(0.1) * jaw, len(face_mask)) * face_mask


def _coordinates(spec: PhantomSpec, resolution: int) -> tuple[Field, Field]:
    grid = Grid.of(spec.scene, max(resolution, MEASURED_AT))
    head = build_head(grid, spec.identity, spec.condition, spec.scene)
    return head.u, head.v


def _at(inside: Field | NDArray[np.bool_], resolution: int) -> Field:
    plane = inside.astype(np.float32)
    return plane if len(plane) == resolution else shrink(plane, resolution)


def _weights(image: NDArray[np.uint8], region: Field) -> Field:
    if region.shape != image.shape[:2]:
        raise ValueError(f"region must have the image's shape {image.shape[:2]}, got {region.shape}")
    total = region.sum()
    if total <= 0:
        raise ValueError("region must cover a part of the image, got an empty one")
    return np.asarray(region / total, dtype=np.float32)


def _root(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
