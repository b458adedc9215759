"""Reports `prepare`'s findings as JSON and as a picture.

The report names files, so it stays with the owner of the pictures; the zip names none. With `hash_names` the report
names each file by the start of the SHA-256 of its content, and can be shown around.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from .prepare import class_names, found_counts, holdout_path, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .prepare import Kept, Result, Spool

FORMAT = "rosacea-prepare-report/1"
TILE, CAPTION, COLUMNS, MAX_TILES = 160, 16, 8, 160
INK, PAPER, MARK = (20, 20, 20), (250, 250, 250), (220, 0, 90)


def report_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}-report.json")


def sheet_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}-findings.png")


def report_json(result: Result, out: Path) -> bytes:
    """The report: every excluded file with its reason, every finding, and the destination of each image."""
    source = result.source

    hashed = result.options.hash_names

    def file_of(place: int) -> str:
        return named(result.kept[place].picture, result.kept[place].source_sha256, hashed=hashed)

    zips = {place: holdout_path(out).name if place in result.held_out else out.name for place in result.names}
    entries = {
        "format": FORMAT,
        "counts": counts(result),
        "classes": class_names(result),
        "unusable": [
            {
                "file": named(picture, problem.sha256, hashed=hashed),
                "reason": problem.reason.value,
                "detail": problem.detail,
            }
            for picture, problem in result.unusable
        ],
        "duplicates": [
            {
                "files": [file_of(place) for place in group],
                "pairs": [
                    {
                        "files": [file_of(pair.first), file_of(pair.second)],
                        "agreement": pair.agreement,
                        "mirrored": pair.mirrored,
                    }
                    for pair in result.pairs
                    if pair.first in group
                ],
            }
            for group in result.duplicates
        ],
        "bars": [{"file": file_of(place), **asdict(kept.bar)} for place, kept in enumerate(result.kept) if kept.bar],
        "upscaled": [
            {
                "file": file_of(place),
                "enlarged_here": kept.factor,
                "before": asdict(kept.enlargement) if kept.enlargement else None,
            }
            for place, kept in enumerate(result.kept)
            if kept.upscaled
        ],
        "excluded": [{"file": file_of(place), "why": why.value} for place, why in sorted(result.excluded.items())],
        "left_alone": {
            "hidden": source.hidden,
            "links_out": source.links,
            "other_files": sum(source.others.values()) if hashed else dict(source.others),
        },
        "images": [
            {"zip": zips[place], "name": name, "file": file_of(place), "changes": list(kept.changes)}
            for place, name in sorted(result.names.items())
            for kept in [result.kept[place]]
        ],
    }
    return (json.dumps(entries, indent=1, ensure_ascii=True) + "\n").encode()


def counts(result: Result) -> dict[str, object]:
    """Counts of pictures by outcome, for the report's summary."""
    return {
        "files": len(result.source.pictures),
        "usable": len(result.kept),
        "unusable": dict(sorted(Counter(problem.reason.value for _, problem in result.unusable).items())),
        "found": found_counts(result),
        "excluded": len(result.excluded),
        "training": len(result.training()),
        "held_out": len(result.held_out),
        "without_subject": result.without_subject,
    }


def findings_sheet(result: Result, spool: Spool) -> Image.Image | None:
    """Picture sheet of duplicates (by group), bars and enlarged pictures; None if there are none."""
    tiles = list(_tiles(result))[:MAX_TILES]
    if not tiles:
        return None
    sheet = Image.new("RGB", (COLUMNS * TILE, math.ceil(len(tiles) / COLUMNS) * (TILE + CAPTION)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (kept, caption) in enumerate(tiles):
        left, top = number % COLUMNS * TILE, number // COLUMNS * (TILE + CAPTION)
        sheet.paste(_thumbnail(kept, spool), (left, top + CAPTION))
        draw.text((left + 3, top + 2), caption, fill=INK)
    return sheet


def _tiles(result: Result) -> Iterator[tuple[Kept, str]]:
    for number, group in enumerate(result.duplicates, 1):
        for place in group:
            mark = ", out" if place in result.excluded else ""
            yield result.kept[place], f"duplicates {number}{mark}"
    for place, kept in enumerate(result.kept):
        mark = ", out" if place in result.excluded else ""
        if kept.bar:
            yield kept, f"bar{mark}"
        if kept.enlargement:
            yield kept, f"enlarged before{mark}"
        if kept.factor > 1:
            yield kept, f"enlarged x{kept.factor:.2f}{mark}"


def _thumbnail(kept: Kept, spool: Spool) -> Image.Image:
    with Image.open(BytesIO(spool.png(kept)), formats=("PNG",)) as image:
        small = image.convert("RGB").resize((TILE - 4, TILE - 4), Image.Resampling.LANCZOS)
    if kept.bar:
        corners = _corners(kept.bar.left, kept.bar.top, kept.bar.right, kept.bar.bottom, kept.bar.angle, small.width)
        ImageDraw.Draw(small).polygon(corners, outline=MARK)
    return small


def _corners(
    left: float, top: float, right: float, bottom: float, angle: float, side: int
) -> list[tuple[float, float]]:
    """Corners of a bar in the original picture, which was turned by `angle` to find it."""
    turn = math.radians(angle)
    cosine, sine = math.cos(turn), math.sin(turn)
    centred = [(x - 0.5, y - 0.5) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
    return [((x * cosine - y * sine + 0.5) * side, (x * sine + y * cosine + 0.5) * side) for x, y in centred]


def picture_grid(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Lay pictures of one size side by side."""
    side = images[0].width
    grid = Image.new("RGB", (columns * side, math.ceil(len(images) / columns) * side), PAPER)
    for number, image in enumerate(images):
        grid.paste(image.convert("RGB"), (number % columns * side, number // columns * side))
    return grid


def redness(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    """Mean of log R - log G over the middle of a picture: an erythema index that needs no calibration."""
    side = pixels.shape[0]
    middle = pixels[side // 4 : -side // 4, side // 4 : -side // 4].astype(np.float64) + 1
    return float(np.log(middle[..., 0]).mean() - np.log(middle[..., min(1, middle.shape[2] - 1)]).mean())
