"""Processes one picture at a time in a separate process, which is all that a damaged file can crash.

Memory is capped, so that a picture which asks for too much fails alone; a crash or a hang is noticed by the parent,
reported as that file's fault, and the process replaced.
"""

from __future__ import annotations

import hashlib
import resource
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import Unusable, UnusableReason
from .pictures.decode import MAX_PIXELS, DecodeOptions, decode
from .pictures.png import encode_png
from .pictures.resize import Filter, Fit, to_square
from .screening.bars import Bar, find_bar
from .screening.hashes import thumbnail
from .screening.upscaled import Enlargement, find_enlargement
from .source import Picture, Reader
from .zipread import MAX_MEMBER_BYTES

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

MEMORY_BYTES = 2**30  # beyond what the idle process has mapped, for MAX_PIXELS
FILE_BYTES_PER_PIXEL = 8  # 16 bits and transparency, not compressed


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """How to process every picture."""

    resolution: int
    fit: Fit = Fit.crop
    filter: Filter = Filter.lanczos
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    def __post_init__(self) -> None:
        if not 4 <= self.resolution <= 4096 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution must be a power of two from 4 to 4096, got {self.resolution}")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A processed picture with its findings."""

    png: bytes
    thumbnail: NDArray[np.uint8]
    source_sha256: str
    source_size: tuple[int, int]  # width, height
    source_format: str
    changes: tuple[str, ...]
    unchanged: bool  # the file was this very PNG already
    bar: Bar | None
    enlargement: Enlargement | None
    factor: float  # by which it was enlarged here, or 1


Outcome = Prepared | Unusable


def prepare_picture(reader: Reader, picture: Picture, options: WorkOptions) -> Outcome:
    """Read, decode, resize and screen one picture."""
    try:
        if picture.problem:
            raise Unusable(picture.reason, picture.problem)
        data = reader.read(picture.name, picture.member, most_bytes(options.decode))
    except Unusable as reason:
        return reason
    try:
        decoded = decode(data, options.decode)
    except Unusable as reason:
        reason.sha256 = hashlib.sha256(data).hexdigest()
        return reason
    source = decoded.image
    image = to_square(source, options.resolution, options.fit, options.filter, options.decode.background)
    pixels = np.asarray(image).reshape(options.resolution, options.resolution, -1)
    png = encode_png(pixels)
    side = min(source.size) if options.fit is Fit.crop else max(source.size)
    return Prepared(
        png=png,
        thumbnail=thumbnail(image),
        source_sha256=hashlib.sha256(data).hexdigest(),
        source_size=source.size,
        source_format=decoded.format,
        changes=decoded.notes,
        unchanged=png == data,
        bar=find_bar(image),
        enlargement=find_enlargement(source),
        factor=round(max(1.0, options.resolution / side), 3),
    )


def most_bytes(options: DecodeOptions) -> int:
    """Size limit of a file; TIFF and BMP may be uncompressed."""
    return max(MAX_MEMBER_BYTES, FILE_BYTES_PER_PIXEL * options.max_pixels)


def serve(connection: Connection, path: Path, options: WorkOptions) -> None:
    """Process pictures until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    _limit_memory(MEMORY_BYTES * max(options.decode.max_pixels, MAX_PIXELS) // MAX_PIXELS)
    reader = Reader(path)
    connection.send(None)  # ready
    while True:
        try:
            picture = connection.recv()
        except EOFError:
            return
        try:
            connection.send(prepare_picture(reader, picture, options))
        except MemoryError:
            connection.send(Unusable(UnusableReason.bomb, "it needs more memory than a picture may"))


def _limit_memory(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + most,) * 2)
