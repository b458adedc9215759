"""CPU time of coding an image, marked and bare, beside Pillow's fastest PNG: `make bench-coding`.

A phantom of each size, one thread, CPU time of that thread; all ways take turns, medians.
"""

from __future__ import annotations

import io
import itertools
import statistics
import time
from typing import TYPE_CHECKING, Annotated

import typer
from PIL import Image

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_model.phantom import sample_phantom
from rosacea_model.phantom.render import render
from rosacea_serving.worker.encode import encode, filtered_rows, jpeg, png
from rosacea_serving.worker.marking import Maker, Marker

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

MAKER = Maker(name="demo", digest="ab" * 32, fingerprint="cd" * 32)
QUALITY = 90
TURN_PIXELS = 400_000  # coded in one turn, to be well above the clock's step


def main(sizes: Annotated[list[int], typer.Option("--size")] = [64, 256, 512], rounds: int = 15) -> None:  # noqa: B006
    """Print one row for each size and way of coding."""
    for size in sizes:
        pixels = render(sample_phantom(0, 3), size).image
        ways = ways_of(pixels)
        took = {name: statistics.median(each) for name, each in timed(ways, pixels, rounds).items()}
        for name, way in ways.items():
            times = took["Pillow level 1"] / took[name]
            print(f"{size:4} px  {name:16} {took[name] * 1e6:9.1f} us  {times:6.2f} x Pillow  {len(way()):8} bytes")


def ways_of(pixels: Pixels) -> dict[str, Callable[[], bytes | memoryview]]:
    """Each way of coding the image, by name."""
    marker, seeds = Marker(MAKER), itertools.count()

    def marked(image_format: faces_pb2.ImageFormat.ValueType) -> bytes:
        item = render_pb2.RenderItem(
            seed=next(seeds), truncation_psi=0.7, noise_mode=faces_pb2.NOISE_MODE_CONST, format=image_format
        )
        return encode(pixels, image_format, QUALITY, lambda image: marker.marked(image, item))

    return {
        "Pillow level 1": lambda: by_pillow(pixels),
        "PNG": lambda: png(pixels),
        "of it the filter": lambda: filtered_rows(pixels).reshape(-1).data,
        "PNG, marked": lambda: marked(faces_pb2.IMAGE_FORMAT_PNG),
        "JPEG": lambda: jpeg(pixels, QUALITY),
        "JPEG, marked": lambda: marked(faces_pb2.IMAGE_FORMAT_JPEG),
    }


def by_pillow(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def timed(ways: dict[str, Callable[[], bytes | memoryview]], pixels: Pixels, rounds: int) -> dict[str, list[float]]:
    """Seconds of this thread's CPU time that each way takes for an image, of every round."""
    images = max(1, TURN_PIXELS // pixels.size)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.thread_time()
            for _ in range(images):
                way()
            took[name].append((time.thread_time() - began) / images)
    return took


if __name__ == "__main__":
    typer.run(main)
