"""Sheets of images as PNG files, and how far a set of fakes is from the reals. Nothing here draws a random number
that training uses: seeds mean the same images from the first sheet to the last."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..modelfile import write_atomically
from ..networks import truncate
from ..sample import latents

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ..networks import Generator

CHUNK = 4                # images a forward pass, so that a sheet never needs more memory than training does
PSIS = (0.0, 0.25, 0.5, 0.7, 1.0)
COARSEST = 16
PATCH = 7
PROJECTIONS = 128


@torch.no_grad()
def draw(
    generator: Generator, seeds: range, labels: Tensor | None, psi: float = 1.0
) -> Tensor:                                                    # => [N, C, H, W] on the CPU
    """Images of seeds, with constant noise; labels [M, c_dim] go round where there are fewer."""
    device = generator.mapping.w_avg.device
    images = []
    for first in range(seeds.start, seeds.stop, CHUNK):
        chunk = range(first, min(first + CHUNK, seeds.stop))
        z = torch.from_numpy(latents(chunk, generator.config.z_dim)).to(device)
        c = None if labels is None else labels[[seed % len(labels) for seed in chunk]].to(device)
        ws = generator.mapping(z, c)[:, None].repeat(1, generator.config.num_ws, 1)
        ws = truncate(ws, generator.mapping.w_avg, psi, None)
        images.append(generator.synthesis(ws, generator.synthesis.noises("const", len(ws))).cpu())
    return torch.cat(images)


def draw_truncations(generator: Generator, rows: int, labels: Tensor | None) -> Tensor:
    """A row for each of the first seeds, a column for each of PSIS."""
    columns = [draw(generator, range(rows), labels, psi) for psi in PSIS]
    return torch.stack(columns, dim=1).flatten(0, 1)


def to_levels(images: Tensor) -> NDArray[np.uint8]:             # [N, C, H, W] in [-1, 1] => [N, H, W, C]
    """Levels as every other program of this family writes them."""
    levels = (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    array: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).numpy()
    return array


def save_sheet(path: Path, images: Tensor, columns: int) -> None:
    """Write images [N, C, H, W] side by side, row by row."""
    levels = to_levels(images)
    count, height, width, channels = levels.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:count] = levels
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    data = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(data, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data.getvalue())


def distance(reals: Tensor, fakes: Tensor) -> float:            # [N, C, H, W], [M, C, H, W]
    """Sliced Wasserstein distance of patches (Karras et al. 2018, section 5), averaged over Laplacian pyramid levels.

    0 = the same distribution. It sees colours, texture and coarse layout without any trained network; good to rank
    the snapshots of one run by, and no substitute for a metric that knows faces.
    """
    generator = torch.Generator().manual_seed(0)
    levels = zip(pyramid(reals), pyramid(fakes), strict=True)
    return sum(_level_distance(real, fake, generator) for real, fake in levels) / len(pyramid(reals[:1]))


def pyramid(images: Tensor) -> list[Tensor]:
    """What each resolution adds to the one of half its size, and the coarsest image itself."""
    levels = []
    while images.shape[-1] > COARSEST:
        coarse = F.avg_pool2d(images, 2)
        levels.append(images - F.interpolate(coarse, scale_factor=2, mode="bilinear"))
        images = coarse
    return [*levels, images]


def _level_distance(reals: Tensor, fakes: Tensor, generator: torch.Generator) -> float:
    mean = reals.mean(dim=(0, 2, 3), keepdim=True)
    deviation = reals.std(dim=(0, 2, 3), keepdim=True) + 1e-6
    directions = torch.randn(reals.shape[1] * PATCH**2, PROJECTIONS, generator=generator)
    directions = directions / directions.norm(dim=0)
    quantiles = torch.linspace(0, 1, 101)
    stride = max(3, reals.shape[-1] // 12)       # at most some 170 patches an image
    spread = []
    for images in (reals, fakes):
        patches = F.unfold((images - mean) / deviation, min(PATCH, images.shape[-1]), stride=stride)
        spread.append(torch.quantile(patches.transpose(1, 2).flatten(0, 1) @ directions, quantiles, dim=0))
    return float((spread[0] - spread[1]).abs().mean())
