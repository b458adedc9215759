"""Contact sheets: many faces in one picture, each with a caption."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from rosacea_client.files import write_atomically
from rosacea_contract.containers import XMP_KEYWORD, with_texts
from rosacea_contract.marks import NOTICE, software, xmp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rosacea_client.results.face import Face

MAX_SIDE_PIXELS = 4096  # sheets of many faces show them smaller rather than outgrow this


def seed_caption(face: Face) -> str:
    """Caption of a face: its seed, or its index if it has none."""
    return f"#{face.index}" if face.seed is None else str(face.seed)


def contact_sheet(
    faces: Sequence[Face],
    columns: int | None = None,
    caption: Callable[[Face], str] | None = seed_caption,
    background: str = "white",
    tile: int | None = None,
) -> Image.Image:
    """Lay out faces row by row with equal margins; about square if `columns` is not given.

    `tile` is the side of each face on the sheet in pixels; unset = that of the first face.
    """
    if not faces:
        raise ValueError("a contact sheet needs at least one face, got none")
    columns = min(columns or math.ceil(math.sqrt(len(faces))), len(faces))
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    rows = math.ceil(len(faces) / columns)
    tile = max(16, min(tile or max(faces[0].width, faces[0].height), MAX_SIDE_PIXELS // max(columns, rows)))
    margin = max(4, tile // 24)
    font = ImageFont.load_default(size=max(10, tile // 16))
    line = font.getbbox("0123456789")[3] + margin // 2 if caption else 0

    size = (columns * (tile + margin) + margin, rows * (tile + line + margin) + margin)
    sheet = Image.new("RGB", [math.ceil(side) for side in size], background)
    draw = ImageDraw.Draw(sheet)
    ink = "black" if sum(sheet.getpixel((0, 0))) > 3 * 127 else "white"  # type: ignore[arg-type]  # RGB
    for place, face in enumerate(faces):
        left = margin + place % columns * (tile + margin)
        top = math.floor(margin + place // columns * (tile + line + margin))
        sheet.paste(_tile(face, tile), (left, top))
        if caption:
            text = _fitting(caption(face), font, tile)
            draw.text((left + tile / 2, top + tile + margin // 2), text, fill=ink, font=font, anchor="mt")
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG, marked as synthetic."""
    write_atomically(path, sheet_png(sheet))


def sheet_png(sheet: Image.Image) -> bytes:
    """A sheet as PNG, marked as synthetic."""
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    texts = {"Description": f"Synthetic faces; none of these people exist. {NOTICE}", XMP_KEYWORD: xmp(software())}
    return with_texts(buffer.getvalue(), texts)


def _tile(face: Face, side: int) -> Image.Image:
    pixels = face.array()
    image = Image.fromarray(pixels[:, :, 0] if face.channels == 1 else pixels).convert("RGB")
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.LANCZOS)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Shorten a caption to fit under its face."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
