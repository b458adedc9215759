"""`rosacea prove`: whether a model's images help a classifier that is tested on real ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ...data.progress import progress_on

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...metrics.images import ImageSource


def prove(
    real: Annotated[Path, typer.Option(metavar="PATH", help="Real labelled images to train classifiers on.")],
    test: Annotated[Path, typer.Option(metavar="PATH", help="Real labelled images that nothing was trained on.")],
    model: Annotated[Path, typer.Option(metavar="MODEL", help="Model folder, run or snapshot that draws images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for proof.html and proof.json.")],
    amounts: Annotated[
        str, typer.Option(metavar="N,N,...", help="Amounts of synthetic images, as multiples of the real ones.")
    ] = "0.5,1,2,4",
    seeds: Annotated[int, typer.Option(min=2, max=100, metavar="N", help="Train each classifier with N seeds.")] = 3,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Training steps of each classifier.")] = 400,
    truncation_psi: Annotated[float, typer.Option(metavar="PSI", help="Truncation of the synthetic images.")] = 1.0,
) -> None:
    """Train classifiers on real images, on real with synthetic ones and on synthetic ones alone, and test them on real.

    Reports accuracy by class and for the worst group, over the amount of synthetic images, with intervals. The answer
    may be that synthetic images do not help.
    """
    from ...engine import Engine
    from ...metrics.downstream.proof import prove as run
    from ...metrics.downstream.report import write_proof_report
    from ...metrics.images import DatasetImages, ModelImages

    console = Console(stderr=True, highlight=False)
    engine = Engine.load(model)
    known, unseen = DatasetImages(real), DatasetImages(test)

    def synthetic(count: int, labels: NDArray[np.float32]) -> ImageSource:
        return ModelImages(engine, range(count), labels=labels, truncation_psi=truncation_psi)

    with progress_on(console, "classifiers trained") as progress:
        found = run(known, unseen, synthetic, amounts=_amounts(amounts), seeds=seeds, steps=steps, progress=progress)
    sources = {
        "model": f"{engine.name}, digest {engine.model.file.digest}",
        "truncation psi": truncation_psi,
        "real data": f"{known.name}, digest {known.digest}",
        "test data": f"{unseen.name}, digest {unseen.digest}",
    }
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(f"{write_proof_report(found, sources, out)}: {found.sentence()}")


def _amounts(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"--amounts must be numbers with commas between, such as 0.5,1,2,4, got {text!r}") from None
