"""Summarises a data set: picture sheet, class counts, sizes, colours."""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from rich.markup import escape
from rich.table import Table

from .errors import DataRejected, printable
from .pictures.decode import GREY_NOTE, DecodeOptions
from .pool import outcomes
from .report import picture_grid, redness
from .source import Source, open_source
from .worker import Prepared, WorkOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_MEASURED = 1000  # pictures that colour statistics are taken from
TILE = 128


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Numbers of a data set; colours are measured on `measured` evenly chosen pictures.

    They are those of the middle square of each, at 128 pixels a side.
    """

    count: int
    per_class: dict[str, int]
    sizes: dict[str, int]  # "512x512 RGB" -> pictures measured
    mean: tuple[float, ...]  # of each colour channel
    spread: tuple[float, ...]  # standard deviation of each channel over all pixels
    redness: tuple[float, float]  # mean and standard deviation over pictures
    measured: int
    unusable: int


def overview(path: Path, tiles: int) -> tuple[Overview, Image.Image]:
    """Compute the numbers and a sheet of tiles x tiles pictures."""
    source = open_source(path)
    if not source.pictures:
        raise DataRejected(f"{path}: no pictures in it")
    measured = _measured(source, max(MAX_MEASURED, tiles * tiles))
    images = [one.image for one in measured]
    if not images:
        raise DataRejected(f"{path}: no usable picture among those tried")
    arrays = [np.asarray(image) for image in images]
    means = np.array([array.mean(axis=(0, 1)) for array in arrays])
    squares = np.array([(array.astype(np.float64) ** 2).mean(axis=(0, 1)) for array in arrays])
    red = [redness(array) for array in arrays]
    numbers = Overview(
        count=len(source.pictures),
        per_class=per_class(source),
        sizes=dict(Counter(one.kind for one in measured)),
        mean=tuple(means.mean(axis=0)),
        spread=tuple(np.sqrt(squares.mean(axis=0) - means.mean(axis=0) ** 2)),
        redness=(float(np.mean(red)), float(np.std(red))),
        measured=len(images),
        unusable=min(len(source.pictures), max(MAX_MEASURED, tiles * tiles)) - len(images),
    )
    chosen = [images[place] for place in spread_evenly(len(images), tiles * tiles)]
    return numbers, picture_grid(chosen, tiles)


def per_class(source: Source) -> dict[str, int]:
    """Number of pictures by class name or number; empty without classes."""
    labels = Counter(picture.label for picture in source.pictures if isinstance(picture.label, int))
    names = source.classes
    return {names[label] if label < len(names) else str(label): labels[label] for label in sorted(labels)}


def spread_evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` indices, evenly spaced."""
    return sorted({place * count // min(wanted, count) for place in range(min(wanted, count))})


@dataclass(frozen=True)
class Measured:
    """A picture's tile and original properties."""

    image: Image.Image
    kind: str  # "1600x1200 RGB"


def _measured(source: Source, wanted: int) -> list[Measured]:
    """Decode a sample in guarded processes, keeping only the tiles of usable pictures in memory."""
    pictures = [source.pictures[place] for place in spread_evenly(len(source.pictures), wanted)]
    options = WorkOptions(resolution=TILE, decode=DecodeOptions(min_size=1))
    answers = outcomes(pictures, source.path, options, workers=len(os.sched_getaffinity(0)))
    return [_one(answer) for answer in answers if isinstance(answer, Prepared)]


def _one(answer: Prepared) -> Measured:
    width, height = answer.source_size
    with Image.open(io.BytesIO(answer.png), formats=("PNG",)) as image:
        return Measured(image.convert("RGB"), f"{width}x{height} {'L' if GREY_NOTE in answer.changes else 'RGB'}")


def as_table(name: str, numbers: Overview) -> Table:
    """Format the numbers as a table."""
    table = Table("", "", title=escape(printable(name)), show_header=False)
    table.add_row("pictures", str(numbers.count))
    for kind, count in numbers.per_class.items():
        table.add_row(escape(printable(f"class {kind}")), f"{count} ({count / numbers.count:.1%})")
    for size, count in numbers.sizes.items():
        table.add_row("size", f"{size}: {count}")
    table.add_row("mean R, G, B", _joined(numbers.mean))
    table.add_row("spread R, G, B", _joined(numbers.spread))
    table.add_row("redness, log R/G of the middle", f"{numbers.redness[0]:.3f} +/- {numbers.redness[1]:.3f}")
    table.add_row("measured on", f"{numbers.measured} pictures")
    if numbers.unusable:
        table.add_row("unusable", str(numbers.unusable))
    return table


def _joined(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
