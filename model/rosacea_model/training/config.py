"""The settings of a training run: one frozen dataclass, and a table of presets. Needs no torch.

Example:

    config = resolve("small-data", {"total_kimg": 200}, resolution=128)
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..config import Architecture, GeneratorConfig
from ..sample import check_seed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Aug = Literal["noaug", "fixed", "ada"]

# The groups of the augmentation pipe by their initials; its test checks that the pipe knows the same.
AUGPIPES = ("blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc")
RESOLUTION_LIMIT = 4096
EMA_RAMPUP = 0.05
CONFIG_NAME = "train.json"
OFF: Any = object()  # states that a setting is to be None; None itself states nothing
ADA_KIMG, ADA_KIMG_TRANSFER = 500.0, 100.0

# What a run may change when it goes on; everything else would make it another run.
MAY_CHANGE_ON_RESUME = frozenset(
    (
        "total_kimg",
        "tick_kimg",
        "snap_kimg",
        "snap_minutes",
        "keep_last",
        "device",
        "threads",
        "workers",
        "grid_images",
        "tensorboard",
        "bad_steps",
    )
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a training run besides its data. kimg = thousands of real images shown."""

    # What the data is like.
    resolution: int
    img_channels: int = 3
    label_width: int = 0  # 0 = unconditional
    mirror: bool = False  # every image also flipped, which doubles the data set

    # How long, and in what portions.
    total_kimg: float
    batch: int  # over all processes
    batch_gpu: int  # micro batch: gradients accumulate up to `batch`
    seed: int = 0

    # Networks.
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 2
    channel_base: int = 32768
    channel_max: int = 512
    num_fp16_res: int = 4  # the highest N resolutions in float16 on CUDA; 0 = --precision fp32
    conv_clamp: float | None = 256.0
    d_architecture: Architecture = "resnet"
    mbstd_group: int = 4
    freeze_d: int = 0  # discriminator layers that do not train, from the image on

    # Optimisers.
    glr: float = 0.0025
    dlr: float = 0.0025
    beta1: float = 0.0
    beta2: float = 0.99
    adam_eps: float = 1e-8

    # Regularisation; an interval of N = in every N-th step, with N times the weight. Adam's rate and betas make up
    # for those extra steps, unless the weight is 0 and there are none.
    gamma: float  # R1 weight; 0 = no R1
    r1_interval: int = 16
    pl_weight: float = 2.0  # 0 = no path length regularisation
    pl_interval: int = 4
    pl_batch_shrink: int = 2
    pl_decay: float = 0.01
    style_mixing: float = 0.9  # probability

    # Average of the generator's weights.
    ema_kimg: float  # half-life
    ema_rampup: float | None = EMA_RAMPUP  # half-life at most this part of the images so far; None = off

    # Augmentation.
    aug: Aug = "ada"
    augpipe: str = "bgc"
    ada_target: float = 0.6  # wanted mean sign of the discriminator's output for reals
    ada_interval: int = 4
    ada_kimg: float = ADA_KIMG  # images in which p can rise from 0 to 1
    p: float = 0.0  # with aug "fixed": the probability; with "ada": where it starts
    p_max: float = 0.8  # "ada" never goes beyond

    # What is seen and kept. None of these reach the numbers.
    tick_kimg: float = 4.0
    snap_kimg: float = 200.0
    snap_minutes: float | None = 30.0  # also save after this many minutes; None = never
    keep_last: int = 3
    grid_images: int = 32
    tensorboard: bool = False  # event files beside stats.jsonl

    # Where and how it runs.
    device: str = "cpu"
    threads: int = 0  # CPU threads of a process; 0 = torch's choice
    workers: int = 0  # processes that load images; 0 = the training process itself
    tf32: bool = False
    bad_steps: int = 0  # steps in a row that each pass may skip for NaN or infinite gradients

    def __post_init__(self) -> None:
        for name, low, high in RANGES:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value:g}")
        check_seed("seed", self.seed)
        _choice("aug", self.aug, get_args(Aug))
        _choice("augpipe", self.augpipe, AUGPIPES)
        _choice("d_architecture", self.d_architecture, get_args(Architecture))
        _multiple("batch", self.batch, "batch_gpu", self.batch_gpu)
        group = min(self.mbstd_group, self.batch_gpu)
        _multiple("batch_gpu", self.batch_gpu, "the minibatch-stddev group", group)
        if self.aug == "ada" and self.p > self.p_max:
            raise ValueError(f"p ({self.p:g}) must be at most p_max ({self.p_max:g})")
        if self.aug != "noaug" and self.img_channels not in (1, 3):
            raise ValueError(f"augmentation needs 1 or 3 channels, got {self.img_channels}: pass aug noaug")
        layers = freezable_layers(self.resolution, self.d_architecture)
        if self.freeze_d > layers:
            raise ValueError(f"freeze_d must be at most {layers} at {self.resolution} px, got {self.freeze_d}")
        self.generator()  # checks the sizes of the networks

    def generator(self) -> GeneratorConfig:
        """The generator's config."""
        return GeneratorConfig(
            z_dim=self.z_dim,
            c_dim=self.label_width,
            w_dim=self.w_dim,
            img_resolution=self.resolution,
            img_channels=self.img_channels,
            mapping_layers=self.mapping_layers,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            num_fp16_res=self.num_fp16_res,
            conv_clamp=self.conv_clamp,
        )

    def check_world(self, processes: int) -> None:
        """Raise ValueError unless all processes get equally many micro-batches."""
        _multiple("batch", self.batch, f"batch_gpu times {processes} processes", self.batch_gpu * processes)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what `to_json` wrote; an unknown or missing entry is a ValueError."""
        entries = json.loads(text)
        if not isinstance(entries, dict):
            raise ValueError("the training config must be a JSON object")
        if unknown := sorted(entries.keys() - {field.name for field in fields(cls)}):
            raise ValueError(f"the training config holds {', '.join(unknown)}, which this version does not know")
        try:
            return cls(**entries)
        except TypeError as error:
            raise ValueError(f"the training config is not usable: {error}") from error

    def check_continues(self, other: TrainConfig) -> None:
        """Raise ValueError, naming both values, if resuming with this config would change the run."""
        for field in fields(self):
            before, now = getattr(other, field.name), getattr(self, field.name)
            if before != now and field.name not in MAY_CHANGE_ON_RESUME:
                raise ValueError(f"{field.name} was {before!r} in this run, got {now!r}: resume it as it was")


def read_config(path: Path) -> TrainConfig:
    """Read a run's config; ValueError names the file if it is invalid."""
    try:
        return TrainConfig.from_json(path.read_text())
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: not the config of a run that this version can read: {error}") from error


