"""Train the `builtin` encoder on phantoms' attributes and write the weights that ship with the package.

    python -m rosacea_model.metrics.encoders.train_builtin --out FOLDER

It learns to read every number that a phantom was drawn from, and how far a picture was blurred, made noisy, discoloured
and brightened: what a measure of generated faces should notice.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ...files.modelfile import write_atomically
from ...phantom.identity import Hair, Subtype
from ...phantom.series import Series, draw_series
from .builtin import WEIGHTS_NAME
from .network import DIMENSION, SIZE, PhantomNet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

SERIES_SEED = 4242
VALIDATION = 500  # images that are not trained on
BATCH = 64
RATE = 2e-3
BLUR, NOISE, TINT, GAIN = 2.0, 20.0, 20.0, 0.25  # most that a picture is degraded by: px, levels, levels, share
LEFT_OUT = {"seed", "index", "texture", "pattern", "noise_seed", "background_turn"}  # a picture does not show these


def main() -> None:
    """Draw, train, check and write."""
    options = _options()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    images, attributes = draw(options.count, options.workers)
    names, targets = standardised(attributes)
    net = PhantomNet()
    train(net, images[VALIDATION:], targets[VALIDATION:], steps=options.steps)
    standardise_features(net, images[VALIDATION:])
    explained = explained_variance(net, images, targets)
    write(options.out, net, {"phantoms": options.count, "series_seed": SERIES_SEED, "steps": options.steps,
                             "explained_variance": dict(zip(names, explained, strict=True))})  # fmt: skip
    print(f"{options.out}: explains {np.median(explained):.2f} of an attribute's variance in the median")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the weights into")
    parser.add_argument("--count", type=int, default=8000, help="phantoms to draw")
    parser.add_argument("--steps", type=int, default=2500, help=f"steps of {BATCH} images")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser.parse_args()


def draw(count: int, workers: int) -> tuple[NDArray[np.uint8], list[dict[str, float]]]:
    """Images [N, 3, 64, 64] and the attributes of each."""
    series = Series(seed=SERIES_SEED, count=count, resolution=SIZE, confounders=True)
    images, attributes = [], []
    for face in draw_series(series, workers=workers):
        images.append(face.image.transpose(2, 0, 1))
        attributes.append(numbers(face.attributes))
    return np.stack(images), attributes


def numbers(attributes: Mapping[str, Any]) -> dict[str, float]:
    """A phantom's attributes as numbers, kinds as one number for each."""
    found = {}
    for part in ("identity", "condition", "scene"):
        for name, value in attributes[part].items():
            found.update({f"{part}.{key}": float(each) for key, each in _flat(name, value) if name not in LEFT_OUT})
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    kinds = {"hair": Hair, "subtype": Subtype}
    if name in kinds:
        yield from ((f"{name}={kind}", float(value == kind)) for kind in kinds[name])
    elif isinstance(value, tuple | list):
        yield from ((f"{name}.{place}", each) for place, each in enumerate(value))
    else:
        yield name, value


def standardised(attributes: list[dict[str, float]]) -> tuple[list[str], Tensor]:
    """Names and targets [N, A] of mean 0 and variance 1; attributes that are always the same are left out."""
    table = np.array([list(each.values()) for each in attributes])
    varied = table.std(axis=0) > 1e-9
    names = [name for name, kept in zip(attributes[0], varied, strict=True) if kept]
    table = table[:, varied]
    return names, torch.from_numpy((table - table.mean(axis=0)) / table.std(axis=0)).float()


def train(net: PhantomNet, images: NDArray[np.uint8], targets: Tensor, *, steps: int) -> None:
    """Regress attributes and degradations, by Adam with a cosine schedule."""
    rng = np.random.default_rng(0)
    head = nn.Linear(DIMENSION, targets.shape[1] + 6)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        places = rng.integers(0, len(images), BATCH)
        levels, strengths = degraded(torch.from_numpy(images[places]).float(), rng)
        wanted = torch.cat([targets[places], strengths], dim=1)
        loss = F.smooth_l1_loss(head(net.raw(levels)), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}, loss {float(loss):.4f}", flush=True)


def degraded(levels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Half of the images blurred, noisy, tinted and brightened at random, and by how much [N, 6], each up to 1."""
    kept = torch.from_numpy(rng.random((len(levels), 1)) < 0.5).float()
    strengths = torch.from_numpy(rng.random((len(levels), 6))).float() * kept
    strengths *= torch.from_numpy(rng.random(strengths.shape) < 0.6).float()
    noise = torch.from_numpy(rng.standard_normal(levels.shape)).float()
    blurry = torch.stack(
        [blurred(image, BLUR * float(much)) for image, much in zip(levels, strengths[:, 0], strict=True)]
    )
    found = blurry * (1 + GAIN * strengths[:, 2, None, None, None]) + TINT * strengths[:, 3:6, None, None]
    return (found + NOISE * strengths[:, 1, None, None, None] * noise).clamp(0, 255), strengths


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [3, H, W]; sigma in px."""
    if sigma < 0.05:
        return image
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    kernel /= kernel.sum()
    wide = F.pad(image[None], (reach, reach, reach, reach), mode="replicate")[0][:, None]
    return F.conv2d(F.conv2d(wide, kernel[None, None, None]), kernel[None, None, :, None])[:, 0]


@torch.no_grad()
def standardise_features(net: PhantomNet, images: NDArray[np.uint8]) -> None:
    """Set the mean and deviation that `forward` takes off, from undegraded images."""
    found = torch.cat(
        [net.raw(torch.from_numpy(images[at : at + BATCH]).float()) for at in range(0, len(images), BATCH)]
    )
    net.mean.copy_(found.mean(dim=0))
    net.deviation.copy_(found.std(dim=0).clamp(min=1e-3))


@torch.no_grad()
def explained_variance(net: PhantomNet, images: NDArray[np.uint8], targets: Tensor) -> list[float]:
    """Share of each attribute's variance, on the images not trained on, that is linear in the features.

    A ridge regression on the training images, so that it is the features that are judged and not a head.
    """
    rows = torch.cat([net(torch.from_numpy(images[at : at + BATCH]).float()) for at in range(0, len(images), BATCH)])
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1).double()
    seen, wanted = rows[VALIDATION:], targets[VALIDATION:].double()
    weights = torch.linalg.solve(seen.T @ seen + torch.eye(seen.shape[1]).double(), seen.T @ wanted)
    left = (targets[:VALIDATION].double() - rows[:VALIDATION] @ weights).square().mean(dim=0)
    return [round(float(each), 4) for each in 1 - left / targets[:VALIDATION].double().var(dim=0)]


def write(folder: Path, net: PhantomNet, facts: Mapping[str, object]) -> None:
    """Weights in half precision, with the facts of their training as metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}
    write_atomically(folder / WEIGHTS_NAME, save(tensors, metadata={"training": json.dumps(facts)}))


if __name__ == "__main__":
    main()
