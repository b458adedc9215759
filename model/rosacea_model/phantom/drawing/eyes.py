"""Eyes with lids, iris and lashes, and the brows above them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .grid import Box, cover, line, smoothstep
from .hair import hair_colour, strands
from .noise import Field, octave_weight, value_noise

if TYPE_CHECKING:
    from ..identity import FaceIdentity, Scene
    from .canvas import Canvas

SCLERA = np.array([0.52, 0.475, 0.45], np.float32)
CARUNCLE = np.array([0.48, 0.20, 0.17], np.float32)
LASH = np.array([0.018, 0.013, 0.010], np.float32)


@dataclass(frozen=True)
class Socket:
    """One eye in its own coordinates: p towards the temple in half widths, q down in face units."""

    box: Box
    p: Field
    q: Field
    upper: Field  # q of the upper lid at each p
    lower: Field
    slant: Field  # cosine of the lids' slope: turns heights into distances
    open: Field  # share of a pixel between the lids


def draw_eyes(canvas: Canvas) -> None:
    for side in (-1, 1):
        socket = _socket(canvas, side)
        _lid_shades(canvas, socket)
        _ball(canvas, socket, side)
        _lashes(canvas, socket)
        _brow(canvas, side)


def _socket(canvas: Canvas, side: int) -> Socket:
    face, scene = canvas.spec.identity, canvas.spec.scene
    box = canvas.grid.box(side * face.eye_spacing, 0.0, 0.24, 0.18)
    du = side * canvas.head.u[box] - np.float32(face.eye_spacing)
    dv = canvas.head.v[box]
    cosine, sine = np.float32(math.cos(face.eye_tilt)), np.float32(math.sin(face.eye_tilt))
    p = (cosine * du - sine * dv) * np.float32(1 / face.eye_width)
    q = cosine * dv + sine * du
    span = 1 - p * p
    opening = face.eye_width * face.eye_open * (1 - 0.18 * max(scene.smile, 0) + 0.08 * scene.brow_raise)
    upper = np.float32(-0.45 * opening) * span * (1 + np.float32(0.05) * p * p - np.float32(0.16) * p)
    lower = np.float32(0.30 * opening) * span * (1 + np.float32(0.22) * p)
    slope = np.float32(0.8 * opening / face.eye_width) * p
    slant = 1 / np.sqrt(1 + slope * slope)
    gap = np.minimum(q - upper, lower - q) * slant
    return Socket(box, p, q, upper, lower, slant, cover(gap, max(canvas.grid.pixel, 0.006)) * (np.abs(p) < 1.05))


def _lid_shades(canvas: Canvas, eye: Socket) -> None:
    """The crease of the upper lid, the shadow under the lower one, thin dark skin around."""
    face = canvas.spec.identity
    box, pixel = eye.box, canvas.grid.pixel
    window = np.exp(np.float32(-0.5) * (eye.p / np.float32(0.72)) ** 4)
    lift = np.float32(0.020 + 0.030 * face.lid_fold)
    crease = (eye.q - eye.upper * np.float32(0.92) + lift) * eye.slant
    width = math.hypot(0.0075, 0.3 * pixel)
    groove = np.exp(np.float32(-0.5) * (crease * np.float32(1 / width)) ** 2) * window
    canvas.dark[box] *= 1 - np.float32(0.50 * 0.0075 / width) * groove
    above = smoothstep(0.0, 0.05, -crease) * smoothstep(-0.16, -0.04, crease) * window
    canvas.dark[box] *= 1 - np.float32(0.10 + 0.12 * face.eye_depth) * above
    bag = (eye.q - eye.lower - np.float32(0.034)) * np.float32(1 / 0.018)
    under = np.exp(np.float32(-0.5) * bag * bag) * window
    canvas.dark[box] *= 1 - np.float32(0.07 + 0.16 * face.lines) * under
    canvas.melanin[box] += np.float32(0.16) * window * np.exp(-(((eye.q - np.float32(0.02)) / np.float32(0.085)) ** 2))
    canvas.blood[box] += np.float32(0.003) * under
    rim = np.exp(-((((eye.q - eye.lower) * eye.slant - np.float32(0.006)) * np.float32(1 / 0.009)) ** 2)) * window
    canvas.blood[box] += np.float32(0.008) * rim
    canvas.oil[box] *= 1 - np.float32(0.6) * window * np.exp(-((eye.q / np.float32(0.08)) ** 2))


def _ball(canvas: Canvas, eye: Socket, side: int) -> None:
    """White, iris, pupil, and the light on them."""
    face, scene = canvas.spec.identity, canvas.spec.scene
    box, pixel = eye.box, canvas.grid.pixel
    x = eye.p * np.float32(face.eye_width) - np.float32(side * (scene.gaze[0] * 0.09 + 0.035 * scene.yaw) - 0.004)
    y = eye.q - np.float32(-0.012 + 0.09 * scene.gaze[1])
    radius = np.sqrt(x * x + y * y)
    size = 0.060
    iris = cover(np.float32(size) - radius, max(pixel, 0.007))
    pupil = cover(np.float32(0.021 + 0.003 * face.eye_open) - radius, max(pixel, 0.006))
    corner = np.float32(1) - np.float32(0.38) * np.minimum(eye.p * eye.p, 1)
    red = np.array([0.0, 0.06, 0.07], np.float32)[:, None, None] * smoothstep(0.45, 1.0, np.abs(eye.p))
    colour = (SCLERA[:, None, None] - red) * corner
    inner = smoothstep(0.72, 0.86, -eye.p)
    colour += inner * (CARUNCLE[:, None, None] - colour)
    colour += iris * (_iris_colour(face, x, y, radius / np.float32(size), pixel) - colour)
    colour *= 1 - np.float32(0.97) * pupil
    canvas.cover(box, colour, eye.open)
    # The ball is wetter and rounder than skin; the upper lid shades it.
    lid_shadow = np.exp(np.float32(-1 / 0.020) * np.maximum((eye.q - eye.upper) * eye.slant, 0))
    canvas.dark[box] *= 1 - eye.open * (np.float32(0.62) * lid_shadow + np.float32(0.10))
    canvas.oil[box] *= 1 - eye.open
    light_u, light_v = math.sin(scene.light_azimuth), -math.sin(scene.light_height)
    spot = 0.0085 + 0.004 * scene.softness
    cu, cv = side * 0.034 * light_u, -0.008 + 0.030 * light_v
    glint = cover(np.float32(spot) - np.sqrt((x - np.float32(cu)) ** 2 + (y - np.float32(cv)) ** 2), max(pixel, 0.012))
    canvas.glint[box] += np.float32(0.80) * glint * eye.open
    wet = line((eye.q - eye.lower) * eye.slant + np.float32(0.002), 0.0035, pixel) * (np.abs(eye.p) < 0.9)
    canvas.glint[box] += np.float32(0.05) * wet


def _iris_colour(face: FaceIdentity, x: Field, y: Field, share: Field, pixel: float) -> Field:
    """Blue grey with little melanin, then green, hazel and dark brown; fibres, a pale ring, a dark rim."""
    steps = np.array([0.0, 0.3, 0.55, 1.0])
    palette = np.array([[0.16, 0.23, 0.30], [0.17, 0.19, 0.12], [0.17, 0.09, 0.035], [0.040, 0.020, 0.011]])
    base = np.array([np.interp(face.iris_melanin, steps, channel) for channel in palette.T], np.float32)
    fibres = octave_weight(60, pixel)
    texture = np.float32(1)
    shade = np.float32(1.15) - np.float32(0.75) * smoothstep(0.72, 1.02, share)
    ring = np.float32(0.35) * np.exp(-(((share - np.float32(0.5)) / np.float32(0.16)) ** 2))
    below = np.float32(0.35) * smoothstep(-0.02, 0.06, y)
    tone = shade * texture + ring + below
    if fibres > 0:
        angle = np.arctan2(y, x)
        streaks = value_noise(angle * np.float32(8), share * np.float32(1.5), face.texture % 97)
        tone += np.float32(0.30 * fibres) * streaks
    return np.asarray(base[:, None, None] * tone, dtype=np.float32)


def _lashes(canvas: Canvas, eye: Socket) -> None:
    """Upper lashes are a soft dark edge, thicker towards the temple; lower ones are faint."""
    face = canvas.spec.identity
    box, pixel = eye.box, canvas.grid.pixel
    lush = 1.0 - 0.35 * face.masculinity + 0.7 * canvas.spec.condition.makeup
    inside = np.abs(eye.p) < 1.12
    thick = np.float32(0.0068) * np.float32(lush) * (np.float32(0.8) + np.float32(0.5) * np.clip(eye.p, -1, 1))
    distance = (eye.q - eye.upper) * eye.slant
    edge = np.clip((thick - np.abs(distance + thick * np.float32(0.4))) / np.float32(max(pixel, 0.006)) + 0.5, 0, 1)
    fringe = smoothstep(-0.030 * lush, 0.0, distance) * (distance < 0) * np.float32(0.30)
    alpha = np.maximum(edge * np.float32(0.85) * smoothstep(-1.1, -0.6, eye.p), fringe * smoothstep(-0.7, 0.5, eye.p))
    canvas.cover(box, LASH, alpha * inside)
    below = line((eye.q - eye.lower) * eye.slant - np.float32(0.004), 0.004, pixel) * (np.abs(eye.p) < 0.95)
    canvas.dark[box] *= 1 - np.float32(0.30 * min(lush, 1.2)) * below * smoothstep(-0.8, 0.6, eye.p)


def _brow(canvas: Canvas, side: int) -> None:
    """A band of hairs that rises to its arch, thins to its tail, and leans outwards."""
    face, scene = canvas.spec.identity, canvas.spec.scene
    grid = canvas.grid
    raised = face.brow_height - 0.022 * scene.brow_raise
    box = grid.box(side * 0.31, raised, 0.24, 0.12)
    u, v = side * canvas.head.u[box], canvas.head.v[box]
    share = (u - np.float32(0.115)) * np.float32(1 / 0.385)
    within = np.clip(share, 0, 1)
    arch = np.float32(0.030 + 0.045 * face.brow_arch)
    bow = np.sin(within ** np.float32(1.25) * np.float32(math.pi))
    middle = np.float32(raised + 0.02) - arch * bow + np.float32(0.018) * within
    half = np.float32(face.brow_thickness) * (np.float32(0.85) + np.float32(0.45) * bow)
    half *= 1 - within**3 * np.float32(0.75)
    across = (v - middle) / half
    ends = smoothstep(-0.06, 0.10, share) * (1 - smoothstep(0.86, 1.06, share))
    body = np.exp(np.float32(-0.9) * across * across * across * across) * ends
    lean, along = u * np.float32(0.9) - v * np.float32(0.45), v + u * np.float32(0.5)
    hairs = strands(lean, along, 66.0, grid.pixel, face.texture % 1013)
    density = 0.80 + 0.12 * face.masculinity - 0.15 * face.grey
    alpha = np.clip(body * (np.float32(density) + np.float32(0.26) * hairs), 0, 0.95)
    canvas.cover(box, hair_colour(face, brow=True), alpha)


def eye_guard(face: FaceIdentity, scene: Scene, u: Field, v: Field) -> Field:
    """1 around the eyes, where rosacea spares the skin, falling to 0."""
    p = (np.abs(u) - np.float32(face.eye_spacing)) * np.float32(1 / 0.215)
    q = (v - np.float32(0.0)) * np.float32(1 / 0.10)
    return 1 - smoothstep(0.75, 1.75, np.sqrt(p * p + q * q))
