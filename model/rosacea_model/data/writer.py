"""Writes the zip that StyleGAN tools read: stored PNGs of one size, `dataset.json` with labels, a datasheet.

    00000/img00000000.png    the images, in the order they were added
    dataset.json             {"labels": [["00000/img00000000.png", 0], ...]} or {"labels": null}
    facts.jsonl              one line per image: its name, its SHA-256 and what else is known of it
    datasheet.json           counts, digests, filters, sources, and what only the owner can fill in

The same calls give the same bytes, on every day and every machine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from .pictures.png import COLOUR_TYPES, SIGNATURE, encode_png
from .zipread import MAX_ENTRIES, MAX_MEMBER_BYTES, MAX_NAME_BYTES, MAX_TOTAL_BYTES

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

Label = int | Sequence[float] | None

FORMAT = "rosacea-dataset/1"
LABELS_NAME, FACTS_NAME, DATASHEET_NAME = "dataset.json", "facts.jsonl", "datasheet.json"
OWN_NAMES = (LABELS_NAME, FACTS_NAME, DATASHEET_NAME)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can state
MIN_RESOLUTION, MAX_RESOLUTION = 4, 4096

# Largest size of each JSON file, so that reading it costs little: bytes for itself, and for each image.
OWN_BYTES = {LABELS_NAME: (2**16, 2**10), FACTS_NAME: (2**16, 2**12), DATASHEET_NAME: (2**20, 2**6)}
MAX_FACTS_LINE_BYTES = 2**16
MAX_CLASSES = 2**16

# What a machine cannot know: null until the owner of the pictures fills it in.
OWNER_FIELDS: dict[str, object] = {
    "title": None,
    "owner": None,
    "licence": None,
    "consent": {"obtained": None, "how": None, "covers_synthesis": None, "can_be_withdrawn_by": None},
    "ethics_approval": None,
    "collected": {"where": None, "when": None, "by_whom": None},
    "intended_use": None,
    "not_for": None,
    "known_gaps": None,
}


def own_bytes(name: str, images: int) -> int:
    """Size limit of a data set's JSON file for this many images; the writer keeps to it."""
    fixed, each = OWN_BYTES[name]
    return min(fixed + each * images, MAX_MEMBER_BYTES)


def member_name(index: int) -> str:
    """Name of an image in the zip, with a thousand images per folder."""
    return f"{index // 1000:05d}/img{index:08d}.png"


