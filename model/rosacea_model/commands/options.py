"""Every setting of a run as an option of the command line: names, types and ranges are those of `TrainConfig`."""

from __future__ import annotations

import inspect
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from rosacea_model.training.config import AUGPIPES, OFF, RANGES, TrainConfig

from .sources import with_options, with_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

PREFIX = "ROSACEA_TRAIN_"
# What each says in the help, by panels. What is not here follows the data, or the machine (`--device`).
PANELS = {
    "Data": {
        "mirror": "Also train on every image flipped left to right.",
    },
    "Length and batches": {
        "total_kimg": "Length of the run, in thousands of real images shown (kimg).",
        "batch": "Images in a training step, over all processes.",
        "batch_gpu": "Images a process handles at once; gradients accumulate up to --batch.",
        "seed": "Seed of the weights, the order of images and all noise.",
    },
    "Networks": {
        "z_dim": "Dimensions of the input latent z.",
        "w_dim": "Dimensions of the intermediate latent w.",
        "mapping_layers": "Layers of the mapping network; with --init-from as many as there.",
        "channel_base": "A layer at resolution R has this number / R channels.",
        "channel_max": "Upper bound on channels per layer.",
        "num_fp16_res": "On CUDA, compute the highest N resolutions in float16.",
        "conv_clamp": "Clamp activations to this magnitude, or none.",
        "d_architecture": "Architecture of the discriminator.",
        "mbstd_group": "Images over which the discriminator takes a standard deviation.",
        "freeze_d": "Keep the first N layers of the discriminator, from the image on, as they are.",
    },
    "Optimizers": {
        "glr": "Learning rate of the generator.",
        "dlr": "Learning rate of the discriminator.",
        "beta1": "Adam's decay rate of the mean gradient.",
        "beta2": "Adam's decay rate of the mean squared gradient.",
        "adam_eps": "Adam's epsilon.",
        "bad_steps": "Skip up to N steps in a row whose gradients are not finite.",
    },
    "Regularization": {
        "gamma": "Weight of R1, the gradient penalty on real images; 0 turns it off.",
        "r1_interval": "Apply R1 every N steps.",
        "pl_weight": "Weight of path length regularization; 0 turns it off.",
        "pl_interval": "Apply path length regularization every N steps.",
        "pl_batch_shrink": "Measure path lengths on one image in N of a batch.",
        "pl_decay": "Weight of new path lengths in their running mean.",
        "style_mixing": "Probability of mixing the styles of two latents.",
        "ema_kimg": "Half-life of the averaged generator weights, in kimg.",
        "ema_rampup": "Limit that half-life to this fraction of the run so far, or none.",
    },
    "Augmentation": {
        "aug": "No augmentation, a fixed probability p, or adaptive (ADA).",
        "augpipe": f"Transformations: {', '.join(AUGPIPES)}.",
        "p": "Augmentation probability; with ADA, its first value.",
        "p_max": "Upper bound of p with ADA.",
        "ada_target": "Mean sign of the discriminator on real images that ADA aims at.",
        "ada_interval": "Adjust p every N steps.",
        "ada_kimg": "Let p rise from 0 to 1 within this many kimg at the fastest.",
    },
    "Reports and checkpoints": {
        "tick_kimg": "Report every N kimg.",
        "snap_kimg": "Save a checkpoint and draw samples every N kimg.",
        "snap_minutes": "Also save every N minutes (default 30), or none.",
        "keep_last": "Keep the last N snapshots and checkpoints, beside the best.",
        "grid_images": "Images on a sheet of samples.",
        "tensorboard": "Also write TensorBoard event files; needs `rosacea[tensorboard]`.",
    },
    "Machine": {
        "threads": "CPU threads; 0 lets torch choose.",
        "workers": "Processes that load images; 0 loads them in the training process.",
        "tf32": "Let CUDA round float32 products to TF32.",
    },
}
PANEL = {name: panel for panel, texts in PANELS.items() for name in texts}
HELP = {name: text for texts in PANELS.values() for name, text in texts.items()}
# Short names, beside the long ones.
SHORT = {
    "total_kimg": "--kimg",
    "mapping_layers": "--map-depth",
    "channel_base": "--cbase",
    "channel_max": "--cmax",
    "freeze_d": "--freezed",
    "ada_target": "--target",
}


def with_settings(
    command: Callable[..., None], *, prefix: str = PREFIX, without: Collection[str] = ()
) -> Callable[..., None]:
    """Give a command, whose last parameter is **settings, an option for every training setting, grouped in its help."""
    hints = get_type_hints(TrainConfig)
    added = [_parameter(name, hints[name]) for name in HELP if name not in without]
    return with_sources(with_options(command, added), prefix)


def flags_of(name: str) -> list[str]:
    """How a setting is written on the command line, the short name first if there is one."""
    flag = f"--{name.replace('_', '-')}"
    return [SHORT[name], flag] if name in SHORT else [flag]


def _parameter(name: str, hint: Any) -> inspect.Parameter:
    flags, kind = flags_of(name), hint
    bounds = {each: (low, high) for each, low, high in RANGES}
    option: Callable[..., Any] = partial(typer.Option, help=HELP[name], rich_help_panel=PANEL[name])
    if hint is bool:
        made: Any = option(f"{flags[-1]}/--no-{flags[-1][2:]}")
    elif NoneType in get_args(hint):
        kind, made = Any, option(*flags, parser=_number_or_none, metavar="NUMBER|none")
    elif name in bounds:
        low, high = bounds[name]
        made = option(*flags, min=hint(low), max=hint(high), metavar="N" if hint is int else "NUMBER")
    else:
        made = option(*flags)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, made]
    )


def _number_or_none(text: str) -> object:
    try:
        return OFF if text.lower() == "none" else float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a number or none, got {text[:80]!r}") from None
