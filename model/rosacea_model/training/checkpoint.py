"""Writes and reads checkpoints: pure data, complete or absent, verified before use.

`checkpoints/step-00000012/` holds `state.safetensors` and `manifest.json`, which pins its SHA-256 digest and is
pinned by one of its own. Both are written in a folder beside, flushed to the disk, and renamed into place.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .config import CONFIG_NAME, read_config
from .errors import CheckpointDamaged, NoGoodCheckpoint, RunBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

FORMAT = 1
TENSORS_NAME = "state.safetensors"
MANIFEST_NAME = "manifest.json"
LOCK_NAME = "run.lock"
NAME = re.compile(r"step-(\d{8,})")
PART = ".part"
# What a run writes by way of another name, in each of its folders; and that other name.
WRITTEN = {
    ".": r"(train|datasheet|not-finite)\.json|stats\.jsonl|report\.html",
    "checkpoints": NAME.pattern,
    "snapshots": r"best\.json",
    "snapshots/kimg-*": r"generator\.safetensors|model\.json",
    "grids": r"(reals|(fakes|truncation)-[\d.]+)\.png",
}
UNFINISHED = r"({})\.(\d+|old)" + re.escape(PART)
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint in memory."""

    path: Path
    step: int
    facts: dict[str, Any]  # what `write` was given: the config, the environment, figures for people
    tensors: dict[str, Tensor]


def write(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Save a checkpoint and return its folder; if that fails, older checkpoints stay and unfinished files are
    deleted."""
    path = folder / f"step-{step:08d}"
    if is_good(path):
        return path
    partial = folder / f"{path.name}.{os.getpid()}{PART}"
    partial.mkdir(parents=True)
    try:
        digest = write_tensors(partial / TENSORS_NAME, tensors)
        _write_manifest(partial / MANIFEST_NAME, {"format": FORMAT, "step": step, "digest": digest, "facts": facts})
        sync_folder(partial)
        if path.exists():  # damaged, and of the same step
            _discard(path)
        partial.rename(path)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return path


def read(path: Path) -> Checkpoint:
    """Read and verify a checkpoint; CheckpointDamaged says what is wrong."""
    manifest = _read_manifest(path / MANIFEST_NAME)
    if manifest.get("format") != FORMAT:
        raise CheckpointDamaged(f"{path}: this version reads format {FORMAT}, got format {manifest.get('format')!r}")
    file = path / TENSORS_NAME
    if (digest := _sha256(file)) != manifest["digest"]:
        raise CheckpointDamaged(f"{file}: SHA-256 must be {manifest['digest']}, got {digest}")
    try:
        tensors = safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointDamaged(f"{file}: {error}") from error
    return Checkpoint(path=path, step=manifest["step"], facts=manifest["facts"], tensors=tensors)


def read_newest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Read the newest intact checkpoint; None if there are no checkpoints, NoGoodCheckpoint if all are damaged.

    Each damaged one is passed to `warn`; if no good one is left, that is an error and not a fresh start.
    """
    paths = existing(folder)
    for path in reversed(paths):
        try:
            return read(path)
        except CheckpointDamaged as error:
            warn(f"damaged checkpoint passed over: {error}")
    if paths:
        raise NoGoodCheckpoint(f"{folder}: none of {len(paths)} checkpoints can be trusted")
    return None


def existing(folder: Path) -> list[Path]:
    """List checkpoints, oldest first, without reading them."""
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=_step_of)


def prune(folder: Path, keep_last: int, keep: Collection[str] = ()) -> None:
    """Delete all checkpoints but the `keep_last` newest and those named in `keep`."""
    for path in existing(folder)[:-keep_last]:
        if path.name not in keep:
            _discard(path)


def unfinished(run: Path) -> list[Path]:
    """Unfinished files left by killed processes; never anything that another program may have put there."""
    return [
        path
        for where, names in WRITTEN.items()
        for folder in sorted(run.glob(where) if where != "." else [run])
        if not folder.is_symlink()
        for path in sorted(folder.glob(f"*{PART}"))
        if re.fullmatch(UNFINISHED.format(names), path.name)
    ]


def sweep(run: Path) -> list[Path]:
    """Delete unfinished files and return their names. Requires the run's lock."""
    found = unfinished(run)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def check_ours(run: Path) -> None:
    """Raise ValueError if the directory holds files of something else, so that no run can begin or resume there."""
    if not run.exists():
        return
    if not run.is_dir():
        raise ValueError(f"{run} is a file: --outdir must name a folder, or none yet")
    if (run / CONFIG_NAME).exists():
        read_config(run / CONFIG_NAME)
    elif {path.name for path in run.iterdir()} - {LOCK_NAME, *(path.name for path in unfinished(run))}:
        raise ValueError(f"{run} holds files and is not a run (no {CONFIG_NAME} in it): name another --outdir")


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Lock the run directory; RunBusy if a living process holds it. A dead process's lock is released."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK_NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(32).strip() or "unknown"
            raise RunBusy(f"{run}: the process {holder} trains here") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_good(path: Path) -> bool:
    """Whether a checkpoint exists and is intact."""
    try:
        digest: str = _read_manifest(path / MANIFEST_NAME)["digest"]
        return _sha256(path / TENSORS_NAME) == digest
    except CheckpointDamaged:
        return False


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file tensor by tensor, to avoid a second copy in memory; returns its SHA-256."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        hashed = _Hashed(file)
        hashed.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            hashed.write(tensor.detach().cpu().contiguous().numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())
    return hashed.digest.hexdigest()


class _Hashed:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.file.write(data)


def _write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps({"content": content, "sha256": _sha256_of(content)}, indent=2)
    with path.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
        content = manifest["content"]
        intact = manifest["sha256"] == _sha256_of(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointDamaged(f"{path}: not a readable manifest: {error}") from error
    if not intact or not isinstance(content, dict):
        raise CheckpointDamaged(f"{path}: the manifest is not as it was written")
    return content


def _sha256_of(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointDamaged(f"{path}: cannot be read: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """fsync a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    # Renamed first: a folder that is half gone never looks like a checkpoint.
    doomed = path.with_name(f"{path.name}.old{PART}")
    with suppress(OSError):  # what cannot be removed is swept at the next start; training goes on
        path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _step_of(path: Path) -> int:
    return int(path.name.partition("-")[2])
