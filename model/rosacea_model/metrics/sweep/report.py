"""Writes the report of a sweep: one self-contained HTML page, and the same figures as JSON."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...files.modelfile import write_atomically
from ...training.reporting.chart import STYLE, ChartCurve, chart
from ...training.reporting.report import rows, sheet, table
from ..intervals import LEVEL
from .results import intervals_by_kimg, read_results

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .analysis import FactorEffect, PairDifference, SweepVerdict
    from .results import Curve, SweepResults
    from .snapshots import SnapshotJudge
    from .training import RunOutcome, SweepTrainer

FORMAT = "rosacea-sweep/1"
PAGE_NAME, FIGURES_NAME = "sweep.html", "sweep.json"
GRID_STYLE = ".grids{display:grid;gap:1rem;grid-template-columns:repeat(%d,1fr)}"


def write_sweep_report(
    trainer: SweepTrainer,
    outcomes: Mapping[str, RunOutcome],
    data: Mapping[str, object],
    judge: SnapshotJudge | None = None,
) -> str:
    """Write both files and return the page's path and the recommendation in one line."""
    results = read_results(trainer, outcomes, judge)
    write_atomically(
        trainer.outdir / FIGURES_NAME,
        (json.dumps(_figures(trainer, results, data), indent=2, allow_nan=False) + "\n").encode(),
    )
    write_atomically(trainer.outdir / PAGE_NAME, _page(trainer, results, data).encode())
    return f"{trainer.outdir / PAGE_NAME}: {_recommendation(results)}"


def _recommendation(results: SweepResults) -> str:
    if not results.verdicts:
        return "No recommendation: no seed has a finished run of every combination."
    return results.verdicts[0].sentence()


def _figures(trainer: SweepTrainer, results: SweepResults, data: Mapping[str, object]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "data": dict(data),
        "factors": {name: list(levels) for name, levels in trainer.plan.factors.items()},
        "recommendation": _recommendation(results),
        "level": LEVEL,
        "measures": dict(results.measures),
        "verdicts": [asdict(each) for each in results.verdicts],
        "runs": [
            {
                "name": run.name,
                "combination": run.cell,
                "seed": run.seed,
                "command": trainer.command(run),
                "config": asdict(run.config),
                **asdict(results.outcomes[run.name]),
                "curves": {measure: curves[run.name] for measure, curves in results.curves.items()},
            }
            for run in trainer.plan.runs
        ],
    }


def _page(trainer: SweepTrainer, results: SweepResults, data: Mapping[str, object]) -> str:
    plan = trainer.plan
    facts = {
        "runs": f"{len(plan.runs)}: {len(plan.cells)} combinations, seeds {', '.join(map(str, plan.seeds))}",
        "images": f"{data.get('images')}, digest {data.get('digest')}",
        **{name: ", ".join(map(str, levels)) for name, levels in plan.factors.items()},
        "kimg": f"{sum(outcome.kimg for outcome in results.outcomes.values()):g} of {plan.total_kimg:g} in all",
        **{f"failed: {name}": outcome.failure for name, outcome in results.outcomes.items() if outcome.failure},
    }
    charts = "".join(
        _chart(trainer, measure, results.measures[measure], curves) for measure, curves in results.curves.items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Sweep</title>"
        f"<style>{STYLE}{GRID_STYLE % max(len(plan.cells), 1)}</style><h1>Sweep</h1>"
        f"<p><b>{html.escape(_recommendation(results))}</b></p>{table(facts)}"
        f"<h2>Measures by kimg</h2><div class=charts>{charts}</div>"
        f"<h2>Images at the end, the same seeds in every sheet</h2>{_grids(trainer)}"
        f"{''.join(map(_verdict, results.verdicts))}"
        f"<h2>Commands</h2>{rows([[trainer.command(run)] for run in plan.runs])}</html>\n"
    )


def _chart(trainer: SweepTrainer, measure: str, words: str, curves: Mapping[str, Curve]) -> str:
    """Means with intervals where two seeds are complete; else the curve of each run."""
    found = intervals_by_kimg(trainer.plan, curves)
    if all(len(points) > 1 for points in found.values()):
        lines = [
            ChartCurve(
                name=cell,
                points=[(kimg, each.value) for kimg, each in points],
                band=[(kimg, each.low, each.high) for kimg, each in points],
            )
            for cell, points in found.items()
        ]
        shown = f"Lines: mean over seeds; bands: {LEVEL:.0%} intervals for comparing combinations."
    else:
        lines = [ChartCurve(name=name, points=points) for name, points in curves.items() if points]
        shown = "One line for each run."
    return chart(measure, lines, html.escape(f"{words}; 0 = alike. {shown}"))


def _verdict(found: SweepVerdict) -> str:
    means = [
        [cell, f"{mean:.4g}", str(found.intervals.get(cell, "-"))]
        for cell, mean in sorted(found.means.items(), key=lambda item: item[1])
    ]
    return (
        f"<h2>{html.escape(found.measure)}</h2><p>{html.escape(found.sentence())}</p>"
        f"{rows(means, ['combination', 'mean', f'interval for comparing, {LEVEL:.0%}'])}"
        f"{_differences('Best against each other combination', found.differences)}"
        f"{''.join(map(_effect, found.effects))}"
        f"{_seed_share(found)}"
    )


def _seed_share(found: SweepVerdict) -> str:
    if not found.effects:
        return ""
    return f"<p>Of the variation between runs {found.seed_share:.0%} goes with the seed.</p>"


def _effect(effect: FactorEffect) -> str:
    means = [[f"{level:g}", f"{mean:.4g}"] for level, mean in zip(effect.levels, effect.means, strict=True)]
    return (
        f"<h3>{html.escape(effect.factor)}: {effect.share:.0%} of the variation between runs</h3>"
        f"{rows(means, [effect.factor, 'mean over everything else'])}"
        f"{_differences('Differences between levels', effect.differences)}"
    )


def _differences(title: str, found: Sequence[PairDifference]) -> str:
    body = [[f"{each.first} - {each.second}", str(each.estimate), "yes" if each.told_apart else "no"] for each in found]
    return rows(body, [title, f"difference, {LEVEL:.0%} over all of these", "told apart"]) if body else ""


def _grids(trainer: SweepTrainer) -> str:
    """Last sheets: a row for each seed, a column for each combination."""
    figures = []
    for run in trainer.plan.runs:
        sheets = sorted((trainer.folder(run) / "grids").glob("fakes-*.png"))
        caption = f"{run.cell}, seed {run.seed}"
        figures.append(sheet(sheets[-1], caption) if sheets else f"<figure>{html.escape(caption)}: none</figure>")
    return f"<div class=grids>{''.join(figures)}</div>"
