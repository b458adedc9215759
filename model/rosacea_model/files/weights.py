"""Writes and reads `generator.safetensors`, with the generator's config in its metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

import safetensors
import safetensors.torch

from ..errors import ModelRejected
from .modelfile import WEIGHTS_NAME, ModelFile, read_bytes, sha256, verify, write_atomically, write_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from ..config import GeneratorConfig


def save(folder: Path, config: GeneratorConfig, tensors: Mapping[str, Tensor], *, name: str, **facts: str) -> ModelFile:
    """Write a model folder and return it verified.

    The same tensors and config give the same bytes, so the digest names the model. `facts` are further strings for
    the manifest, such as `note` or `source`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    data = safetensors.torch.save(plain, metadata={"config": config.to_json()})
    write_atomically(folder / WEIGHTS_NAME, data)
    write_manifest(folder, name=name, digest=sha256(folder / WEIGHTS_NAME), **facts)
    return verify(folder)


def read(file: ModelFile) -> dict[str, Tensor]:
    """Read the tensors of a verified model file, from exactly the bytes its digest names."""
    data = read_bytes(file)
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ModelRejected(f"{file.path}: not a safetensors file: {error}") from error
