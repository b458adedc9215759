"""Writes one shard in each output format, and computes its digest.

    webdataset     shard-000003.tar: KEY.png, KEY.json (the request), KEY.cls (the class)
    imagefolder    shard-000003/: images in a folder for each class, as torchvision's ImageFolder reads them, and
                   metadata.jsonl as Hugging Face's imagefolder does
    parquet        shard-000003.parquet: image {bytes, path}, label, seed, index, request; features for Hugging Face
    stylegan-zip   shard-000003.zip: 00000/img00000000.png and dataset.json, which StyleGAN tools and our trainer read

Names and order are pure functions of the request, and no date is in it: the same faces give the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rosacea_client.data.plan import Sample
    from rosacea_client.results.face import Face

Form = Literal["webdataset", "imagefolder", "parquet", "stylegan-zip"]
SUFFIXES: dict[str, str] = {"webdataset": ".tar", "imagefolder": "", "parquet": ".parquet", "stylegan-zip": ".zip"}
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can state
ROWS_IN_MEMORY = 64  # of a parquet file, and so in a group of its rows


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A sample with its face and the exact request for it."""

    sample: Sample
    face: Face
    request: dict[str, Any]

    @property
    def key(self) -> str:
        """File name without its suffix."""
        return f"{self.sample.index:09d}"


class Writer(Protocol):
    """Interface of a writer of one shard, into a new file or folder."""

    def add(self, entry: ShardEntry) -> None: ...

    def finish(self) -> None: ...

    def discard(self) -> None:
        """Close the file after a failure, without finishing it."""


class TarWriter:
    """Writes a WebDataset shard, with tar headers that depend only on names and sizes."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "x", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # finish() closes

    def add(self, entry: ShardEntry) -> None:
        self._write(entry.key + entry.face.suffix, entry.face.image)
        self._write(f"{entry.key}.json", json.dumps(entry.request, sort_keys=True).encode())
        if entry.sample.class_index is not None:
            self._write(f"{entry.key}.cls", str(entry.sample.class_index).encode())

    def _write(self, name: str, data: bytes) -> None:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        self._tar.addfile(header, io.BytesIO(data))

    def finish(self) -> None:
        self._tar.close()

    def discard(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._tar.close()


class FolderWriter:
    """Writes a folder of images with metadata.jsonl, and a sub-folder for each class, in numeric order."""

    def __init__(self, path: Path, classes: int) -> None:
        path.mkdir()
        self._folder = path
        self._width = len(str(max(classes - 1, 0)))
        for each in range(classes):  # empty ones too: readers number the folders that there are
            (path / f"{each:0{self._width}}").mkdir()
        self._metadata = (path / "metadata.jsonl").open("x", encoding="utf-8")

    def add(self, entry: ShardEntry) -> None:
        name, of_class = entry.key + entry.face.suffix, entry.sample.class_index
        name = name if of_class is None else f"{of_class:0{self._width}}/{name}"
        (self._folder / name).write_bytes(entry.face.image)
        label = {} if entry.sample.class_index is None else {"label": entry.sample.class_index}
        line = {"file_name": name, **label, "seed": entry.sample.seed, "index": entry.sample.index}
        self._metadata.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        self._metadata.close()

    def discard(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._metadata.close()


class ZipWriter:
    """Writes the zip that StyleGAN tools read, with images numbered within the shard."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "x")
        self._labels: list[list[Any]] = []

    def add(self, entry: ShardEntry) -> None:
        number = len(self._labels)
        name = f"{number // 1000:05d}/img{number:08d}.png"
        self._labels.append([name, entry.sample.class_index])
        self._write(name, entry.face.image)

    def _write(self, name: str, data: bytes) -> None:
        header = zipfile.ZipInfo(name, ZIP_DATE)
        header.create_system = 3  # Unix, whatever wrote it
        header.external_attr = 0o100644 << 16
        self._zip.writestr(header, data)

    def finish(self) -> None:
        labelled = self._labels[0][1] is not None
        self._write("dataset.json", json.dumps({"labels": self._labels if labelled else None}).encode())
        self._zip.close()

    def discard(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._zip.close()


class ParquetWriter:
    """Writes parquet for Hugging Face's `datasets`: images as {bytes, path}, features in the schema."""

    def __init__(self, path: Path, classes: int) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow: Any = pyarrow
        image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        fields = [("image", image), ("label", pyarrow.int64()), ("seed", pyarrow.int64()),
                  ("index", pyarrow.int64()), ("request", pyarrow.string())]  # fmt: skip
        info = json.dumps({"info": {"features": features(classes)}})
        schema = pyarrow.schema(fields, metadata={"huggingface": info})
        self._schema: Any = schema
        self._rows: list[dict[str, Any]] = []
        self._parquet: Any = pyarrow.parquet.ParquetWriter(path, schema)

    def add(self, entry: ShardEntry) -> None:
        self._rows.append({
            "image": {"bytes": entry.face.image, "path": entry.key + entry.face.suffix},
            "label": entry.sample.class_index,
            "seed": entry.sample.seed,
            "index": entry.sample.index,
            "request": json.dumps(entry.request, sort_keys=True),
        })  # fmt: skip
        if len(self._rows) == ROWS_IN_MEMORY:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def finish(self) -> None:
        if self._rows:
            self._flush()
        self._parquet.close()

    def discard(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._parquet.close()


def features(classes: int) -> dict[str, Any]:
    """Features of a parquet file in the form of Hugging Face's `datasets`."""
    number = {"dtype": "int64", "_type": "Value"}
    label = {"names": [str(each) for each in range(classes)], "_type": "ClassLabel"} if classes else number
    return {"image": {"_type": "Image"}, "label": label, "seed": number, "index": number,
            "request": {"dtype": "string", "_type": "Value"}}  # fmt: skip


def open_writer(form: Form, path: Path, classes: int) -> Writer:
    """Open the writer of one shard."""
    if form == "parquet":
        return ParquetWriter(path, classes)
    writers: dict[str, Callable[[Path], Writer]] = {
        "webdataset": TarWriter, "imagefolder": lambda path: FolderWriter(path, classes), "stylegan-zip": ZipWriter,
    }  # fmt: skip
    return writers[form](path)


def digest_of(path: Path) -> str | None:
    """SHA-256 of a shard, or of a folder's file names and digests; None if it does not exist."""
    if path.is_dir():
        lines = [f"{digest_of(file)}  {file.relative_to(path).as_posix()}\n" for file in files_of(path)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def files_of(path: Path) -> Iterator[Path]:
    """The files of a shard."""
    yield from sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def remove(path: Path) -> None:
    """Remove a file or a folder with its contents; nothing happens if it does not exist."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