RANGES: tuple[tuple[str, float, float], ...] = (
    ("resolution", 8, RESOLUTION_LIMIT),
    ("img_channels", 1, 4),
    ("label_width", 0, 2**16),
    ("total_kimg", 0, 1e9),
    ("batch", 1, 2**16),
    ("batch_gpu", 1, 2**16),
    ("mbstd_group", 1, 2**16),
    ("freeze_d", 0, 64),
    ("glr", 0, 1),
    ("dlr", 0, 1),
    ("beta1", 0, 0.999),
    ("beta2", 0, 0.99999),
    ("adam_eps", 1e-16, 1e-2),
    ("gamma", 0, 1e6),
    ("r1_interval", 1, 2**16),
    ("pl_weight", 0, 1e6),
    ("pl_interval", 1, 2**16),
    ("pl_batch_shrink", 1, 2**16),
    ("pl_decay", 0, 1),
    ("style_mixing", 0, 1),
    ("ema_kimg", 0, 1e6),
    ("ema_rampup", 0, 1),
    ("ada_target", -1, 1),
    ("ada_interval", 1, 2**16),
    ("ada_kimg", 1e-3, 1e9),
    ("p", 0, 1),
    ("p_max", 0, 1),
    ("tick_kimg", 1e-3, 1e6),
    ("snap_kimg", 1e-3, 1e9),
    ("snap_minutes", 1e-3, 1e6),
    ("keep_last", 1, 2**16),
    ("grid_images", 1, 1024),
    ("threads", 0, 4096),
    ("workers", 0, 256),
    ("bad_steps", 0, 100),
)


