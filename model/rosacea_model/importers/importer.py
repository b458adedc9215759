"""Imports a foreign checkpoint: a sandboxed child process converts it, and this process verifies the result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..config import GeneratorConfig
from ..errors import CheckpointRejected
from ..files.modelfile import MANIFEST_NAME, SIGNATURE_NAME, WEIGHTS_NAME, check_name, name_classes, verify
from .formats import NETWORKS_NAME
from .unpickler import MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ANSWER_BYTES = 2**20
PACKAGE_ROOT = Path(__file__).parents[2]
# All that the child gets to know of the environment, beside where the packages are.
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


@dataclass(frozen=True, kw_only=True)
class NetworkSummary:
    """A network found in the file."""

    name: str  # as the file calls it: G, D, G_ema, g_ema, ...
    class_name: str
    tensors: int  # parameters and buffers
    parameters: int  # numbers that training optimises


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What was imported, from what, with notes."""

    kind: str  # "stylegan2-ada snapshot", "rosinality checkpoint" or "state dict"
    folder: Path  # where the model folder lies now
    digest: str  # SHA-256 of the weights written
    source_sha256: str
    config: GeneratorConfig  # resolution, channels, z, w and c widths, layers, architecture
    networks: tuple[NetworkSummary, ...]
    augment_p: float | None  # augmentation probability at the snapshot; None = without
    notes: tuple[str, ...]


def import_checkpoint(
    source: Path,
    folder: Path,
    name: str,
    *,
    force: bool = False,
    timeout: float = 600.0,
    classes: Sequence[str] = (),
    networks: bool = False,
) -> ImportReport:
    """Import the checkpoint `source` into the model folder `folder` under the name `name`.

    `classes` gives its classes names; a checkpoint has none. `networks` writes all three networks beside the model,
    for `--init-from`.

    CheckpointRejected says why a file is refused; nothing is left behind then. A `folder` with anything
    in it is a ValueError unless `force` is given; then it must hold a model, nothing else, and is replaced.
    """
    check_name(name)
    _check_free(folder, force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch).resolve() / "model"
        answer = _run_child(source, made, name, timeout, networks)
        if "rejected" in answer:
            raise CheckpointRejected(f"{source}: {answer['rejected']}", answer["offender"])
        report = _report(answer, folder)
        if verify(made).digest != report.digest:
            raise CheckpointRejected(f"{source}: the reader reported another file than it wrote", "report")
        if classes:
            name_classes(made, classes)
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")
        made.rename(folder)
    return report


def _check_free(folder: Path, force: bool) -> None:
    if not folder.exists():
        return
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if held and not force:
        raise ValueError(f"{folder} must be empty or absent (force replaces a model), it holds {min(held)}")
    if others := sorted(held - {WEIGHTS_NAME, MANIFEST_NAME, SIGNATURE_NAME, NETWORKS_NAME}):
        raise ValueError(f"{folder} must hold a model and nothing else to be replaced, it holds {others[0]}")


def _run_child(source: Path, made: Path, name: str, timeout: float, networks: bool) -> dict[str, Any]:
    """Run the child and return its line of JSON. Its output goes to files, which are bounded by its limits."""
    scratch = made.parent
    made.mkdir()
    command = [sys.executable, "-P", "-s", "-m", f"{__package__}.child", str(made), name]
    command += ["networks"] if networks else []
    with _open(source) as data, (scratch / "out").open("w+b") as out, (scratch / "err").open("w+b") as err:
        try:
            child = subprocess.run(
                command,
                stdin=data,
                stdout=out,
                stderr=err,
                cwd=scratch,
                env=_environment(),
                timeout=timeout,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise CheckpointRejected(f"{source}: not read within {timeout:g} seconds", "timeout") from error
        if child.returncode:
            raise CheckpointRejected(f"{source}: {_cause(child.returncode, err)}", "reader died")
        return _answer(source, out)


def _open(source: Path) -> IO[bytes]:
    try:
        if not source.is_file():
            raise CheckpointRejected(f"{source}: not a file")
        if (size := source.stat().st_size) > MAX_FILE_BYTES:
            message = f"{source}: a checkpoint must have at most {MAX_FILE_BYTES} bytes, got {size}"
            raise CheckpointRejected(message, "file size")
        return source.open("rb")
    except OSError as error:
        raise CheckpointRejected(f"{source}: cannot be read: {error.strerror}") from error


def _environment() -> dict[str, str]:
    kept = {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ}
    # One thread: a process of several cannot change its namespaces, and each takes address space.
    return {
        **kept,
        "PYTHONPATH": str(PACKAGE_ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def _cause(status: int, err: IO[bytes]) -> str:
    """Why the child failed: the signal's name, or its last line of output."""
    if status < 0:
        return f"reading it was stopped by {signal.Signals(-status).name}, as by a limit on time or size"
    size = err.seek(0, os.SEEK_END)
    err.seek(max(size - 2000, 0))
    lines = err.read().decode(errors="replace").strip().splitlines()
    return f"reading it failed with status {status}: {lines[-1][:300] if lines else 'no message'}"


def _answer(source: Path, out: IO[bytes]) -> dict[str, Any]:
    out.seek(0)
    try:
        answer = json.loads(out.read(MAX_ANSWER_BYTES))
    except ValueError as error:
        raise CheckpointRejected(f"{source}: the reader gave no readable answer", "report") from error
    if not isinstance(answer, dict) or not {"report", "rejected"} & set(answer):
        raise CheckpointRejected(f"{source}: the reader gave no readable answer", "report")
    return answer


def _report(answer: dict[str, Any], folder: Path) -> ImportReport:
    facts = answer["report"]
    unconfined = () if answer["no_network"] else ("the reader was not cut off the network by a namespace",)
    return ImportReport(
        kind=facts["kind"],
        folder=folder,
        digest=facts["digest"],
        source_sha256=facts["source_sha256"],
        config=GeneratorConfig.from_dict(facts["config"]),
        networks=tuple(NetworkSummary(**network) for network in facts["networks"]),
        augment_p=facts["augment_p"],
        notes=(*facts["notes"], *unconfined),
    )
