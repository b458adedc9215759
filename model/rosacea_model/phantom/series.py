"""Renders a series of phantoms in several processes and writes it as a labelled data set with ground truth."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from ..data.writer import DatasetWriter
from .identity import Subtype, sample_phantom
from .render import Phantom, render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BATCH = 16  # faces a task: long enough to outweigh its start, short enough to show progress
TRUTH_FACES = 1000  # in one file: together they would be larger than a member of a zip may be
TRUTH_FOLDER = "phantoms"
MAX_COUNT = 200_000  # with the files of truth and the data set's own, as many as readers take


class LabelKind(StrEnum):
    """What a phantom's label means."""

    severity = "severity"
    subtype = "subtype"
    both = "both"
    none = "none"


@dataclass(frozen=True)
class Series:
    """Which phantoms to render, and at what resolution."""

    seed: int
    count: int
    resolution: int
    confounders: bool

    def batches(self) -> Iterator[range]:
        for start in range(0, self.count, BATCH):
            yield range(start, min(start + BATCH, self.count))


def write_series(
    out: Path,
    series: Series,
    labels: LabelKind,
    *,
    maps: Path | None = None,
    workers: int | None = None,
) -> Iterator[int]:
    """Write the data set and yield, after each face, the number of faces so far. Order and bytes do not depend on
    `workers`."""
    truth: list[str] = []
    done = 0
    with DatasetWriter(out, datasheet=datasheet(series, labels)) as writer:
        for face in draw_series(series, workers=workers or len(os.sched_getaffinity(0))):
            label = label_of(face, labels)
            known = {key: face.attributes[key] for key in ("index", "subtype", "severity", "melanin")}
            name = writer.add(face.image, label, known)
            truth.append(json.dumps({"name": name, **face.attributes}, sort_keys=True))
            if maps is not None:
                _write_maps(maps, face)
            done += 1
            if done % TRUTH_FACES == 0 or done == series.count:
                writer.add_file(truth_name(done - 1), ("\n".join(truth) + "\n").encode())
                truth.clear()
            yield done


def truth_name(index: int) -> str:
    """Name of the ground-truth file of a face in the zip."""
    return f"{TRUTH_FOLDER}/{index // TRUTH_FACES:05d}.jsonl"


def draw_series(series: Series, *, workers: int) -> Iterator[Phantom]:
    """Render the faces in order with this many processes; only a few are in memory at a time."""
    if workers == 1:
        for batch in series.batches():
            yield from _draw(series, batch)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy other threads' locks
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[list[Phantom]]] = deque()
        for batch in series.batches():
            waiting.append(pool.submit(_draw, series, batch))
            if len(waiting) > 3 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _draw(series: Series, indices: range) -> list[Phantom]:
    specs = (sample_phantom(series.seed, index, confounders=series.confounders) for index in indices)
    return [render(spec, series.resolution) for spec in specs]


def label_of(face: Phantom, labels: LabelKind) -> int | None:
    """The class of a face: its grade 0..3, its subtype 0..3, or one of ten: healthy, then three grades a subtype."""
    grade = int(str(face.attributes["severity"]))
    kind = list(Subtype).index(Subtype(str(face.attributes["subtype"])))
    classes = {
        LabelKind.severity: grade,
        LabelKind.subtype: kind,
        LabelKind.both: 0 if grade == 0 else 3 * (kind - 1) + grade,
        LabelKind.none: None,
    }
    return classes[labels]


def class_names(labels: LabelKind) -> list[str]:
    """What each label means, in order."""
    diseased = list(Subtype)[1:]
    names = {
        LabelKind.severity: ["none", "mild", "moderate", "severe"],
        LabelKind.subtype: [subtype.value for subtype in Subtype],
        LabelKind.both: [Subtype.healthy.value] + [f"{kind.value} {grade}" for kind in diseased for grade in (1, 2, 3)],
        LabelKind.none: [],
    }
    return names[labels]


def datasheet(series: Series, labels: LabelKind) -> dict[str, object]:
    """Datasheet fields of phantoms: nobody is shown, and how to render them again."""
    names = class_names(labels)
    return {
        **({"classes": names} if names else {}),
        "title": f"{series.count} drawn faces, healthy and with rosacea",
        "owner": "nobody: drawn by a program",
        "licence": "Apache-2.0",
        "consent": {"obtained": "not needed: drawn by a program, nobody is shown"},
        "ethics_approval": "not needed: nobody is shown",
        "collected": {
            "where": "nowhere: drawn",
            "when": "not dated: the same seed draws the same",
            "by_whom": "rosacea data phantom",
        },
        "intended_use": "trying out training, service and measurements without anybody's photograph",
        "known_gaps": "frontal faces only; light and skin follow simple models, not patients",
        "not_for": "diagnosis, and any claim about real skin: the faces follow a model of skin, not patients",
        "phantoms": {
            "seed": series.seed,
            "count": series.count,
            "resolution": series.resolution,
            "confounders": series.confounders,
            "labels": labels.value,
            "truth": f"{TRUTH_FOLDER}/*.jsonl",
        },
    }


def _write_maps(folder: Path, face: Phantom) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{int(str(face.attributes['index'])):08d}.npz"
    np.savez_compressed(path, haemoglobin=face.haemoglobin, face_mask=face.face_mask)
