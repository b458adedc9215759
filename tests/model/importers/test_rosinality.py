"""A generator in rosinality's names comes back under ours with the same numbers."""

from __future__ import annotations

import argparse
import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rosacea_model.config import GeneratorConfig
from rosacea_model.errors import CheckpointRejected
from rosacea_model.files.tensors import expected_tensors
from rosacea_model.importers.rosinality import FILTER, parse_rosinality
from rosacea_model.networks.discriminator import Discriminator, DiscriminatorConfig
from rosacea_model.networks.generator import MappingNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

CONFIG = GeneratorConfig(
    z_dim=6,
    w_dim=6,
    img_resolution=32,
    mapping_layers=3,
    channel_base=128,
    channel_max=16,
    num_fp16_res=0,
    conv_clamp=None,
)

# How rosinality calls the tensors of a 32x32 generator, written out by hand from its table of names.
BLOCKS = {
    "b4.conv1": "conv1",
    "b4.torgb": "to_rgb1",
    "b8.conv0": "convs.0",
    "b8.conv1": "convs.1",
    "b8.torgb": "to_rgbs.0",
    "b16.conv0": "convs.2",
    "b16.conv1": "convs.3",
    "b16.torgb": "to_rgbs.1",
    "b32.conv0": "convs.4",
    "b32.conv1": "convs.5",
    "b32.torgb": "to_rgbs.2",
}
NOISE = {
    "b4.conv1": 0,
    "b8.conv0": 1,
    "b8.conv1": 2,
    "b16.conv0": 3,
    "b16.conv1": 4,
    "b32.conv0": 5,
    "b32.conv1": 6,
}
BLURS = ("convs.0.conv.blur", "convs.2.conv.blur", "convs.4.conv.blur")
UPSAMPLES = ("to_rgbs.0.upsample", "to_rgbs.1.upsample", "to_rgbs.2.upsample")


def our_tensors(config: GeneratorConfig = CONFIG) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    random = {name: torch.randn(shape, generator=draw) for name, shape in expected_tensors(config).items()}
    return {name: FILTER if name.endswith("resample_filter") else value for name, value in random.items()}


