"""Builds ICC profiles from primaries, white point and transfer curve (ICC.1:2010).

Pillow makes profiles for sRGB, Lab and XYZ alone; a matrix profile of three primaries is a table of nine tags.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

XY = tuple[float, float]
Primaries = tuple[XY, XY, XY]

D65: XY = (0.3127, 0.3290)
D50 = (0.9642, 1.0, 0.8249)  # XYZ of the profile connection space
REC709: Primaries = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
REC2020: Primaries = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
DISPLAY_P3: Primaries = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB: Primaries = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_GAMMA = 563 / 256
# Parameters g, a, b, c, d of Y = (aX + b)^g where X >= d, else cX: a gamma alone has just the first.
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def matrix_profile(primaries: Primaries, white: XY, curve: Sequence[float]) -> bytes:
    """An RGB display profile with these chromaticities and one curve for all channels."""
    colorants = _to_d50(white) @ _rgb_to_xyz(primaries, white)
    tags = {
        b"desc": _text("RGB"),
        b"cprt": _text("none"),
        b"wtpt": _xyz(D50),
        **{b"rgb"[n : n + 1] + b"XYZ": _xyz(colorants[:, n]) for n in range(3)},
        **{b"rgb"[n : n + 1] + b"TRC": _curve(curve) for n in range(3)},
    }
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    return _header(at + len(body)) + table + body


def _header(size: int) -> bytes:
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    start = struct.pack(">I4xI4s4s4s", size, 0x04300000, b"mntr", b"RGB ", b"XYZ ") + date + b"acsp"
    return (start.ljust(68, b"\0") + _fixed(D50)).ljust(128, b"\0")


def _rgb_to_xyz(primaries: Primaries, white: XY) -> NDArray[np.float64]:  # => [3, 3]
    """RGB to XYZ matrix, whose columns sum to the white point."""
    columns = np.array([_xy_to_xyz(xy) for xy in primaries]).T
    scaled: NDArray[np.float64] = columns * np.linalg.solve(columns, _xy_to_xyz(white))
    return scaled


def _xy_to_xyz(xy: XY) -> NDArray[np.float64]:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _to_d50(white: XY) -> NDArray[np.float64]:  # => [3, 3]
    """Bradford chromatic adaptation from a white point to D50."""
    scale = (BRADFORD @ np.array(D50)) / (BRADFORD @ _xy_to_xyz(white))
    adapted: NDArray[np.float64] = np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD
    return adapted


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _curve(parameters: Sequence[float]) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", 0 if len(parameters) == 1 else 3, 0) + _fixed(parameters)


def _text(text: str) -> bytes:
    coded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(coded), 28) + coded
