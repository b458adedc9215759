"""Reads checkpoints of rosinality's stylegan2-pytorch: `torch.save` zips, read without running code.

The names differ, and sizes are not written down: depth, width and resolution are counted from the tensors.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import GeneratorConfig
from ..errors import CheckpointRejected
from ..files.tensors import expected_tensors
from ..networks.discriminator import Discriminator, DiscriminatorConfig
from .mean_latent import NOTE as MEAN_NOTE
from .mean_latent import mean_latent
from .unpickler import (
    FAILURES,
    STORAGE_READERS,
    Readers,
    Storage,
    StoredTensor,
    converted,
    drop,
    interpret,
    latin1_bytes,
    new_dict,
    numpy_dtype,
    numpy_scalar,
    rebuild_parameter,
    rebuild_tensor,
    reject,
    shown,
    storage_id,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ENTRIES = 20_000
TORCH_READERS: Readers = {
    **STORAGE_READERS,
    ("collections", "OrderedDict"): new_dict,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("argparse", "Namespace"): drop,  # the training script's options, saved beside the weights
    ("_codecs", "encode"): latin1_bytes,
    ("numpy", "dtype"): numpy_dtype,
    ("numpy.core.multiarray", "scalar"): numpy_scalar,
    ("numpy._core.multiarray", "scalar"): numpy_scalar,
}
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
FILTER = torch.outer(TAPS, TAPS) / 64
KERNEL = re.compile(r"(convs\.\d+\.conv\.blur|to_rgbs\.\d+\.upsample|convs\.\d+\.(conv2|skip)\.0)\.kernel")
# The last part of a name of ours, by what the layer is, and what rosinality calls it.
LAYER = {
    "weight": "conv.weight",
    "bias": "activate.bias",
    "noise_strength": "noise.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
}
TORGB = {**LAYER, "bias": "bias"}
D_LAYER = {
    ("fromrgb", "weight"): "0.weight",
    ("fromrgb", "bias"): "1.bias",
    ("conv0", "weight"): "conv1.0.weight",
    ("conv0", "bias"): "conv1.1.bias",
    ("conv1", "weight"): "conv2.1.weight",
    ("conv1", "bias"): "conv2.2.bias",
    ("skip", "weight"): "skip.1.weight",
}
D_EPILOGUE = {
    ("conv", "weight"): "final_conv.0.weight",
    ("conv", "bias"): "final_conv.1.bias",
    ("fc", "weight"): "final_linear.0.weight",
    ("fc", "bias"): "final_linear.0.bias",
    ("out", "weight"): "final_linear.1.weight",
    ("out", "bias"): "final_linear.1.bias",
}

State = dict[str, StoredTensor]


@dataclass(frozen=True, kw_only=True)
class RosinalityGenerator:
    """A generator under our names, which network of the file it was, and what the file lacked."""

    key: str
    config: GeneratorConfig
    tensors: dict[str, Tensor]
    g: dict[str, Tensor] | None = None  # the generator that trains, where the file has both
    d: dict[str, Tensor] | None = None  # the discriminator that trains
    notes: tuple[str, ...] = ()
    mean_is_ours: bool = False  # the file had no mean w


def parse_rosinality(data: bytes) -> RosinalityGenerator:
    """Read the generator of a `.pt` file: `g_ema`, else `g`, else the whole file as a state dict."""
    try:
        return read_rosinality(load_zip(data), budget=2 * len(data))
    except (*FAILURES, zipfile.BadZipFile) as error:
        raise unreadable(".pt file", error) from error


def read_rosinality(content: dict[Any, Any], budget: int) -> RosinalityGenerator:
    """Read the networks of a loaded file; all tensors together may take `budget` bytes."""
    key, state = _generator_state(content)
    config = _config(state)
    trained = _state_of(content, "g") if key == "g_ema" else None
    d = _state_of(content, "d")
    every = [tensor for part in (state, trained, d) for tensor in (part or {}).values()]
    if sum(tensor.nbytes for tensor in every) > budget:
        reject("the tensors are larger together than the file that holds them", "tensor bytes")
    notes = converted(every)
    if not any(name.startswith("noises.") for name in state):
        notes.append("the file has no fixed noise: noise mode 'const' adds none")
    tensors = _convert(config, state, content.get("latent_avg"))
    mean_is_ours = not isinstance(content.get("latent_avg"), StoredTensor)
    if mean_is_ours:
        tensors["mapping.w_avg"] = mean_latent(config, tensors)
        notes.append(MEAN_NOTE)
    g = _or_note(partial(_convert, config, trained, None), "generator that trains", notes) if trained else None
    return RosinalityGenerator(
        key=key,
        config=config,
        tensors=tensors,
        mean_is_ours=mean_is_ours,
        g={**g, "mapping.w_avg": tensors["mapping.w_avg"]} if g else None,
        d=_or_note(partial(_discriminator, config, d), "discriminator", notes) if d else None,
        notes=tuple(notes),
    )


def _or_note(read: Callable[[], dict[str, Tensor]], what: str, notes: list[str]) -> dict[str, Tensor] | None:
    """Read a network needed only for training; if it does not fit, note why and go on."""
    try:
        return read()
    except CheckpointRejected as error:
        notes.append(f"the {what} is left out: {error}")
        return None


def load_zip(data: bytes) -> dict[Any, Any]:
    """Load the dict of a `torch.save` zip; tensors are read from the zip on demand."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        reject(f"a .pt file must have at most {MAX_ENTRIES} entries and none compressed", "zip entries")
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        reject(f"a .pt file must hold one data.pkl, got {len(roots)}", "zip entries")
    if f"{roots[0]}byteorder" in names and archive.read(f"{roots[0]}byteorder") != b"little":
        reject("a .pt file must be little-endian", "byteorder")

    def storage(value: object) -> Storage:
        identity = storage_id(value)
        member = f"{roots[0]}data/{identity.key}"
        return Storage(identity.dtype, identity.count, lambda: archive.read(member))

    content = interpret(io.BytesIO(archive.read(f"{roots[0]}data.pkl")), TORCH_READERS, persistent=storage)
    if not isinstance(content, dict):
        reject(f"a .pt file must hold a dict, got {type(content).__name__}")
    return content


