"""Every setting of a run as an option of the command line: names, types and ranges are those of `TrainConfig`."""

from __future__ import annotations

import inspect
from dataclasses import fields
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from rosacea_model.training.config import AUGPIPES, OFF, RANGES, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

# What each says in the help. What is not here follows the data, or the machine (`--device`).
HELP = {
    "mirror": "Show every image flipped as well.",
    "total_kimg": "Thousands of real images to show.",
    "batch": "Images a step, over all processes.",
    "batch_gpu": "Images at once; gradients accumulate.",
    "seed": "Seed of everything.",
    "z_dim": "Numbers in an input latent.",
    "w_dim": "Numbers in an intermediate latent.",
    "mapping_layers": "Mapping layers; unset = those of --init-from.",
    "channel_base": "Channels at resolution R are this number / R.",
    "channel_max": "Upper bound on channels per layer.",
    "num_fp16_res": "The highest N resolutions in float16 on CUDA.",
    "conv_clamp": "Clamp of activations, or none.",
    "d_architecture": "Discriminator: orig, skip or resnet.",
    "mbstd_group": "Images that share a minibatch standard deviation.",
    "freeze_d": "Discriminator layers that do not train.",
    "glr": "Learning rate of the generator.",
    "dlr": "Learning rate of the discriminator.",
    "beta1": "Adam's decay of the mean gradient.",
    "beta2": "Adam's decay of the mean squared gradient.",
    "adam_eps": "Adam's epsilon.",
    "gamma": "R1 weight. Four times it for twice the size.",
    "r1_interval": "R1 regularisation every N steps.",
    "pl_weight": "Weight of path length regularisation; 0 = none.",
    "pl_interval": "Path length regularisation every N steps.",
    "pl_batch_shrink": "Path lengths of one image in N.",
    "pl_decay": "How fast the mean path length moves.",
    "style_mixing": "Probability of style mixing.",
    "ema_kimg": "Half-life of the generator's average, in kimg.",
    "ema_rampup": "Half-life at most this part of the run so far, or none.",
    "aug": "Augmentation: none, at a fixed p, or adaptive.",
    "augpipe": f"One of {', '.join(AUGPIPES)}.",
    "ada_target": "Mean sign for reals that p aims at.",
    "ada_interval": "Adjust p every N steps.",
    "ada_kimg": "Kimg in which p can rise from 0 to 1.",
    "p": "Augmentation probability, or its start.",
    "p_max": "Upper bound of p.",
    "tick_kimg": "Report every N kimg.",
    "snap_kimg": "Save and draw every N kimg.",
    "snap_minutes": "Also save every N minutes, or none; unset = 30.",
    "keep_last": "Snapshots and checkpoints to keep, beside the best.",
    "grid_images": "Images on a sheet.",
    "tensorboard": "Write event files, too.",
    "threads": "CPU threads; 0 = torch's choice.",
    "workers": "Processes that load images.",
    "tf32": "Let CUDA round float32 products.",
    "bad_steps": "Steps in a row that may be skipped for gradients that are not finite.",
}
# Short names, beside the long ones.
SHORT = {
    "total_kimg": "--kimg",
    "mapping_layers": "--map-depth",
    "channel_base": "--cbase",
    "channel_max": "--cmax",
    "freeze_d": "--freezed",
    "ada_target": "--target",
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose last parameter is **settings, an option for every setting."""
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    hints = get_type_hints(TrainConfig)
    added = [_parameter(field.name, hints[field.name]) for field in fields(TrainConfig) if field.name in HELP]
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return command


def _parameter(name: str, hint: Any) -> inspect.Parameter:
    flag = f"--{name.replace('_', '-')}"
    flags = [SHORT[name], flag] if name in SHORT else [flag]
    kind = hint
    bounds = {each: (low, high) for each, low, high in RANGES}
    option: Callable[..., Any] = partial(typer.Option, help=HELP[name])
    if hint is bool:
        made: Any = option(f"{flag}/--no-{name.replace('_', '-')}")
    elif NoneType in get_args(hint):
        kind, made = Any, option(*flags, parser=_number_or_none, metavar="FLOAT|none")
    elif name in bounds:
        low, high = bounds[name]
        made = option(*flags, min=hint(low), max=hint(high))
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
