"""The page of a model's report: one HTML file that needs no other, with every number of its JSON that people read."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from ...training.reporting.chart import STYLE
from ...training.reporting.report import rows, sheet, table
from ..audit.report import lines
from .facts import NOTE

if TYPE_CHECKING:
    from pathlib import Path

    from ...files.modelfile import ModelFile
    from .facts import ModelReport

METRICS = ("precision", "recall", "density", "coverage")


def report_page(report: ModelReport, file: ModelFile, pictures: dict[str, Path], training: str = "") -> str:
    """HTML of the report; `pictures` are sheets by caption, `training` the curves of its run."""
    name = html.escape(file.name)
    sheets = "".join(sheet(path, caption) for caption, path in pictures.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Model {name}</title><style>{STYLE}</style>"
        f"<h1>Model {name}</h1><p><b>{html.escape(NOTE)}</b></p>{table(_facts(report, file))}"
        f"<h2>Groups, worst first</h2>{_groups(report)}"
        f"<h2>Fidelity and diversity</h2>{_fidelity(report)}"
        f"<h2>Copies of training images</h2>{_audit(report)}<div class=sheets>{sheets}</div>"
        f"<h2>Redness</h2>{_panel(report)}"
        f"{training}<h2>Data</h2>{table({key: _plain(value) for key, value in report.datasheet.items()})}</html>\n"
    )


def _facts(report: ModelReport, file: ModelFile) -> dict[str, Any]:
    found = report.evaluation
    encoder = found.encoder
    scale = "" if encoder["comparable"] else "; its numbers compare with one another only"
    return {
        "weights": file.digest,
        "note": file.note or "none",
        "resolution": f"{file.config.img_resolution} px",
        "generated": f"{found.model['images']} images",
        "data": f"{found.data['name']}, {found.data['images']} images, {found.data['digest'][:12]}",
        "hold-out": f"{found.holdout['name']}, {found.holdout['images']} images" if found.holdout else "none",
        "encoder": f"{encoder['name']} {encoder['digest'][:12]}, {encoder['resize']}{scale}",
    }


def _groups(report: ModelReport) -> str:
    body = [[row.kind, row.name, str(row.reals), str(row.coverage), str(row.recall)] for row in report.groups]
    shown = rows(body, ["groups by", "group", "real images", "coverage", "recall"]) if body else ""
    small = "".join(f"<p>Too small to say: {html.escape(each)}.</p>" for each in report.small_groups)
    words = (
        "Share of each group's real images that have a generated image in their neighbourhood (coverage), or lie in "
        "that of a generated image (recall), with 95 % intervals. Skin colour is the individual typology angle of calm "
        "skin in the picture, a colour statistic and no Fitzpatrick or Monk type."
    )
    return f"<p>{words}</p>{shown}{small}"


def _fidelity(report: ModelReport) -> str:
    body = [
        [
            row.name,
            f"{row.fakes} to {row.reals}",
            str(row.fid),
            str(row.kid),
            *(str(getattr(row.near, name)) for name in METRICS),
        ]
        for row in report.evaluation.rows
    ]
    last = [
        f"Gap between training and hold-out: {report.evaluation.gap}." if report.evaluation.gap else "",
        f"Perceptual path length: {report.evaluation.path}." if report.evaluation.path else "",
    ]
    words = "The last row says what a perfect model could reach: half of the data against the other half."
    shown = rows(body, ["comparison", "images", "FID", "KID", *METRICS])
    return f"<p>{words}</p>{shown}<p>{html.escape(' '.join(last))}</p>"


def _audit(report: ModelReport) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines(report.audit))


def _panel(report: ModelReport) -> str:
    panel = report.evaluation.erythema
    body = [[cell.strip() for cell in line.strip("|").split("|")] for line in panel.table().splitlines() if "|" in line]
    return rows(body[2:], body[0])


def _plain(value: object) -> object:
    return "not stated" if value is None else value
