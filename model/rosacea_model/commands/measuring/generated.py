"""Images that measuring commands take: those of a model at its first seeds, or of a data set."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ...behind import is_run, model_behind
from ...data.prepare import holdout_path
from ...files.modelfile import WEIGHTS_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...metrics.images import DatasetImages, ImageSource

MeasuredModel = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model folder, run or checkpoint; or a zip or folder of pictures.")
]
TrainingImages = Annotated[Path, typer.Option(metavar="ZIP", help="The images that it was trained on.")]
HoldOut = Annotated[
    Path | None,
    typer.Option(metavar="ZIP", help="Images of the same kind that it was not; unset = ZIP's own, if there is one."),
]


@contextmanager
def generated(
    model: Path, samples: int, data: DatasetImages, *, truncation_psi: float = 1.0, device: str = "cpu"
) -> Iterator[ImageSource]:
    """The faces of a model at seeds 0 to samples - 1, with the labels of the data in turn; or, if MODEL is a zip or
    folder of pictures, the first `samples` of these."""
    from ...metrics.images import DatasetImages, ModelImages

    if is_pictures(model):
        pictures = DatasetImages(model, labels=False)
        yield DatasetImages(model, labels=False, chosen=range(min(samples, len(pictures))))
        return
    from ...engine import Engine

    with model_behind(model) as (folder, _), TemporaryDirectory(prefix="rosacea-drawn-") as scratch:
        engine = Engine.load(folder, device=device)
        keep = Path(scratch) / "faces.npy"
        yield ModelImages(engine, range(samples), labels=data.labels, truncation_psi=truncation_psi, keep=keep)


def is_pictures(path: Path) -> bool:
    """Whether a path is a zip or folder of pictures, and no model, run or checkpoint."""
    return path.suffix == ".zip" or (path.is_dir() and not (path / WEIGHTS_NAME).exists() and not is_run(path))


def held_out(data: Path, holdout: Path | None) -> Path | None:
    """The hold-out of a data set: as stated, or the zip that `data prepare --holdout` wrote beside it, or None."""
    beside = holdout_path(data)
    return holdout or (beside if beside.is_file() else None)
