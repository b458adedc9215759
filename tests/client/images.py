"""Marked and unmarked images, coded by Pillow."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rosacea_client import Mark

FORMATS = ("png", "jpeg")
MARK = Mark(
    software="rosacea 1.2.3", model="models/demo", digest="ab" * 32, fingerprint="cd" * 32,
    seed_scheme="numpy-randomstate", latent="seed", seed=7, truncation_psi=0.7, truncation_cutoff=3,
    noise_mode="random", noise_seed=2**32 - 1, label_vector=(0.1, -1e-7, 3.0),
    style_mixes=({"seed": 1, "first_row": 2, "end_row": 3},), format="png",
)  # fmt: skip


def coded(image_format: str, mode: str = "RGB", **options: Any) -> bytes:
    """A small image of one colour, without any mark."""
    buffer = io.BytesIO()
    Image.new(mode, (8, 8), 100 if mode == "L" else (200, 90, 80)).save(buffer, image_format, **options)
    return buffer.getvalue()


def png_with(keyword: str, text: str, packed: bool = False) -> bytes:
    """A PNG with one text, as Pillow writes it."""
    info = PngInfo()
    info.add_itxt(keyword, text, zip=packed)
    return coded("png", pnginfo=info)


def opened(image: bytes) -> Image.Image:
    """As Pillow reads it, whole."""
    picture = Image.open(io.BytesIO(image), formats=FORMATS)
    picture.load()
    return picture
