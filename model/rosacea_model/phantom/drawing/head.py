"""The form of the head: its outline, and the height of the skin towards the viewer (a height field of smooth hills)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..identity import Condition, FaceIdentity, Scene, Subtype, stream
from .grid import Grid, bump, cover, smoothstep
from .noise import Field, value_noise

DEPTH = 0.74  # from the ears to the front of the face
OUTLINE_STEPS = 256


class Hill(NamedTuple):
    """A Gaussian rise (or hollow) of the skin, in face units."""

    u: float
    v: float
    width: float
    height: float
    rise: float
    mirrored: bool = True


@dataclass(frozen=True)
class Head:
    """A phantom's head on the pixel grid: its mask, height field and landmarks."""

    u: Field  # face coordinates with the asymmetry of this face
    v: Field
    rho: Field  # 0 in the middle, 1 on the outline
    edge: Field  # signed distance to the outline, positive inside
    mask: Field  # share of a pixel inside the outline
    height: Field  # towards the viewer


def build_head(grid: Grid, identity: FaceIdentity, condition: Condition, scene: Scene) -> Head:
    u, v = _asymmetric(grid, identity)
    radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
    reach = _outline_radius(identity, u, v)
    rho = radius / reach
    edge = reach - radius
    return Head(u, v, rho, edge, cover(edge, grid.pixel), _height(grid, u, v, rho, identity, condition, scene))


def _asymmetric(grid: Grid, identity: FaceIdentity) -> tuple[Field, Field]:
    """Face coordinates bent by up to about 0.012, so that the two halves of a face differ."""
    bend = np.float32(0.012)
    offset = identity.texture % 9973
    u = grid.u + bend * value_noise(grid.u * np.float32(1.3) + 5, grid.v * np.float32(1.3), offset)
    v = grid.v + bend * value_noise(grid.u * np.float32(1.3) + 9, grid.v * np.float32(1.3) + 4, offset + 1)
    return u, v


def _outline_radius(identity: FaceIdentity, u: Field, v: Field) -> Field:
    """Distance from the middle of the head to its outline in the direction of each point."""
    table = _outline_table(identity)
    angle = np.arctan2(np.abs(u), v)  # 0 = chin, pi = crown
    place = angle * np.float32((OUTLINE_STEPS - 1) / math.pi)
    index = np.minimum(place.astype(np.int32), OUTLINE_STEPS - 2)
    low = table[index]
    return np.asarray(low + (place - index) * (table[index + 1] - low), dtype=np.float32)


def _outline_table(identity: FaceIdentity) -> Field:
    """Radius [OUTLINE_STEPS] from the chin (0) to the crown (pi), smoothed."""
    face = identity
    chin = 1.0 + face.chin_length
    temple = face.head_width
    cheek = temple - 0.015 + 0.012 * face.cheekbones
    points = [
        (0.0, chin),
        (face.chin_width, chin - 0.012),
        ((face.chin_width + face.jaw_width) / 2 + 0.03, chin - 0.13),
        (face.jaw_width, 0.64 + 0.5 * face.chin_length),
        (face.jaw_width * 0.55 + cheek * 0.45, 0.40),
        (cheek, 0.10),
        (temple, -0.20),
        (temple * 0.955, -0.48),
        (temple * 0.79, -0.75),
        (temple * 0.50, -0.93),
        (0.0, -1.0),
    ]
    corners = np.array(points)
    angles = np.arctan2(corners[:, 0], corners[:, 1])
    radii = np.hypot(corners[:, 0], corners[:, 1])
    steps = np.linspace(0, math.pi, OUTLINE_STEPS)
    table = np.interp(steps, angles, radii)
    kernel = np.exp(-0.5 * (np.arange(-24, 25) / 8.0) ** 2)
    padded = np.pad(table, 24, mode="reflect")
    return np.asarray(np.convolve(padded, kernel / kernel.sum(), mode="valid"), dtype=np.float32)


def _height(
    grid: Grid,
    u: Field,
    v: Field,
    rho: Field,
    identity: FaceIdentity,
    condition: Condition,
    scene: Scene,
) -> Field:
    inside = 1 - rho ** np.float32(2.5)
    inside = np.float32(0.5) * (inside + np.sqrt(inside * inside + np.float32(0.004)))
    height: Field = np.float32(DEPTH) * np.sqrt(inside)
    for hill in _hills(identity, scene) + _nose_hills(identity, condition, scene):
        for side in (-1, 1) if hill.mirrored else (1,):
            box = grid.box(side * hill.u, hill.v, 3.7 * hill.width, 3.7 * hill.height)
            height[box] += np.float32(hill.rise) * bump(u[box], v[box], (side * hill.u, hill.v), hill[2:4])
    _add_nose_bridge(grid, height, u, v, identity)
    _add_folds(grid, height, u, v, identity, scene)
    return height


