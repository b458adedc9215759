"""Blood under the skin: the calm blush of every face, flushing, and the redness, vessels and lesions of rosacea.

Where: cheeks, nose, middle of the forehead and chin; spared: around the eyes and the mouth (Gallo et al., "Standard
classification and pathophysiology of rosacea", Journal of the American Academy of Dermatology 78(1), 2018, 148-155).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..identity import FaceIdentity, Scene, Subtype, stream
from .eyes import eye_guard
from .grid import bump, smoothstep
from .noise import Field, fractal_noise, octave_weight, value_noise

if TYPE_CHECKING:
    from .canvas import Canvas

PUS = np.array([0.62, 0.46, 0.24], np.float32)

# Blood that full involvement adds at severity 3, as a volume fraction of the upper dermis.
FULL_ERYTHEMA = {Subtype.healthy: 0.0, Subtype.etr: 0.042, Subtype.ppr: 0.036, Subtype.phymatous: 0.036}


def centrofacial(face: FaceIdentity, scene: Scene, u: Field, v: Field) -> Field:
    """How readily each place reddens, 0..1: the map of the disease before its borders are drawn."""
    side = np.abs(u)
    base = face.nose_length
    cheeks = bump(side, v, (0.335, 0.28), (0.145, 0.140))
    outer = bump(side, v, (0.43, 0.40), (0.11, 0.13)) * np.float32(0.45)
    nose = bump(u, v, (0.0, base - 0.09), (0.115, 0.105)) * np.float32(1.05)
    bridge = bump(u, v, (0.0, 0.10), (0.06, 0.14)) * np.float32(0.5)
    forehead = bump(u, v, (0.0, -0.42), (0.22, 0.12)) * np.float32(0.62)
    chin = bump(u, v, (0.0, 0.875), (0.15, 0.075)) * np.float32(0.68)
    field = np.maximum.reduce([cheeks + outer, nose, bridge, forehead, chin])
    mouth = bump(u, v, (0.0, face.mouth_height), (face.mouth_width * 0.80, 0.085))
    spared = (1 - np.float32(0.9) * mouth) * (1 - np.float32(0.92) * eye_guard(face, scene, u, v))
    return np.asarray(np.clip(field, 0, 1) * spared, dtype=np.float32)


def redden(canvas: Canvas) -> None:
    """Set the blood of the whole face: blush and flushing, and with disease its redness, vessels and lesions (those
    with relief and pus)."""
    spec, u, v = canvas.spec, canvas.head.u, canvas.head.v
    face, condition = spec.identity, spec.condition
    likely = centrofacial(face, spec.scene, u, v)
    mottle = fractal_noise(u + 3, v, 7.0, 3, canvas.grid.pixel, face.texture % 509)
    canvas.blood *= 1 + np.float32(0.22) * mottle
    canvas.blood += np.float32(0.008) * likely * (1 + np.float32(0.4) * mottle)
    ears = smoothstep(0.56, 0.74, np.abs(u))
    canvas.blood += np.float32(0.004) * ears
    if condition.flush:
        warm = np.float32(0.5) + np.float32(0.5) * bump(u, v, (0.0, 0.2), (0.55, 0.55)) + np.float32(0.25) * ears
        canvas.blood += np.float32(0.017 * condition.flush) * warm * (1 + np.float32(0.25) * mottle)
    if condition.severity > 0:
        _erythema(canvas, likely)
        _vessels(canvas, likely)
        if condition.subtype is not Subtype.etr:
            _lesions(canvas)


def _erythema(canvas: Canvas, likely: Field) -> None:
    """Redness inside an irregular border that moves outwards with severity."""
    condition, grid = canvas.spec.condition, canvas.grid
    severity, offset = condition.severity, condition.pattern % 9311
    u, v = canvas.head.u, canvas.head.v
    ragged = fractal_noise(u + 20, v, 4.0, 5, grid.pixel, offset)
    patchy = fractal_noise(u + 40, v, 9.0, 4, grid.pixel, offset + 17)
    lean = np.float32(0.05) * np.float32(math.sin(condition.pattern)) * np.sign(u)  # one cheek leads
    threshold = 0.72 - 0.17 * severity
    inside = smoothstep(threshold - 0.22, threshold + 0.34, likely + np.float32(0.26) * ragged + lean * likely)
    strength = FULL_ERYTHEMA[condition.subtype] * (severity / 3) ** 1.15
    amount = inside * (np.float32(0.35) + np.float32(0.65) * likely) * (1 + np.float32(0.38) * patchy)
    canvas.blood += np.float32(strength) * np.maximum(amount, 0)


def _vessels(canvas: Canvas, likely: Field) -> None:
    """Fine branching vessels: the zero lines of warped noise, seen on cheeks and the sides of the nose."""
    condition, pixel = canvas.spec.condition, canvas.grid.pixel
    share = {Subtype.etr: 1.0, Subtype.ppr: 0.35, Subtype.phymatous: 0.6}[condition.subtype]
    box = canvas.grid.box(0.0, 0.26, 0.62, 0.34)
    u, v = canvas.head.u[box], canvas.head.v[box]
    offset = condition.pattern % 7919
    bent_u = u + np.float32(0.05) * value_noise(u * 9, v * 9, offset)
    bent_v = v + np.float32(0.05) * value_noise(u * 9 + 7, v * 9, offset + 1)
    where = smoothstep(0.30, 0.85, likely[box])
    for cells, width, blood in ((8.0, 0.0036, 0.065), (15.0, 0.0024, 0.045)):
        field = value_noise(bent_u * np.float32(cells), bent_v * np.float32(cells * 0.75), offset + int(cells))
        seen = math.hypot(width, 0.45 * pixel)
        along = smoothstep(-0.15, 0.5, value_noise(u * np.float32(6), v * np.float32(6), offset + 5))
        distance = np.abs(field) * np.float32(0.55 / cells)
        vessel = np.exp(np.float32(-0.5) * (distance * np.float32(1 / seen)) ** 2) * along * where
        canvas.blood[box] += np.float32(blood * share * condition.severity / 3 * width / seen) * vessel


def _lesions(canvas: Canvas) -> None:
    """Papules (red domes) and pustules (with a pale head), each with relief, where the disease is."""
    condition, face = canvas.spec.condition, canvas.spec.identity
    most = 40 if condition.subtype is Subtype.ppr else 16
    rng = stream(condition.pattern, 2)
    draws = rng.uniform(size=(220, 6))
    pus = PUS * np.float32((0.03 / (face.melanin + 0.03)) ** 0.5)
    wanted = round(most * (condition.severity / 3) ** 1.2)
    places = draws[:, :2] * (1.3, 1.55) - (0.65, 0.58)
    u, v = places.astype(np.float32).T
    accepted = centrofacial(face, canvas.spec.scene, u, v) > 0.26 + 0.35 * draws[:, 2]
    accepted &= (v > -0.2) | (draws[:, 5] < 0.45)  # fewer on the forehead
    chosen = np.hstack([places, draws[:, 3:]])[accepted][:wanted].tolist()
    for cu, cv, size_draw, pus_draw, blood_draw in chosen:
        size = 0.009 + 0.012 * size_draw**1.5
        box = canvas.grid.box(cu, cv, 4.2 * size, 4.2 * size)
        p, q = canvas.head.u[box], canvas.head.v[box]
        pixel = canvas.grid.pixel
        dome = bump(p, q, (cu, cv), (size, size * 0.92), pixel)
        halo = bump(p, q, (cu, cv), (size * 1.7, size * 1.6), pixel)
        canvas.height[box] += np.float32(0.42 * size) * dome
        redder = np.float32(0.030 + 0.025 * blood_draw)
        canvas.blood[box] += redder * (np.float32(0.75) * dome + np.float32(0.35) * halo)
        canvas.oil[box] += np.float32(0.03) * dome
        if pus_draw < 0.24:
            head = bump(p, q, (cu, cv), (size * 0.45, size * 0.45), pixel)
            canvas.cover(box, pus, np.clip(head * np.float32(0.62), 0, 1))


def make_up(canvas: Canvas, tint: Field) -> None:
    """Foundation: a thin even layer in the skin's own colour [3] over the face, thinner at its border."""
    amount = canvas.spec.condition.makeup
    if not amount:
        return
    u, v = canvas.head.u, canvas.head.v
    whole = (slice(None), slice(None))
    inner = smoothstep(0.0, 0.22, canvas.head.edge)
    uneven = value_noise(u * np.float32(11), v * np.float32(11), canvas.spec.condition.pattern % 101)
    alpha = np.float32(0.55 * amount) * inner * (1 + np.float32(0.10) * uneven)
    alpha *= 1 - np.float32(0.5) * eye_guard(canvas.spec.identity, canvas.spec.scene, u, v)
    mouth = bump(u, v, (0.0, canvas.spec.identity.mouth_height), (0.22, 0.07))
    canvas.cover(whole, tint, np.clip(alpha * (1 - mouth), 0, 0.6))


