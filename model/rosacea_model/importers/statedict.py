"""Reads plain state dicts under the reference's names, such as `torch.save(G_ema.state_dict(), ...)`.

Sizes are counted from the tensors. What cannot be counted (float16 blocks, the clamp) is assumed to be off, and noted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..config import GeneratorConfig
from ..errors import CheckpointRejected
from ..files.tensors import expected_tensors, mismatch
from .mean_latent import NOTE as MEAN_NOTE
from .mean_latent import mean_latent
from .rosinality import FILTER
from .unpickler import StoredTensor, converted, reject, shown

if TYPE_CHECKING:
    from torch import Tensor

# Where programs put a generator's state dict in what they save; the averaged one first. "" = the whole file.
PLACES = ("g_ema", "G_ema", "params_ema", "ema", "generator", "G", "g", "state_dict", "model", "params", "")
D_PLACES = ("D", "d", "discriminator")
WRAPPER = "module."  # what DataParallel puts before every name
ASSUMED = "a state dict does not say which blocks run in float16, nor their clamp: none do here"

State = dict[str, StoredTensor]


@dataclass(frozen=True, kw_only=True)
class PlainGenerator:
    """A generator, and what had to be assumed."""

    key: str
    config: GeneratorConfig
    tensors: dict[str, Tensor]
    d: dict[str, Tensor] | None
    notes: tuple[str, ...]
    mean_is_ours: bool


def find_state(content: dict[Any, Any]) -> tuple[str, State] | None:
    """Find the first state dict with a generator under the reference's names."""
    for place in PLACES:
        state = _tensors(content if place == "" else content.get(place))
        if "mapping.fc0.weight" in state and "synthesis.b4.const" in state:
            return place or "state dict", state
    return None


def read_state(key: str, state: State, content: dict[Any, Any], budget: int) -> PlainGenerator:
    """Read the generator of a state dict from `find_state`; all tensors together may take `budget` bytes."""
    d = next((found for place in D_PLACES if "b4.out.weight" in (found := _tensors(content.get(place)))), {})
    every = [*state.values(), *d.values()]
    if sum(tensor.nbytes for tensor in every) > budget:
        reject("the tensors are larger together than the file that holds them", "tensor bytes")
    config = _config(state)
    notes = [*converted(every), ASSUMED]
    tensors = _read(state)
    for name, shape in expected_tensors(config).items():
        if name not in tensors and name.endswith(("resample_filter", "noise_const", "w_avg")):
            tensors[name] = FILTER.clone() if name.endswith("resample_filter") else torch.zeros(shape)
    if differences := mismatch(config, {name: tuple(tensor.shape) for name, tensor in tensors.items()}):
        reject(f"the generator's tensors do not fit each other: {differences}", "tensors")
    if not any(name.endswith("noise_const") for name in state):
        notes.append("the file has no fixed noise: noise mode 'const' adds none")
    if mean_is_ours := "mapping.w_avg" not in state:
        tensors["mapping.w_avg"] = mean_latent(config, tensors)
        notes.append(MEAN_NOTE)
    return PlainGenerator(
        key=key, config=config, tensors=tensors, d=_read(d) or None, notes=tuple(notes), mean_is_ours=mean_is_ours
    )


def _tensors(content: object) -> State:
    """Tensors by name without DataParallel's prefix; other entries are ignored."""
    if not isinstance(content, dict):
        return {}
    named = {str(name): value for name, value in content.items() if isinstance(value, StoredTensor)}
    return {name.removeprefix(WRAPPER): value for name, value in named.items()}


def _read(state: State) -> dict[str, Tensor]:
    return {name: torch.from_numpy(tensor.floats()) for name, tensor in state.items()}


def _config(state: State) -> GeneratorConfig:
    """Derive the config from tensor shapes; channel base and maximum are the smallest that give these widths."""
    blocks = filter(None, (re.fullmatch(r"synthesis\.b(\d{1,4})\.conv1\.weight", name) for name in state))
    resolution = max((int(block[1]) for block in blocks), default=0)
    last, first = _shape(state, f"synthesis.b{resolution}.torgb.weight", 4), _shape(state, "synthesis.b4.const", 3)
    out, width = _shape(state, "mapping.fc0.weight", 2)
    c_dim, embedded = 0, 0
    if "mapping.embed.weight" in state:
        embedded, c_dim = _shape(state, "mapping.embed.weight", 2)
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in state)
    try:
        return GeneratorConfig(
            z_dim=width - embedded,
            c_dim=c_dim,
            w_dim=out,
            img_resolution=resolution,
            img_channels=last[0],
            mapping_layers=layers,
            channel_base=last[1] * resolution,
            channel_max=first[0],
            num_fp16_res=0,
            conv_clamp=None,
            architecture=_architecture(state),
        )
    except ValueError as error:
        raise CheckpointRejected(f"the generator's {shown(error)}", "tensors") from error


def _architecture(state: State) -> Any:
    if any(name.endswith("skip.weight") for name in state):
        return "resnet"
    return "skip" if "synthesis.b4.torgb.weight" in state else "orig"


def _shape(state: State, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state or len(state[name].size) != dimensions:
        reject(f"the generator must have a tensor {name} of {dimensions} dimensions", "tensors")
    return state[name].size
