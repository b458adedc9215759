"""The networks have the reference's tensors, by name, shape and kind; bad configs are refused by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch

from rosacea_model import GeneratorConfig
from rosacea_model.config import Architecture
from rosacea_model.networks.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

# The published configurations and how many numbers their parameters and buffers hold; None = not published.
HALF = {"channel_base": 16384}
TOTALS: dict[str, tuple[dict[str, Any], int, int | None]] = {
    "1024 stylegan2": ({"img_resolution": 1024}, 30_370_060, 2_797_104),
    "512 map 8": ({}, 30_276_583, 699_904),
    "512 map 2": ({"mapping_layers": 2}, 28_700_647, 699_904),
    "256 paper256": ({"img_resolution": 256, **HALF}, 24_767_458, 175_568),
    "256 auto": ({"img_resolution": 256, "mapping_layers": 2, **HALF}, 23_191_522, 175_568),
    "256 full width": ({"img_resolution": 256}, 30_034_338, None),
    "128 auto": ({"img_resolution": 128, "mapping_layers": 2, **HALF}, 22_949_277, None),
    "64 auto": ({"img_resolution": 64, "mapping_layers": 2, **HALF}, 22_243_608, None),
    "CIFAR-10": ({"img_resolution": 32, "mapping_layers": 2, "c_dim": 10}, 20_215_315, None),
}


def on_meta(**settings: Any) -> Generator:
    """A generator that has shapes but no numbers."""
    with torch.device("meta"):
        return Generator(GeneratorConfig(**settings))


def count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_those_of_the_reference(name: str) -> None:
    settings, parameters, buffers = TOTALS[name]

    generator = on_meta(**settings)

    assert count(generator.parameters()) == parameters
    if buffers is not None:
        assert count(generator.buffers()) == buffers


def test_the_1024_generator_has_138_parameter_tensors_and_44_buffers() -> None:
    generator = on_meta(img_resolution=1024)

    assert (len(list(generator.parameters())), len(list(generator.buffers()))) == (138, 44)


@pytest.mark.parametrize("architecture", get_args(Architecture))
@pytest.mark.parametrize("c_dim", [0, 5])
def test_every_tensor_has_the_reference_name_shape_and_kind(architecture: Architecture, c_dim: int) -> None:
    config = GeneratorConfig(
        z_dim=24, w_dim=40, c_dim=c_dim, img_resolution=32, img_channels=1, mapping_layers=3,
        architecture=architecture, channel_base=256, channel_max=48,
    )  # fmt: skip

    generator = on_meta(**asdict(config))

    parameters, buffers = reference_tensors(config)
    assert {name: tuple(tensor.shape) for name, tensor in generator.named_parameters()} == parameters
    assert {name: tuple(tensor.shape) for name, tensor in generator.named_buffers()} == buffers
    assert generator.state_dict().keys() == parameters.keys() | buffers.keys()


def reference_tensors(config: GeneratorConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names and shapes of the parameters and of the buffers, as the snapshots of the reference have them."""
    w, c, channels = config.w_dim, config.c_dim, config.img_channels
    parameters: dict[str, Any] = {}
    buffers: dict[str, Any] = {"mapping.w_avg": (w,)}
    if c:
        parameters |= {"mapping.embed.weight": (w, c), "mapping.embed.bias": (w,)}
    for index in range(config.mapping_layers):
        inputs = w if index else config.z_dim + (w if c else 0)
        parameters |= {f"mapping.fc{index}.weight": (w, inputs), f"mapping.fc{index}.bias": (w,)}

    for resolution in (4, 8, 16, 32):
        block = f"synthesis.b{resolution}"
        outputs = min(config.channel_base // resolution, config.channel_max)
        below = min(config.channel_base // (resolution // 2), config.channel_max)
        buffers[f"{block}.resample_filter"] = (4, 4)
        if resolution == 4:
            parameters[f"{block}.const"] = (outputs, 4, 4)
        for layer, inputs in [("conv0", below), ("conv1", outputs)][resolution == 4 :]:
            parameters |= {
                f"{block}.{layer}.weight": (outputs, inputs, 3, 3),
                f"{block}.{layer}.bias": (outputs,),
                f"{block}.{layer}.noise_strength": (),
                f"{block}.{layer}.affine.weight": (inputs, w),
                f"{block}.{layer}.affine.bias": (inputs,),
            }
            buffers[f"{block}.{layer}.resample_filter"] = (4, 4)
            buffers[f"{block}.{layer}.noise_const"] = (resolution, resolution)
        if config.architecture == "skip" or resolution == 32:
            parameters |= {
                f"{block}.torgb.weight": (channels, outputs, 1, 1),
                f"{block}.torgb.bias": (channels,),
                f"{block}.torgb.affine.weight": (outputs, w),
                f"{block}.torgb.affine.bias": (outputs,),
            }
        if config.architecture == "resnet" and resolution > 4:
            parameters[f"{block}.skip.weight"] = (outputs, below, 1, 1)
            buffers[f"{block}.skip.resample_filter"] = (4, 4)
    return parameters, buffers


@pytest.mark.parametrize("architecture", get_args(Architecture))
@pytest.mark.parametrize("batch", [1, 3])
def test_each_architecture_draws_finite_images(architecture: Architecture, batch: int) -> None:
    config = GeneratorConfig(
        z_dim=8, w_dim=8, img_resolution=16, channel_base=128, channel_max=8, architecture=architecture
    )
    generator = Generator(config)

    ws = torch.randn(batch, config.num_ws, config.w_dim)
    image = generator.synthesis(ws, generator.synthesis.noises("const", batch))

    assert image.shape == (batch, 3, 16, 16)
    assert image.dtype == torch.float32
    assert image.isfinite().all()


NUM_WS = [(1024, 18), (512, 16), (256, 14), (128, 12), (64, 10), (32, 8)]


@pytest.mark.parametrize(("resolution", "num_ws"), NUM_WS)
def test_num_ws_is_that_of_the_reference(resolution: int, num_ws: int) -> None:
    assert GeneratorConfig(img_resolution=resolution).num_ws == num_ws


def test_every_row_of_ws_reaches_the_image() -> None:
    config = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=16, channel_base=128, channel_max=8)
    generator = Generator(config)
    ws = torch.randn(1, config.num_ws, config.w_dim, requires_grad=True)

    generator.synthesis(ws, generator.synthesis.noises("const", 1)).square().sum().backward()

    assert ws.grad is not None
    assert (ws.grad.abs().sum(dim=2) > 0).all()


BAD_VALUES: list[tuple[str, object]] = [
    ("z_dim", 0), ("z_dim", 2**40), ("w_dim", -1), ("w_dim", 2**40), ("c_dim", -1), ("c_dim", 2**40),
    ("img_resolution", 4), ("img_resolution", 100), ("img_resolution", 0), ("img_resolution", 8192),
    ("img_channels", 0), ("img_channels", 5), ("mapping_layers", 0), ("mapping_layers", 10**9),
    ("architecture", "dense"), ("channel_base", 0), ("channel_base", 256), ("channel_base", 2**40),
    ("channel_max", 0), ("channel_max", 2**40), ("num_fp16_res", -1),
    ("conv_clamp", 0.0), ("conv_clamp", -1.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_bad_config_value_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name) as refusal:
        GeneratorConfig(**{name: value})  # type: ignore[arg-type]

    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"z_dim": "512"}, "z_dim must be an integer, got '512'"),
        ({"z_dim": True}, "z_dim must be an integer, got True"),
        ({"z_dim": 512.0}, r"z_dim must be an integer, got 512\.0"),
        ({"conv_clamp": "256"}, "conv_clamp must be a number or null, got '256'"),
        ({"architecture": None}, "architecture must be a string, got None"),
        ({"surprise": 1}, "unknown entries: surprise"),
    ],
)
def test_a_mistyped_config_entry_is_refused_with_its_name(entry: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        GeneratorConfig.from_dict(asdict(GeneratorConfig()) | entry)


def test_a_config_survives_json() -> None:
    config = GeneratorConfig(c_dim=3, conv_clamp=None, architecture="resnet")

    assert GeneratorConfig.from_json(config.to_json()) == config