def blemish(canvas: Canvas) -> None:
    """Freckles, pores, uneven pigment and the oil of forehead, nose and chin."""
    face, pixel = canvas.spec.identity, canvas.grid.pixel
    u, v = canvas.head.u, canvas.head.v
    offset = face.texture % 6007
    canvas.melanin += np.float32(0.07) * fractal_noise(u + 60, v, 5.0, 3, pixel, offset)
    sun = bump(u, v, (0.0, -0.45), (0.5, 0.25)) + bump(u, v, (0.0, 0.2), (0.45, 0.2))
    canvas.melanin += np.float32(0.06) * sun
    if face.freckles:
        spots = value_noise(u * np.float32(36), v * np.float32(36), offset + 3)
        spots += np.float32(0.7) * value_noise(u * np.float32(61), v * np.float32(61), offset + 4)
        seen = octave_weight(36, pixel)
        canvas.melanin += np.float32(0.8 * face.freckles * seen) * smoothstep(0.55, 1.1, spots) * sun
    pores = octave_weight(75, pixel)
    if pores > 0:
        grain = value_noise(u * np.float32(75), v * np.float32(75), offset + 5)
        canvas.height += np.float32(0.0011 * pores) * grain
    if face.lines > 0.02:
        _age_lines(canvas, face.lines)
    shine = bump(u, v, (0.0, -0.45), (0.26, 0.16)) + bump(u, v, (0.0, 0.18), (0.05, 0.22))
    shine += np.float32(0.5) * bump(u, v, (0.0, 0.9), (0.10, 0.06))
    shine += np.float32(0.6) * bump(np.abs(u), v, (0.40, 0.15), (0.12, 0.07))
    canvas.oil += np.float32(0.11) * shine


