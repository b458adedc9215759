"""TorchServe archives of models: `NAME.mar`, or the same as a folder in a model store.

    MAR-INF/MANIFEST.json     names the model, its handler and its settings
    model-config.yaml         workers, time limits, queue
    handler.py                one class; everything else is in the installed package
    generator.safetensors     the weights, byte for byte
    model.json                the manifest that pins their digest
    model.sig                 where the model is signed: by whom, see `signing`

Needs no torch. Reading takes the model's own files by name and trusts nothing else in the archive.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ModelRejected
from .modelfile import MANIFEST_NAME, MAX_MANIFEST_BYTES, SIGNATURE_NAME, WEIGHTS_NAME, ModelFile, check_name, verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARCHIVE_MANIFEST = "MAR-INF/MANIFEST.json"
CONFIG_NAME = "model-config.yaml"
HANDLER_NAME = "handler.py"
MAX_WEIGHTS_BYTES = 2**31
MAX_DIRECTORY_BYTES = 2**20
MAX_RATIO = 100  # deflate reaches 1032, weights stay near 1
RATIO_FREE_BYTES = 2**20
# The earliest date that a zip can state: the same model gives the same archive on every day.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
END_RECORD_BYTES = 22
LOCATOR_BYTES = 20

# TorchServe refuses a handler module that defines more than one class; an imported one does not count.
HANDLER = '''"""TorchServe's way in: the handler is part of the installed rosacea package."""

from rosacea_serving.worker.handler import FaceHandler


class Handler(FaceHandler):
    """Draws faces."""
