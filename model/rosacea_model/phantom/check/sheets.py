"""Sheets of faces with words beside their rows and above their columns, marked as synthetic."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from ...files.modelfile import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

GAP = 2  # pixels between faces
MAX_SIDE = 1024  # of a sheet, so that it stays below a megabyte
PAPER, INK = "white", "black"
SYNTHETIC = "Synthetic faces; none of these people exist."


def labelled(
    images: NDArray[np.uint8],  # [rows, columns, size, size, 3]
    rows: Sequence[str],
    columns: Sequence[str],
) -> Image.Image:
    """A sheet with a word for each row and column; with fewer words than rows, each names a group of equally many
    rows."""
    height, width = images.shape[:2]
    size = images.shape[2]
    scale = max(1, min(2, (MAX_SIDE - 100) // (max(height, width) * size)))
    step = size * scale + GAP
    font = ImageFont.load_default(size=14)
    left = int(max(font.getlength(word) for word in (*rows, ""))) + 12 if any(rows) else GAP
    top = 22 if any(columns) else GAP
    sheet = Image.new("RGB", (left + width * step, top + height * step), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row in range(height):
        for column in range(width):
            face = Image.fromarray(images[row, column]).resize((step - GAP, step - GAP), Image.Resampling.BICUBIC)
            sheet.paste(face, (left + column * step, top + row * step))
    band = height * step / max(len(rows), 1)
    for place, word in enumerate(rows):
        draw.text((left - 6, top + (place + 0.5) * band), word, fill=INK, font=font, anchor="rm")
    for place, word in enumerate(columns):
        draw.text((left + (place + 0.5) * step, top - 4), word, fill=INK, font=font, anchor="mb")
    return sheet


def save(sheet: Image.Image, path: Path, description: str = SYNTHETIC) -> None:
    """Write a sheet as PNG, with a description in it: that all is synthetic, unless another is given."""
    marks = PngImagePlugin.PngInfo()
    marks.add_text("Description", description)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", pnginfo=marks, optimize=True)
    write_atomically(path, buffer.getvalue())
