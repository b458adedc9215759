"""How many bars over eyes are found, and how often on faces without: `python -m tests.bench.bench_bars [FOLDER]`.

On phantoms with and without bars of random colour, softness and turn, and on the pictures of a folder whose bars.csv
(columns file and bar: clear, partial or none) says what is on them.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from rosacea_model.data.screening.bars import find_bar
from tests.model.data.faces import barred, phantom

COUNT = 1000
PHANTOM_SIDES = (64, 128, 256, 512)
SIDES = (128, 256, 512)


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        for side in SIDES:
            report(f"{folder.name}, {side} px", on_folder(folder, side))
    for side in PHANTOM_SIDES:
        report(f"phantoms, {side} px", on_phantoms(side))


def report(name: str, counts: Counter[tuple[str, bool]]) -> None:
    kinds = sorted({kind for kind, _ in counts})
    said = (f"{kind} {counts[kind, True]} of {counts[kind, True] + counts[kind, False]}" for kind in kinds)
    print(f"{name:24} flagged: {', '.join(said)}", flush=True)


def on_folder(folder: Path, side: int) -> Counter[tuple[str, bool]]:
    with (folder / "bars.csv").open() as file:
        rows = [(row["file"], row["bar"]) for row in csv.DictReader(file)]
    counts: Counter[tuple[str, bool]] = Counter()
    for name, kind in rows:
        with Image.open(folder / name) as image:
            counts[kind, find_bar(image.resize((side, side), Image.Resampling.LANCZOS)) is not None] += 1
    return counts


def on_phantoms(side: int) -> Counter[tuple[str, bool]]:
    with ProcessPoolExecutor() as pool:
        results = pool.map(on_phantom, range(COUNT), [side] * COUNT, chunksize=20)
        return Counter(pair for pairs in results for pair in pairs)


def on_phantom(number: int, side: int) -> list[tuple[str, bool]]:
    image = phantom(number, side)
    return [("none", find_bar(image) is not None), ("barred", find_bar(barred(image, number)) is not None)]


if __name__ == "__main__":
    main()