def _age_lines(canvas: Canvas, depth: float) -> None:
    """Furrows of the brow, crow's feet and lines beside the mouth, as grooves in the relief."""
    pixel = canvas.grid.pixel
    u, v = canvas.head.u, canvas.head.v
    box = canvas.grid.box(0.0, -0.43, 0.46, 0.17)
    p, q = u[box], v[box]
    bent = q + np.float32(0.025) * np.cos(p * np.float32(7)) + np.float32(0.012) * value_noise(p * 7, q * 3, 11)
    wave = np.sin(bent * np.float32(2 * math.pi / 0.085))
    fade = np.exp(-((p / np.float32(0.33)) ** 4)) * np.exp(-(((q + np.float32(0.43)) / np.float32(0.13)) ** 4))
    canvas.height[box] -= np.float32(0.0040 * depth * octave_weight(14, pixel)) * np.maximum(wave, -0.2) * fade
    for side in (-1, 1):
        box = canvas.grid.box(side * 0.53, 0.02, 0.12, 0.14)
        p, q = side * u[box] - np.float32(0.44), v[box]
        fan = np.sin((q - np.float32(0.01)) / (np.float32(0.06) + np.maximum(p, -0.02)) * np.float32(9))
        fade = bump(p, q, (0.06, 0.02), (0.04, 0.06))
        canvas.height[box] -= np.float32(0.005 * depth * octave_weight(22, pixel)) * fan * fade
