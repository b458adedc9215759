"""Light on skin: soft diffuse light that bleeds red at the shadow's edge, occlusion, cast shadows and gloss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from .grid import smoothstep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..identity import Scene
    from .noise import Field

COARSE = 64  # shadows and occlusion are soft: this many pixels do, at every resolution


@dataclass(frozen=True)
class Light:
    """The main light and what surrounds it, in linear RGB."""

    direction: tuple[float, float, float]  # right, down, towards the viewer
    key: Field  # [3]
    sky: Field  # [3] from above and all around
    ground: Field  # [3] bounced from below
    softness: float

    @classmethod
    def of(cls, scene: Scene) -> Light:
        flat = math.cos(scene.light_height)
        direction = (
            math.sin(scene.light_azimuth) * flat,
            -math.sin(scene.light_height),
            math.cos(scene.light_azimuth) * flat,
        )
        tint = np.array([1 + 0.10 * scene.warmth, 1.0, 1 - 0.16 * scene.warmth])
        soft = scene.softness
        key = scene.key * (1.18 - 0.35 * soft) * tint
        around = (0.22 + 0.30 * soft) * (0.6 + 0.8 * scene.fill)
        sky = around * (2 - tint) * np.array([0.99, 1.0, 1.02])
        ground = 0.58 * around * np.array([1.06, 1.0, 0.94])
        return cls(direction, key.astype(np.float32), sky.astype(np.float32), ground.astype(np.float32), soft)


def slopes(height: Field, pixel: float) -> tuple[Field, Field]:
    """Slope of a height field to the right and downwards, by central differences."""
    padded = np.pad(height, 1, mode="edge")
    scale = np.float32(0.5 / pixel)
    return (padded[1:-1, 2:] - padded[1:-1, :-2]) * scale, (padded[2:, 1:-1] - padded[:-2, 1:-1]) * scale


@dataclass(frozen=True)
class Shading:
    """Light that each pixel gets: to be multiplied by the skin's colour, and what its surface mirrors."""

    diffuse: Field  # [3, height, width]
    gloss: Field  # [height, width], of the main light
    facing: Field  # cosine of the angle to the viewer


def shade(slope_u: Field, slope_v: Field, shadow: Field, occlusion: Field, oil: Field, light: Light) -> Shading:
    """Lambert with a wrap per channel: blood scatters red light furthest, so shadows have warm edges."""
    facing = np.reciprocal(np.sqrt(1 + slope_u * slope_u + slope_v * slope_v))
    lu, lv, lz = (np.float32(part) for part in light.direction)
    lambert = (lz - lu * slope_u - lv * slope_v) * facing
    up = slope_v * facing  # downhill towards the top faces the sky
    lit = 1 - shadow
    around = occlusion * (np.float32(0.5) + np.float32(0.5) * up)
    diffuse = np.empty((3, *facing.shape), np.float32)
    wraps = [base + 0.22 * light.softness for base in (0.24, 0.14, 0.11)]
    for channel, wrap in enumerate(wraps):
        wrapped = np.maximum((lambert + np.float32(wrap)) * np.float32(1 / (1 + wrap)), 0)
        lit_channel = lit if channel else np.sqrt(np.maximum(lit, 0)) * np.float32(0.35) + np.float32(0.65) * lit
        np.multiply(wrapped * lit_channel, light.key[channel], out=diffuse[channel])
        ground, sky = light.ground[channel], light.sky[channel]
        diffuse[channel] += ground * occlusion + (sky - ground) * around
    return Shading(diffuse, _gloss(lambert, facing, slope_u, slope_v, lit, oil, light), facing)


