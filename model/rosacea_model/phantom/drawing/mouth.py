"""Lips, nostrils and the beard."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .grid import bump, cover, smoothstep
from .hair import hair_colour
from .noise import Field, octave_weight, value_noise

if TYPE_CHECKING:
    from ..identity import FaceIdentity, Scene
    from .canvas import Canvas

LIP_BLOOD = 0.040


def lip_lines(face: FaceIdentity, scene: Scene, u: Field) -> tuple[Field, Field, Field, Field]:
    """Upper edge, parting line and lower edge of the lips at each u, and u in half widths of the mouth."""
    smile = scene.smile
    half = face.mouth_width * (1 + 0.13 * max(smile, 0))
    s = u * np.float32(1 / half)
    square = np.minimum(s * s, 1)
    taper = 1 - square
    bow = np.exp(-(((np.abs(s) - np.float32(0.22)) / np.float32(0.16)) ** 2)) * np.float32(0.25)
    bow -= np.exp(-((s / np.float32(0.12)) ** 2)) * np.float32(0.10 + 0.20 * face.lip_bow)
    thin = 1 - 0.22 * max(smile, 0)
    corner = np.float32(-0.042 * smile + 0.006) * square
    sides = np.exp(-(((np.abs(s) - np.float32(0.42)) / np.float32(0.2)) ** 2))
    dip = np.float32(0.007) * (np.exp(-((s / np.float32(0.16)) ** 2)) - np.float32(0.6) * sides)
    middle = np.float32(face.mouth_height) + corner + dip * taper
    upper = middle - np.float32(face.lip_upper * thin) * taper ** np.float32(0.85) * (np.float32(0.86) + bow)
    lower = middle + np.float32(face.lip_lower * thin) * taper ** np.float32(0.70)
    return upper, middle, lower, s


def draw_mouth(canvas: Canvas) -> None:
    face, scene = canvas.spec.identity, canvas.spec.scene
    grid = canvas.grid
    box = grid.box(0.0, face.mouth_height, face.mouth_width * 1.4, 0.20)
    u, v = canvas.head.u[box], canvas.head.v[box]
    upper, middle, lower, s = lip_lines(face, scene, u)
    soft = max(grid.pixel, 0.016)
    lips = cover(v - upper, soft) * cover(lower - v, soft * 1.3) * cover((1 - np.abs(s)) * np.float32(0.2), soft)
    canvas.blood[box] += lips * np.float32(LIP_BLOOD + 0.02 * canvas.spec.condition.makeup)
    canvas.melanin[box] += lips * np.float32(0.25)
    canvas.oil[box] += lips * np.float32(0.07)
    # The upper lip turns away from the sky, the parting line is dark, and the lower lip throws a shade below.
    turned = lips * (1 - smoothstep(-0.03, 0.012, v - middle))
    canvas.dark[box] *= 1 - np.float32(0.22) * turned
    wide = math.hypot(0.0085, 0.3 * grid.pixel)
    ends = 1 - smoothstep(0.86, 1.12, np.abs(s))
    part = np.exp(np.float32(-0.5) * ((v - middle) * np.float32(1 / wide)) ** 2) * ends
    canvas.dark[box] *= 1 - np.float32(0.80 * 0.0085 / wide) * part
    under = np.exp(-(((v - lower - np.float32(0.026)) / np.float32(0.022)) ** 2)) * np.exp(
        -((s / np.float32(0.62)) ** 4)
    )
    canvas.dark[box] *= 1 - np.float32(0.17) * under
    for side in (-1, 1):
        reach = face.mouth_width * (1 + 0.13 * max(scene.smile, 0))
        corner = (side * reach, face.mouth_height - 0.036 * scene.smile)
        canvas.dark[box] *= 1 - np.float32(0.34) * bump(u, v, corner, (0.020, 0.016), grid.pixel)
    creases = octave_weight(55, grid.pixel)
    if creases > 0:
        wrinkle = value_noise(u * np.float32(55), v * np.float32(9), face.texture % 211)
        canvas.dark[box] *= 1 - np.float32(0.10 * creases) * lips * wrinkle


def draw_nose(canvas: Canvas) -> None:
    """Nostrils, the crease around the wings, and the shaded base."""
    face = canvas.spec.identity
    grid, base, wide = canvas.grid, face.nose_length, face.nose_width
    box = grid.box(0.0, base, wide * 1.7, 0.13)
    u, v = canvas.head.u[box], canvas.head.v[box]
    for side in (-1, 1):
        p, q = side * u - np.float32(wide * 0.50), v - np.float32(base - 0.002)
        lean = q + np.float32(0.28) * p
        hole = bump(p, lean, (0.0, 0.0), (wide * 0.20, 0.0125), grid.pixel)
        canvas.dark[box] *= 1 - np.float32(0.78) * np.clip(hole * np.float32(1.25), 0, 1)
        across = (side * u - np.float32(wide * 0.74)) / np.float32(wide * 0.44)
        down = (v - np.float32(base - 0.032)) / np.float32(0.062)
        around = np.sqrt(across * across + down * down)
        wing = np.exp(-(((around - 1) / np.float32(0.20)) ** 2)) * smoothstep(wide * 0.85, wide * 1.1, side * u)
        canvas.dark[box] *= 1 - np.float32(0.30) * wing * smoothstep(base - 0.10, base - 0.02, v)
    canvas.dark[box] *= 1 + np.float32(0.35) * bump(u, v, (0.0, base + 0.004), (wide * 0.16, 0.020), grid.pixel)
    shade = bump(u, v, (0.0, base + 0.022), (wide * 0.60, 0.018), grid.pixel)
    canvas.dark[box] *= 1 - np.float32(0.14) * shade
    canvas.oil[box] += np.float32(0.12) * bump(u, v, (0.0, base - 0.075), (0.06, 0.05))


def draw_beard(canvas: Canvas) -> None:
    """Stubble to full beard over jaw, chin and upper lip, with the mouth left free."""
    face, scene, amount = canvas.spec.identity, canvas.spec.scene, canvas.spec.condition.beard
    shadow = max(amount, 0.06 * (face.masculinity > 0.6))
    if shadow <= 0:
        return
    u, v = canvas.head.u, canvas.head.v
    box = canvas.grid.box(0.0, 0.50, 0.78, 0.75)
    u, v = u[box], v[box]
    side = np.abs(u)
    upper, _, lower, s = lip_lines(face, scene, u)
    wave = np.float32(0.03) * value_noise(u * np.float32(9), v * np.float32(9), face.texture % 331)
    cheek_line = np.float32(0.62) - np.float32(0.60) * smoothstep(0.20, 0.62, side) + wave
    jaw = smoothstep(-0.06, 0.13, v - cheek_line)
    lip_zone = smoothstep(face.nose_length + 0.05, face.nose_length + 0.10, v + wave)
    lip_zone *= 1 - smoothstep(0.24, 0.34, side)
    zone = np.maximum(jaw, lip_zone)
    mouth = cover(v - upper + np.float32(0.002), 0.02) * cover(lower - v + np.float32(0.004), 0.02)
    mouth *= np.abs(s) < 1.02
    below_lip = bump(u, v, (0.0, face.mouth_height + 0.16), (0.30, 0.03)) * np.float32(0.25)
    zone = zone * (1 - mouth) * (1 - below_lip) * canvas.head.mask[box]
    fine = octave_weight(40, canvas.grid.pixel)
    lean = u * np.float32(62) - v * np.float32(14) * np.sign(u)
    hairs = np.float32(fine) * value_noise(lean, v * np.float32(24), face.texture % 733)
    hairs += np.float32(0.5) * value_noise(u * np.float32(14), v * np.float32(11), face.texture % 739)
    full = min(1.0, amount * 1.15)
    density = np.float32(0.16 + 0.72 * full) + np.float32(0.10 + 0.30 * full) * hairs
    alpha = np.clip(zone * density, 0, 0.93)
    if amount == 0:
        alpha = zone * np.float32(shadow)
    canvas.cover(box, hair_colour(face, brow=False), alpha)
    canvas.height[box] += np.float32(0.02 * full) * zone
    canvas.oil[box] *= 1 - np.float32(0.8) * alpha
