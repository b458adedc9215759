"""Suggests existing names for misspelt ones."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Names that other tools have for our fields and flags; those that are nearly ours need no entry.
MEANT: dict[str, tuple[str, ...]] = {
    "batchsize": ("batch",),
    "class": ("class_index",),
    "classes": ("class_index", "labels"),
    "cls": ("class_index",),
    "condition": ("class_index",),
    "cutoff": ("truncation_cutoff",),
    "data_dir": ("data",),
    "dataset": ("data",),
    "epochs": ("kimg",),
    "gpu": ("device",),
    "gpus": ("device",),
    "iterations": ("kimg",),
    "label": ("class_index", "labels"),
    "learning_rate": ("glr", "dlr"),
    "lr": ("glr", "dlr"),
    "name": ("model",),
    "network": ("model", "init_from"),
    "noise": ("noise_mode",),
    "num": ("count",),
    "number": ("count",),
    "output": ("out", "outdir"),
    "outfile": ("out",),
    "port": ("address",),
    "psi": ("truncation_psi",),
    "quality": ("jpeg_quality",),
    "resume_from": ("init_from", "resume"),
    "run": ("outdir",),
    "seed": ("seeds",),
    "steps": ("kimg",),
    "styles": ("style_mixes", "style_mix"),
    "trunc": ("truncation_psi",),
    "truncation": ("truncation_psi",),
    "url": ("address",),
}


def near(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names for a misspelt one: first those that other tools call so, then those that begin with it,
    then similar ones."""
    names = list(known)
    plain = name.lower().replace("-", "_").strip("_")
    meant = [each for each in MEANT.get(plain, ()) if each in names]
    begun = [each for each in names if len(plain) > 2 and each.startswith(plain)]
    return list(dict.fromkeys([*meant, *begun, *get_close_matches(plain, names)]))[:3]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The text `, did you mean ...?` to append to an error; empty if nothing is similar."""
    found = near(name, known)
    return f", did you mean {' or '.join(found)}?" if found else ""
