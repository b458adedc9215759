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


def barred(image: Image.Image, index: int) -> Image.Image:
    """The picture with a grey, black or white bar over its eyes, a little turned; every other one recompressed."""
    rng = np.random.default_rng([3, index])
    size = image.width
    width, height = rng.uniform(0.4, 0.8) * size, rng.uniform(0.06, 0.14) * size
    x, y = size * (0.5 + rng.normal(0, 0.02)), size * (0.5 + rng.normal(0, 0.02))
    angle = np.deg2rad(rng.uniform(-8, 8))
    grey = int(rng.choice([0, 0, 20, 60, 100, 128, 160, 200, 255]))
    across = np.array([np.cos(angle), np.sin(angle)]) * width / 2
    down = np.array([-np.sin(angle), np.cos(angle)]) * height / 2
    corners = [tuple(np.array([x, y]) + turn) for turn in (-across - down, across - down, across + down, down - across)]
    copy = image.copy()
    ImageDraw.Draw(copy).polygon(corners, fill=(grey, grey, grey))
    return reopened(encoded(copy, "JPEG", quality=int(rng.integers(60, 95)))) if index % 2 else copy


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def reopened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def cropped(image: Image.Image, share: float = 0.02) -> Image.Image:
    """The picture without `share` of its size on each side."""
    width, height = image.size
    return image.crop((round(width * share), round(height * share),
                       round(width * (1 - share)), round(height * (1 - share))))