def freezable_layers(resolution: int, architecture: Architecture) -> int:
    """Number of discriminator layers that can be frozen: those of all blocks above 4x4."""
    blocks = int(math.log2(resolution)) - 2
    return {"orig": 2 * blocks + 1, "skip": 3 * blocks, "resnet": 3 * blocks + 1}[architecture]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named preset. What it does not set is derived from the resolution, as in `auto`."""

    resolution: int | None = None  # the only one that it is for
    needs_source: bool = False  # starts from trained networks (--init-from)
    settings: Mapping[str, Any]


def _paper(**settings: Any) -> Preset:
    return Preset(settings={"total_kimg": 25000, "mapping_layers": 8, "ema_rampup": None, **settings})


def _study(*, gamma: float, freeze_d: int, kimg: int, transfer: bool, augpipe: str = "bg") -> Preset:
    settings = {
        "gamma": gamma,
        "freeze_d": freeze_d,
        "total_kimg": kimg,
        "augpipe": augpipe,
        "batch": 8,
        "mirror": True,
        "seed": 0,
        "snap_kimg": 40,
    }
    return Preset(resolution=512, needs_source=transfer, settings=settings)


PRESETS: Mapping[str, Preset] = {
    "auto": Preset(settings={}),
    "stylegan2": _paper(batch=32, mbstd_group=4, channel_base=32768, glr=0.002, dlr=0.002, gamma=10, ema_kimg=10),
    "paper256": _paper(batch=64, mbstd_group=8, channel_base=16384, glr=0.0025, dlr=0.0025, gamma=1, ema_kimg=20),
    "paper512": _paper(batch=64, mbstd_group=8, channel_base=32768, glr=0.0025, dlr=0.0025, gamma=0.5, ema_kimg=20),
    "paper1024": _paper(batch=32, mbstd_group=4, channel_base=32768, glr=0.002, dlr=0.002, gamma=2, ema_kimg=10),
    "cifar": Preset(
        settings={
            "total_kimg": 100000,
            "batch": 64,
            "mbstd_group": 32,
            "channel_base": 32768,
            "glr": 0.0025,
            "dlr": 0.0025,
            "gamma": 0.01,
            "ema_kimg": 500,
            "mapping_layers": 2,
            "pl_weight": 0,
            "style_mixing": 0,
            "d_architecture": "orig",
        }
    ),
    # 100 to 1000 images. Against `auto`: R1 twice as strong (`derived`), lower learning rates, flips, a p that keeps
    # pace with overfitting that comes within tens of kimg, and no colour changes, which are what leaks into skin.
    "small-data": Preset(
        settings={
            "total_kimg": 1000,
            "glr": 0.002,
            "dlr": 0.002,
            "mirror": True,
            "augpipe": "bg",
            "ada_kimg": 100,
            "snap_kimg": 20,
            "tick_kimg": 1,
        }
    ),
    # The study's ten, but for two things: p never goes beyond p_max, and a start from FFHQ keeps all of its 8 mapping
    # layers, where the study took the first 2. Precision is the study's: --precision fp32 departs from it.
    "rff300-exp01": _study(gamma=6.5536, freeze_d=0, kimg=3000, transfer=False, augpipe="bgc"),
    "rff300-exp02": _study(gamma=10, freeze_d=0, kimg=5000, transfer=False),
    "rff300-exp03": _study(gamma=6.5536, freeze_d=0, kimg=2000, transfer=True),
    "rff300-exp04": _study(gamma=6.5536, freeze_d=4, kimg=5000, transfer=True),
    "rff300-exp05": _study(gamma=6.5536, freeze_d=13, kimg=5000, transfer=True),
    "rff300-exp06": _study(gamma=10, freeze_d=13, kimg=5000, transfer=False),
    "rff300-exp07": _study(gamma=3, freeze_d=13, kimg=5000, transfer=True),
    "rff300-exp08": _study(gamma=2, freeze_d=13, kimg=5000, transfer=True),
    "rff300-exp09": _study(gamma=6.5536, freeze_d=17, kimg=5000, transfer=True),
    "rff300-exp10": _study(gamma=6.5536, freeze_d=10, kimg=1500, transfer=True),
    # An hour or two on a CPU: the second stretch of the demo model that comes with the package.
    "demo-64": Preset(
        settings={
            "total_kimg": 100,
            "batch": 8,
            "channel_base": 2048,
            "channel_max": 64,
            "gamma": 0.1,
            "ema_kimg": 2.5,
            "ema_rampup": None,
            "ada_kimg": ADA_KIMG_TRANSFER,
            "pl_weight": 0,
            "style_mixing": 0,
            "aug": "noaug",
            "tick_kimg": 1,
            "snap_kimg": 10,
            "threads": 1,
        }
    ),
    # Seconds on a CPU with everything switched on: what the golden run and the tests use.
    "smoke-16": Preset(
        resolution=16,
        settings={
            "total_kimg": 1,
            "batch": 4,
            "batch_gpu": 4,
            "mbstd_group": 4,
            "z_dim": 32,
            "w_dim": 32,
            "channel_base": 256,
            "channel_max": 16,
            "gamma": 1,
            "r1_interval": 2,
            "pl_interval": 2,
            "ada_interval": 2,
            "ada_kimg": 0.064,
            "p": 0.25,
            "ema_kimg": 0.05,
            "tick_kimg": 0.1,
            "snap_kimg": 0.5,
            "grid_images": 4,
            "threads": 1,
        },
    ),
}
GAMMA_FACTOR = {"small-data": 2.0}
# What follows the networks that a run starts from: their shapes as they are, and two settings.
FOLLOWED = ("z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max")
FOLLOWING = (*FOLLOWED, "ada_kimg", "ema_rampup")


def resolve(
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    resolution: int,
    img_channels: int = 3,
    label_width: int = 0,
    processes: int = 1,
    source: GeneratorConfig | None = None,
) -> TrainConfig:
    """Build a config from `overrides`, then the preset, then derived values. None = not set.

    `source` is the generator that the run starts from: unless stated, mapping depth and widths follow it, p may
    rise faster, and the average starts at its full half-life.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    row = PRESETS[preset]
    if row.resolution not in (None, resolution):
        raise ValueError(f"preset {preset} is for {row.resolution} px, the data has {resolution} px")
    if row.needs_source and source is None:
        raise ValueError(f"preset {preset} starts from trained networks of {row.resolution} px: pass --init-from")
    stated = {name: value for name, value in (overrides or {}).items() if value is not None}
    chosen = {**row.settings, **_following(source), **stated}
    batch = chosen.get("batch", auto_batch(resolution, processes))
    settings = {**derived(resolution, batch, processes), **chosen, "batch": batch}
    if "gamma" not in chosen:
        settings["gamma"] *= GAMMA_FACTOR.get(preset, 1.0)
    if "batch_gpu" in stated and "mbstd_group" not in chosen:
        settings["mbstd_group"] = min(settings["batch_gpu"], 4)
    config = TrainConfig(resolution=resolution, img_channels=img_channels, label_width=label_width, **_plain(settings))
    config.check_world(processes)
    return config


