"""Image sheets as PNG files, and distances of fakes from reals. Uses none of training's random numbers: a seed is the
same latent on every sheet of a run."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...files.modelfile import write_atomically
from ...networks.generator import truncate
from ...sample import latents
from ..feed import to_unit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ...networks.generator import Generator

CHUNK = 4  # images a forward pass, so that a sheet never needs more memory than training does
PSIS = (0.0, 0.25, 0.5, 0.7, 1.0)
COARSEST = 16
PATCH = 7
PROJECTIONS = 128


@torch.no_grad()
def draw(
    generator: Generator, seeds: range, labels: Tensor | None, psi: float = 1.0, heed: Callable[[], None] = lambda: None
) -> Tensor:  # => [N, C, H, W] on the CPU
    """Draw the images of seeds with constant noise, cycling through labels [M, c_dim].

    `heed` is called now and then, and ends it by an exception.
    """
    device = generator.mapping.w_avg.device
    images = []
    for first in range(seeds.start, seeds.stop, CHUNK):
        heed()
        chunk = range(first, min(first + CHUNK, seeds.stop))
        z = torch.from_numpy(latents(chunk, generator.config.z_dim)).to(device)
        c = None if labels is None else labels[[seed % len(labels) for seed in chunk]].to(device)
        ws = generator.mapping(z, c)[:, None].repeat(1, generator.config.num_ws, 1)
        ws = truncate(ws, generator.mapping.w_avg, psi, None)
        images.append(generator.synthesis(ws, generator.synthesis.noises("const", len(ws))).cpu())
    return torch.cat(images)


def draw_truncations(
    generator: Generator, rows: int, labels: Tensor | None, heed: Callable[[], None] = lambda: None
) -> Tensor:
    """Draw one row for each of the first seeds, one column for each of PSIS."""
    columns = [draw(generator, range(rows), labels, psi, heed) for psi in PSIS]
    return torch.stack(columns, dim=1).flatten(0, 1)


def to_levels(images: Tensor) -> NDArray[np.uint8]:  # [N, C, H, W] in [-1, 1] => [N, H, W, C]
    """Convert to uint8 levels by the reference's rule."""
    levels = (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    array: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).numpy()
    return array


def columns_for(count: int) -> int:
    """Number of columns for a roughly square sheet, without empty cells if possible."""
    near = [columns for columns in range(1, count + 1) if not count % columns and columns**2 >= count]
    return near[0] if near and near[0] ** 2 <= 4 * count else max(math.isqrt(count), 1)


def save_sheet(path: Path, images: Tensor, columns: int) -> None:
    """Write images [N, C, H, W] as a sheet, dropping those that would not fill the last row."""
    levels = to_levels(images)
    rows = len(levels) // columns
    _, height, width, channels = levels.shape
    sheet = levels[: rows * columns].reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    data = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(data, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data.getvalue())


def distance(reals: Tensor, fakes: Tensor) -> float:  # [N, C, H, W], [M, C, H, W], uint8 or in [-1, 1]
    """Sliced Wasserstein distance of patches (Karras et al. 2018, section 5), averaged over Laplacian pyramid levels.

    0 = the same distribution. It sees colours and texture without any trained network, but not where in the image
    they are: that is what `layout` is for. Good to rank the snapshots of one run by, and no substitute for a metric
    that knows faces.
    """
    generator = torch.Generator().manual_seed(0)
    levels = zip(_levels(reals), _levels(fakes), strict=True)
    found = [_level_distance(real, fake, generator) for real, fake in levels]
    return sum(found) / len(found)


def layout(reals: Tensor, fakes: Tensor) -> float:  # [N, C, H, W], [M, C, H, W], uint8 or in [-1, 1]
    """Frechet distance of coarse pixels, which compares the layout of whole images.

    Gaussians are fitted to images of COARSEST pixels a side (Dowson and Landau 1982; on features of a network it is
    FID), in units of what reals vary by: 0 = alike, 1 = as far as flat images of the reals' mean colour. A set of a
    hundred other reals is at some 0.1, the mean image at less than 1.
    """
    size = min(COARSEST, reals.shape[-1])
    reals, fakes = (
        torch.stack([F.adaptive_avg_pool2d(to_unit(image), size) for image in images]) for images in (reals, fakes)
    )
    mean, deviation = reals.mean(dim=(0, 2, 3), keepdim=True), reals.std(dim=(0, 2, 3), keepdim=True) + 1e-6
    real, fake = (((images - mean) / deviation).flatten(1).double() for images in (reals, fakes))
    of_means = (real.mean(dim=0) - fake.mean(dim=0)).square().sum()
    real, fake = ((rows - rows.mean(dim=0)) / len(rows) ** 0.5 for rows in (real, fake))
    # The trace of (A B)^(1/2) for covariances A = X^T X and B = Y^T Y is the sum of the singular values of X Y^T.
    shared = torch.linalg.svdvals(real @ fake.T).sum()
    return float((of_means + real.square().sum() + fake.square().sum() - 2 * shared) / real.shape[1])


def pyramid(images: Tensor) -> list[Tensor]:
    """Laplacian pyramid: the detail of each resolution, and the coarsest image."""
    levels = []
    while images.shape[-1] > COARSEST:
        coarse = F.avg_pool2d(images, 2)
        levels.append(images - F.interpolate(coarse, scale_factor=2, mode="bilinear"))
        images = coarse
    return [*levels, images]


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One resolution of the Laplacian pyramids of many images: patches and sums."""

    patches: Tensor  # [patches of all images, C, pixels of a patch]
    mean: Tensor  # [C, 1], of all pixels
    deviation: Tensor  # [C, 1]


def _levels(images: Tensor) -> list[_Level]:
    """Pyramids of images one by one, keeping only patches and sums, since the pyramids are larger than the images."""
    patches: list[list[Tensor]] = []
    moments: list[list[Tensor]] = []
    for image in images:
        for number, level in enumerate(pyramid(to_unit(image)[None])):
            if number == len(patches):
                patches.append([])
                moments.append([])
            size = level.shape[-1]
            cut = F.unfold(level, min(PATCH, size), stride=max(3, size // 12))[0]  # at most some 170 patches
            patches[number].append(cut.T.unflatten(1, (level.shape[1], -1)))
            pixels = level[0].flatten(1).double()
            moments[number].append(torch.stack([pixels.mean(dim=1), pixels.square().mean(dim=1)]))
    levels = []
    for number, (found, sums) in enumerate(zip(patches, moments, strict=True)):
        mean, square = torch.stack(sums).mean(dim=0)[..., None]
        count = len(images) * (images.shape[-1] >> number) ** 2
        variance = (square - mean.square()).clamp(min=0) * count / (count - 1)
        deviation = variance.sqrt() + 1e-6
        levels.append(_Level(patches=torch.cat(found), mean=mean.float(), deviation=deviation.float()))
    return levels


def _level_distance(reals: _Level, fakes: _Level, generator: torch.Generator) -> float:
    directions = torch.randn(reals.patches.shape[1] * PATCH**2, PROJECTIONS, generator=generator)
    directions = directions / directions.norm(dim=0)
    quantiles = torch.linspace(0, 1, 101)
    spread = []
    for level in (reals, fakes):
        rows = ((level.patches - reals.mean) / reals.deviation).flatten(1)
        spread.append(torch.quantile(rows @ directions, quantiles, dim=0))
    return float((spread[0] - spread[1]).abs().mean())
