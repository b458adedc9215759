"""Writes the report of a downstream proof: one self-contained HTML page, and the same figures as JSON."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...files.modelfile import write_atomically
from ...training.reporting.chart import STYLE, ChartCurve, chart
from ...training.reporting.report import rows, table
from ..intervals import LEVEL
from .proof import REAL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .proof import MixScore, ProofResult

FORMAT = "rosacea-proof/1"
PAGE_NAME, FIGURES_NAME = "proof.html", "proof.json"
NOTE = (
    "Tested on real images alone. Every classifier trains for the same number of steps. Intervals count which test "
    "images and which training runs there are; those of gains hold together, over all mixes."
)


def write_proof_report(result: ProofResult, sources: Mapping[str, Any], out: Path) -> Path:
    """Write both files; return the page's path."""
    figures = {"format": FORMAT, "level": LEVEL, "answer": result.sentence(), **sources, **asdict(result)}
    write_atomically(out / FIGURES_NAME, (json.dumps(figures, indent=2, allow_nan=False) + "\n").encode())
    write_atomically(out / PAGE_NAME, _page(result, sources).encode())
    return out / PAGE_NAME


def _page(result: ProofResult, sources: Mapping[str, Any]) -> str:
    facts = {
        **sources,
        "real images": str(result.real_images),
        "test images": str(result.test_images),
        "classifiers": f"{', '.join(result.architectures)}; seeds 0 to {result.seeds - 1}; {result.steps} steps; "
        f"{result.resolution} px",
    }
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Downstream proof</title><style>{STYLE}</style>"
        f"<h1>Downstream proof</h1><p><b>{html.escape(result.sentence())}</b></p><p>{NOTE}</p>{table(facts)}"
        f"<h2>By the amount of synthetic images</h2><div class=charts>{_chart(result, 'balanced')}"
        f"{_chart(result, 'worst_group')}</div>"
        f"<h2>Balanced accuracy</h2>{_summary(result)}"
        f"<h2>Recall by class</h2>{_parts(result, 'recalls', result.classes)}"
        f"<h2>Balanced accuracy by skin tone</h2>{_parts(result, 'groups', result.groups)}</html>\n"
    )


def _summary(result: ProofResult) -> str:
    body = [
        [
            score.mix.name,
            str(score.images),
            str(score.balanced),
            str(score.gain or "-"),
            str(score.worst_group),
            str(score.worst_group_gain or "-"),
            ", ".join(f"{value:.3f}" for value in score.of_architectures),
        ]
        for score in result.scores
    ]
    head = ["trained on", "images", "balanced accuracy", f"gain over {REAL}", "worst group", "its gain"]
    return rows(body, [*head, f"mean of {', '.join(result.architectures)}"])


def _parts(result: ProofResult, name: str, parts: tuple[str, ...]) -> str:
    body = [[score.mix.name, *map(str, getattr(score, name))] for score in result.scores]
    return rows(body, ["trained on", *parts])


def _chart(result: ProofResult, name: str) -> str:
    curves = [
        _curve("real with synthetic", [score for score in result.scores if score.mix.real], name),
        _curve("synthetic alone", [score for score in result.scores if not score.mix.real], name),
    ]
    title = f"{name.replace('_', ' ')} accuracy".replace("group accuracy", "group, balanced accuracy")
    return chart(title, curves, "Multiples of the real images; bands are 95 % intervals.", unit="x synthetic")


def _curve(title: str, scores: list[MixScore], name: str) -> ChartCurve:
    found = [(score.mix.amount, getattr(score, name)) for score in sorted(scores, key=lambda each: each.mix.amount)]
    return ChartCurve(
        name=title,
        points=[(amount, each.value) for amount, each in found],
        band=[(amount, each.low, each.high) for amount, each in found],
    )
