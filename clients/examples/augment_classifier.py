"""Measures whether synthetic faces in rare classes improve a classifier, on phantoms whose severity is known.

    rosacea serve &
    python clients/examples/augment_classifier.py --plot augment.png

"Real" faces are phantoms (drawn from physiology, with known severity): few of the severe ones, as in a clinic. A small
network learns to tell the four severities in three ways, with as many steps each, and is tested on other phantoms, as
many of each severity:

    real        the real faces as they are
    repeated    the same, with those of rare classes shown more often
    filled up   the same, with synthetic faces until every class is as large as the largest

Only if "filled up" beats "repeated" have the faces themselves helped, and not just the balance. The demo model has
learned from 6,000 other phantoms, far more than the classifier has: with a model that knows no more than the
classifier's own few faces, expect less.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from rosacea_client.commands.chart import Panel, chart
from rosacea_client.data import Labels, Plan
from rosacea_client.data.torch import FaceDataset
from rosacea_model.phantom import render, sample_phantom

CLASSES, RESOLUTION = 4, 64
WAYS = ("real", "repeated", "filled up")
TRAINING_SERIES, TEST_SERIES = 1_000, 2_000  # of phantoms; the demo model has seen series 0
BATCH = 64

Faces = tuple[torch.Tensor, torch.Tensor]  # images [N, 3, H, W] uint8, severities [N]


def real_faces(series: int, counts: list[int]) -> Faces:
    """The same number of phantoms of each severity."""
    images, labels, missing = [], [], Counter(dict(enumerate(counts)))
    for index in range(100 * sum(counts)):
        spec = sample_phantom(series, index, confounders=False)
        grade = spec.condition.grade
        if missing[grade] > 0:
            missing[grade] -= 1
            images.append(torch.from_numpy(render(spec, RESOLUTION).image).permute(2, 0, 1))
            labels.append(grade)
        if not missing.total():
            break
    return torch.stack(images), torch.tensor(labels)


def synthetic_faces(address: str, seed: int, counts: list[int]) -> Faces:
    """Synthetic faces that bring every class up to the size of the largest."""
    plan = Plan(seed=seed, labels=Labels.filling(dict(enumerate(counts))))
    data = FaceDataset(address, count=sum(max(counts) - count for count in counts), plan=plan)
    batches = list(DataLoader(data, batch_size=BATCH))
    return torch.cat([batch["image"] for batch in batches]), torch.cat([batch["label"] for batch in batches])


def network() -> nn.Module:
    """A small classifier: three convolutions and a global mean."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def trained(faces: Faces, weights: torch.Tensor, steps: int, seed: int) -> nn.Module:
    """Train a classifier on batches sampled with `weights` and mirrored at random."""
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    images, labels = faces
    for _ in range(steps):
        chosen = torch.multinomial(weights, BATCH, replacement=True)
        batch = images[chosen]
        batch = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, batch, batch.flip(3))
        loss = F.cross_entropy(model(scaled(batch)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def scaled(images: torch.Tensor) -> torch.Tensor:
    """Scale pixels to -1 to 1."""
    return images.float() / 127.5 - 1


@torch.no_grad()
def recalls(model: nn.Module, faces: Faces) -> list[float]:
    """Recall for each severity."""
    images, labels = faces
    found = model(scaled(images)).argmax(1)
    return [float((found[labels == grade] == grade).float().mean()) for grade in range(CLASSES)]


def tried(address: str, seed: int, counts: list[int], test: Faces, steps: int) -> dict[str, list[float]]:
    """Train and test every method on real faces of this seed; returns the recalls."""
    real = real_faces(TRAINING_SERIES + seed, counts)
    synthetic = synthetic_faces(address, seed, counts)
    even = torch.ones(len(real[1]))
    often = 1 / torch.tensor(counts, dtype=torch.float)[real[1]]
    both = torch.cat([real[0], synthetic[0]]), torch.cat([real[1], synthetic[1]])
    runs = ((real, even), (real, often), (both, torch.ones(len(both[1]))))
    return {
        way: recalls(trained(faces, weights, steps, seed), test)
        for way, (faces, weights) in zip(WAYS, runs, strict=True)
    }


def table(found: list[dict[str, list[float]]]) -> str:
    """Table of mean recalls by method, with balanced accuracy (the mean over severities) of each seed."""
    lines = ["| trained on | none | mild | moderate | severe | balanced accuracy | of each seed |", "|---" * 7 + "|"]
    for way in WAYS:
        each = np.array([one[way] for one in found])  # [seeds, classes]
        cells = [f"{value:.3f}" for value in (*each.mean(0), each.mean())]
        seeds = ", ".join(f"{value:.3f}" for value in each.mean(1))
        lines.append("| " + " | ".join([way, *cells, seeds]) + " |")
    return "\n".join(lines)


def plot(found: list[dict[str, list[float]]], file: Path) -> None:
    """Plot balanced accuracy by method, one line per seed, and mean recall by severity."""
    by_seed = {f"seed {seed}": [statistics.mean(one[way]) for way in WAYS] for seed, one in enumerate(found)}
    by_way = {way: list(np.mean([one[way] for one in found], axis=0)) for way in WAYS}
    panels = [
        Panel("balanced accuracy on real test faces", "trained on", WAYS, by_seed),
        Panel("recall, mean over seeds", "severity", ("none", "mild", "moderate", "severe"), by_way),
    ]
    chart("Filling rare classes up with synthetic faces", panels).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:7433")
    parser.add_argument("--counts", default="160,80,40,20", help="real faces of each severity")
    parser.add_argument("--test", type=int, default=150, help="test faces of each severity")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=Path("augment.png"))
    options = parser.parse_args()
    counts = [int(count) for count in options.counts.split(",")]
    test = real_faces(TEST_SERIES, [options.test] * CLASSES)
    found = [tried(options.address, seed, counts, test, options.steps) for seed in range(options.seeds)]
    print(table(found))
    plot(found, options.plot)


if __name__ == "__main__":
    main()