class DatasetWriter:
    """Writes a data set; `path` appears only if the `with` block succeeds.

    `datasheet` adds entries to datasheet.json, or replaces those that are there, except what the writer counted.
    Whatever our own reader would refuse is refused here already.
    """

    def __init__(self, path: Path, *, datasheet: Mapping[str, object] = {}) -> None:
        self.path = path
        self.datasheet: dict[str, object] = dict(datasheet)  # may be added to until the block ends
        self.count = 0
        self._shape: tuple[int, int] | None = None  # resolution, channels
        self._labels: list[Label] = []
        self._facts: list[bytes] = []
        self._digest = hashlib.sha256()
        self._members = self._bytes = 0
        self._names = {name.casefold() for name in OWN_NAMES}
        self._partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        self._archive: zipfile.ZipFile | None = None

    def __enter__(self) -> Self:
        self._archive = zipfile.ZipFile(self._partial, "w")
        return self

    def add(self, pixels: NDArray[np.uint8], label: Label = None, facts: Mapping[str, object] = {}) -> str:
        """Add an image [size, size, channels] (or [size, size] for grey); return its name in the zip."""
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise ValueError(f"an image must be uint8 [height, width, channels], got {pixels.dtype} {pixels.shape}")
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        self._check_shape(*pixels.shape)
        return self._add(encode_png(pixels), label, facts)

    def add_png(self, data: bytes, label: Label = None, facts: Mapping[str, object] = {}) -> str:
        """Add an image already encoded by `encode_png`."""
        if not data.startswith(SIGNATURE) or len(data) < 33:
            raise ValueError("add_png takes the bytes of a PNG")
        width, height, _, colour_type = struct.unpack_from(">IIBB", data, 16)
        channels = next((channels for channels, kind in COLOUR_TYPES.items() if kind == colour_type), 0)
        self._check_shape(height, width, channels)
        return self._add(data, label, facts)

    def add_file(self, name: str, data: bytes) -> None:
        """Add a member that is not an image of the set, such as ground truth."""
        parts = name.split("/")
        if name.startswith("/") or "\\" in name or not all(parts) or {".", ".."} & set(parts) or not name.isprintable():
            raise ValueError(f"a member name must be a plain relative path, got {name!r}")
        if name.casefold().endswith(IMAGE_SUFFIXES):
            raise ValueError(f"{name}: training would take it for an image; use another suffix")
        if len(name.encode()) > MAX_NAME_BYTES:
            raise ValueError(f"a member name must have at most {MAX_NAME_BYTES} bytes, got {len(name.encode())}")
        if name.casefold() in self._names:
            raise ValueError(f"{name} is there already")
        self._write(name, data)
        self._names.add(name.casefold())

    def _check_shape(self, height: int, width: int, channels: int) -> None:
        if channels not in COLOUR_TYPES:
            raise ValueError(f"image {self.count}: an image has 1 or 3 channels, got {channels}")
        power_of_two = MIN_RESOLUTION <= width <= MAX_RESOLUTION and width & (width - 1) == 0
        if height != width or not power_of_two:
            rule = f"square with a power of two from {MIN_RESOLUTION} to {MAX_RESOLUTION} on each side"
            raise ValueError(f"image {self.count} must be {rule}, got {width}x{height}")
        if self._shape not in (None, (width, channels)):
            raise ValueError(
                f"image {self.count} must be as the first (resolution, channels) = {self._shape}, "
                f"got {(width, channels)}"
            )
        self._shape = (width, channels)

    def _add(self, data: bytes, label: Label, facts: Mapping[str, object]) -> str:
        label = self._checked(label)
        name = member_name(self.count)
        if {"name", "sha256"} & set(facts):
            raise ValueError("facts must not be called name or sha256: those are the image's own")
        digest = hashlib.sha256(data)
        line = json.dumps({"name": name, "sha256": digest.hexdigest(), **facts}, allow_nan=False, default=_plain)
        if len(line) > MAX_FACTS_LINE_BYTES:
            raise ValueError(f"the facts of an image must have at most {MAX_FACTS_LINE_BYTES} bytes, got {len(line)}")
        self._write(name, data)
        self._digest.update(digest.digest())
        self._facts.append(line.encode())
        self._labels.append(label)
        self.count += 1
        return name

    def _checked(self, label: Label) -> Label:
        """Convert a label for JSON; refused if its kind differs from the first one's."""
        match label:
            case None:
                plain: Label = None
            case bool() | np.bool_():
                raise ValueError(f"image {self.count}: a label is a class number or a vector, got {label}")
            case int() | np.integer():
                plain = int(label)
                if plain < 0:
                    raise ValueError(f"image {self.count}: a class number must be at least 0, got {plain}")
            case _:
                plain = [float(value) for value in label]
                if not plain or not np.isfinite(plain).all():
                    raise ValueError(f"image {self.count}: a label vector must hold finite numbers, got {plain}")
        if self._labels and _kind(plain) != _kind(self._labels[0]):
            first = _kind(self._labels[0])
            raise ValueError(f"image {self.count} must have a label like the first, {first}, got {_kind(plain)}")
        return plain

    def _write(self, name: str, data: bytes) -> None:
        if self._archive is None:
            raise ValueError("a DatasetWriter adds inside its `with` block")
        if len(data) > MAX_MEMBER_BYTES:
            raise ValueError(f"{name} must have at most {MAX_MEMBER_BYTES} bytes, got {len(data)}")
        if self._members + (name not in OWN_NAMES) * len(OWN_NAMES) >= MAX_ENTRIES:
            raise ValueError(f"a data set must hold at most {MAX_ENTRIES} files, {len(OWN_NAMES)} of them its own")
        if self._bytes + len(data) > MAX_TOTAL_BYTES:
            raise ValueError(f"a data set must have at most {MAX_TOTAL_BYTES} bytes")
        self._members += 1
        self._bytes += len(data)
        entry = zipfile.ZipInfo(name, ZIP_DATE)
        entry.create_system = 3  # Unix, whatever wrote it
        entry.external_attr = 0o100644 << 16
        self._archive.writestr(entry, data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._archive is not None
        try:
            if kind is None:
                self._finish()
            self._archive.close()
            if kind is None:
                with self._partial.open("rb+") as file:
                    os.fsync(file.fileno())
                self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        names = [member_name(index) for index in range(self.count)]
        labelled = bool(self._labels) and self._labels[0] is not None
        labels = [list(pair) for pair in zip(names, self._labels, strict=True)] if labelled else None
        self._write_own(FACTS_NAME, b"".join(line + b"\n" for line in self._facts))
        self._write_own(LABELS_NAME, json.dumps({"labels": labels}).encode())
        self._write_own(DATASHEET_NAME, (json.dumps(self._sheet(), indent=2, default=_plain) + "\n").encode())

    def _write_own(self, name: str, data: bytes) -> None:
        if len(data) > (most := own_bytes(name, self.count)):
            raise ValueError(f"{name} of {self.count} images must have at most {most} bytes, got {len(data)}")
        self._write(name, data)

    def counted(self) -> dict[str, object]:
        """Datasheet fields for the images and labels added so far."""
        resolution, channels = self._shape or (0, 0)
        images = {
            "count": self.count,
            "resolution": resolution,
            "channels": channels,
            "sha256_of_sha256": self._digest.hexdigest(),
        }
        return {"images": images, "labels": self._label_summary()}

    def _sheet(self) -> dict[str, object]:
        counted = self.counted()
        stated = {
            "format": FORMAT,
            "tool": {"name": "rosacea", "version": _version()},
            **counted,
            "filters": None,
            "sources": None,
        }
        return {**stated, **OWNER_FIELDS, **self.datasheet, **counted}

    def _label_summary(self) -> dict[str, object]:
        first = self._labels[0] if self._labels else None
        if isinstance(first, int):
            counts = Counter(label for label in self._labels if isinstance(label, int))
            return {"kind": "class", "per_class": {str(label): counts[label] for label in sorted(counts)}}
        if first is None:
            return {"kind": "none"}
        return {"kind": "vector", "width": len(first)}


def _kind(label: Label) -> str:
    if label is None:
        return "none"
    return "a class number" if isinstance(label, int) else f"a vector of {len(label)}"


def _plain(value: object) -> object:
    """Convert values that json cannot write, such as numpy's numbers."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a fact must be plain data, got {type(value).__name__}")


def _version() -> str:
    try:
        return importlib.metadata.version("rosacea")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
