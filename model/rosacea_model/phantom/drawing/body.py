"""Neck, ears, shoulders, clothes, glasses and the background."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .grid import Grid, bump, cover, line, smoothstep
from .light import Light, slopes
from .noise import Field, octave_weight, value_noise

if TYPE_CHECKING:
    from ..identity import FaceIdentity, Scene


@dataclass(frozen=True)
class BodyPart:
    """A piece of skin beside the face: its share of each pixel and its height."""

    mask: Field
    height: Field


def neck(grid: Grid, face: FaceIdentity) -> BodyPart:
    """A column that widens into the shoulders, with the two muscles that meet at the collar."""
    a, b = grid.a, grid.b
    flare = smoothstep(0.90, 1.45, b)
    half = np.float32(face.neck_width) * (1 - np.float32(0.06) * bump(a, b, (0.0, 1.05), (9.0, 0.2)))
    half += np.float32(0.52) * flare * flare
    side = np.abs(a) / half
    inside = 1 - side * side * side
    height = np.float32(0.02) + np.float32(0.40) * np.sqrt(np.maximum(inside, 0.02)) - np.float32(0.06) * flare
    middle = np.float32(face.neck_width) * (np.float32(0.80) - np.float32(0.58) * smoothstep(0.8, 1.55, b))
    muscle = np.exp(-(((np.abs(a) - middle) / np.float32(0.085)) ** 2)) * smoothstep(0.75, 1.1, b)
    height += np.float32(0.035) * muscle
    height += np.float32(0.02 * face.masculinity) * bump(a, b, (0.0, 1.16), (0.05, 0.07))
    notch = bump(a, b, (0.0, 1.52), (0.07, 0.06))
    height -= np.float32(0.05) * notch
    return BodyPart(cover(half - np.abs(a), grid.pixel) * (b > 0.3), height)


def ears(grid: Grid, face: FaceIdentity) -> tuple[BodyPart, Field]:
    """Both ears, and the shade of their hollows."""
    a, b = grid.u, grid.v
    size = face.ear_size
    out = 0.035 + 0.045 * face.ear_out
    p = (np.abs(a) - np.float32(face.head_width + out - 0.050)) - np.float32(0.10) * (np.float32(0.15) - b)
    q = b - np.float32(0.135)
    high = np.float32(0.225 * size)
    wide = np.float32(0.078 * size) * (1 + np.float32(0.28) * np.clip(-q / high, -1, 1))
    radius = np.sqrt((p / wide) ** 2 + (q / high) ** 2)
    mask = cover((1 - radius) * wide, grid.pixel)
    rim = np.exp(-(((radius - np.float32(0.86)) / np.float32(0.13)) ** 2))
    fold = np.exp(-(((radius - np.float32(0.50)) / np.float32(0.14)) ** 2)) * smoothstep(0.0, 0.5, p / wide)
    height = np.float32(0.03) * rim + np.float32(0.018) * fold
    height -= np.float32(0.35) * np.maximum(np.abs(a) - np.float32(0.64), 0)
    hollow = bump(p, q, (0.005, 0.02), (0.026, 0.062), grid.pixel) * np.float32(0.75)
    groove = np.exp(-(((radius - np.float32(0.70)) / np.float32(0.10)) ** 2)) * (q < 0.08) * np.float32(0.22)
    return BodyPart(mask, height), np.clip(hollow + groove, 0, 0.85)


def clothes(grid: Grid, face: FaceIdentity, light: Light) -> tuple[Field, Field]:
    """Share of each pixel and lit colour [3, h, w] of what the person wears."""
    a, b = grid.a, grid.b
    side = np.abs(a)
    slope = np.float32(0.50 - 0.20 * face.shoulders)
    shoulder = np.float32(1.20) + slope * np.maximum(side - np.float32(0.40), 0) ** np.float32(1.15)
    shoulder -= np.float32(0.06) * bump(side, b, (0.95, 1.5), (0.3, 9.0))
    if face.collar > 0.5:
        collar = np.float32(1.34 + 0.36 * (face.collar - 0.4)) - np.float32(0.62) * side
    else:
        collar = np.float32(1.35 - 0.10 * face.collar) - np.float32(0.50) * side * side - np.float32(0.2) * side**4
    distance = b - np.maximum(shoulder, collar)
    mask = cover(distance, max(grid.pixel, 0.012))
    folds = value_noise(a * np.float32(3) + b * 2, b * np.float32(1.6), face.texture % 887)
    folds = np.float32(0.04) * folds + np.float32(0.22) * np.sqrt(np.maximum(1 - (a / np.float32(1.6)) ** 2, 0.05))
    seam = np.float32(0.02) * np.exp(-(((distance - np.float32(0.045)) / np.float32(0.022)) ** 2))
    slope_u, slope_v = slopes(folds + seam + np.float32(0.25) * np.minimum(distance, 0.12), grid.pixel)
    facing = 1 / np.sqrt(1 + slope_u * slope_u + slope_v * slope_v)
    lu, lv, lz = (np.float32(part) for part in light.direction)
    lambert = np.maximum((lz - lu * slope_u - lv * slope_v) * facing + np.float32(0.2), 0) * np.float32(1 / 1.2)
    weave = octave_weight(60, grid.pixel)
    if weave > 0:
        lambert *= 1 + np.float32(0.07 * weave) * value_noise(a * np.float32(60), b * np.float32(60), face.texture % 13)
    chin_shade = 1 - np.float32(0.45) * bump(a, b, (0.0, 1.30), (0.42, 0.20))
    colour = np.array(face.clothes, np.float32)[:, None, None]
    lit = light.key[:, None, None] * (lambert * chin_shade) + light.sky[:, None, None] * chin_shade
    return mask, colour * lit


def background(grid: Grid, scene: Scene) -> Field:
    """An out-of-focus wall [3, h, w]: a slow gradient, a vignette and soft patches."""
    size = grid.resolution
    centre = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
    x, y = centre[None, :], centre[:, None]
    turn = scene.background_turn
    slope = np.float32(math.cos(turn)) * x + np.float32(math.sin(turn)) * y
    glow = np.exp(-((x - np.float32(0.3 * math.cos(turn))) ** 2 + (y + np.float32(0.2)) ** 2) * np.float32(0.8))
    tone = np.float32(0.62) + np.float32(0.22) * slope + np.float32(0.38) * glow
    patches = value_noise(x * np.float32(1.7) + 0 * y, y * np.float32(1.7) + 0 * x, scene.noise_seed % 499)
    tone += np.float32(0.12) * patches
    base = np.array(scene.background, np.float32)[:, None, None]
    drift = np.array([1.04, 1.0, 0.95], np.float32)[:, None, None] ** (slope * 2)
    return np.asarray(base * tone * drift, dtype=np.float32)


@dataclass(frozen=True)
class Glasses:
    """Share of each pixel that the frame covers, its shade on the skin, and the mirror of the lenses."""

    frame: Field
    colour: Field  # [3]
    shade: Field
    mirror: Field


FRAMES = {
    1: (0.205, 0.150, 3.2, 0.014, (0.012, 0.011, 0.011)),  # half width, half height, squareness, stroke, colour
    2: (0.185, 0.165, 2.1, 0.008, (0.26, 0.19, 0.10)),
    3: (0.215, 0.125, 4.0, 0.010, (0.05, 0.025, 0.015)),
}


def glasses(grid: Grid, face: FaceIdentity, scene: Scene, frame: int) -> Glasses:
    wide, high, power, stroke, colour = FRAMES[frame]
    u, v = grid.u, grid.v - np.float32(0.035)
    p = (np.abs(u) - np.float32(face.eye_spacing + 0.008)) * np.float32(1 / wide)
    q = v * np.float32(1 / high)
    radius = (np.abs(p) ** np.float32(power) + np.abs(q) ** np.float32(power)) ** np.float32(1 / power)
    distance = (1 - radius) * np.float32(min(wide, high))
    rim = line(distance, stroke, grid.pixel)
    inner = face.eye_spacing + 0.008 - wide
    arc = v + np.float32(0.055) - np.float32(1.2) * u * u
    bridge = line(arc, stroke * 0.8, grid.pixel) * (np.abs(u) < inner + 0.012)
    outer = face.eye_spacing + 0.008 + wide
    beside = (np.abs(u) > outer - 0.012) * (np.abs(u) < face.head_width + 0.01)
    arm = line(v + np.float32(0.045), stroke * 0.9, grid.pixel) * beside
    below = np.exp(-(((distance + np.float32(0.012)) / np.float32(0.020)) ** 2)) * (v > -0.1)
    lens = cover(distance, grid.pixel)
    streak = np.exp(-(((u * np.float32(0.8) + v + np.float32(0.1 * scene.light_azimuth)) / np.float32(0.05)) ** 2))
    mirror = lens * (np.float32(0.012) + np.float32(0.035) * streak)
    solid = np.maximum(np.maximum(rim, bridge), arm)
    return Glasses(solid, np.array(colour, np.float32), np.float32(0.25) * below, mirror)
