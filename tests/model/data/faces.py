"""Pictures for the tests of the data commands: faces, and the ways in which people and attackers spoil them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from rosacea_model.phantom.identity import sample_phantom
from rosacea_model.phantom.render import render


def face(index: int, size: int = 256) -> Image.Image:
    """A crude frontal face: the same index gives the same face."""
    rng = np.random.default_rng([7, index])
    scale = 2 * size / 512
    canvas = Image.new("RGB", (2 * size, 2 * size), _colour(rng, 60, 220))
    draw = ImageDraw.Draw(canvas)
    cx, cy = 256 + rng.normal(0, 8), 270 + rng.normal(0, 8)
    w, h = rng.uniform(120, 155), rng.uniform(165, 200)
    skin = np.array([1.0, rng.uniform(0.68, 0.8), rng.uniform(0.5, 0.68)]) * rng.uniform(80, 235)
    hair = _colour(rng, 10, 120)

    def oval(x: float, y: float, rx: float, ry: float, fill: tuple[int, ...]) -> None:
        draw.ellipse([scale * (x - rx), scale * (y - ry), scale * (x + rx), scale * (y + ry)], fill=fill)

    def shade(factor: float) -> tuple[int, ...]:
        return tuple(int(np.clip(value * factor, 0, 255)) for value in skin)

    oval(cx, cy - 25, w + rng.uniform(8, 35), h + rng.uniform(5, 30), hair)
    draw.rectangle([scale * (cx - 60), scale * (cy + 120), scale * (cx + 60), 2 * size], fill=shade(0.8))
    oval(cx, 560, 230, 110, _colour(rng, 20, 230))
    oval(cx, cy, w, h, shade(1.0))
    oval(cx, cy - h * 0.95, w * 0.8, rng.uniform(25, 70), hair)
    eye_x, eye_y = rng.uniform(48, 62), cy - rng.uniform(25, 45)
    iris, brow = _colour(rng, 20, 140), rng.uniform(22, 34)
    for side in (-1, 1):
        oval(cx + side * eye_x, eye_y, rng.uniform(22, 29), rng.uniform(9, 15), (235, 232, 228))
        oval(cx + side * eye_x, eye_y, 11, 11, iris)
        oval(cx + side * eye_x, eye_y, 5, 5, (10, 10, 10))
        oval(cx + side * eye_x, eye_y - brow, rng.uniform(26, 34), rng.uniform(3, 8), hair)
        oval(cx + side * w * 0.55, cy + 45, 40, 32, shade(rng.uniform(0.9, 1.05)))
    nose = rng.uniform(14, 24)
    oval(cx, cy + rng.uniform(25, 45), nose, nose * 0.8, shade(0.88))
    oval(cx, cy + rng.uniform(80, 105), rng.uniform(34, 55), rng.uniform(7, 16), shade(0.7))
    soft = canvas.filter(ImageFilter.GaussianBlur(2 * scale)).resize((size, size), Image.Resampling.LANCZOS)
    light = 1 + rng.uniform(-0.25, 0.25) * np.linspace(-1, 1, size)[None, :, None]
    texture = rng.normal(0, 4, (size, size, 1)) + rng.normal(0, 2, (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(soft) * light + texture, 0, 255).astype(np.uint8))


def _colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.integers(low, high, 3))


def phantom(index: int, size: int) -> Image.Image:
    """A face by the project's own renderer."""
    return Image.fromarray(render(sample_phantom(0, index), size).image)


def barred(image: Image.Image, index: int, *, height: float = 0.5) -> Image.Image:
    """The picture with a bar over its eyes: of any colour or grey, sharp or soft, a little turned and shaded.

    Every other one is recompressed.
    """
    rng = np.random.default_rng([3, index])
    size, grey = image.width, index % 4 == 0
    colour = np.repeat(rng.integers(0, 256), 3) if grey else rng.integers(0, 256, 3)
    mask = _slab(rng, size, height)
    if index % 3:
        mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.02) * size))
    shading = 1 + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, size)[None, :, None]
    cover = np.asarray(mask, np.float64)[..., None] / 255
    pixels = np.asarray(image) * (1 - cover) + np.clip(colour * shading, 0, 255) * cover
    copy = Image.fromarray(np.round(pixels).astype(np.uint8))
    return reopened(encoded(copy, "JPEG", quality=int(rng.integers(60, 95)))) if index % 2 else copy


def _slab(rng: np.random.Generator, size: int, height: float) -> Image.Image:
    """A white rectangle on black, turned by up to 15 degrees; drawn four times as large for smooth edges."""
    half = np.array([rng.uniform(0.4, 0.8), rng.uniform(0.07, 0.15)]) * size * 2
    centre = 4 * size * (np.array([0.5, height]) + rng.normal(0, 0.02, 2))
    angle = np.deg2rad(rng.uniform(-15, 15))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = [tuple(centre + (half * sign) @ turn) for sign in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    mask = Image.new("L", (4 * size, 4 * size))
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return mask.resize((size, size), Image.Resampling.BOX)


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def reopened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def cropped(image: Image.Image, share: float = 0.02) -> Image.Image:
    """The picture without `share` of its size on each side."""
    width, height = image.size
    return image.crop(
        (round(width * share), round(height * share), round(width * (1 - share)), round(height * (1 - share)))
    )
