"""Which runs a sweep consists of: all combinations of levels, or the study's ten experiments, each with every seed.

Runs with the same seed are paired: their networks begin alike and see the images in the same order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...training.config import OFF, PRESETS, RANGES, TrainConfig, freezable_layers, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...config import GeneratorConfig

STUDY = "rff300"
STUDY_RESOLUTION = 512
EXPERIMENT = "experiment"
MOST_RUNS = 1000
KEPT_LEVELS = ("gamma", "freeze_d", "total_kimg", "augpipe")  # of an experiment, for the report


@dataclass(frozen=True, kw_only=True)
class SweepData:
    """The shape of the images that all runs train on."""

    resolution: int
    channels: int = 3
    label_width: int = 0


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep."""

    cell: str  # its combination of levels, such as `gamma 2, freeze_d 0`
    levels: Mapping[str, Any]  # factor -> level
    seed: int
    preset: str
    stated: Mapping[str, Any]  # settings beside the preset, as the command line states them
    transfer: bool  # starts from trained networks
    config: TrainConfig

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.cell} seed {self.seed}".replace(", ", "_").replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """All runs of a sweep, seed by seed, so that a part of it is a paired sweep of fewer seeds."""

    factors: Mapping[str, tuple[Any, ...]]  # factor -> its levels
    runs: tuple[SweepRun, ...]
    factorial: bool  # every level of each factor meets every level of the others

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the combinations, in order."""
        return tuple(dict.fromkeys(run.cell for run in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def total_kimg(self) -> float:
        return sum(run.config.total_kimg for run in self.runs)


def factorial(
    factors: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    *,
    preset: str,
    stated: Mapping[str, Any],
    data: SweepData,
    kimg_scale: float = 1.0,
    source: GeneratorConfig | None = None,
) -> SweepPlan:
    """Plan every combination of the factors' levels with every seed. ValueError if a config is refused."""
    for name, levels in factors.items():
        if len(set(levels)) < len(levels) or not levels:
            raise ValueError(f"{name} must be given different values, got {', '.join(map(str, levels)) or 'none'}")
    varied = {name: levels for name, levels in factors.items() if len(levels) > 1}
    cells = [dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())]
    runs = [
        _run(
            cell=", ".join(f"{name} {cell[name]:g}" for name in varied) or "base",
            levels={name: cell[name] for name in varied},
            seed=seed,
            preset=preset,
            stated={**stated, **cell},
            data=data,
            kimg_scale=kimg_scale,
            source=source,
        )
        for seed in seeds
        for cell in cells
    ]
    return _plan({name: tuple(levels) for name, levels in varied.items()}, runs, factorial=True)


def study(
    seeds: Sequence[int],
    *,
    stated: Mapping[str, Any],
    data: SweepData,
    kimg_scale: float = 1.0,
    source: GeneratorConfig | None = None,
) -> SweepPlan:
    """Plan the study's ten experiments. At other sizes than its 512 px, R1 and freeze-D are carried over.

    R1 keeps its ratio to the heuristic of `auto`, which goes with the number of pixels, and the same share of the
    discriminator's layers is frozen. `stated` (network widths, for example) beats an experiment's own settings, but for
    what the experiments are about.
    """
    names = [name for name in PRESETS if name.startswith(STUDY)]
    transfers = [name for name in names if PRESETS[name].needs_source]
    if source is None and transfers:
        short = ", ".join(name.removeprefix(f"{STUDY}-exp") for name in transfers)
        raise ValueError(f"experiments {short} of {STUDY} start from trained networks: pass --init-from")
    runs = [
        _run(
            cell=name.removeprefix(f"{STUDY}-"),
            levels={EXPERIMENT: name.removeprefix(f"{STUDY}-")},
            seed=seed,
            preset="auto",
            stated=_experiment(name, stated, data.resolution),
            data=data,
            kimg_scale=kimg_scale,
            source=source if PRESETS[name].needs_source else None,
        )
        for seed in seeds
        for name in names
    ]
    return _plan({EXPERIMENT: tuple(name.removeprefix(f"{STUDY}-") for name in names)}, runs, factorial=False)


def _experiment(name: str, stated: Mapping[str, Any], resolution: int) -> dict[str, Any]:
    own = dict(PRESETS[name].settings)
    if resolution != STUDY_RESOLUTION:
        layers = freezable_layers(resolution, "resnet") / freezable_layers(STUDY_RESOLUTION, "resnet")
        own["gamma"] = float(f"{own['gamma'] * (resolution / STUDY_RESOLUTION) ** 2:.6g}")
        own["freeze_d"] = round(own["freeze_d"] * layers)
    return {**own, **stated, **{each: own[each] for each in KEPT_LEVELS}}


def _plan(factors: Mapping[str, tuple[Any, ...]], runs: Sequence[SweepRun], *, factorial: bool) -> SweepPlan:
    if len(runs) > MOST_RUNS:
        raise ValueError(f"a sweep may have {MOST_RUNS} runs, got {len(runs)}: fewer values or seeds")
    return SweepPlan(factors=factors, runs=tuple(runs), factorial=factorial)


def _run(
    *,
    cell: str,
    levels: Mapping[str, Any],
    seed: int,
    preset: str,
    stated: Mapping[str, Any],
    data: SweepData,
    kimg_scale: float,
    source: GeneratorConfig | None,
) -> SweepRun:
    given = {**stated, "seed": seed}
    shape: dict[str, Any] = {
        "resolution": data.resolution,
        "img_channels": data.channels,
        "label_width": data.label_width,
        "source": source,
    }
    config = resolve(preset, given, **shape)
    if kimg_scale != 1:
        lowest = {name: low for name, low, _ in RANGES if name.endswith("_kimg")}
        given |= {name: max(float(f"{getattr(config, name) * kimg_scale:.6g}"), low) for name, low in lowest.items()}
        config = resolve(preset, given, **shape)
    return SweepRun(
        cell=cell,
        levels=levels,
        seed=seed,
        preset=preset,
        stated=given,
        transfer=source is not None,
        config=config,
    )


def arguments(run: SweepRun) -> list[str]:
    """The settings of a run as options of `rosacea train`."""
    words = ["--preset", run.preset]
    for name, value in run.stated.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [
                f"--{flag}",
                "none" if value is OFF else f"{value:.10g}" if isinstance(value, float) else str(value),
            ]
    return words
