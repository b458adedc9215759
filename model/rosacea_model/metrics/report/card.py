"""The model card: Hugging Face's form with the fields of the FDA group's card for synthetic medical data.

The seven criteria are those of Zamzmi et al., "Scorecards for Synthetic Medical Data Evaluation and Reporting" (2024,
arXiv 2406.11143). Every field comes from a measurement, from the model file or from the data's datasheet.json; one that
is empty fails the card, so that none is published with gaps.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...files.modelfile import ModelFile
    from .facts import ModelReport

TAGS = ["synthetic", "dermatology", "rosacea", "stylegan2-ada"]
NOT_FOR_DIAGNOSIS = "For research and education only, not for diagnosis."
HALVES = "half of data against other half"
# What only the owner of the data can state, and where in datasheet.json.
OWNED = {
    "owner": "owner",
    "licence": "licence",
    "consent": "consent.obtained",
    "ethics approval": "ethics_approval",
    "collected where": "collected.where",
    "collected by": "collected.by_whom",
    "intended use": "intended_use",
    "not for": "not_for",
    "known gaps": "known_gaps",
}


def model_card(report: ModelReport, file: ModelFile, tool: str) -> str:
    """The card's text, README.md for a model's folder; MetricError names every empty field."""
    sections = card_sections(report, file, tool)
    empty = [f"{title}: {name}" for title, fields in sections.items() for name, value in fields.items() if not value]
    if empty:
        raise MetricError(
            f"the card has {len(empty)} empty fields: {'; '.join(empty)}. The data's owner states them in its "
            "datasheet.json; `rosacea data prepare` keeps what stands there"
        )
    front = {
        "license": sections["Data"]["licence"].lower(),
        "tags": TAGS,
        "pipeline_tag": "unconditional-image-generation",
    }
    tables = "\n".join(_section(title, fields) for title, fields in sections.items())
    words = f"{NOT_FOR_DIAGNOSIS} Every image is synthetic."
    return f"---\n{_yaml(front)}---\n\n# Model card: {file.name}\n\n{words}\n\n{tables}"


def card_sections(report: ModelReport, file: ModelFile, tool: str) -> dict[str, dict[str, str]]:
    """The card's fields by section; an empty text where nothing is known."""
    config = file.config
    size = config.img_resolution
    unnamed = f"{config.c_dim} without names" if config.c_dim else "none: unconditional"
    return {
        "Model": {
            "name": file.name,
            "version (SHA-256 of the weights)": file.digest,
            "made with": tool,
            "generator": f"StyleGAN2-ADA, {size} x {size} px, z {config.z_dim}, w {config.w_dim}",
            "classes": ", ".join(file.classes) or unnamed,
            "note": file.note or "none",
        },
        "Data": {
            **{name: _stated(report.datasheet, place) for name, place in OWNED.items()},
            "images": str(report.evaluation.data["images"]),
            "digest": str(report.evaluation.data["digest"]),
            "hold-out": _holdout(report),
        },
        "Evaluation, by the seven criteria for synthetic medical data": _criteria(report),
    }


def _criteria(report: ModelReport) -> dict[str, str]:
    """Congruence to consistency, each with the figures that answer it."""
    first, encoder = report.evaluation.rows[0], report.evaluation.encoder
    scale = "comparable with the literature" if encoder["comparable"] else "not comparable with the literature"
    worst = [f"worst group: {row.kind} {row.name}, coverage {row.coverage}" for row in report.groups[:1]]
    halves = [f"two halves of the data differ by FID {row.fid}" for row in report.evaluation.rows if HALVES in row.name]
    labels = "all with a label" if report.datasheet.get("labels") else "none has a label"
    return {
        "congruence (like the data)": f"FID {first.fid}, KID {first.kid}, precision {first.near.precision}; "
        f"encoder {encoder['name']}, {scale}",
        "coverage (as varied as the data)": "; ".join(
            [f"recall {first.near.recall}", f"coverage {first.near.coverage}", *worst]
        ),
        "constraint (within what skin does)": _redness(report),
        "completeness (nothing missing)": f"{first.fakes} of {first.fakes} seeds drawn; of the data's images {labels}",
        "compliance (nobody's image)": str(report.audit.verdict),
        "comprehension (what to know)": "intervals are 95 %; the report with its pictures lies beside this card",
        "consistency (again the same)": "; ".join(["a seed gives the same bytes on the same engine", *halves]),
    }


def _redness(report: ModelReport) -> str:
    found = report.evaluation.erythema.of("contrast")
    return (
        f"redness above calm skin: divergence from the data {found.divergence} bits; by chance up to {found.chance:.3f}"
    )


def _holdout(report: ModelReport) -> str:
    held = report.evaluation.holdout
    return f"{held['images']} images, {held['digest']}" if held else "none: numbers are against the training images"


def _stated(sheet: Mapping[str, object], place: str) -> str:
    found: Any = sheet
    for name in place.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return "" if found is None else str(found)


def _section(title: str, fields: Mapping[str, str]) -> str:
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in fields.items())
    return f"## {title}\n\n| | |\n|---|---|\n{rows}\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _yaml(front: Mapping[str, object]) -> str:
    """Values as YAML, a line for each key; YAML takes what JSON writes."""
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in front.items())
