"""Training data set: a zip or folder as uint8 images [channels, size, size] and labels.

Pictures are read as `rosacea data prepare` reads them: upright, in sRGB, transparency over white. Labels are checked
when the data set is opened, images when they are read, or all before a run by `check`. Safe with DataLoader workers,
however they start: each process opens the zip by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset

from .errors import DataRejected, Unusable, UnusableReason
from .pictures.decode import FREE_PIXELS, DecodeOptions, decode
from .source import Picture, Reader, Source, open_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

DECODE = DecodeOptions(channels=None, min_size=1, max_pixels=FREE_PIXELS)
NAMED = 5  # pictures that an error names; it counts the others
REMEDY = (
    "`rosacea data prepare` makes pictures square, of one size, all in colour or all grey, and leaves out what "
    "cannot be read"
)


class LabelledImages(Dataset[tuple["NDArray[np.uint8]", "NDArray[np.float32]"]]):
    """Images and labels by index. Classes become one-hot vectors, vectors stay, no labels give width 0.

    `resolution` and `channels` are what the network expects; None takes those of the first image. A grey picture among
    coloured ones is read as grey in colour. `mirror` adds the
    mirror image of each: first all as they are, then all mirrored. `subset` keeps that many, chosen by `seed`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        resolution: int | None = None,
        channels: int | None = None,
        labels: bool = True,
        mirror: bool = False,
        subset: int | None = None,
        seed: int = 0,
    ) -> None:
        self.path = Path(path)
        source = open_source(self.path, labels=labels)
        if not source.pictures:
            raise DataRejected(f"{self.path}: no images in it{source.other_kinds}")
        self._all_labels = _label_matrix(self.path, source.pictures, source)
        self.label_dim = self._all_labels.shape[1]
        self.classes = source.classes
        self.mirror = mirror
        self._chosen = _chosen(self.path, len(source.pictures), subset, seed)
        self._pictures = source.pictures
        self._reader: tuple[int, Reader] | None = None  # process id, reader
        try:
            first = self._decoded(int(self._chosen[0]))
        except DataRejected as error:
            raise DataRejected(f"{self.path}: {error}. {REMEDY}") from error
        self.channels, self.resolution = channels or first.shape[0], resolution or first.shape[1]
        self._fitted(int(self._chosen[0]), first)

    def __len__(self) -> int:
        return len(self._chosen) * (2 if self.mirror else 1)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {index}")
        mirrored, place = divmod(index, len(self._chosen))
        number = int(self._chosen[place])
        image = self._fitted(number, self._decoded(number))
        return np.ascontiguousarray(image[:, :, ::-1]) if mirrored else image, self.label(index)

    def label(self, index: int) -> NDArray[np.float32]:
        """The label of an image, without reading the image."""
        label: NDArray[np.float32] = self._all_labels[self._chosen[index % len(self._chosen)]].copy()
        return label

    def name(self, index: int) -> str:
        """Path of an image inside the data set."""
        return self._pictures[int(self._chosen[index % len(self._chosen)])].name

    def fingerprint(self) -> dict[str, object]:
        """Identifies the data set without reading pictures: number of images, and a digest of names, sizes (in a zip
        checksums, too) and labels.

        No picture is read: contents are known by the checksums of a zip, and in a folder by their sizes.
        """
        digest = hashlib.sha256()
        for number in self._chosen:
            picture = self._pictures[int(number)]
            member = picture.member
            size = [member.bytes, member.crc] if member else [(self.path / picture.name).stat().st_size]
            digest.update(json.dumps([picture.name, *size]).encode() + self._all_labels[number].tobytes())
        return {"images": len(self), "digest": digest.hexdigest()}

    def content_digest(self, places: Iterable[int]) -> str:
        """SHA-256 over names and bytes of the files of these images; reads them all. Labels do not count."""
        digest = hashlib.sha256()
        for place in places:
            data = self._bytes(int(self._chosen[place % len(self._chosen)]))
            mirrored = place >= len(self._chosen)
            digest.update(json.dumps([self.name(place), mirrored, hashlib.sha256(data).hexdigest()]).encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_reader": None}

    def _bytes(self, number: int) -> bytes:
        picture = self._pictures[number]
        # A forked process must not share the file's position with its parent.
        if self._reader is None or self._reader[0] != os.getpid():
            self._reader = (os.getpid(), Reader(self.path))
        try:
            return self._reader[1].read(picture.name, picture.member)
        except Unusable as error:
            raise DataRejected(f"{picture.name}: {error}") from error

    def _decoded(self, number: int) -> NDArray[np.uint8]:
        data = self._bytes(number)
        try:
            image = decode(data, DECODE).image
        except Unusable as error:
            raise DataRejected(f"{self._pictures[number].name}: {error}") from error
        pixels = np.asarray(image)
        return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1))

    def _fitted(self, number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert the image to the data set's channels; DataRejected if it does not fit."""
        if problem := _misshapen(image) or self._unlike(image):
            raise DataRejected(f"{self._pictures[number].name}: {problem}")
        return np.repeat(image, self.channels, axis=0) if image.shape[0] < self.channels else image

    def _unlike(self, image: NDArray[np.uint8]) -> str:
        found, height, _ = image.shape
        if height != self.resolution:
            return f"resolution must be {self.resolution}, got {height}"
        return f"must have {self.channels} channels, got {found}" if found > self.channels else ""

    def check(self, *, rank: int = 0, world: int = 1) -> None:
        """Read every image once; DataRejected names the first unusable ones.

        With several processes each takes its share.
        """
        problems: dict[str, str] = {}  # what cannot be used whatever the others are
        unlike: dict[str, str] = {}  # what only does not fit what this data set is read as
        shapes: dict[str, tuple[int, ...]] = {}
        chosen = [int(number) for number in self._chosen[rank::world]]
        for number in chosen:
            name = self._pictures[number].name
            try:
                image = self._decoded(number)
            except DataRejected as error:
                problems[name] = str(error).removeprefix(f"{name}: ")
                continue
            if problem := _misshapen(image):
                problems[name] = problem
                continue
            shapes[name] = image.shape
            if problem := self._unlike(image):
                unlike[name] = problem
        problems |= _odd_ones(shapes) or unlike
        if problems:
            raise DataRejected(f"{self.path}: {_summary(problems, len(chosen))}. {REMEDY}")


def _misshapen(image: NDArray[np.uint8]) -> str:
    _, height, width = image.shape
    if height == width and not height & (height - 1):
        return ""
    return f"must be square with a power of two on each side, got {width}x{height}; `rosacea data prepare` makes it so"


def _odd_ones(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Images whose size or mode differs from the majority's."""
    if len(set(shapes.values())) < 2:
        return {}
    counts = Counter(shapes.values())
    usual = max(counts, key=lambda shape: (counts[shape], shape))
    return {
        name: f"it is {_kind(shape)}, and {counts[usual]} others are {_kind(usual)}"
        for name, shape in shapes.items()
        if shape != usual
    }


def _kind(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height} and {'grey' if channels == 1 else 'in colour'}"


def _summary(problems: Mapping[str, str], total: int) -> str:
    named = "; ".join(f"{name}: {problem}" for name, problem in list(problems.items())[:NAMED])
    more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return f"{len(problems)} of {total} images cannot be trained on: {named}{more}"


def _chosen(path: Path, count: int, subset: int | None, seed: int) -> NDArray[np.intp]:
    if subset is None:
        return np.arange(count)
    if not 1 <= subset <= count:
        raise DataRejected(f"{path}: subset must be from 1 to {count}, got {subset}")
    return np.sort(np.random.default_rng(seed).permutation(count)[:subset])


def _label_matrix(path: Path, pictures: Sequence[Picture], source: Source) -> NDArray[np.float32]:
    """Label matrix with one row per image: one-hot for classes, unchanged for vectors, width 0 for none."""
    if closed := [picture for picture in pictures if picture.reason is not UnusableReason.no_label]:
        raise DataRejected(f"{path}: {closed[0].name}: {closed[0].problem}")
    if missing := [picture.name for picture in pictures if picture.problem]:
        problem = f"{path}: {len(missing)} of {len(pictures)} images have no label, such as {missing[0]}"
        raise DataRejected(problem + (f"; a label without an image is {source.astray[0]}" if source.astray else ""))
    labels = [picture.label for picture in pictures]
    if labels[0] is None:
        return np.zeros((len(labels), 0), np.float32)
    if isinstance(labels[0], tuple):
        return np.array(labels, np.float32)
    numbers = np.array(labels, np.int64)
    width = max(int(numbers.max()) + 1, len(source.classes))
    if width > 2**16:
        raise DataRejected(f"{path}: class numbers must be below {2**16}, got {width - 1}")
    matrix = np.zeros((len(labels), width), np.float32)
    matrix[np.arange(len(labels)), numbers] = 1
    return matrix


FaceDataset = LabelledImages  # its earlier name, which programs import
