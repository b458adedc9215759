"""A model on disk: `generator.safetensors` and the `model.json` beside it that pins its SHA-256 digest.

The digest is checked over the whole file before a single byte of it is parsed, because neither safetensors nor
torch notices a flipped bit. Needs no torch: the gateway and the worker verify the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..classes import DEFAULT_FACT, FACT, check_classes, classes_fact, classes_of, default_class_fact, default_class_of
from ..config import GeneratorConfig
from ..errors import ModelRejected
from .contents import METADATA, check_finite, check_layout, check_metadata, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader

WEIGHTS_NAME = "generator.safetensors"
MANIFEST_NAME = "model.json"
SIGNATURE_NAME = "model.sig"  # beside the weights of a model that somebody has signed
MAX_HEADER_BYTES = 16 * 2**20
MAX_MANIFEST_BYTES = 2**20
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A verified model file: name, path, digest and config."""

    name: str
    path: Path
    digest: str  # SHA-256 of the file, lower-case hexadecimal
    config: GeneratorConfig
    note: str = ""  # shown to people, e.g. that the weights are untrained
    classes: tuple[str, ...] = ()  # names of classes 0, 1, ...; empty where they have none
    default_class: int | None = None  # of requests without a label; None = a conditional model refuses them


def locate(path: Path) -> Path:
    """The weights file for a path to it or to its folder."""
    return path / WEIGHTS_NAME if path.is_dir() else path


def verify(path: Path | str) -> ModelFile:
    """Verify a model folder (or its weights file) against its manifest, and read its config.

    The digest and the config are those of one open file, even where somebody puts another in its place meanwhile.
    Raises ModelRejected when the manifest is absent or malformed, when the digest differs, when the header is not one
    that this package wrote, or when the tensors do not fit the config, so that the file could not be loaded.
    """
    weights = locate(Path(path))
    beside = weights.with_name(MANIFEST_NAME)
    manifest = read_manifest(beside)
    with _opened(weights) as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != manifest["digest"]:
            raise ModelRejected(f"{weights}: SHA-256 must be {manifest['digest']}, got {actual}")
        file.seek(0)
        header = parse_header(file, weights)
        config = _config(header, weights)
        check_layout(header, config, os.fstat(file.fileno()).st_size - file.tell(), weights)
    return ModelFile(
        name=manifest["name"],
        path=weights,
        digest=actual,
        config=config,
        note=manifest.get("note", ""),
        classes=classes_of(manifest.get(FACT, ""), config.c_dim, beside),
        default_class=default_class_of(manifest.get(DEFAULT_FACT, ""), config.c_dim, beside),
    )


def check_numbers(file: ModelFile) -> None:
    """Raise ModelRejected if a verified model contains NaN or infinity, which would draw no face."""
    with _opened(file.path) as opened:
        check_finite(opened, parse_header(opened, file.path), file.path)


def _config(header: dict[str, Any], path: Path) -> GeneratorConfig:
    metadata = header.get(METADATA, {})
    check_metadata(metadata, path)
    try:
        return GeneratorConfig.from_json(metadata["config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelRejected(f"{path}: no usable generator config in its metadata: {error}") from error


def read_manifest(path: Path) -> dict[str, str]:
    """Read `model.json`: a flat object of strings with at least `name` and `digest`."""
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ModelRejected(f"{path}: a manifest has at most {MAX_MANIFEST_BYTES} bytes")
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelRejected(f"{path}: missing; a model is a weights file and its manifest") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRejected(f"{path}: not a readable manifest: {error}") from error
    if not isinstance(manifest, dict) or not all(isinstance(value, str) for value in manifest.values()):
        raise ModelRejected(f"{path}: a manifest is one JSON object of strings")
    check_name(str(manifest.get("name")), path)
    if not DIGEST_PATTERN.fullmatch(manifest.get("digest", "")):
        raise ModelRejected(f"{path}: digest must be 64 hexadecimal digits, got {manifest.get('digest')!r}")
    return manifest


def check_name(name: str, where: object = "model name") -> str:
    """Return a model name; ModelRejected if it is not valid in the paths and addresses of services."""
    if not NAME_PATTERN.fullmatch(name):
        raise ModelRejected(f"{where}: name must match {NAME_PATTERN.pattern}, got {name[:80]!r}")
    return name


def write_manifest(folder: Path, *, name: str, digest: str, **facts: str) -> None:
    """Write `model.json` beside the weights: name, digest and further facts."""
    manifest = {"name": check_name(name), "digest": digest, **facts}
    write_atomically(folder / MANIFEST_NAME, (json.dumps(manifest, indent=2) + "\n").encode())


def name_classes(path: Path, names: Sequence[str]) -> ModelFile:
    """Set or remove class names in a model's manifest; its digest stays. ValueError for invalid names."""
    file = verify(path)
    if names:
        check_classes(names, file.config.c_dim)
    manifest = read_manifest(file.path.with_name(MANIFEST_NAME))
    manifest.pop(FACT, None)
    write_manifest(file.path.parent, **manifest, **classes_fact(names))
    return verify(path)


def set_default_class(path: Path, index: int | None) -> ModelFile:
    """Set the class of requests without a label, or with None have them refused; the digest stays.

    ValueError for a class that the model does not have.
    """
    file = verify(path)
    manifest = read_manifest(file.path.with_name(MANIFEST_NAME))
    manifest.pop(DEFAULT_FACT, None)
    write_manifest(file.path.parent, **manifest, **default_class_fact(index, file.config.c_dim))
    return verify(path)


def read_bytes(file: ModelFile) -> bytes:
    """Read a verified model file and verify it again, since the path may name another file by now.

    Raises ModelRejected unless they have the digest that `file` states.
    """
    with _opened(file.path) as opened:
        data = opened.read()
    actual = hashlib.sha256(data).hexdigest()
    if actual != file.digest:
        raise ModelRejected(f"{file.path}: SHA-256 must be {file.digest}, got {actual}: it has changed")
    return data


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file."""
    with _opened(path) as file:
        return parse_header(file, path)


def parse_header(file: BufferedReader, path: Path) -> dict[str, Any]:
    """Read the header of an open safetensors file: an 8-byte little-endian length, then JSON."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise ModelRejected(f"{path}: safetensors header must have 2 to {MAX_HEADER_BYTES} bytes, got {length}")
    try:
        header = parse_json(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ModelRejected(f"{path}: safetensors header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ModelRejected(f"{path}: safetensors header must be a JSON object")
    return header


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ModelRejected(f"{path}: cannot be read: {error.strerror}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file, fsync and rename: the name holds either the old or the new bytes."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
