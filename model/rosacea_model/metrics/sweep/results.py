"""Reads what the runs of a sweep measured: curves over kimg, and one value of each run to compare it by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...training.reporting.records import curve, read_stats
from .analysis import SweepVerdict, analyse
from .training import finished

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .training import RunOutcome, SweepTrainer

Curve = list[tuple[float, float]]  # kimg, value
LATE = 2 / 3  # of a run: from here on its snapshots count as its end
MEASURES = {  # of training's snapshots, lower being better
    "distance": "sliced Wasserstein distance of pyramid patches to the training images",
    "layout": "Frechet distance of coarse pixels to the training images",
}
SUMMARIES: Mapping[str, Callable[[Curve, float], float]] = {
    "at the end": lambda points, total: float(np.mean([value for kimg, value in points if kimg > LATE * total])),
    "of the best snapshot": lambda points, total: min(value for kimg, value in points if 0 < kimg <= total),
}


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """What all runs measured, and what that says."""

    curves: Mapping[str, Mapping[str, Curve]]  # measure -> run -> curve
    verdicts: tuple[SweepVerdict, ...]  # of each measure and summary; the first is the recommendation
    outcomes: Mapping[str, RunOutcome]


def read_results(trainer: SweepTrainer, outcomes: Mapping[str, RunOutcome]) -> SweepResults:
    """Read the records of all runs and compare those that have finished."""
    records = {run.name: read_stats(trainer.folder(run)) for run in trainer.plan.runs}
    curves = {measure: {name: curve(measure, rows) for name, rows in records.items()} for measure in MEASURES}
    verdicts = (_verdict(trainer, measure, summary, curves[measure]) for measure in MEASURES for summary in SUMMARIES)
    return SweepResults(
        curves=curves, verdicts=tuple(each for each in verdicts if each is not None), outcomes=dict(outcomes)
    )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean of several curves at the kimg that all of them have."""
    shared = set.intersection(*({kimg for kimg, _ in each} for each in curves)) if curves else set()
    values = [dict(each) for each in curves]
    return [(kimg, float(np.mean([each[kimg] for each in values]))) for kimg in sorted(shared)]


def range_of(curves: Sequence[Curve]) -> list[tuple[float, float, float]]:
    """Lowest and highest value of several curves at the kimg that all of them have."""
    values = [dict(each) for each in curves]
    return [
        (kimg, min(each[kimg] for each in values), max(each[kimg] for each in values)) for kimg, _ in mean_curve(curves)
    ]


def _verdict(trainer: SweepTrainer, measure: str, summary: str, curves: Mapping[str, Curve]) -> SweepVerdict | None:
    values = {}
    for run in trainer.plan.runs:
        points = curves[run.name]
        if points and finished(trainer.folder(run), run):
            values[run.cell, run.seed] = SUMMARIES[summary](points, run.config.total_kimg)
    levels = {run.cell: run.levels for run in trainer.plan.runs}
    return analyse(f"{measure} {summary}", values, levels, factorial=trainer.plan.factorial)
