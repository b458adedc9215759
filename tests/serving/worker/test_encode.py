"""What is coded is what was drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from rosacea.v1 import faces_pb2
from rosacea_client import Mark
from rosacea_contract.marks import marked
from rosacea_serving.worker import encode as coding

PNG, JPEG, RAW = faces_pb2.IMAGE_FORMAT_PNG, faces_pb2.IMAGE_FORMAT_JPEG, faces_pb2.IMAGE_FORMAT_RAW
SHAPES = [(16, 16, 3), (16, 16, 1), (1, 1, 3), (1, 1, 1), (7, 13, 3), (13, 7, 1), (1, 300, 3), (300, 1, 3)]


MARK = Mark(
    software="rosacea", model="models/demo", digest="ab" * 32, fingerprint="cd" * 32, seed_scheme="none", latent="seed",
    noise_mode="const", format="any",
)  # fmt: skip


def encode(pixels: np.ndarray, encoding: faces_pb2.ImageFormat.ValueType, quality: int) -> bytes:
    return coding.encode(pixels, encoding, quality, lambda image: marked(image, MARK))


def picture(height: int, width: int, channels: int) -> np.ndarray:
    """Something with edges, slopes and noise."""
    rng = np.random.default_rng(height * width * channels)
    slope = np.add.outer(np.arange(height), np.arange(width))[..., None] * 3
    return ((slope + rng.integers(0, 40, (height, width, channels))) % 256).astype(np.uint8)


def decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_png_holds_the_very_pixels(shape: tuple[int, int, int]) -> None:
    pixels = picture(*shape)

    assert np.array_equal(decode(encode(pixels, PNG, 0)), pixels)


def test_a_view_is_coded_like_its_copy() -> None:
    pixels = picture(20, 20, 3)[::2, ::-1]

    for encoding in (PNG, JPEG, RAW):
        assert encode(pixels, encoding, 90) == encode(pixels.copy(), encoding, 90)


def test_the_same_pixels_give_the_same_bytes() -> None:
    assert len({encode(picture(64, 64, 3), PNG, 0) for _ in range(5)}) == 1


@pytest.mark.parametrize("shape", [(16, 16, 3), (9, 15, 3), (16, 16, 1)])
def test_a_jpeg_is_close_and_its_colours_are_not_subsampled(shape: tuple[int, int, int]) -> None:
    smooth = np.zeros(shape, np.uint8) + np.linspace(40, 200, shape[1]).astype(np.uint8)[None, :, None]

    data = encode(smooth, JPEG, 95)

    assert np.abs(decode(data).astype(int) - smooth).max() <= 4
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == ("RGB" if shape[2] == 3 else "L")
        assert isinstance(image, JpegImageFile)
        assert all(layer[1:3] == (1, 1) for layer in image.layer)


def test_raw_is_the_pixels() -> None:
    pixels = picture(5, 6, 3)

    assert encode(pixels, RAW, 0) == pixels.tobytes()


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(ValueError, match="format must be"):
        encode(picture(4, 4, 3), faces_pb2.IMAGE_FORMAT_UNSPECIFIED, 90)
    with pytest.raises(ValueError, match="quality must be from 1 to 100, got 0"):
        encode(picture(4, 4, 3), JPEG, 0)
    with pytest.raises(ValueError, match="1 or 3"):
        encode(np.zeros((4, 4, 2), np.uint8), PNG, 0)
    with pytest.raises(ValueError, match="uint8"):
        encode(np.zeros((4, 4, 3), np.float32), PNG, 0)
