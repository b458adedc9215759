"""Encodes pixels as PNG, JPEG or raw bytes. Deterministic for one version of the codecs."""

from __future__ import annotations

import struct
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from isal import isal_zlib

from rosacea.v1 import faces_pb2
from rosacea_contract.containers import PNG_SIGNATURE
from rosacea_contract.marks import MARK_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PNG_COLOUR_TYPES = {1: 0, 3: 2}  # channels to PNG colour type
PNG_FILTER_UP = 2
COMPRESSION_LEVEL = 1  # 3 to 5 times as fast as zlib's fastest at about the same size


def encode(
    pixels: NDArray[np.uint8],
    image_format: faces_pb2.ImageFormat.ValueType,
    quality: int,
    mark: Callable[[bytes], bytes],
) -> bytes:
    """Encode an image [H, W, 1 or 3] uint8; `quality` is JPEG's, from 1 to 100.

    `mark` inserts the mark into a coded image; raw pixels carry none.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in PNG_COLOUR_TYPES:
        raise ValueError(f"pixels must be uint8 [H, W, 1 or 3], got {pixels.dtype} {list(pixels.shape)}")
    if image_format == faces_pb2.IMAGE_FORMAT_PNG:
        return mark(png(pixels))
    if image_format == faces_pb2.IMAGE_FORMAT_JPEG:
        return mark(jpeg(pixels, quality))
    if image_format == faces_pb2.IMAGE_FORMAT_RAW:
        return pixels.tobytes()
    raise ValueError(f"format must be PNG, JPEG or RAW, got {image_format}")


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a PNG with the Up filter on every row, which suits photographs and needs no search."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    data = isal_zlib.compress(filtered_rows(pixels), COMPRESSION_LEVEL)
    return b"".join([PNG_SIGNATURE, chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")])


def filtered_rows(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PNG's "Up" filter: each row less the one above, modulo 256, behind a byte that names the filter."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    filtered = np.empty((height, 1 + width * channels), np.uint8)
    filtered[:, 0] = PNG_FILTER_UP
    filtered[:1, 1:] = rows[:1]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)])


def codecs() -> str:
    """Versions of the codecs, which the exact bytes depend on."""
    return f"isal {version('isal')} simplejpeg {version('simplejpeg')} mark {MARK_VERSION}"


def jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode a JPEG without chroma subsampling, because redness matters in these images."""
    if not 1 <= quality <= 100:
        raise ValueError(f"jpeg quality must be from 1 to 100, got {quality}")
    grey = pixels.shape[2] == 1
    return bytes(
        simplejpeg.encode_jpeg(  # type: ignore[attr-defined]
            np.ascontiguousarray(pixels),
            quality=quality,
            colorspace="GRAY" if grey else "RGB",
            colorsubsampling="Gray" if grey else "444",
        )
    )