def their_state(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors in the other project's names and shapes: the table, turned round."""
    state = {"input.input": ours["synthesis.b4.const"][None]}
    for index in range(3):
        state[f"style.{index + 1}.weight"] = ours[f"mapping.fc{index}.weight"]
        state[f"style.{index + 1}.bias"] = ours[f"mapping.fc{index}.bias"]
    for here, there in BLOCKS.items():
        layer = {name.partition(f"{here}.")[2]: value for name, value in ours.items() if here in name}
        state[f"{there}.conv.weight"] = layer["weight"][None]
        state[f"{there}.conv.modulation.weight"] = layer["affine.weight"]
        state[f"{there}.conv.modulation.bias"] = layer["affine.bias"]
        if "torgb" in here:
            state[f"{there}.bias"] = layer["bias"].reshape(1, 3, 1, 1)
        else:
            state[f"{there}.activate.bias"] = layer["bias"]
            state[f"{there}.noise.weight"] = layer["noise_strength"].reshape(1)
            state[f"noises.noise_{NOISE[here]}"] = layer["noise_const"][None, None]
    return {**state, **{f"{name}.kernel": FILTER * 4 for name in BLURS + UPSAMPLES}}


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def checkpoint(**more: Any) -> dict[str, Any]:
    ours = our_tensors()
    return {"g_ema": their_state(ours), "latent_avg": ours["mapping.w_avg"], **more}


def assert_ours(tensors: dict[str, Tensor], but: tuple[str, ...] = ()) -> None:
    ours = our_tensors()
    assert set(tensors) == set(ours)
    for name, value in ours.items():
        if not name.endswith(but or ("\0",)):
            assert tensors[name].shape == value.shape, name
            assert torch.equal(tensors[name], value), name


def test_every_tensor_comes_back_bit_for_bit() -> None:
    generator = parse_rosinality(saved(checkpoint()))

    assert generator.config == CONFIG
    assert generator.key == "g_ema"
    assert generator.notes == ()
    assert_ours(generator.tensors)


def test_the_table_covers_every_tensor_there_is() -> None:
    stateless = {name for name in our_tensors() if name.endswith(("resample_filter", "w_avg"))}
    kernels = len(BLURS) + len(UPSAMPLES)

    assert len(their_state(our_tensors())) - kernels == len(our_tensors()) - len(stateless)


def test_the_averaged_network_is_preferred() -> None:
    other = {name: value + 1 for name, value in their_state(our_tensors()).items()}

    found = parse_rosinality(saved(checkpoint(g=other)))

    assert_ours(found.tensors)
    assert found.g is None and any("generator that trains is left out" in note for note in found.notes)


@pytest.mark.parametrize("key", ["g", "state dict"])
def test_other_places_for_the_generator_are_known(key: str) -> None:
    state = their_state(our_tensors())
    generator = parse_rosinality(saved({"g": state} if key == "g" else state))

    assert generator.key == key
    assert_ours(generator.tensors, but=("w_avg",))


def test_a_missing_mean_w_is_the_mean_of_mapped_latents_the_same_every_time() -> None:
    data = saved({"g_ema": their_state(our_tensors())})
    generator = parse_rosinality(data)
    mapping = MappingNetwork(CONFIG)
    mapping.load_state_dict(
        {name.removeprefix("mapping."): value for name, value in our_tensors().items() if name.startswith("mapping.")}
    )

    with torch.no_grad():
        mean = mapping(torch.randn(50_000, CONFIG.z_dim)).mean(dim=0)

    w_avg = generator.tensors["mapping.w_avg"]
    assert float((w_avg - mean).norm()) < 0.05 * float(mean.norm()) and generator.mean_is_ours
    assert torch.equal(w_avg, parse_rosinality(data).tensors["mapping.w_avg"])
    assert any("10,000 mapped latents" in note for note in generator.notes)


def their_discriminator(ours: Discriminator) -> dict[str, Tensor]:
    """A 32x32 discriminator in the other project's names, written out by hand."""
    table = {"convs.0.0.weight": "b32.fromrgb.weight", "convs.0.1.bias": "b32.fromrgb.bias"}
    for place, block in ((1, "b32"), (2, "b16"), (3, "b8")):
        table |= {
            f"convs.{place}.conv1.0.weight": f"{block}.conv0.weight",
            f"convs.{place}.conv1.1.bias": f"{block}.conv0.bias",
            f"convs.{place}.conv2.1.weight": f"{block}.conv1.weight",
            f"convs.{place}.conv2.2.bias": f"{block}.conv1.bias",
            f"convs.{place}.skip.1.weight": f"{block}.skip.weight",
        }
    table |= {
        "final_conv.0.weight": "b4.conv.weight",
        "final_conv.1.bias": "b4.conv.bias",
        "final_linear.0.weight": "b4.fc.weight",
        "final_linear.0.bias": "b4.fc.bias",
        "final_linear.1.weight": "b4.out.weight",
        "final_linear.1.bias": "b4.out.bias",
    }
    blurs = {f"convs.{place}.{layer}.0.kernel": FILTER for place in (1, 2, 3) for layer in ("conv2", "skip")}
    state = ours.state_dict()
    return {**{theirs: state[name] for theirs, name in table.items()}, **blurs}


def test_the_networks_that_train_are_read_beside_the_averaged_one() -> None:
    d = Discriminator(CONFIG, DiscriminatorConfig())
    other = {name: value if "kernel" in name else value + 1 for name, value in their_state(our_tensors()).items()}

    found = parse_rosinality(saved(checkpoint(g=other, d=their_discriminator(d))))

    assert found.g is not None and found.d is not None
    assert torch.equal(found.g["mapping.fc0.bias"], our_tensors()["mapping.fc0.bias"] + 1)
    assert all(torch.equal(value, found.d[name]) for name, value in d.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_converted_with_a_note(dtype: torch.dtype) -> None:
    content = checkpoint()
    content["g_ema"] = {name: value.to(dtype) for name, value in content["g_ema"].items()}

    found = parse_rosinality(saved(content))

    name = "synthesis.b8.conv0.weight"
    assert torch.equal(found.tensors[name], our_tensors()[name].to(dtype).float())
    assert any(f"were {str(dtype).removeprefix('torch.')}" in note for note in found.notes)


def test_missing_fixed_noise_is_zero_and_reported() -> None:
    content = checkpoint()
    content["g_ema"] = {name: value for name, value in content["g_ema"].items() if "noises" not in name}

    generator = parse_rosinality(saved(content))

    assert_ours(generator.tensors, but=("noise_const",))
    assert any("fixed noise" in note for note in generator.notes)


def test_a_whole_training_checkpoint_is_read() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.ones(2)
    optimizer.step()
    extras = {
        "g_optim": optimizer.state_dict(),
        "args": argparse.Namespace(path="x", size=32),
        "ada_aug_p": 0.5,
        "d": torch.nn.Linear(2, 2).state_dict(),
        "scalar": np.float64(2.0),
    }

    assert_ours(parse_rosinality(saved(checkpoint(**extras))).tensors)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda g: g.pop("convs.3.activate.bias"), r"lacks 1 tensors \(convs.3.activate.bias"),
        (lambda g: g.update({"convs.9.extra": torch.ones(1)}), r"unexpected 1 tensors \(convs.9.extra"),
        (lambda g: g.update({"convs.0.conv.blur.kernel": torch.ones(4, 4)}), r"blur.kernel must be"),
        (lambda g: g.update({"conv1.conv.weight": torch.ones(1, 8, 8, 3, 3)}), r"conv1.conv.weight must"),
        (lambda g: g.update({"input.input": g["input.input"].long()}), r"float64, got int64"),
        (lambda g: g.update({"style.1.bias": "text"}), r"style.1.bias must be a tensor"),
        (lambda g: g.pop("to_rgbs.2.conv.weight"), r"tensors"),
        (lambda g: g.pop("input.input"), r"must hold a generator"),
    ],
)
def test_a_generator_that_does_not_fit_is_refused_by_name(change: Any, text: str) -> None:
    content = checkpoint()
    change(content["g_ema"])

    with pytest.raises(CheckpointRejected, match=text):
        parse_rosinality(saved(content))


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self.marker).touch, (self.marker,)


