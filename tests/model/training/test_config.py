"""Presets are the tables of the reference and of the study; nonsense is refused by name, rule and value."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from rosacea_model.config import GeneratorConfig
from rosacea_model.networks.discriminator import Discriminator, DiscriminatorConfig
from rosacea_model.training.augment import AUGMENT_SETS
from rosacea_model.training.config import AUGPIPES, PRESETS, TrainConfig, freezable_layers, resolve

# kimg, batch, minibatch deviation group, channel base, learning rate, gamma, EMA kimg, ramp-up, mapping layers.
TABLE = {
    "stylegan2": (1024, 25000, 32, 4, 32768, 0.002, 10, 10, None, 8),
    "paper256": (256, 25000, 64, 8, 16384, 0.0025, 1, 20, None, 8),
    "paper512": (512, 25000, 64, 8, 32768, 0.0025, 0.5, 20, None, 8),
    "paper1024": (1024, 25000, 32, 4, 32768, 0.002, 2, 10, None, 8),
    "cifar": (32, 100000, 64, 32, 32768, 0.0025, 0.01, 500, 0.05, 2),
}
# Resolution: batch, gamma, EMA kimg.
AUTO = {1024: (4, 52.4288, 1.25), 512: (8, 6.5536, 2.5), 256: (16, 0.8192, 5), 128: (32, 0.1024, 10)}
# Starts from trained networks, gamma, frozen layers, augmentations, kimg.
STUDY = {
    1: (False, 6.5536, 0, "bgc", 3000),
    2: (False, 10, 0, "bg", 5000),
    3: (True, 6.5536, 0, "bg", 2000),
    4: (True, 6.5536, 4, "bg", 5000),
    5: (True, 6.5536, 13, "bg", 5000),
    6: (False, 10, 13, "bg", 5000),
    7: (True, 3, 13, "bg", 5000),
    8: (True, 2, 13, "bg", 5000),
    9: (True, 6.5536, 17, "bg", 5000),
    10: (True, 6.5536, 10, "bg", 1500),
}
FFHQ512 = GeneratorConfig(img_resolution=512, mapping_layers=8)


def plain(**settings: Any) -> TrainConfig:
    return TrainConfig(
        **{"resolution": 64, "total_kimg": 1, "batch": 8, "batch_gpu": 4, "gamma": 1, "ema_kimg": 1, **settings}
    )


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_is_its_row_of_the_reference(name: str) -> None:
    resolution, *row = TABLE[name]

    config = resolve(name, resolution=resolution, processes=2 if name == "cifar" else 8)

    assert row == [
        config.total_kimg,
        config.batch,
        config.mbstd_group,
        config.channel_base,
        config.glr,
        config.gamma,
        config.ema_kimg,
        config.ema_rampup,
        config.mapping_layers,
    ]
    assert (config.beta1, config.beta2, config.adam_eps, config.dlr) == (0, 0.99, 1e-8, config.glr)
    assert (config.channel_max, config.num_fp16_res, config.conv_clamp, config.z_dim) == (512, 4, 256, 512)


def test_cifar_has_no_path_length_no_mixing_and_a_plain_discriminator() -> None:
    config = resolve("cifar", resolution=32, processes=2)

    assert (config.pl_weight, config.style_mixing, config.d_architecture) == (0, 0, "orig")


@pytest.mark.parametrize("resolution", AUTO)
def test_auto_is_the_references_worked_values(resolution: int) -> None:
    config = resolve("auto", resolution=resolution)

    assert (config.batch, config.ema_kimg) == (AUTO[resolution][0], AUTO[resolution][2])
    assert config.gamma == pytest.approx(AUTO[resolution][1])
    assert config.channel_base == (32768 if resolution >= 512 else 16384)
    assert config.glr == config.dlr == (0.002 if resolution >= 1024 else 0.0025)
    assert (config.mapping_layers, config.mbstd_group, config.ema_rampup, config.total_kimg) == (2, 4, 0.05, 25000)
    assert (config.aug, config.augpipe, config.ada_target, config.ada_kimg) == ("ada", "bgc", 0.6, 500)
    assert (config.r1_interval, config.pl_interval, config.ada_interval) == (16, 4, 4)
    assert (config.pl_weight, config.pl_batch_shrink, config.pl_decay, config.style_mixing) == (2, 2, 0.01, 0.9)


@pytest.mark.parametrize("number", STUDY)
def test_an_experiment_is_its_row_of_the_study(number: int) -> None:
    transfer, gamma, frozen, augpipe, kimg = STUDY[number]

    config = resolve(f"rff300-exp{number:02}", resolution=512, source=FFHQ512 if transfer else None)

    assert (config.gamma, config.freeze_d, config.augpipe, config.total_kimg) == (gamma, frozen, augpipe, kimg)
    assert (config.ada_kimg, config.ema_rampup) == ((100, None) if transfer else (500, 0.05))
    assert (config.batch, config.mirror, config.seed, config.glr, config.dlr) == (8, True, 0, 0.0025, 0.0025)
    assert (config.channel_base, config.mbstd_group, config.ema_kimg, config.snap_kimg) == (32768, 4, 2.5, 40)
    assert config.mapping_layers == (8 if transfer else 2), "a start from 8 layers keeps all 8"


def test_an_experiment_with_transfer_asks_for_its_source() -> None:
    with pytest.raises(ValueError, match=r"rff300-exp03 starts from trained networks of 512 px: pass --init-from"):
        resolve("rff300-exp03", resolution=512)


def test_a_preset_for_one_size_refuses_another() -> None:
    with pytest.raises(ValueError, match="preset rff300-exp01 is for 512 px, the data has 256 px"):
        resolve("rff300-exp01", resolution=256)


def test_small_data_is_auto_with_stated_differences() -> None:
    auto, small = resolve("auto", resolution=128), resolve("small-data", resolution=128)

    assert small.gamma == pytest.approx(2 * auto.gamma)
    assert (small.glr, small.mirror, small.augpipe, small.ada_kimg, small.p_max) == (0.002, True, "bg", 100, 0.8)
    assert (small.batch, small.channel_base, small.mapping_layers) == (
        auto.batch,
        auto.channel_base,
        auto.mapping_layers,
    )


def test_what_is_stated_wins_over_preset_and_source() -> None:
    config = resolve("rff300-exp03", {"mapping_layers": 2, "gamma": 4.0, "kimg": None}, resolution=512, source=FFHQ512)

    assert (config.mapping_layers, config.gamma) == (2, 4)


def test_every_preset_resolves_and_survives_json() -> None:
    for name, preset in PRESETS.items():
        source = FFHQ512 if preset.needs_source else None
        config = resolve(name, resolution=preset.resolution or 32, source=source)
        assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 6}, r"batch \(6\) must be a multiple of batch_gpu \(4\)"),
        ({"mbstd_group": 3}, r"batch_gpu \(4\) must be a multiple of the minibatch-stddev group \(3\)"),
        ({"p": 0.9}, r"p \(0\.9\) must be at most p_max \(0\.8\)"),
        ({"p_max": 1.5}, r"p_max must be from 0 to 1, got 1\.5"),
        ({"gamma": float("nan")}, r"gamma must be from 0 to 1e\+06, got nan"),
        ({"aug": "diffaug"}, r"aug must be one of noaug, fixed, ada, got 'diffaug'"),
        ({"augpipe": "bgx"}, r"augpipe must be one of .*, got 'bgx'"),
        ({"freeze_d": 14}, r"freeze_d must be at most 13 at 64 px, got 14"),
        ({"resolution": 100}, r"img_resolution must be a power of two from 8 to 4096, got 100"),
        ({"img_channels": 4}, r"augmentation needs 1 or 3 channels, got 4"),
        ({"seed": -1}, r"seed must be from 0 to 2\*\*32 - 1, got -1"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain(**settings)


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch \(8\) must be a multiple of batch_gpu times 3 processes \(12\)"):
        plain().check_world(3)


def test_an_unknown_preset_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"preset must be one of auto, stylegan2, .*, got 'best'"):
        resolve("best", resolution=64)


def test_the_groups_of_augmentations_are_those_of_the_pipe() -> None:
    assert set(AUGPIPES) == set(AUGMENT_SETS)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_the_layers_that_can_be_frozen_are_the_discriminators(architecture: Any) -> None:
    sizes = GeneratorConfig(img_resolution=32, channel_base=64, channel_max=4, z_dim=4, w_dim=4)
    count = freezable_layers(32, architecture)

    Discriminator(sizes, DiscriminatorConfig(architecture=architecture, freeze_layers=count))
    with pytest.raises(ValueError, match=f"from 0 to {count}"):
        Discriminator(sizes, DiscriminatorConfig(architecture=architecture, freeze_layers=count + 1))


@pytest.mark.parametrize("module", ["training.config", "commands.train", "training.reporting.report"])
def test_the_command_line_is_there_without_torch(module: str) -> None:
    probe = f"import sys, rosacea_model.{module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_what_the_machine_decides_may_change_when_a_run_goes_on() -> None:
    plain(bad_steps=3, device="cuda", threads=2, workers=1).check_continues(plain())

    with pytest.raises(ValueError, match=r"adam_eps was 1e-08 in this run, got 1e-07: resume it as it was"):
        plain(adam_eps=1e-7).check_continues(plain())


def test_a_run_that_nobody_watches_saves_every_half_hour() -> None:
    assert resolve("auto", resolution=64).snap_minutes == 30


def test_the_demo_preset_is_what_the_demo_model_was_trained_with() -> None:
    config = resolve("demo-64", resolution=64)

    assert (config.total_kimg, config.batch, config.channel_base, config.channel_max) == (100, 8, 2048, 64)
    assert (config.gamma, config.ema_kimg, config.pl_weight, config.style_mixing) == (0.1, 2.5, 0, 0)
    assert (config.aug, config.threads, config.tick_kimg, config.snap_kimg) == ("noaug", 1, 1, 10)
