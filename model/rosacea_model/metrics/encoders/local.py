"""Encoders from weight files that the user puts in place: `inception` and `dinov2`, as ONNX. Nothing is downloaded.

Two files each, in one folder: `NAME.onnx`, a network from normalised images [N, 3, S, S] float32 to features [N, D] (or
to tokens [N, T, D], of which the first is taken), and `NAME.onnx.sha256`, its SHA-256 as `sha256sum` prints it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from rosacea_contract.install import missing

from ..errors import MetricError, WeightsMissing
from .pinned import read_pinned

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from .protocol import Levels

MICRO_BATCH = 8  # images a pass, always: other sizes round differently


@dataclass(frozen=True, kw_only=True)
class LocalNetwork:
    """What is known of a network before its file is there."""

    name: str
    size: int  # px of its input
    dimension: int
    resize: str
    resized: Callable[[Tensor, int], Tensor]  # levels [N, 3, H, W] to [N, 3, size, size]
    mean: tuple[float, float, float]  # of levels, per channel
    deviation: tuple[float, float, float]
    source: str  # where its weights are published


def tensorflow_bilinear(levels: Tensor, size: int) -> Tensor:  # => [N, 3, size, size]
    """Bilinear without antialiasing and with corners at 0, as TensorFlow 1 resized for the published FID numbers."""
    for axis in (2, 3):
        length = levels.shape[axis]
        place = torch.arange(size, dtype=torch.float64) * length / size
        low = place.floor().long()
        part = (place - low).to(levels.dtype).to(levels.device)
        part = part.reshape([-1 if each == axis else 1 for each in range(4)])
        high = (low + 1).clamp(max=length - 1)
        levels = levels.index_select(axis, low) * (1 - part) + levels.index_select(axis, high) * part
    return levels


def smooth_bicubic(levels: Tensor, size: int) -> Tensor:  # => [N, 3, size, size]
    """Antialiased bicubic, clamped to levels."""
    return F.interpolate(levels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 255)


NETWORKS = {
    network.name: network
    for network in (
        LocalNetwork(
            name="inception",
            size=299,
            dimension=2048,
            resize="TensorFlow 1 bilinear to 299 px",
            resized=tensorflow_bilinear,
            mean=(128, 128, 128),
            deviation=(128, 128, 128),
            source="the pool_3 features of Inception-2015-12-05, the network of FID",
        ),
        LocalNetwork(
            name="dinov2",
            size=224,
            dimension=1024,
            resize="antialiased bicubic to 224 px",
            resized=smooth_bicubic,
            mean=(123.675, 116.28, 103.53),
            deviation=(58.395, 57.12, 57.375),
            source="the class token of DINOv2 ViT-L/14",
        ),
    )
}


class LocalEncoder:
    """A network from `folder`. WeightsMissing says which file to put where; MetricError, what is wrong with it."""

    comparable, unrounded = True, True

    def __init__(self, network: LocalNetwork, folder: Path) -> None:
        self.network, self.name, self.resize = network, network.name, network.resize
        self.dimension = network.dimension
        path = folder / f"{network.name}.onnx"
        self.digest = _pin(network, path)
        self._session = _session(read_pinned(path, self.digest, f"put {network.source} there as ONNX"), path)

    def encode(self, images: Levels) -> NDArray[np.float32]:
        """Features [N, D] of images [N, H, W, 3]."""
        parts = [self._pass(images[start : start + MICRO_BATCH]) for start in range(0, len(images), MICRO_BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    def _pass(self, images: Levels) -> NDArray[np.float32]:
        full = np.zeros((MICRO_BATCH, *images.shape[1:]), np.float32)
        full[: len(images)] = images
        levels = self.network.resized(torch.from_numpy(full).permute(0, 3, 1, 2), self.network.size).numpy()
        mean, deviation = (
            np.array(values, np.float32)[:, None, None] for values in (self.network.mean, self.network.deviation)
        )
        given = np.ascontiguousarray((levels - mean) / deviation)
        (found, *_) = self._session.run(None, {self._session.get_inputs()[0].name: given})
        rows = found[:, 0] if found.ndim == 3 else found
        if rows.shape != (MICRO_BATCH, self.dimension):
            raise MetricError(
                f"{self.name}: the network must give features [N, {self.dimension}], got {list(found.shape)}"
            )
        return np.asarray(rows[: len(images)], np.float32)


def default_folder() -> Path:
    """The folder of weight files: `rosacea/encoders` under $XDG_DATA_HOME or ~/.local/share."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "rosacea" / "encoders"


def _pin(network: LocalNetwork, path: Path) -> str:
    """The SHA-256 that the file beside the weights states."""
    pin = path.with_name(f"{path.name}.sha256")
    steps = (
        f"put {network.source} there as ONNX, and its SHA-256 beside it: "
        f"cd {path.parent} && sha256sum {path.name} > {pin.name}"
    )
    if not path.is_file():
        raise WeightsMissing(f"{path}: the weights of {network.name} are not there and are not downloaded; {steps}")
    try:
        stated = pin.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        stated = []
    if not stated or not re.fullmatch(r"[0-9a-f]{64}", stated[0]):
        raise WeightsMissing(
            f"{pin}: must hold the SHA-256 of {path.name}; check the file against its source, then {steps}"
        )
    return stated[0]


def _session(data: bytes, path: Path) -> Any:
    try:
        onnxruntime: Any = import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise WeightsMissing(missing(f"the encoder {path.stem}", "onnxruntime", "onnx")) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base for what is wrong with a file
        raise MetricError(f"{path}: not a network that onnxruntime can run: {error}") from error
