"""What is inside a data set: a sheet of pictures, how many of each class, their sizes and colours."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from .decode import DecodeOptions, decode
from .errors import DataRejected, Unusable
from .report import picture_grid, redness
from .source import Picture, Reader, Source, open_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL import Image

MAX_MEASURED = 1000                      # pictures that colour statistics are taken from
TILE = 128


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The numbers of a data set; colours are measured on `measured` pictures spread evenly over it."""

    count: int
    per_class: dict[str, int]
    sizes: dict[str, int]                # "512x512 RGB" -> pictures measured
    mean: tuple[float, ...]              # of each colour channel
    spread: tuple[float, ...]            # standard deviation of each channel over all pixels
    redness: tuple[float, float]         # mean and standard deviation over pictures
    measured: int
    unusable: int


def overview(path: Path, tiles: int) -> tuple[Overview, Image.Image]:
    """Numbers, and a sheet of tiles x tiles pictures."""
    source = open_source(path)
    if not source.pictures:
        raise DataRejected(f"{path}: no pictures in it")
    images, unusable = _sampled(source, max(MAX_MEASURED, tiles * tiles))
    if not images:
        raise DataRejected(f"{path}: no usable picture among {unusable} tried")
    arrays = [np.asarray(image.convert("RGB")) for image in images]
    means = np.array([array.mean(axis=(0, 1)) for array in arrays])
    squares = np.array([(array.astype(np.float64) ** 2).mean(axis=(0, 1)) for array in arrays])
    red = [redness(array) for array in arrays]
    numbers = Overview(
        count=len(source.pictures),
        per_class=per_class(source),
        sizes=dict(Counter(f"{image.width}x{image.height} {image.mode}" for image in images)),
        mean=tuple(means.mean(axis=0)),
        spread=tuple(np.sqrt(squares.mean(axis=0) - means.mean(axis=0) ** 2)),
        redness=(float(np.mean(red)), float(np.std(red))),
        measured=len(images),
        unusable=unusable,
    )
    chosen = [images[place] for place in spread_evenly(len(images), tiles * tiles)]
    return numbers, picture_grid([image.resize((TILE, TILE)) for image in chosen], tiles)


def per_class(source: Source) -> dict[str, int]:
    """Pictures of each class by its name or number; empty where there are no classes."""
    labels = Counter(picture.label for picture in source.pictures if isinstance(picture.label, int))
    names = source.classes
    return {names[label] if label < len(names) else str(label): labels[label] for label in sorted(labels)}


def spread_evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` places, evenly spread."""
    return sorted({place * count // min(wanted, count) for place in range(min(wanted, count))})


def _sampled(source: Source, wanted: int) -> tuple[list[Image.Image], int]:
    reader = Reader(source.path)
    images, unusable = [], 0
    try:
        for place in spread_evenly(len(source.pictures), wanted):
            try:
                images.append(_small(reader, source.pictures[place]))
            except Unusable:
                unusable += 1
    finally:
        reader.close()
    return images, unusable


def _small(reader: Reader, picture: Picture) -> Image.Image:
    """The picture, at no more than 512 pixels a side: a thousand of them have to fit in memory."""
    image = decode(reader.read(picture.name, picture.member), DecodeOptions(min_size=1)).image
    image.thumbnail((512, 512))
    return image


def as_table(name: str, numbers: Overview) -> Table:
    """The numbers, for a terminal."""
    table = Table("", "", title=name, show_header=False)
    table.add_row("pictures", str(numbers.count))
    for kind, count in numbers.per_class.items():
        table.add_row(f"class {kind}", f"{count} ({count / numbers.count:.1%})")
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