def _hills(face: FaceIdentity, scene: Scene) -> list[Hill]:
    man, full, old = face.masculinity, face.fullness, face.lines
    brow = face.brow_height
    smile = max(scene.smile, 0.0)
    corner = face.mouth_width * (1 + 0.13 * smile)
    eye, deep = face.eye_spacing, face.eye_depth
    mouth = face.mouth_height
    return [
        Hill(0.27, brow + 0.035, 0.17, 0.055, 0.012 + 0.030 * man),
        Hill(0.0, -0.14, 0.09, 0.07, 0.015 + 0.015 * man, False),
        Hill(0.24, -0.48, 0.16, 0.15, 0.018),
        Hill(0.0, -0.42, 0.34, 0.22, 0.03, False),
        Hill(eye, 0.005, 0.155, 0.095, -0.065 - 0.035 * deep),
        Hill(eye * 0.56, -0.02, 0.05, 0.08, -0.035),
        Hill(eye, 0.0, 0.085, 0.07, 0.058),
        Hill(eye - 0.02, 0.105, 0.10, 0.025, 0.006 + 0.016 * old),
        Hill(eye - 0.06, 0.155, 0.10, 0.035, -0.012 - 0.014 * old),
        Hill(0.37, 0.23, 0.15, 0.12, 0.028 + 0.03 * face.cheekbones + 0.02 * smile),
        Hill(0.31, 0.33 - 0.03 * smile, 0.11, 0.10, 0.012 + 0.020 * full + 0.034 * smile),
        Hill(0.42, 0.50, 0.11, 0.14, -0.045 + 0.06 * full),
        Hill(0.57, -0.22, 0.09, 0.16, -0.025),
        Hill(0.0, 0.60, 0.25, 0.17, 0.085, False),
        Hill(0.0, 0.885, 0.15, 0.085, 0.085 + 0.02 * man, False),
        Hill(0.0, mouth + face.lip_lower + 0.045, 0.12, 0.030, -0.026, False),
        Hill(0.30, 0.84, 0.08, 0.08, -0.012 - 0.016 * old),
        Hill(corner + 0.015, mouth - 0.03 * smile, 0.032, 0.034, -0.020 - 0.014 * smile),
        Hill(0.075, mouth - 0.55 * face.lip_upper, 0.07, face.lip_upper * 0.55, 0.018),
        Hill(0.065, mouth + 0.5 * face.lip_lower, 0.09, face.lip_lower * 0.48, 0.024),
        Hill(0.0, mouth - face.lip_upper - 0.05, 0.022, 0.04, -0.007, False),
        Hill(0.04, mouth - face.lip_upper - 0.045, 0.018, 0.04, 0.003),
    ]


def _nose_hills(face: FaceIdentity, condition: Condition, scene: Scene) -> list[Hill]:
    """Tip, wings and the base of the nose; phymatous skin swells them."""
    base = face.nose_length
    swell = condition.severity / 3 if condition.subtype is Subtype.phymatous else 0.0
    wide = face.nose_width * (1 + 0.10 * max(scene.smile, 0.0) + 0.20 * swell)
    tip = 0.062 + 0.018 * face.nose_tip
    hills = [
        Hill(0.0, base - 0.066, tip * (1 + 0.35 * swell), 0.060 * (1 + 0.3 * swell), 0.085 + 0.07 * swell, False),
        Hill(wide * 0.78, base - 0.032, wide * 0.25, 0.040, 0.078 + 0.03 * swell),
        Hill(wide * 1.25, base - 0.030, 0.030, 0.036, -0.015 - 0.01 * swell),
        Hill(0.0, base + 0.05, 0.08, 0.026, -0.022, False),
    ]
    if swell > 0:
        rng = stream(condition.pattern, 1)
        for u, v, size in rng.uniform((-1, -1, 0.018), (1, 1, 0.036), (9, 3)):
            hills.append(Hill(wide * u, base - 0.06 + 0.075 * v, size, size, 0.022 * swell, False))
    return hills


def _add_nose_bridge(grid: Grid, height: Field, u: Field, v: Field, face: FaceIdentity) -> None:
    """A ridge from between the eyes to the tip that widens and rises, and ends in a short slope to the lip."""
    base = face.nose_length
    box = grid.box(0.0, (base - 0.2) / 2, 0.34, (base + 0.4) / 2)
    p, q = u[box], v[box]
    along = np.clip((q + np.float32(0.12)) * np.float32(1 / (base + 0.06)), 0, 1)
    width = 0.070 + np.float32(0.038 + 0.012 * face.masculinity) * along
    rise = np.float32(0.035 + 0.045 * face.nose_bridge) + np.float32(0.10) * along * np.sqrt(along)
    rise = rise * smoothstep(-0.22, -0.02, q) * (1 - smoothstep(base - 0.050, base + 0.055, q))
    across = np.abs(p) / width
    height[box] += rise * np.exp(np.float32(-0.62) * across * across)


def _add_folds(grid: Grid, height: Field, u: Field, v: Field, face: FaceIdentity, scene: Scene) -> None:
    """The fold from the wing of the nose to beside the mouth: a step, higher on the cheek's side."""
    deep = 0.004 + 0.013 * face.lines + 0.012 * max(scene.smile, 0.0)
    start, end = face.nose_width * 1.18, face.mouth_width * 1.36
    top, bottom = face.nose_length - 0.06, face.mouth_height + 0.07
    for side in (-1, 1):
        box = grid.box(side * 0.3, (top + bottom) / 2, 0.22, (bottom - top) / 2 + 0.1)
        p, q = side * u[box], v[box]
        share = np.clip((q - np.float32(top)) * np.float32(1 / (bottom - top)), 0, 1)
        middle = np.float32(start) + np.float32(end - start) * share ** np.float32(0.75)
        across = (p - middle) * np.float32(1 / 0.038)
        fade = smoothstep(top - 0.04, top + 0.08, q) * (1 - smoothstep(bottom - 0.14, bottom + 0.04, q))
        step = np.clip(across, -4, 4)
        height[box] += np.float32(deep) * fade * step * np.exp(np.float32(-0.4) * step * step)
