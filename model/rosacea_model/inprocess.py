"""Draws with a model in the calling process, for data sets without a service.

Example:

    model = InProcess("models/mine")                        # or a training run: its best snapshot
    pixels = model.render(seed=7, class_index=2, truncation_psi=0.7)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .behind import best_snapshot, is_run
from .files.modelfile import ModelFile, verify
from .sample import FaceSample, one_hot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .engine import Engine


@dataclass
class InProcess:
    """A model that is verified when this object is made and loaded on first use, so that processes forked later load
    their own."""

    path: str
    file: ModelFile = field(init=False)
    _engine: Engine | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        place = Path(self.path)
        self.file = verify(best_snapshot(place)[0] if is_run(place) else place)

    def render(
        self,
        seed: int,
        class_index: int | None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: Literal["const", "none", "random"] = "const",
        noise_seed: int = 0,
    ) -> NDArray[np.uint8]:  # => [H, W, C]
        """Draw one face, as the service would on this machine."""
        class_index = self.file.default_class if class_index is None else class_index
        label = None if class_index is None else one_hot(class_index, self.file.config.c_dim)
        sample = FaceSample(
            seed=seed,
            label=label,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            noise_mode=noise_mode,
            noise_seed=noise_seed,
        )
        pixels: NDArray[np.uint8] = self.engine.render([sample])[0]
        return pixels

    @property
    def engine(self) -> Engine:
        """This process's engine, loaded on first use."""
        if self._engine is None:
            from .engine import Engine

            self._engine = Engine.load(self.file.path)
        return self._engine

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_engine": None}
