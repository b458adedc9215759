"""Hair: its colour, its strands, and the mass of each style behind and over the face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..identity import FaceIdentity, Hair
from .grid import Grid, cover, smoothstep
from .noise import Field, octave_weight, value_noise

if TYPE_CHECKING:
    from .head import Head
    from .light import Light


@dataclass(frozen=True)
class Style:
    """The shape of a style, in face units."""

    lift: float  # thickness over the crown
    sides: float  # thickness beside the temples
    length: float  # v where it ends at the sides; under 0.2 it ends before the ears
    opening: float  # half width of the face it leaves free, at the temples
    top: float  # moves the hairline down (fringe) or up
    curl: float  # 0 = straight strands, 1 = tight curls
    opaque: float = 1.0


STYLES = {
    Hair.short: Style(0.10, 0.035, 0.10, 0.605, 0.0, 0.1),
    Hair.cropped: Style(0.022, 0.012, 0.08, 0.612, 0.0, 0.35, 0.86),
    Hair.long: Style(0.11, 0.13, 1.75, 0.560, 0.0, 0.05),
    Hair.fringe: Style(0.12, 0.12, 1.25, 0.555, 0.36, 0.0),
    Hair.bob: Style(0.13, 0.17, 0.88, 0.555, 0.04, 0.1),
    Hair.curly: Style(0.24, 0.26, 0.72, 0.580, 0.04, 1.0),
    Hair.tied: Style(0.055, 0.020, 0.06, 0.600, 0.0, 0.0),
    Hair.bald: Style(0.0, 0.008, 0.10, 0.640, -0.5, 0.4, 0.45),
}

SQUARENESS = {Hair.fringe: 3.6, Hair.long: 1.75, Hair.bob: 1.85, Hair.tied: 2.1}  # of the hairline; 2 = an arch


def hair_colour(face: FaceIdentity, *, brow: bool) -> Field:
    """Linear RGB [3] from eumelanin, pheomelanin (red) and grey; brows are darker than blond hair, and grey later."""
    melanin = min(1.0, face.hair_melanin + (0.22 if brow else 0.0))
    dark = np.exp(-np.array([2.0, 2.45, 2.95]) * (0.25 + 1.9 * melanin)) * 1.15
    red = np.array([0.20, 0.062, 0.020]) * (1.3 - melanin)
    colour = dark + face.hair_red * (1 - 0.7 * melanin) * (red - dark)
    grey = face.grey * (0.55 if brow else 1.0)
    silver = np.array([0.36, 0.355, 0.35])
    return np.asarray(colour + 0.85 * grey * (silver - colour), dtype=np.float32)


def strands(across: Field, along: Field, frequency: float, pixel: float, offset: int) -> Field:
    """Streaks in about -1..1: fine across the hairs, slow along them; too fine ones fade out."""
    total = np.zeros_like(across)
    for octave, weight in enumerate((0.8, 0.6, 0.5)):
        cells = frequency * 2.0 ** (octave - 1)
        share = weight * octave_weight(cells, pixel)
        if share > 0:
            streak = value_noise(across * np.float32(cells), along * np.float32(cells / 9), offset + octave)
            total += np.float32(share) * streak
    return total


@dataclass(frozen=True)
class HairLayers:
    """Colour (lit) and share of a pixel, behind the head and in front of it."""

    back: Field | None  # [h, w]
    front: Field  # [h, w]
    rgb: Field  # [3, h, w]
    rise: Field  # height over the head, for shadows


def build_hair(grid: Grid, head: Head, face: FaceIdentity, light: Light) -> HairLayers:
    style = STYLES[face.hair]
    u, v = head.u, head.v
    across, along = _flow(u, v, face, style)
    coarse = strands(across, along, 9.0, grid.pixel, face.texture % 641)
    fine = strands(across, along, 34.0, grid.pixel, face.texture % 877)
    if style.curl > 0.3:
        curls = value_noise(u * np.float32(15), v * np.float32(15), face.texture % 419)
        curls += np.float32(0.6) * value_noise(u * np.float32(33), v * np.float32(33), face.texture % 421)
        coarse = coarse * np.float32(1 - 0.8 * style.curl) + np.float32(0.75 * style.curl) * curls
    outer = _outer_edge(u, v, head, face, style) + np.float32(0.010 + 0.026 * style.curl) * coarse
    inner = _opening(u, v, face, style) + np.float32(0.026) * coarse + np.float32(0.016) * fine
    soft_edge = max(grid.pixel, 0.020 + 0.020 * style.curl)
    mass = cover(outer, soft_edge)
    root = 0.085 if face.hair in (Hair.short, Hair.cropped, Hair.bald, Hair.tied) else 0.028
    front = mass * cover(-inner, max(grid.pixel, root)) * np.float32(style.opaque)
    front *= _ends(v, style, coarse)
    back = None
    if style.length > 0.3:
        back = mass * (1 - smoothstep(style.length - 0.10, style.length + 0.04, v + np.float32(0.03) * coarse))
    rgb = _lit(u, v, coarse, fine, face, style, light, inner)
    rise = np.float32(0.03 + 0.5 * style.lift) * front
    return HairLayers(back, front, rgb, rise)


def _flow(u: Field, v: Field, face: FaceIdentity, style: Style) -> tuple[Field, Field]:
    """Coordinates across and along the hairs: they fan out from a parting above the forehead, then fall."""
    from_part = u - np.float32(0.5 * face.parting)
    down = np.maximum(v + np.float32(1.25), 0.12)
    fan = from_part / (np.float32(0.30) + np.float32(0.75) * np.minimum(down, np.float32(0.9)))
    wave = np.float32(0.03) * np.sin(v * np.float32(4.5) + u * np.float32(3))
    wave += np.float32(0.030) * value_noise(u * np.float32(3.5), v * np.float32(2.5), face.texture % 557)
    return fan + wave, v + np.float32(0.4) * np.abs(from_part)


def _outer_edge(u: Field, v: Field, head: Head, face: FaceIdentity, style: Style) -> Field:
    """Signed distance to the outside of the hair."""
    volume = np.float32(0.6 + 0.8 * face.hair_volume)
    upward = 1 - smoothstep(-0.75, 0.35, v)
    thick = (np.float32(style.sides) + np.float32(style.lift - style.sides) * upward) * volume
    if style.length <= 0.3:
        return head.edge + thick * smoothstep(0.12, -0.35, v)
    cap = head.edge + thick
    # Long hair leaves the skull at the temples and falls.
    fall = np.float32(face.head_width + style.sides * float(volume))
    taper = np.float32(0.10) * smoothstep(0.3, 1.4, v) - np.float32(0.05) * smoothstep(-0.2, 0.4, v)
    above = np.minimum(v, 0)
    curtain = fall - taper - np.abs(u) - np.float32(0.55) * above * above * (1 + above * above)
    return np.asarray(np.maximum(cap, curtain), dtype=np.float32)


def _opening(u: Field, v: Field, face: FaceIdentity, style: Style) -> Field:
    """Signed distance to the edge of the free face, positive on the face."""
    top = face.hairline + style.top
    if face.hair is Hair.bald:
        top = -1.6
    middle = -0.08
    a, b = style.opening, middle - top
    skew = u - np.float32(0.10 * face.parting) * smoothstep(middle, middle - 0.4, v)
    square = SQUARENESS.get(face.hair, 2.3 + 0.9 * face.masculinity)
    p = np.abs(skew) * np.float32(1 / a)
    q = np.maximum(middle - v, 0) * np.float32(1 / b)
    radius = (p ** np.float32(square) + q ** np.float32(square)) ** np.float32(1 / square)
    opening = (1 - radius) * np.float32(min(a, b))
    widening = np.float32(0.16 if style.length <= 0.3 else -0.02) * smoothstep(0.0, 0.7, v)
    recess = 0.0 if face.masculinity < 0.5 else 0.05 * face.lines
    if recess:
        temples = np.exp(-(((np.abs(u) - np.float32(0.38)) / np.float32(0.13)) ** 2))
        opening += np.float32(recess) * temples * smoothstep(-0.2, -0.4, v)
    return np.asarray(opening + widening, dtype=np.float32)


def _ends(v: Field, style: Style, coarse: Field) -> Field:
    """Share of hair left at each height: short hair fades out at the sideburns, long hair at its length."""
    if style.length <= 0.3:
        return 1 - smoothstep(style.length - 0.24, style.length + 0.10, v + np.float32(0.03) * coarse)
    return 1 - smoothstep(style.length - 0.06, style.length + 0.04, v + np.float32(0.025) * coarse)


def _lit(
    u: Field,
    v: Field,
    coarse: Field,
    fine: Field,
    face: FaceIdentity,
    style: Style,
    light: Light,
    inner: Field,
) -> Field:
    """Kajiya and Kay's hair, simplified: a dome of diffuse light, streaks, and a band of sheen across the strands."""
    lu, lv, lz = light.direction
    side = u * np.float32(1 / 0.9)
    rise = np.clip((v + np.float32(0.25)) * np.float32(1 / 0.95), -1, 0.6)
    front = np.sqrt(np.maximum(1 - side * side - rise * rise, 0.02))
    lambert = np.maximum(side * np.float32(lu) + rise * np.float32(lv) + front * np.float32(lz) + np.float32(0.25), 0)
    lambert *= np.float32(1 / 1.25)
    streaks = 1 + np.float32(0.17) * coarse + np.float32(0.28) * fine
    depth = smoothstep(-0.02, 0.10, -inner) * np.float32(0.35) + np.float32(0.65)
    fall_dark = 1 - np.float32(0.45) * smoothstep(0.25, 0.9, v) * (1 - smoothstep(0.55, 0.95, np.abs(u)))
    diffuse = lambert * streaks * depth * fall_dark
    around = np.float32(0.9) * depth * streaks * fall_dark
    base = hair_colour(face, brow=False)[:, None, None]
    rgb = base * (light.key[:, None, None] * diffuse + light.sky[:, None, None] * around)
    band_at = np.float32(-0.62 + 0.15 * lv) + np.float32(0.32) * u * u - np.float32(0.06) * np.float32(lu) * u
    band = np.exp(-(((v - band_at + np.float32(0.05) * coarse) / np.float32(0.13)) ** 2))
    lower = np.exp(-(((v - np.float32(0.45)) / np.float32(0.25)) ** 2)) * np.float32(0.4)
    gloss = np.float32(0.050 * (1 - 0.75 * style.curl)) * np.maximum(0.35 + fine + 0.6 * coarse, 0) * (band + lower)
    tint = np.float32(0.5) + np.float32(1.6) * np.sqrt(base)
    return np.asarray(rgb + gloss * lambert * light.key[:, None, None] * tint, dtype=np.float32)
