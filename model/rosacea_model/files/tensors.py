"""Names and shapes of a generator's tensors, derived from its config. Needs no torch.

One table for all who must agree on it: the networks, the importer, and readers of model files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..config import GeneratorConfig

Shape = tuple[int, ...]

BUFFERS = ("resample_filter", "noise_const", "w_avg")  # last part of the name; all others are parameters
FILTER = (4, 4)
SHOWN = 3  # names that a message lists of each kind


def expected_tensors(config: GeneratorConfig) -> dict[str, Shape]:
    """All parameters and buffers of the generator, under the reference's names."""
    return {**dict(_mapping(config)), **dict(_synthesis(config))}


def is_buffer(name: str) -> bool:
    """Whether the tensor is a buffer, which training does not optimise."""
    return name.rpartition(".")[2] in BUFFERS


def mismatch(config: GeneratorConfig, shapes: Mapping[str, Shape]) -> str | None:
    """Describe how tensors differ from the config's, with counts and first names; None if they agree."""
    expected = expected_tensors(config)
    missing = [name for name in expected if name not in shapes]
    extra = [name for name in shapes if name not in expected]
    misshapen = [
        f"{name} is {_text(shapes[name])}, not {_text(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    kinds = {"missing": missing, "unexpected": extra, "of another shape": misshapen}
    texts = [f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names]
    return "; ".join(texts) or None


def _mapping(config: GeneratorConfig) -> Iterator[tuple[str, Shape]]:
    width = config.z_dim
    if config.c_dim:
        yield from _linear("mapping.embed", config.c_dim, config.w_dim)
        width += config.w_dim
    for index in range(config.mapping_layers):
        yield from _linear(f"mapping.fc{index}", width, config.w_dim)
        width = config.w_dim
    yield "mapping.w_avg", (config.w_dim,)


def _synthesis(config: GeneratorConfig) -> Iterator[tuple[str, Shape]]:
    inputs = 0
    for resolution in config.block_resolutions:
        yield from _block(config, resolution, inputs)
        inputs = config.channels(resolution)


def _block(config: GeneratorConfig, resolution: int, inputs: int) -> Iterator[tuple[str, Shape]]:
    name, outputs = f"synthesis.b{resolution}", config.channels(resolution)
    yield f"{name}.resample_filter", FILTER
    if inputs:
        yield from _layer(config, f"{name}.conv0", resolution, inputs, outputs)
    else:
        yield f"{name}.const", (outputs, resolution, resolution)
    yield from _layer(config, f"{name}.conv1", resolution, outputs, outputs)
    if config.architecture == "skip" or resolution == config.img_resolution:
        yield f"{name}.torgb.weight", (config.img_channels, outputs, 1, 1)
        yield f"{name}.torgb.bias", (config.img_channels,)
        yield from _linear(f"{name}.torgb.affine", config.w_dim, outputs)
    if config.architecture == "resnet" and inputs:
        yield f"{name}.skip.weight", (outputs, inputs, 1, 1)
        yield f"{name}.skip.resample_filter", FILTER


def _layer(
    config: GeneratorConfig, name: str, resolution: int, inputs: int, outputs: int
) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs, 3, 3)
    yield f"{name}.bias", (outputs,)
    yield f"{name}.noise_strength", ()
    yield f"{name}.noise_const", (resolution, resolution)
    yield f"{name}.resample_filter", FILTER
    yield from _linear(f"{name}.affine", config.w_dim, inputs)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