def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(CheckpointRejected) as caught:
        parse_rosinality(saved(checkpoint(extra=Evil(marker))))

    assert caught.value.offender in ("pathlib.Path.touch", "builtins.getattr", "__builtin__.getattr")
    assert not marker.exists()


def repacked(data: bytes, compression: int, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        for name, content in more.items():
            new.writestr(name, content)
    return buffer.getvalue()


def test_zips_that_torch_does_not_write_are_refused() -> None:
    data = saved(checkpoint())

    with pytest.raises(CheckpointRejected, match="none compressed"):
        parse_rosinality(repacked(data, zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointRejected, match=r"one data\.pkl, got 2"):
        parse_rosinality(repacked(data, zipfile.ZIP_STORED, **{"other/data.pkl": b""}))
    with pytest.raises(CheckpointRejected):
        parse_rosinality(data[: len(data) // 2])
    with pytest.raises(CheckpointRejected, match="must hold a dict"):
        parse_rosinality(saved([1, 2]))


def test_a_tensor_larger_than_its_file_is_refused() -> None:
    content = checkpoint()
    content["g_ema"]["style.1.weight"] = torch.zeros(1).expand(2**20, 2**20)

    with pytest.raises(CheckpointRejected, match="inside its storage"):
        parse_rosinality(saved(content))
