"""Reads what the runs of a sweep measured: curves over kimg, and one value of each run to compare it by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...training.reporting.records import curve, read_stats
from .analysis import SweepVerdict, analyse, means_of
from .training import finished

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..intervals import Estimate
    from .plan import SweepPlan
    from .snapshots import SnapshotJudge
    from .training import RunOutcome, SweepTrainer

Curve = list[tuple[float, float]]  # kimg, value
LATE = 2 / 3  # of a run: from here on its snapshots count as its end
OWN_MEASURES = {  # of training's snapshots, lower being better
    "distance": "sliced Wasserstein distance of pyramid patches to the training images",
    "layout": "Frechet distance of coarse pixels to the training images",
}
SUMMARIES: Mapping[str, Callable[[Curve, float], float]] = {
    "at the end": lambda points, total: float(np.mean([value for kimg, value in points if kimg > LATE * total])),
    "of the best snapshot": lambda points, total: min(value for _, value in points),
}


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """What all runs measured, and what that says."""

    measures: Mapping[str, str]  # what each is; the first decides
    curves: Mapping[str, Mapping[str, Curve]]  # measure -> run -> curve
    verdicts: tuple[SweepVerdict, ...]  # of each measure and summary; the first is the recommendation
    outcomes: Mapping[str, RunOutcome]


def read_results(
    trainer: SweepTrainer, outcomes: Mapping[str, RunOutcome], judge: SnapshotJudge | None = None
) -> SweepResults:
    """Read the records of all runs, measure their snapshots, and compare those that have finished."""
    records = {run.name: read_stats(trainer.folder(run)) for run in trainer.plan.runs}
    curves = {
        measure: {name: _trained(curve(measure, rows)) for name, rows in records.items()} for measure in OWN_MEASURES
    }
    measures = dict(OWN_MEASURES)
    if judge is not None:
        curves = {"KID": {run.name: judge.curve(trainer.folder(run)) for run in trainer.plan.runs}, **curves}
        measures = {"KID": judge.words, **measures}
    verdicts = (_verdict(trainer, measure, summary, curves[measure]) for measure in measures for summary in SUMMARIES)
    return SweepResults(
        measures=measures,
        curves=curves,
        verdicts=tuple(each for each in verdicts if each is not None),
        outcomes=dict(outcomes),
    )


def _trained(points: Curve) -> Curve:
    """Without what the run began from, which is so far off that nothing else could be seen beside it."""
    return [(kimg, value) for kimg, value in points if kimg]


def intervals_by_kimg(plan: SweepPlan, curves: Mapping[str, Curve]) -> dict[str, list[tuple[float, Estimate]]]:
    """Mean of each combination at every kimg that its runs share, over the seeds that all combinations have reached.

    The intervals are for comparing combinations: differences between seeds are taken off.
    """
    values = {(run.cell, run.seed): dict(curves[run.name]) for run in plan.runs if curves[run.name]}
    found: dict[str, list[tuple[float, Estimate]]] = {cell: [] for cell in plan.cells}
    for kimg in sorted({kimg for points in values.values() for kimg in points}):
        here = {key: points[kimg] for key, points in values.items() if kimg in points}
        for cell, estimate in means_of(here, plan.cells).items():
            found[cell].append((kimg, estimate))
    return found


def _verdict(trainer: SweepTrainer, measure: str, summary: str, curves: Mapping[str, Curve]) -> SweepVerdict | None:
    values = {}
    for run in trainer.plan.runs:
        points = curves[run.name]
        if points and finished(trainer.folder(run), run):
            values[run.cell, run.seed] = SUMMARIES[summary](points, run.config.total_kimg)
    levels = {run.cell: run.levels for run in trainer.plan.runs}
    return analyse(f"{measure} {summary}", values, levels, factorial=trainer.plan.factorial)
