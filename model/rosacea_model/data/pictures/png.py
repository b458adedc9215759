"""Deterministic PNG encoding: uncompressed, unfiltered, without metadata.

Compressors differ from one build to the next; stored blocks do not, and training reads them fastest. This is also
what StyleGAN data sets use: PNGs at compression level 0 in a zip that does not compress either.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_STORED_BYTES = 0xFFFF  # of one stored block (RFC 1951, 3.2.4)
COLOUR_TYPES = {1: 0, 3: 2}  # channels -> PNG colour type: grey, RGB


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an array [height, width, 1 or 3]."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with filter type 0: none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", b"".join(_stored(rows.tobytes()))), _chunk(b"IEND", b""))
    return SIGNATURE + b"".join(parts)


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield type, body and checksum validity of each complete PNG chunk."""
    view = memoryview(data)
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            return
        (crc,) = struct.unpack_from(">I", data, end - 4)
        yield kind, view[at + 8 : end - 4], zlib.crc32(view[at + 4 : end - 4]) == crc
        at = end


def _stored(data: bytes) -> Iterator[bytes]:
    """A zlib stream (RFC 1950) of stored, uncompressed blocks."""
    yield b"\x78\x01"
    for start in range(0, len(data), MAX_STORED_BYTES):
        block = data[start : start + MAX_STORED_BYTES]
        last = start + MAX_STORED_BYTES >= len(data)
        yield struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF)
        yield block
    yield struct.pack(">I", zlib.adler32(data))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