def _gloss(
    lambert: Field,
    facing: Field,
    slope_u: Field,
    slope_v: Field,
    lit: Field,
    oil: Field,
    light: Light,
) -> Field:
    """Blinn-Phong in two lobes: a broad sheen, and a tight highlight where the skin is oily."""
    lu, lv, lz = light.direction
    length = math.sqrt(lu * lu + lv * lv + (lz + 1) ** 2)
    hu, hv, hz = (np.float32(part / length) for part in (lu, lv, lz + 1))
    half = np.maximum((hz - hu * slope_u - hv * slope_v) * facing, 0)
    square = half * half
    eighth = square * square
    eighth *= eighth
    tight = eighth * eighth
    tight *= tight  # power 32
    grazing = 1 - facing
    sheen = eighth * (np.float32(0.035) + np.float32(0.10) * grazing * grazing)
    spread = np.float32(1 - 0.45 * light.softness)
    return np.asarray((sheen + tight * oil * spread) * lit * smoothstep(-0.1, 0.3, lambert), dtype=np.float32)


@cache
def _between(resolution: int) -> tuple[NDArray[np.intp], Field]:
    """For each fine pixel [resolution]: the coarse one before it, and its share of the way to the next."""
    place = (np.arange(resolution) + 0.5) * COARSE / resolution - 0.5
    low = np.clip(np.floor(place).astype(np.intp), 0, COARSE - 2)
    return low, np.clip(place - low, 0, 1).astype(np.float32)


@cache
def _blurring(sigma: float) -> Field:
    """Matrix [COARSE, COARSE] that blurs with a Gaussian of `sigma` coarse pixels."""
    place = np.arange(COARSE)
    matrix = np.exp(-0.5 * ((place[:, None] - place[None, :]) / sigma) ** 2)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), dtype=np.float32)


def blur(plane: Field, sigma: float) -> Field:
    """Gaussian blur of a coarse plane [COARSE, COARSE]."""
    matrix = _blurring(sigma)
    # Not `@`: its threads cost more than these small products, and fight when several processes draw.
    down = np.einsum("ij,jk->ik", matrix, plane)
    return np.asarray(np.einsum("ij,jk->ik", matrix, down.T).T, dtype=np.float32)


def enlarge(plane: Field, resolution: int) -> Field:
    """A coarse plane at full resolution, linearly."""
    low, share = _between(resolution)
    wide = plane[:, low] + share * (plane[:, low + 1] - plane[:, low])
    return np.asarray(wide[low] + share[:, None] * (wide[low + 1] - wide[low]), dtype=np.float32)


def coarsen(plane: Field) -> Field:
    """Box average down to [COARSE, COARSE]."""
    factor = plane.shape[0] // COARSE
    return np.asarray(plane.reshape(COARSE, factor, COARSE, factor).mean(axis=(1, 3)), dtype=np.float32)


def cast_shadow(height: Field, light: Light, unit: float) -> Field:
    """Share of the main light that a coarse height field [COARSE, COARSE] hides from each of its points.

    `unit` is the size of a coarse pixel in face units. Rays climb towards the lamp in whole coarse pixels.
    """
    lu, lv, lz = light.direction
    flat = math.hypot(lu, lv)
    shadow = np.zeros_like(height)
    reach = 20
    padded = np.pad(height, reach, mode="edge")
    for steps in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18):
        du, dv = round(steps * lu / flat), round(steps * lv / flat)
        climb = math.hypot(du, dv) * unit * lz / flat
        above = padded[reach + dv : reach + dv + COARSE, reach + du : reach + du + COARSE]
        blur_width = 0.03 + climb * (0.18 + 0.5 * light.softness)
        hidden = (above - height - np.float32(climb)) * np.float32(1 / blur_width)
        np.maximum(shadow, np.clip(hidden, 0, 1), out=shadow)
    return blur(shadow, 0.7 + 0.8 * light.softness) * np.float32(0.92 - 0.35 * light.softness)


def hollows(height: Field) -> Field:
    """Share of ambient light (0.25 to 1) that reaches each point of a coarse height field: less where a point lies
    below its surroundings."""
    near = blur(height, 1.6) - height
    wide = blur(height, 4.5) - height
    hidden = np.float32(3.2) * np.maximum(near, 0) + np.float32(1.3) * np.maximum(wide, 0)
    return np.asarray(1 - np.clip(hidden, 0, 0.75), dtype=np.float32)