def going_on(before: TrainConfig, preset: str, stated: Mapping[str, Any]) -> TrainConfig:
    """Config of a resumed run: the old one with the given changes. None = not given.

    A preset is only checked: one that the run did not begin with is refused.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    given = _plain({name: value for name, value in stated.items() if value is not None})
    row = PRESETS[preset].settings
    from_preset = {name: row[name] for name in row if name not in given and name not in FOLLOWING}
    replace(before, **from_preset).check_continues(before)
    return replace(before, **given)


def auto_batch(resolution: int, processes: int) -> int:
    """Batch size of `auto`: 4096 / resolution images per process, at most 32, and at most 64 in total (one per process
    at least)."""
    return max(min(processes * min(4096 // resolution, 32), 64), processes)


def derived(resolution: int, batch: int, processes: int) -> dict[str, Any]:
    """Settings that `auto` derives from resolution and batch size."""
    rate = 0.002 if resolution >= 1024 else 0.0025
    per_process = max(batch // processes, 1)
    return {
        "total_kimg": 25000,
        "batch_gpu": per_process,
        "mbstd_group": min(per_process, 4),
        "channel_base": 32768 if resolution >= 512 else 16384,
        "glr": rate,
        "dlr": rate,
        "gamma": 0.0002 * resolution**2 / batch,
        "ema_kimg": batch * 10 / 32,
    }


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if value is OFF else value for name, value in settings.items()}


def _following(source: GeneratorConfig | None) -> dict[str, Any]:
    if source is None:
        return {}
    shape = {name: getattr(source, name) for name in FOLLOWED}
    return {**shape, "ada_kimg": ADA_KIMG_TRANSFER, "ema_rampup": None}


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _multiple(name: str, value: int, of: str, unit: int) -> None:
    if value % unit:
        raise ValueError(f"{name} ({value}) must be a multiple of {of} ({unit})")
