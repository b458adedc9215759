"""Pixels in face coordinates: u to the right, v down, the middle of the head at (0, 0), the chin at v = 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..identity import Scene
    from .noise import Field

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Grid:
    """Face coordinates of every pixel [resolution, resolution]."""

    a: Field  # flat coordinates of the head: rolled and scaled, not turned
    b: Field
    u: Field  # coordinates on the turned face
    v: Field
    pixel: float  # size of a pixel in face units
    scene: Scene

    @classmethod
    def of(cls, scene: Scene, resolution: int) -> Grid:
        """Coordinates for a scene: rolled and scaled, then each point moved by its depth, so that a turned nose moves
        more than the ears."""
        centre = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / resolution) - 1
        x = ((centre - np.float32(scene.shift[0])) / np.float32(scene.zoom))[None, :]
        y = ((centre - np.float32(scene.shift[1])) / np.float32(scene.zoom))[:, None]
        cosine, sine = np.float32(math.cos(scene.roll)), np.float32(math.sin(scene.roll))
        a, b = cosine * x + sine * y, cosine * y - sine * x
        u, v = a, b
        if scene.yaw or scene.pitch:
            dome = np.sqrt(np.maximum(1 - (a / np.float32(0.70)) ** 2 - (b / np.float32(1.06)) ** 2, 0))
            depth = np.float32(0.75) * dome * dome * (np.float32(1.6) - np.float32(0.6) * dome)
            u, v = a - np.float32(math.sin(scene.yaw)) * depth, b - np.float32(math.sin(scene.pitch)) * depth
        return cls(a, b, u, v, 2 / resolution / scene.zoom, scene)

    @property
    def resolution(self) -> int:
        return len(self.u)

    def box(self, u: float, v: float, half_width: float, half_height: float) -> Box:
        """The slices of pixels that hold this box of the face, with room for pose and asymmetry."""
        scene = self.scene
        turn = 0.03 + 0.02
        cosine, sine = math.cos(scene.roll), math.sin(scene.roll)
        wide = half_width + abs(math.sin(scene.yaw)) * 0.5 + abs(sine) * half_height + turn
        high = half_height + abs(math.sin(scene.pitch)) * 0.5 + abs(sine) * half_width + turn
        depth = 0.4 * max(0.0, 1 - (u / 0.8) ** 2 - (v / 1.1) ** 2)
        a, b = u + math.sin(scene.yaw) * depth, v + math.sin(scene.pitch) * depth
        x = (cosine * a - sine * b) * scene.zoom + scene.shift[0]
        y = (cosine * b + sine * a) * scene.zoom + scene.shift[1]
        return _span(y, high * scene.zoom, self.resolution), _span(x, wide * scene.zoom, self.resolution)


def _span(centre: float, half: float, resolution: int) -> slice:
    low = math.floor((centre - half + 1) / 2 * resolution)
    high = math.ceil((centre + half + 1) / 2 * resolution)
    return slice(min(max(low, 0), resolution), min(max(high, 0), resolution))


def cover(distance: Field, width: float) -> Field:
    """Share of a pixel inside an edge at signed distance [...] (positive = inside), over a band of this width."""
    return np.asarray(np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1), dtype=np.float32)


def smoothstep(low: float, high: float, value: Field) -> Field:
    """0 below `low`, 1 above `high`, smooth between."""
    share = np.clip((value - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), dtype=np.float32)


def line(distance: Field, half_width: float, pixel: float) -> Field:
    """Share of a pixel covered by a stroke whose middle is at this distance; a stroke thinner than a pixel grows faint
    and stays unbroken."""
    half = pixel / 2
    covered = np.minimum(distance + half, half_width) - np.maximum(distance - half, -half_width)
    return np.asarray(np.clip(covered * np.float32(1 / pixel), 0, 1), dtype=np.float32)


def bump(u: Field, v: Field, centre: tuple[float, float], size: tuple[float, float], pixel: float = 0.0) -> Field:
    """A Gaussian hill of height 1, made wider and lower by the size of a pixel."""
    wide, high = math.hypot(size[0], pixel * 0.29), math.hypot(size[1], pixel * 0.29)
    height = size[0] * size[1] / (wide * high)
    p = (u - np.float32(centre[0])) * np.float32(1 / wide)
    q = (v - np.float32(centre[1])) * np.float32(1 / high)
    return np.float32(height) * np.exp(np.float32(-0.5) * (p * p + q * q))


def mix(target: Field, box: Box, colour: Field, alpha: Field) -> None:
    """Blend a colour, [3] or [3, h, w], into a box of the picture [3, height, width] by the share of each pixel, in
    place."""
    part = target[:, box[0], box[1]]
    layer = colour if colour.ndim == 3 else colour[:, None, None]
    part += alpha * (layer - part)