def _generator_state(content: dict[Any, Any]) -> tuple[str, State]:
    key = next((key for key in ("g_ema", "g") if key in content), "state dict")
    state = content.get(key, content)
    if not isinstance(state, dict) or "style.1.weight" not in state or "input.input" not in state:
        reject(f"a rosinality file must hold a generator, this one has {shown(list(content))}", "checkpoint")
    tensors = {str(name): value for name, value in state.items() if name != "latent_avg"}
    if others := [name for name, value in tensors.items() if not isinstance(value, StoredTensor)]:
        reject(f"{shown(others[0])} must be a tensor")
    return key, tensors


def _state_of(content: dict[Any, Any], key: str) -> State | None:
    """The state dict under a key such as `g` or `d`, None if it is something else: other programs use these keys for
    other things."""
    state = content.get(key)
    if not isinstance(state, dict) or not all(isinstance(value, StoredTensor) for value in state.values()):
        return None
    mark = "final_linear.1.weight" if key == "d" else "input.input"
    return {str(name): value for name, value in state.items()} if mark in state else None


def _convert(config: GeneratorConfig, state: State, latent_avg: object) -> dict[str, Tensor]:
    sources = {name: source for name in expected_tensors(config) if (source := source_name(name))}
    if not any(name.startswith("noises.") for name in state):
        sources = {name: source for name, source in sources.items() if not source.startswith("noises.")}
    _check_names("generator", state, set(sources.values()))
    tensors = {
        name: _fit(state[sources[name]], shape, sources[name]) if name in sources else _default(name, shape)
        for name, shape in expected_tensors(config).items()
    }
    if isinstance(latent_avg, StoredTensor):
        tensors["mapping.w_avg"] = _fit(latent_avg, (config.w_dim,), "latent_avg")
    return tensors


def _discriminator(config: GeneratorConfig, state: State) -> dict[str, Tensor]:
    """The discriminator under our names; rosinality has only the residual one."""
    with torch.device("meta"):
        network = Discriminator(config, DiscriminatorConfig())
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    sources = {name: d_source_name(name, config) for name in shapes if not name.endswith("resample_filter")}
    _check_names("discriminator", state, set(sources.values()))
    return {
        name: _fit(state[sources[name]], shape, sources[name]) if name in sources else FILTER.clone()
        for name, shape in shapes.items()
    }


