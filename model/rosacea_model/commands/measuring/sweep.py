"""`rosacea sweep`: trains one model for each combination of settings and seed, and compares them in a report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...metrics.encoders.choose import EncoderName
from ...metrics.sweep.plan import STUDY
from ..options import with_settings

if TYPE_CHECKING:
    from ...data.dataset import LabelledImages
    from ...metrics.sweep.plan import SweepPlan

ENVIRONMENT = "ROSACEA_SWEEP_"
VARIED = ("gamma", "freeze_d", "seed")


@partial(with_settings, prefix=ENVIRONMENT, without=VARIED)
def sweep(
    data: Annotated[Path, typer.Option(metavar="PATH", help="Zip or folder of square images of one size.")],
    outdir: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the sweep, to create or to continue in.")],
    r1_gamma: Annotated[str | None, typer.Option(metavar="N,N,...", help="Weights of R1 to compare.")] = None,
    freeze_d: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Numbers of frozen discriminator layers to compare.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Train each combination with seeds 0 to N - 1.")] = 3,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help=f"Settings to begin with, as for train; {STUDY} = the study's ten runs.")
    ] = "auto",
    kimg_scale: Annotated[
        float, typer.Option(min=1e-6, metavar="NUMBER", help="Multiply every setting in kimg by this.")
    ] = 1.0,
    cond: Annotated[bool, typer.Option("--cond", help="Train conditional models, on the labels of the data.")] = False,
    init_from: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Trained networks to start from, where runs start from some.")
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Start even if MODEL fits only in part.")
    ] = False,
    holdout: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Real images that no run trains on, to judge by; unset = DATA.")
    ] = None,
    encoder: Annotated[EncoderName, typer.Option(help="Encoder of KID, by which the runs are compared.")] = (
        EncoderName.builtin
    ),
    fakes: Annotated[int, typer.Option(min=10, metavar="N", help="Faces of each snapshot that KID compares.")] = 300,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Device to train on.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Print the command of each run, and stop.")] = False,
    **settings: Any,
) -> None:
    """Train one model for each combination of settings and seed, and write a report that compares them.

    The runs go one after the other, each as `rosacea train`. The same command again continues where it was stopped or
    killed. A winner is named only where the intervals allow it.
    """
    from ...metrics.encoders.choose import open_encoder
    from ...metrics.images import DatasetImages
    from ...metrics.sweep.report import write_sweep_report
    from ...metrics.sweep.snapshots import SnapshotJudge
    from ...metrics.sweep.training import SweepTrainer

    stated = {name: value for name, value in settings.items() if value is not None}
    images = _images(data, outdir, cond=cond)
    plan = _plan(
        images,
        factors={"gamma": _numbers("--r1-gamma", r1_gamma, float), "freeze_d": _numbers("--freeze-d", freeze_d, int)},
        seeds=range(seeds),
        preset=preset,
        stated=stated,
        kimg_scale=kimg_scale,
        init_from=init_from,
        allow_partial=allow_partial,
    )
    networks = ["--init-from", str(init_from)] if init_from else []
    trainer = SweepTrainer(
        plan=plan,
        outdir=outdir,
        common=["--data", str(data), *(["--cond"] if cond else []), "--device", device],
        init_from=[*networks, *(["--allow-partial"] if allow_partial else [])],
        say=partial(print, flush=True),
    )
    if dry_run:
        typer.echo("\n".join(trainer.command(run) for run in plan.runs))
        return
    images.check()
    judge = SnapshotJudge(
        reals=DatasetImages(holdout or data, labels=cond),
        encoder=open_encoder(encoder),
        folder=outdir,
        fakes=fakes,
        seen=holdout is None,
    )
    if judge.reals.resolution != images.resolution:
        raise ValueError(f"--holdout must have {images.resolution} px like the data, got {judge.reals.resolution}")
    trainer.say(f"{len(plan.runs)} runs, {plan.total_kimg:g} kimg in all, on {len(images)} images; one after the other")
    said = ""
    for outcomes in trainer.train_all():
        said = write_sweep_report(trainer, outcomes, images.fingerprint(), judge)
    trainer.say(said)
    if failed := [name for name, outcome in outcomes.items() if outcome.failure]:
        typer.echo(f"{len(failed)} of {len(outcomes)} runs failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _images(data: Path, outdir: Path, *, cond: bool) -> LabelledImages:
    from ...data.dataset import LabelledImages
    from ..train import check_places

    check_places(data, outdir)
    images = LabelledImages(data, labels=cond)
    if cond and not images.label_dim:
        raise ValueError(f"--cond needs labels, and {data} has none: neither class folders nor a dataset.json")
    return images


def _plan(
    images: LabelledImages,
    *,
    factors: dict[str, list[Any]],
    seeds: range,
    preset: str,
    stated: dict[str, Any],
    kimg_scale: float,
    init_from: Path | None,
    allow_partial: bool,
) -> SweepPlan:
    from ...metrics.sweep.plan import SweepData, factorial, study
    from ...training.transfer import load_source

    source = load_source(init_from, allow_partial=allow_partial).config if init_from else None
    shape = SweepData(resolution=images.resolution, channels=images.channels, label_width=images.label_dim)
    varied = {name: levels for name, levels in factors.items() if levels}
    if preset != STUDY:
        return factorial(varied, seeds, preset=preset, stated=stated, data=shape, kimg_scale=kimg_scale, source=source)
    if varied:
        raise ValueError(f"--preset {STUDY} has its own values of R1 and freeze-D: leave out --r1-gamma and --freeze-d")
    return study(seeds, stated=stated, data=shape, kimg_scale=kimg_scale, source=source)


def _numbers(flag: str, text: str | None, kind: type[float] | type[int]) -> list[Any]:
    """The numbers of a list such as `2,5,10`."""
    try:
        return [kind(word) for word in text.split(",")] if text is not None else []
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{flag} must be {wanted} with commas between, such as 2,5,10, got {text!r}") from None