'''


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """TorchServe options stored in the archive."""

    workers: int = 1
    response_timeout_seconds: int = 60  # a worker that takes longer for one job is killed and replaced
    startup_timeout_seconds: int = 600
    job_queue_size: int = 8  # the gateway owns the real queue

    def __post_init__(self) -> None:
        for name in ("workers", "response_timeout_seconds", "startup_timeout_seconds", "job_queue_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def small_members(model: ModelFile, options: WorkerOptions) -> dict[str, bytes]:
    """All archive members except the weights, as name -> bytes."""
    members = {
        ARCHIVE_MANIFEST: archive_manifest(model),
        HANDLER_NAME: HANDLER.encode(),
        CONFIG_NAME: worker_config(options),
        MANIFEST_NAME: model.path.with_name(MANIFEST_NAME).read_bytes(),
    }
    signature = model.path.with_name(SIGNATURE_NAME)
    return members | ({SIGNATURE_NAME: signature.read_bytes()} if signature.exists() else {})


def archive_manifest(model: ModelFile) -> bytes:
    entries = {
        "archiverVersion": "0.12.0",
        "createdOn": "01/01/1980 00:00:00",
        "model": {
            "configFile": CONFIG_NAME,
            "handler": HANDLER_NAME,
            "modelName": check_name(model.name),
            "modelVersion": "1.0",
        },
        "runtime": "python",
    }
    return (json.dumps(entries, indent=2) + "\n").encode()


def worker_config(options: WorkerOptions) -> bytes:
    """Contents of `model-config.yaml`: one job per worker at a time, since the gateway has formed the batch."""
    entries = {
        "minWorkers": options.workers,
        "maxWorkers": options.workers,  # TorchServe reads minWorkers only if maxWorkers is not below it
        "batchSize": 1,
        "maxBatchDelay": 1,
        "responseTimeout": options.response_timeout_seconds,
        "startupTimeout": options.startup_timeout_seconds,
        "jobQueueSize": options.job_queue_size,
    }
    return "".join(f"{name}: {value}\n" for name, value in entries.items()).encode()


def write_store_folder(model: ModelFile, store: Path, options: WorkerOptions) -> Path:
    """Write the model into a TorchServe model store as `store/NAME`, and return that folder.

    The weights are a hard link where the file system allows it, so that a store costs no disk.
    """
    folder = store / check_name(model.name)
    (folder / SIGNATURE_NAME).unlink(missing_ok=True)  # of what it held before
    for name, data in small_members(model, options).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    link_or_copy(model.path, folder / WEIGHTS_NAME)
    return folder


def link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)  # a link to a symbolic link would dangle
    except OSError:
        shutil.copyfile(source, target)


def write_archive(model: ModelFile, path: Path, options: WorkerOptions) -> None:
    """Write the model as a `.mar`. The same model and options give the same bytes."""
    if path.suffix != ".mar":
        raise ValueError(f"a TorchServe archive must be named *.mar, got {path.name}")
    members = small_members(model, options)
    with _renamed_when_done(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name in sorted([*members, WEIGHTS_NAME]):
            entry = _zip_entry(name)
            if name == WEIGHTS_NAME:
                with model.path.open("rb") as weights, archive.open(entry, "w", force_zip64=True) as member:
                    shutil.copyfileobj(weights, member, 2**20)
            else:
                archive.writestr(entry, members[name])


def _zip_entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, ZIP_DATE)
    entry.create_system = 3  # Unix, whatever wrote it
    entry.external_attr = 0o100644 << 16
    return entry


def read_archive(path: Path, folder: Path) -> ModelFile:
    """Extract and verify the model of a `.mar` into `folder`. No other member is read, and no code is run.

    Raises ModelRejected for anything that is not such an archive; then `folder` holds no model.
    """
    try:
        check_directory_size(path)
        with zipfile.ZipFile(path) as archive:
            _check_total(archive, path.stat().st_size)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SIGNATURE_NAME).unlink(missing_ok=True)  # of what it held before
            _extract(archive, WEIGHTS_NAME, folder, MAX_WEIGHTS_BYTES)
            _extract(archive, MANIFEST_NAME, folder, MAX_MANIFEST_BYTES)
            if SIGNATURE_NAME in archive.namelist():
                _extract(archive, SIGNATURE_NAME, folder, MAX_MANIFEST_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError) as error:
        raise ModelRejected(f"{path}: not a readable archive: {error}") from error
    try:
        return verify(folder)
    except ModelRejected:
        for name in (WEIGHTS_NAME, MANIFEST_NAME, SIGNATURE_NAME):
            (folder / name).unlink(missing_ok=True)
        raise


def check_directory_size(path: Path) -> None:
    """Reject a zip with a huge directory before zipfile parses it."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(length - END_RECORD_BYTES - LOCATOR_BYTES, 0))
        tail = file.read()
    locator, record = tail[:-END_RECORD_BYTES], tail[-END_RECORD_BYTES:]
    # A zip64 record before the end would overrule what the end says.
    if len(record) < END_RECORD_BYTES or not record.startswith(b"PK\x05\x06") or locator.startswith(b"PK\x06\x07"):
        raise zipfile.BadZipFile("it does not end with a zip directory")
    size = int.from_bytes(record[12:16], "little")
    if size > MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile(f"its directory must have at most {MAX_DIRECTORY_BYTES} bytes, got {size}")


def _check_total(archive: zipfile.ZipFile, stored_bytes: int) -> None:
    """Reject an archive that would unpack to far more than its size, which is no model and would fill the disk."""
    wanted = (WEIGHTS_NAME, MANIFEST_NAME, SIGNATURE_NAME)
    total = sum(entry.file_size for entry in archive.infolist() if entry.filename in wanted)
    most = max(RATIO_FREE_BYTES, MAX_RATIO * stored_bytes)
    if total > most:
        raise zipfile.BadZipFile(f"a model in {stored_bytes} bytes must unpack to at most {most}, got {total}")


def _extract(archive: zipfile.ZipFile, name: str, folder: Path, limit: int) -> None:
    entry = _only_entry(archive, name)
    if entry.file_size > limit:
        raise zipfile.BadZipFile(f"{name} must have at most {limit} bytes, got {entry.file_size}")
    with archive.open(entry) as member, _renamed_when_done(folder / name) as partial, partial.open("wb") as file:
        # zipfile stops at the stated size and checks the CRC there, so the limit holds for the bytes as well.
        shutil.copyfileobj(member, file, 2**20)


def _only_entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    entries = [entry for entry in archive.infolist() if entry.filename == name]
    if len(entries) != 1:
        raise zipfile.BadZipFile(f"it must hold {name} once, got {len(entries)} times")
    if entries[0].flag_bits & 1:
        raise zipfile.BadZipFile(f"{name} must not be encrypted")
    return entries[0]


@contextmanager
def _renamed_when_done(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path, which is renamed to `path` on success and deleted on failure."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
