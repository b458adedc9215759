"""What measuring costs beside drawing: `python -m tests.bench.bench_evaluate [--images N]`.

Draws images of 128 px with an untrained generator of 128 channels and fewer, evaluates as many images of a data set
against them, and prints the split of the time and the memory. Exit code 1 if measuring takes more than a tenth of
drawing, or if more than a quarter of the decoded images is ever in memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from rosacea_model import GeneratorConfig
from rosacea_model.data.writer import DatasetWriter
from rosacea_model.engine import Engine
from rosacea_model.fresh import fresh_model
from rosacea_model.metrics.encoders.choose import EncoderName, open_encoder
from rosacea_model.metrics.encoders.joint import JointEncoder
from rosacea_model.metrics.erythema.encoder import RednessEncoder
from rosacea_model.metrics.features import features
from rosacea_model.metrics.fidelity.evaluation import EvaluateOptions, comparisons
from rosacea_model.metrics.images import ArrayImages, DatasetImages, ModelImages

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Made = TypeVar("Made")

PX = 128
DRAWN = 200  # images that the speed of drawing is measured on
MOST = 0.1  # of drawing
MOST_DECODED = 0.25  # of all decoded images


def main() -> int:
    """Write a data set, draw, encode from disk, compute; print seconds for all images."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    images = parser.parse_args().images
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return measure(images, Path(folder))


def measure(images: int, folder: Path) -> int:
    encoder = JointEncoder(open_encoder(EncoderName.builtin), RednessEncoder(PX))
    config = GeneratorConfig(
        z_dim=64, w_dim=64, img_resolution=PX, mapping_layers=2, channel_base=4096, channel_max=128
    )
    engine = Engine.load(fresh_model(folder / "model", config, seed=0, name="bench").path)
    drawing, drawn = timed(lambda: np.concatenate([b.pixels for b in ModelImages(engine, range(DRAWN)).batches()]))
    drawing *= images / DRAWN
    write(folder / "data.zip", drawn, images)

    before = peak_mb()
    reading, source = timed(lambda: DatasetImages(folder / "data.zip"))
    digesting, _ = timed(lambda: source.digest)
    encoding, real = timed(lambda: features(source, encoder, cache=folder / "cache"))
    grown = peak_mb() - before
    own, _ = timed(lambda: features(ArrayImages(drawn), encoder))
    own *= images / DRAWN
    fake = real + np.random.default_rng(0).normal(size=real.shape).astype(np.float32)
    computing, _ = timed(lambda: comparisons(real, fake, None, EvaluateOptions()))

    share = (own + computing) / drawing
    print(f"{images} images of {PX} px; seconds of one thread's CPU")
    print(f"drawing the fakes                    {drawing:8.1f} s ({1000 * drawing / images:.1f} ms each, of {DRAWN})")
    print(f"encoding the fakes                   {own:8.1f} s ({1000 * own / images:.2f} ms each, of {DRAWN})")
    print(f"all metrics, three comparisons       {computing:8.1f} s")
    print(f"measuring beside drawing             {share:8.1%}")
    print(f"reals, once: digest, decode, encode  {reading + digesting + encoding:8.1f} s, then from the cache")
    print(f"memory while reals stream from disk  {grown:8.1f} MB more than before")
    return int(share > MOST or grown > MOST_DECODED * images * 3 * PX**2 / 2**20)


def write(path: Path, drawn: NDArray[np.uint8], images: int) -> None:
    """A data set of so many different images: those drawn, each shifted in brightness."""
    with DatasetWriter(path, datasheet={}) as writer:
        for number in range(images):
            writer.add(drawn[number % len(drawn)] ^ np.uint8(number // len(drawn)), None, {})


def timed(make: Callable[[], Made]) -> tuple[float, Made]:
    begun = time.process_time()  # of the one thread: what else the machine does is not counted
    made = make()
    return time.process_time() - begun, made


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    raise SystemExit(main())
