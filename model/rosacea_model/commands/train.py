"""`rosacea train`. Only what trains loads torch."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..training.config import CONFIG_NAME, PRESETS, TrainConfig, going_on, read_config, resolve
from .options import with_settings

if TYPE_CHECKING:
    from ..data.dataset import LabelledImages
    from ..training.transfer import StartingNetworks

MANY_IMAGES = 2000  # reading them takes seconds
UNSTEPPED_IN_FLOAT16 = 3  # float16 overflows now and then where float32 does not


class PrecisionMode(StrEnum):
    """Precision on CUDA; a CPU always computes in float32."""

    mixed = "mixed"
    fp32 = "fp32"


FP16_RESOLUTIONS = {PrecisionMode.mixed: 4, PrecisionMode.fp32: 0}
PRESET_NAMES = ", ".join(name for name in PRESETS if not name.startswith("rff300")) + ", rff300-exp01 to -exp10"


@with_settings
def train(
    data: Annotated[Path, typer.Option(metavar="PATH", help="Zip or folder of square images of one size.")],
    outdir: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run, to create or to continue in.")],
    preset: Annotated[str, typer.Option(metavar="NAME", help=f"Settings to begin with: {PRESET_NAMES}.")] = "auto",
    cond: Annotated[bool, typer.Option("--cond", help="Train a conditional model, on the labels of the data.")] = False,
    subset: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train on N of the images, chosen by --seed.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in RUN, if there is one.")] = False,
    init_from: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Model folder, run, or snapshot (.pkl, .pt) to start from.")
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Start even if MODEL fits only in part.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Device to train on.")] = "auto",
    precision: Annotated[PrecisionMode | None, typer.Option(help="Precision on CUDA (default mixed).")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print every setting as it would be, and stop.")
    ] = False,
    **settings: Any,
) -> None:
    """Train StyleGAN2-ADA on a folder or zip of images; the same command with --resume continues the run.

    What no flag, variable or file states comes from the preset, and else follows from the resolution and the batch.
    """
    from ..training.reporting.events import check_installed
    from ..training.transfer import load_source

    if settings["tensorboard"]:
        check_installed()
    stated = {**hardware(device, precision), **{name: value for name, value in settings.items() if value is not None}}
    check_places(data, outdir)
    before = config_of(outdir) if resume else None
    images = open_images(data, before, cond=cond, subset=subset, seed=settings["seed"])
    # A run that goes on has its networks, and need not be given again where they came from.
    source = load_source(init_from, allow_partial=allow_partial) if init_from and before is None else None
    config = config_for(images, source, preset, stated, before)
    if before is None:
        check_images(images)
    if dry_run:
        typer.echo(config.to_json(), nl=False)
    else:
        start(config, outdir, images, source, resume=resume)


def check_places(data: Path, outdir: Path) -> None:
    """Raise ValueError if the run's output pictures would become training images."""
    if data.is_dir() and outdir.resolve().is_relative_to(data.resolve()):
        raise ValueError(f"--outdir must lie outside of --data ({data}), got {outdir}")


def config_of(outdir: Path) -> TrainConfig | None:
    """The config of the run to resume; None before its first checkpoint."""
    from ..training.checkpoint import existing

    path = outdir / CONFIG_NAME
    return read_config(path) if existing(outdir / "checkpoints") and path.exists() else None


def open_images(
    data: Path, before: TrainConfig | None, *, cond: bool, subset: int | None, seed: int | None
) -> LabelledImages:
    """Open the training images, with labels if requested or if the resumed run has them."""
    from ..data.dataset import LabelledImages

    if seed is None:
        seed = before.seed if before else 0
    labels = cond or (before is not None and before.label_width > 0)
    images = LabelledImages(data, labels=labels, subset=subset, seed=seed)
    if cond and not images.label_dim:
        raise ValueError(f"--cond needs labels, and {data} has none: neither class folders nor a dataset.json")
    return images


def check_images(images: LabelledImages) -> None:
    """Read all images before the run begins; DataRejected names the unusable ones. Each torchrun process reads its
    share."""
    from ..training.distributed import processes

    rank = int(os.environ.get("RANK", "0"))
    if rank == 0 and len(images) > MANY_IMAGES:
        typer.echo(f"reads each of {len(images)} images once, before the first step")
    images.check(rank=rank, world=processes())


def config_for(
    images: LabelledImages,
    source: StartingNetworks | None,
    preset: str,
    stated: dict[str, Any],
    before: TrainConfig | None = None,
) -> TrainConfig:
    """Config of a run on these images and processes; `before` is the config of the run that it resumes."""
    from ..training.distributed import processes

    if before is not None:
        shape = {"resolution": images.resolution, "img_channels": images.channels, "label_width": images.label_dim}
        return going_on(before, preset, {**stated, **shape})
    return resolve(
        preset,
        stated,
        resolution=images.resolution,
        img_channels=images.channels,
        label_width=images.label_dim,
        processes=processes(),
        source=source.config if source else None,
    )


def start(
    config: TrainConfig, outdir: Path, images: LabelledImages, source: StartingNetworks | None, *, resume: bool
) -> None:
    """Train, alone or as one of torchrun's processes."""
    from ..classes import usable_classes
    from ..data.source import open_source
    from ..metrics.fidelity.snapshots import KidMeasure
    from ..training.distributed import join
    from ..training.loop import Run, training_loop
    from ..training.reporting.report import write_report

    datasheet = open_source(images.path, labels=False).datasheet
    with join(config.device) as ranks:
        run = Run(
            path=outdir,
            images=images,
            ranks=ranks,
            resume=resume,
            source=source,
            datasheet=datasheet,
            data=images.fingerprint(),
            classes=usable_classes(images.classes, config.label_width),
            measure=KidMeasure() if images.channels == 3 else None,
        )
        state = training_loop(config, run)
        if ranks.leads:
            typer.echo(
                f"stopped at {int(state.nimg) / 1000:g} of {config.total_kimg:g} kimg; report: {write_report(outdir)}"
            )


def hardware(device: str, precision: PrecisionMode | None) -> dict[str, Any]:
    """Settings that depend on the machine."""
    import torch

    from ..device import usable_device

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    usable_device(device)
    settings: dict[str, Any] = {"device": device}
    if precision is not None:
        settings["num_fp16_res"] = FP16_RESOLUTIONS[precision]
    if device != "cpu" and precision is not PrecisionMode.fp32:
        settings["bad_steps"] = UNSTEPPED_IN_FLOAT16
    return settings
