"""The reference's snapshots are read to the same numbers, and their arguments mean what they meant there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rosacea_model.config import GeneratorConfig
from rosacea_model.errors import CheckpointRejected
from rosacea_model.files.tensors import expected_tensors, is_buffer
from rosacea_model.importers.snapshot import NetworkRecord, generator_config, passed_by, read_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

KINDS = ("unconditional", "conditional")
CONFIG = GeneratorConfig(
    z_dim=4, w_dim=6, img_resolution=16, mapping_layers=2, channel_base=64, channel_max=8, num_fp16_res=2
)
SIZES = {"z_dim": 4, "c_dim": 0, "w_dim": 6, "img_resolution": 16, "img_channels": 3}
WIDTHS = {"channel_base": 64, "channel_max": 8, "num_fp16_res": 2, "conv_clamp": 256}


def record(config: GeneratorConfig = CONFIG, **init_kwargs: Any) -> NetworkRecord:
    tensors = {name: torch.zeros(shape) for name, shape in expected_tensors(config).items()}
    return NetworkRecord(
        class_name="Generator",
        init_kwargs=init_kwargs,
        tensors=tensors,
        parameters=frozenset(name for name in tensors if not is_buffer(name)),
        modules={},
    )


def nested(**synthesis: Any) -> dict[str, Any]:
    return {**SIZES, "mapping_kwargs": {"num_layers": 2}, "synthesis_kwargs": {**WIDTHS, **synthesis}}


def assert_equal(tensors: dict[str, Tensor], file: Path) -> None:
    with np.load(file) as arrays:
        assert set(tensors) == set(arrays.files)
        for name in arrays.files:
            assert tensors[name].dtype == torch.from_numpy(arrays[name]).dtype, name
            assert tensors[name].numpy().tobytes() == arrays[name].tobytes(), name
            assert tuple(tensors[name].shape) == arrays[name].shape, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_snapshot_is_read_bit_for_bit(
    golden: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_FILE", str(tmp_path / "canary"))

    snapshot = read_snapshot(golden / kind / "network-snapshot-000000.pkl")

    assert snapshot.D is not None and snapshot.G is not None
    assert_equal(snapshot.G_ema.tensors, golden / kind / "generator.npz")
    assert_equal(snapshot.D.tensors, golden / kind / "discriminator.npz")
    for name, tensor in snapshot.G.tensors.items():
        scale = 1.01 if name in snapshot.G.parameters else 1.0
        torch.testing.assert_close(tensor, snapshot.G_ema.tensors[name] * scale)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_snapshot_tells_how_it_was_made(golden: Path, kind: str) -> None:
    made = json.loads((golden / kind / "config.json").read_text())
    snapshot = read_snapshot(golden / kind / "network-snapshot-000000.pkl")
    config = generator_config(snapshot.G_ema)

    assert snapshot.D is not None
    assert snapshot.G_ema.init_kwargs == made["G"]
    assert snapshot.D.init_kwargs == made["D"]
    assert snapshot.augment_p == 0.25
    assert snapshot.training_set_kwargs["resolution"] == 32
    assert {name: getattr(config, name) for name in SIZES} == {name: made["G"][name] for name in SIZES}
    assert config.mapping_layers == made["G"]["mapping_kwargs"]["num_layers"]
    synthesis = made["G"]["synthesis_kwargs"]
    assert {name: getattr(config, name) for name in synthesis} == synthesis
    assert {name for name in snapshot.G_ema.tensors if is_buffer(name)} == (
        set(snapshot.G_ema.tensors) - snapshot.G_ema.parameters
    )


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_that_a_file_leaves_open_are_read_off_its_modules(golden: Path, kind: str) -> None:
    network = read_snapshot(golden / kind / "network-snapshot-000000.pkl").G_ema
    known = generator_config(network)
    kwargs = {**network.init_kwargs, "mapping_kwargs": {}}
    kwargs["synthesis_kwargs"] = {
        name: value for name, value in kwargs["synthesis_kwargs"].items() if name.startswith("channel")
    }

    config = generator_config(replace(network, init_kwargs=kwargs))

    assert config.conv_clamp == known.conv_clamp
    assert config.mapping_layers == known.mapping_layers
    assert [config.runs_in_fp16(r) for r in config.block_resolutions] == [
        known.runs_in_fp16(r) for r in known.block_resolutions
    ]


def test_nested_and_flat_arguments_mean_the_same() -> None:
    flat: dict[str, Any] = {**SIZES, **WIDTHS, "mapping_kwargs": {"num_layers": 2}}
    flat["fused_modconv_default"] = "inference_only"

    assert generator_config(record(**nested())) == CONFIG
    assert generator_config(record(**flat)) == CONFIG


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_the_architecture_is_honoured(architecture: Any) -> None:
    config = replace(CONFIG, architecture=architecture)

    assert generator_config(record(config, **nested(architecture=architecture))) == config


def test_arguments_that_change_nothing_are_accepted() -> None:
    harmless = {"resample_filter": [1, 3, 3, 1], "activation": "lrelu", "use_noise": True, "block_kwargs": {}}

    assert generator_config(record(**nested(**harmless))) == CONFIG


def test_what_forks_add_for_training_alone_is_passed_by_with_its_name() -> None:
    kwargs = nested()
    kwargs["mapping_kwargs"] |= {"freeze_layers": 0, "freeze_embed": False, "w_avg_beta": 0.99}

    assert generator_config(record(**kwargs)) == CONFIG
    (note,) = passed_by(record(**kwargs))
    assert "freeze_embed=False, freeze_layers=0, w_avg_beta=0.99" in note


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resample_filter", [1, 2, 1]),
        ("activation", "relu"),
        ("use_noise", False),
        ("block_kwargs", {"x": 1}),
        ("resolution_w", 512),
        ("conv_clamp", "much"),
        ("architecture", "dense"),
        ("channel_base", 1.5),
    ],
)
def test_an_argument_that_cannot_be_honoured_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(CheckpointRejected, match=name):
        generator_config(record(**nested(**{name: value})))


@pytest.mark.parametrize(("name", "value"), [("lr_multiplier", 0.1), ("activation", "relu"), ("depth", 3)])
def test_a_mapping_argument_that_cannot_be_honoured_is_refused_by_name(name: str, value: object) -> None:
    kwargs: dict[str, Any] = {**nested(), "mapping_kwargs": {"num_layers": 2, name: value}}
    with pytest.raises(CheckpointRejected, match=name):
        generator_config(record(**kwargs))


def test_a_missing_size_is_refused_by_name() -> None:
    kwargs = nested()
    del kwargs["img_channels"]
    with pytest.raises(CheckpointRejected, match="img_channels is missing"):
        generator_config(record(**kwargs))


def test_layers_that_the_arguments_do_not_tell_are_not_dropped_in_silence() -> None:
    with pytest.raises(CheckpointRejected, match=r"12 unexpected \(mapping.fc2.weight, mapping.fc2.bias"):
        generator_config(record(replace(CONFIG, mapping_layers=8), **nested()))


def test_tensors_of_another_shape_or_type_are_refused() -> None:
    network = record(**nested())
    network.tensors["mapping.w_avg"] = torch.zeros(7)
    with pytest.raises(CheckpointRejected, match=r"mapping.w_avg is 7, not 6"):
        generator_config(network)
    network.tensors["mapping.w_avg"] = torch.zeros(6, dtype=torch.float16)
    with pytest.raises(CheckpointRejected, match=r"must be float32, 1 are not \(mapping.w_avg"):
        generator_config(network)


def test_a_stylegan3_generator_is_refused_as_such() -> None:
    network = record(**nested())
    with pytest.raises(CheckpointRejected, match="StyleGAN3"):
        generator_config(replace(network, modules={"synthesis.input": {"class_name": "SynthesisInput"}}))
    network.tensors["synthesis.L0_36_512.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointRejected, match="StyleGAN3"):
        generator_config(network)


def test_a_discriminator_is_not_taken_for_a_generator() -> None:
    with pytest.raises(CheckpointRejected, match="class Generator, got Discriminator"):
        generator_config(replace(record(**nested()), class_name="Discriminator"))


def test_an_unreadable_path_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRejected, match=r"absent.pkl: cannot be read"):
        read_snapshot(tmp_path / "absent.pkl")
