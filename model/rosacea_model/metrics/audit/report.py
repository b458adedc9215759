"""What an audit found, for programs and for people: JSON, lines of text, and a sheet of the nearest pairs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ...phantom.check.sheets import labelled
from .plants import KINDS, taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from PIL import Image

    from ..images import ImageSource
    from .audit import AuditResult, SpaceAudit
    from .membership import Membership
    from .spaces import Neighbours
    from .verdict import Verdict

FORMAT = "rosacea-audit/1"
PAIRS = 8
DESCRIPTION = (
    "Nearest pairs of a memorisation audit. The lower image of each pair is a training image: if the training data are "
    "photographs, this sheet shows real people."
)


def as_json(found: AuditResult, known: Membership | None = None) -> dict[str, Any]:
    """The results as plain values, with those of membership inference if there are any."""
    return {
        "format": FORMAT,
        "seed": found.seed,
        "sets": found.sets,
        "thresholds_set_by": found.controls,
        "verdict": _verdict(found.verdict),
        "spaces": {name: _space(space) for name, space in found.spaces.items()},
        "membership": asdict(known) if known else None,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    proof = verdict.proof
    return {
        "conclusion": str(verdict.conclusion),
        "text": str(verdict),
        "proof": {
            "holds": proof.holds,
            "false_alarms": asdict(proof.threshold.false_alarms),
            "planted": {
                str(kind): {**asdict(proof.findings[kind]), "share": asdict(proof.findings[kind].share)}
                for kind in KINDS
            },
            "altered": asdict(proof.altered.share),
        },
        "images": verdict.images,
        "alarms": verdict.alarms,
        "p_value": verdict.p_value,
        "copied": asdict(verdict.copied),
    }


def _space(space: SpaceAudit) -> dict[str, Any]:
    repeated = space.repeated
    return {
        "rule": space.rule,
        "verdict": _verdict(space.verdict),
        "median_distance": space.median,
        "authentic": {name: asdict(share) for name, share in space.authentic.items()},
        "C_T": asdict(space.copying) if space.copying else None,
        "repeated": repeated
        and {"share": asdict(repeated.share), "groups": [list(group) for group in repeated.groups]},
    }


def lines(found: AuditResult, known: Membership | None = None) -> Iterator[str]:
    """The results in words: the verdict with its proof, then a line for each space."""
    yield str(found.verdict)
    for name, space in found.spaces.items():
        yield f"{name}: {'; '.join(_words(space))}"
    if known:
        yield (
            f"membership: discriminator scores separate training images from the hold-out with AUC {known.auc} "
            f"(0.5 = not at all; control, training images among themselves: {known.control})"
        )


def _words(space: SpaceAudit) -> Iterator[str]:
    altered = space.verdict.proof.altered.share
    yield f"finds {altered.value:.0%} of altered copies alone"
    yield f"{space.verdict.alarms} of {space.verdict.images} alarms"
    shares = {"fakes": "generated", "holdout": "hold-out"}
    yield "authentic " + ", ".join(f"{shares[name]} {share.value:.0%}" for name, share in space.authentic.items())
    if space.copying:
        yield f"C_T {space.copying.value:.1f} [{space.copying.low:.1f}, {space.copying.high:.1f}]"
    elif space.repeated and "holdout" in space.median:
        yield "no C_T: too few images in its cells"
    if space.repeated:
        yield f"largest group of near-alike generated images {space.repeated.largest}"


def pair_sheet(
    found: AuditResult, fakes: ImageSource, training: ImageSource, holdout: ImageSource | None
) -> Image.Image:
    """The generated images nearest to training images, above these; then, if there is one, the same of the hold-out.

    The second tells what nearness means among different people. Mirror images are turned back. Above each column stands
    the joint distance of its generated image: 0 is the median of images that are no copies, -1 their nearest 1 %.
    """
    rows = _pairs(found.nearest["fakes"], fakes, training)
    words = ["generated", "nearest in training"]
    if holdout is not None:
        rows += _pairs(found.nearest["holdout"], holdout, training)
        words += ["hold-out", "nearest in training"]
    width = min(map(len, rows))
    distances = np.sort(found.nearest["fakes"].distance, kind="stable")[:width]
    return labelled(np.stack([row[:width] for row in rows]), words, [f"{distance:.2f}" for distance in distances])


def _pairs(near: Neighbours, images: ImageSource, training: ImageSource) -> list[NDArray[np.uint8]]:
    closest = np.argsort(near.distance, kind="stable")[:PAIRS]
    originals = _at(training, near.index[closest])
    flipped = near.mirrored[closest]
    originals[flipped] = originals[flipped][:, :, ::-1]
    return [_at(images, closest), originals]


def _at(images: ImageSource, places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The images at these places, in their order."""
    ascending, back = np.unique(places, return_inverse=True)
    return taken(images, ascending)[back]
