"""Resolves a path to a model: a model, the best snapshot of a training run, or a foreign checkpoint. Needs no torch."""

from __future__ import annotations

import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ModelRejected
from .files.modelfile import MANIFEST_NAME, WEIGHTS_NAME
from .importers.formats import is_archive, is_checkpoint
from .training.reporting.records import read_best

if TYPE_CHECKING:
    from collections.abc import Iterator

SNAPSHOTS = "snapshots"


@contextmanager
def model_behind(path: Path) -> Iterator[tuple[Path, str]]:
    """Context manager that resolves a path to a model and yields it with a note of what was used ("" for a model
    itself); an imported checkpoint is deleted at the end."""
    if is_run(path) or not _is_foreign(path):
        yield take_model(path, path)  # nothing is imported
        return
    with tempfile.TemporaryDirectory(prefix="rosacea-import-") as scratch:
        yield take_model(path, Path(scratch) / "model")


def take_model(path: Path, scratch: Path) -> tuple[Path, str]:
    """The model for a path and a note of what was used ("" for a model). A checkpoint is imported into `scratch`."""
    if not path.exists():
        raise ModelRejected(f"{path}: does not exist; give a model folder, a training run or a checkpoint")
    if is_run(path):
        return best_snapshot(path)
    if _is_foreign(path):
        return _imported(path, scratch)
    return path, ""


def _is_foreign(path: Path) -> bool:
    """Whether to pass a path to the checkpoint reader: a checkpoint, or any file that is not part of a model, which the
    reader then refuses with a reason."""
    ours = path.name == WEIGHTS_NAME or path.with_name(MANIFEST_NAME).exists() or is_archive(path)
    return is_checkpoint(path) or (path.is_file() and not ours)


def is_run(path: Path) -> bool:
    """Whether a path is a training run's directory."""
    return path.is_dir() and not (path / WEIGHTS_NAME).exists() and (path / SNAPSHOTS).is_dir()


def best_snapshot(run: Path) -> tuple[Path, str]:
    """The run's snapshot closest to the real images, else the newest, and a sentence that names it."""
    whole = sorted(path.parent for path in (run / SNAPSHOTS).glob(f"kimg-*/{MANIFEST_NAME}"))
    if not whole:
        raise ModelRejected(f"{run}: this run has no snapshot yet; training writes them as it goes")
    best = read_best(run)
    folder = run / SNAPSHOTS / best.get("snapshot", "")
    if folder in whole:
        return folder, f"{run} is a run: its best snapshot is {folder.name} ({best['measure']} {best['distance']:.4g})"
    return whole[-1], f"{run} is a run without a record of its best snapshot: its newest is {whole[-1].name}"


def _imported(path: Path, scratch: Path) -> tuple[Path, str]:
    from .importers.importer import import_checkpoint

    report = import_checkpoint(path, scratch, model_name(path.stem))
    return scratch, "; ".join([f"{path} is a {report.kind}, imported for now", *report.notes])


def model_name(text: str) -> str:
    """Make a valid model name from any text; characters that are not allowed become dashes."""
    return re.sub(r"[^a-z0-9._-]", "-", text.lower()).lstrip("._-")[-63:].lstrip("._-") or "model"
