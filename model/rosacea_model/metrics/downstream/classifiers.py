"""Two small classifiers of images, and their training: a fixed number of steps, reproducible on a CPU."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

BATCH = 32
RATE, DECAY = 2e-3, 1e-2  # AdamW, rate falling to 0 by a cosine
SHIFT = 2  # pixels that training images are moved by, at most
PREDICTED = 256  # images at once


def conv_net(classes: int) -> nn.Module:
    """Four plain convolutions with batch normalisation, halving the size after each of the first three."""
    widths = (3, 16, 32, 64, 64)
    layers: list[nn.Module] = []
    for number, (inward, outward) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(inward, outward, 3, padding=1, bias=False), nn.BatchNorm2d(outward), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if number < 3 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def residual_net(classes: int) -> nn.Module:
    """Three residual blocks, each halving the size (He et al. 2016).

    With batch normalisation: one that divides by an image's own mean would hide how red it is.
    """
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        *(ResidualBlock(inward, outward) for inward, outward in ((16, 24), (24, 48), (48, 64))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


class ResidualBlock(nn.Module):
    """Two convolutions beside a strided 1x1 one."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inward, outward, 3, stride=2, padding=1)
        self.second = nn.Conv2d(outward, outward, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(inward), nn.BatchNorm2d(outward)])
        self.skip = nn.Conv2d(inward, outward, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # [N, inward, h, w] => [N, outward, h / 2, w / 2]
        hidden = self.first(F.relu(self.norms[0](x)))
        hidden = self.second(F.relu(self.norms[1](hidden)))
        both: Tensor = hidden + self.skip(x)
        return both


ARCHITECTURES: Mapping[str, Callable[[int], nn.Module]] = {"convnet": conv_net, "resnet": residual_net}


def train_classifier(
    images: NDArray[np.uint8],  # [N, size, size, 3]
    labels: NDArray[np.int64],  # [N]
    *,
    classes: int,
    architecture: str,
    seed: int,
    steps: int,
) -> nn.Module:
    """Train one classifier with cross-entropy on random batches, flipped and moved by up to SHIFT pixels."""
    pixels, targets = to_input(images), torch.from_numpy(labels)
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ARCHITECTURES[architecture](classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(pixels), (min(BATCH, len(pixels)),), generator=random)
        loss = F.cross_entropy(network(_moved(pixels[chosen], random)), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def predict(network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.int64]:  # [N, size, size, 3] => [N]
    """The most probable class of each image."""
    found = [
        network(to_input(images[start : start + PREDICTED])).argmax(dim=1) for start in range(0, len(images), PREDICTED)
    ]
    return torch.cat(found).numpy()


def to_input(images: NDArray[np.uint8]) -> Tensor:  # [N, size, size, 3] => [N, 3, size, size] in [-1, 1]
    """Images as the classifiers take them."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def shrunk(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:  # [N, S, S, 3] => [N, size, size, 3]
    """Box average to a smaller size that divides S; images that are small enough stay as they are."""
    factor = images.shape[1] // size
    if factor <= 1:
        return images
    boxes = images.reshape(len(images), size, factor, size, factor, 3)
    means: NDArray[np.float32] = boxes.mean(axis=(2, 4), dtype=np.float32)
    return np.rint(means).astype(np.uint8)


def _moved(images: Tensor, random: torch.Generator) -> Tensor:
    """Flip half of the images, and move all of them by one random offset."""
    flipped = torch.rand(len(images), generator=random) < 0.5
    images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=random).tolist()
    return images.roll((down, right), (2, 3))
