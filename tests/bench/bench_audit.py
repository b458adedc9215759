"""How well the audit finds planted copies, and how often it flags generators that copy and those that do not.

Phantoms play photographs: each trial draws training images, a hold-out and generated images from one pool without
overlap. In an honest trial the generated images are those fresh phantoms; in a copying one 5 % of them are altered
copies of training images, every kind in turn. `--faces` adds planted copies of a folder of pictures.

Usage:

    python -m tests.bench.bench_audit --trials 20 --faces shared/data/released_faces
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rosacea_model.metrics.audit.audit import Audit
from rosacea_model.metrics.audit.plants import KINDS, Alteration, altered
from rosacea_model.metrics.audit.spaces import PerceptualSpace, PixelSpace
from rosacea_model.metrics.audit.verdict import Conclusion
from rosacea_model.metrics.images import ArrayImages
from rosacea_model.metrics.intervals import wilson
from rosacea_model.phantom.series import Series, draw_series

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from rosacea_model.metrics.audit.audit import AuditResult
    from rosacea_model.metrics.audit.verdict import Proof

    Pixels = NDArray[np.uint8]

TRAINING, HOLDOUT, FAKES = 300, 100, 300
COPIED = 0.05
FACES_SIDE = 128


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--trials", type=int, default=20)
    options.add_argument("--resolution", type=int, default=64)
    options.add_argument("--pool", type=int, default=2100, help="phantoms drawn")
    options.add_argument("--faces", type=Path, help="folder of pictures")
    stated = options.parse_args()
    pool = phantoms(stated.pool, stated.resolution)
    proofs: list[Proof] = []
    said: dict[str, Counter[Conclusion]] = {"honest": Counter(), "copying": Counter()}
    covered = 0
    for trial in range(stated.trials):
        for kind, counts in said.items():
            found = one_trial(pool, trial, copying=kind == "copying")
            counts[found.verdict.conclusion] += 1
            print(f"trial {trial}, {kind}: {found.verdict.sentence}", flush=True)
            if kind == "honest":
                proofs.append(found.verdict.proof)
            else:
                covered += found.verdict.copied.low <= COPIED <= found.verdict.copied.high
    print(table(f"fresh phantoms, {stated.resolution} px", proofs))
    for kind, counts in said.items():
        print(f"{kind}: " + ", ".join(f"{each} {counts[each]} of {stated.trials}" for each in Conclusion))
    print(f"the interval of the share copied holds {COPIED:.0%} in {covered} of {stated.trials}")
    if stated.faces:
        print(table(stated.faces.name, [of_faces(stated.faces, seed) for seed in range(5)]))


def phantoms(count: int, resolution: int) -> Pixels:
    return np.stack([face.image for face in draw_series(Series(1000, count, resolution, True), workers=1)])


def one_trial(pool: Pixels, trial: int, *, copying: bool) -> AuditResult:
    rng = np.random.default_rng(trial)
    order = rng.permutation(len(pool))[: TRAINING + HOLDOUT + FAKES]
    training, holdout, fakes = (pool[part] for part in np.split(order, [TRAINING, TRAINING + HOLDOUT]))
    if copying:
        for place in range(round(COPIED * FAKES)):
            original = training[rng.integers(TRAINING)]
            fakes[place] = altered(original, KINDS[place % len(KINDS)], fakes[-1 - place], rng)
    sets = [ArrayImages(pixels) for pixels in (fakes, training, holdout)]
    return Audit(spaces=[PixelSpace(), PerceptualSpace()], seed=trial).run(*sets)


def of_faces(folder: Path, seed: int) -> Proof:
    """Planted copies of four fifths of the pictures of a folder; the rest is the hold-out, and what blends are with."""
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
    size = (FACES_SIDE, FACES_SIDE)
    faces = np.stack([np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BOX)) for path in paths])
    order = np.random.default_rng(seed).permutation(len(faces))
    training, rest = (faces[part] for part in np.split(order, [len(faces) * 4 // 5]))
    audit = Audit(spaces=[PixelSpace(), PerceptualSpace()], planted=len(training), seed=seed)
    return audit.run(*(ArrayImages(pixels) for pixels in (rest, training, rest))).verdict.proof


def table(title: str, proofs: Iterable[Proof]) -> str:
    """Shares of planted copies found, over all proofs together."""
    proofs = list(proofs)
    rates = [proof.threshold.rate for proof in proofs]
    lines = [
        f"{title}: {len(proofs)} audits at {np.mean(rates):.2%} false alarms",
        "",
        "| copies | planted | found |",
        "|---|---|---|",
    ]
    counts = {kind: [proof.findings[kind] for proof in proofs] for kind in KINDS}
    rows = {str(kind): each for kind, each in counts.items()}
    rows["all altered"] = [each for kind in KINDS if kind != Alteration.exact for each in counts[kind]]
    for name, each in rows.items():
        planted, found = sum(one.planted for one in each), sum(one.found for one in each)
        low, high = wilson(found / planted, planted)
        lines.append(f"| {name} | {planted} | {found / planted:.1%} [{low:.1%}, {high:.1%}] |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
