"""Train small networks on 300 phantoms, on one CPU thread, and fail unless the samples have become faces.

    make train-smoke

Two figures of the run's own stats.jsonl are compared with those of its first grid. `distance` (colour and texture)
must fall to half; but it falls as soon as fakes stop being garish. So `layout` (where in the image things are) must
also fall below that of the average phantom shown again and again, which no generator reaches that has learnt colours,
blobs or one blurred face only.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from rosacea_model.data.dataset import LabelledImages
from rosacea_model.training.feed import to_unit
from rosacea_model.training.reporting import grids
from rosacea_model.training.reporting.records import read_stats

ROSACEA = Path(sys.executable).with_name("rosacea")
KIMG = 10.0
PHANTOMS = ["data", "phantom", "--count", "300", "--resolution", "32", "--seed", "0"]
TRAIN = [
    "train",
    "--preset",
    "small-data",
    "--batch",
    "8",
    "--cbase",
    "512",
    "--cmax",
    "32",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--tick-kimg",
    "1",
    "--snap-kimg",
    "2",
]


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """How far samples were from the phantoms, at first and at last."""

    distance: tuple[float, float]
    layout: tuple[float, float]
    layout_of_average: float

    @property
    def improved(self) -> bool:
        return self.distance[1] < self.distance[0] / 2 and self.layout[1] < self.layout_of_average

    def lines(self) -> str:
        return (
            f"distance: first {self.distance[0]:.3f}, last {self.distance[1]:.3f}, must be below half the first\n"
            f"layout: first {self.layout[0]:.3f}, last {self.layout[1]:.3f}, must be below that of the average "
            f"phantom, {self.layout_of_average:.3f}\n{'improved' if self.improved else 'NOT IMPROVED'}"
        )


def train_smoke(folder: Path, kimg: float = KIMG) -> Smoke:
    """Draw the phantoms and train on them in a folder, and say what became of it."""
    data, run = folder / "phantoms.zip", folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([ROSACEA, *PHANTOMS, "--out", data], check=True)
    subprocess.run([ROSACEA, *TRAIN, "--data", data, "--outdir", run, "--kimg", str(kimg)], check=True)
    records = read_stats(run)
    return Smoke(
        distance=(records[0]["distance"], records[-1]["distance"]),
        layout=(records[0]["layout"], records[-1]["layout"]),
        layout_of_average=layout_of_average(data),
    )


def layout_of_average(data: Path) -> float:
    """How far the mean of all images is from them, as a generator that draws nothing else would be."""
    images = LabelledImages(data, labels=False)
    reals = to_unit(torch.stack([torch.from_numpy(images[index][0].copy()) for index in range(len(images))]))
    return grids.layout(reals, reals.mean(dim=0, keepdim=True).expand(64, -1, -1, -1))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make anew")
    folder = parser.parse_args().out
    shutil.rmtree(folder, ignore_errors=True)

    smoke = train_smoke(folder)

    print(smoke.lines())
    sys.exit(not smoke.improved)


if __name__ == "__main__":
    main()