def d_source_name(name: str, config: GeneratorConfig) -> str:
    """Rosinality's name of a discriminator tensor."""
    unit, layer, leaf = name.split(".")
    if unit == "b4":
        return f"{D_EPILOGUE[layer, leaf]}"
    if layer == "fromrgb":
        return f"convs.0.{D_LAYER['fromrgb', leaf]}"
    # From the picture on: convs.0 takes it in, convs.1 halves it, ...
    place = config.img_resolution.bit_length() - int(unit.removeprefix("b")).bit_length() + 1
    return f"convs.{place}.{D_LAYER[layer, leaf]}"


def _default(name: str, shape: tuple[int, ...]) -> Tensor:
    """Default values of buffers a file may lack: constant filters, zero noise and zero mean w."""
    return FILTER.clone() if name.endswith("resample_filter") else torch.zeros(shape)


def _config(state: State) -> GeneratorConfig:
    """Derive the config from tensor shapes; channel base and maximum are the smallest that give these widths."""
    blocks = _count(state, r"to_rgbs\.\d+\.conv\.weight")
    layers = _count(state, r"style\.\d+\.weight")
    if not 1 <= blocks <= 10:
        reject(f"a generator must have 2 to 11 blocks, got {blocks + 1}", "tensors")
    resolution = 4 * 2**blocks
    width = _shape(state, f"to_rgbs.{blocks - 1}.conv.weight", 5)
    first = _shape(state, "input.input", 4)
    mapping = _shape(state, "style.1.weight", 2)
    try:
        return GeneratorConfig(
            z_dim=mapping[1],
            w_dim=mapping[0],
            img_resolution=resolution,
            img_channels=width[1],
            mapping_layers=layers,
            channel_base=width[2] * resolution,
            channel_max=first[1],
            num_fp16_res=0,
            conv_clamp=None,
        )
    except ValueError as error:
        raise CheckpointRejected(f"the generator's {shown(error)}", "tensors") from error


def source_name(name: str) -> str | None:
    """Rosinality's name of a tensor; None for filters and mean w, which are stored elsewhere."""
    part, _, rest = name.partition(".")
    unit, _, leaf = rest.partition(".")
    if leaf.endswith("resample_filter") or rest == "w_avg":
        return None
    if part == "mapping":
        return f"style.{int(unit.removeprefix('fc')) + 1}.{leaf}"
    if leaf == "const":
        return "input.input"
    layer, _, leaf = leaf.partition(".")
    index = int(unit.removeprefix("b")).bit_length() - 4  # -1 for 4x4, then 0, 1, ...
    if layer == "torgb":
        return f"{'to_rgb1' if index < 0 else f'to_rgbs.{index}'}.{TORGB[leaf]}"
    order = 0 if index < 0 else 2 * index + 1 + (layer == "conv1")
    if leaf == "noise_const":
        return f"noises.noise_{order}"
    return f"{'conv1' if index < 0 else f'convs.{order - 1}'}.{LAYER[leaf]}"


def _check_names(network: str, state: State, wanted: set[str]) -> None:
    missing = sorted(wanted - set(state))
    extra = sorted(name for name in set(state) - wanted if not KERNEL.fullmatch(name))
    for kind, names in {"lacks": missing, "has unexpected": extra}.items():
        if names:
            reject(f"the {network} {kind} {len(names)} tensors ({shown(', '.join(names[:3]))})", "tensors")
    for name in filter(KERNEL.fullmatch, state):
        kernel = _fit(state[name], (4, 4), name)
        # Where it enlarges it has four times the weight.
        if not torch.allclose(kernel / kernel.sum(), FILTER):
            reject(f"{name} must be the filter [1, 3, 3, 1], the only one implemented", name)


def _fit(tensor: StoredTensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Reshape a tensor to our shape; only dimensions of size 1 may differ."""
    if [n for n in tensor.size if n != 1] != [n for n in shape if n != 1]:
        reject(f"{name} must have the shape {shape}, got {tensor.size}", "tensors")
    return torch.from_numpy(tensor.floats().reshape(shape))


def _shape(state: State, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state or len(state[name].size) != dimensions:
        reject(f"the generator must have a tensor {name} of {dimensions} dimensions", "tensors")
    return state[name].size


def _count(state: State, pattern: str) -> int:
    matches: Callable[[str], object] = re.compile(pattern).fullmatch
    return sum(bool(matches(name)) for name in state)
