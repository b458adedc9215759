"""Interface of the engine to the worker: `rosacea_model.engine.Engine`, or a stand-in in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rosacea_model.config import GeneratorConfig
    from rosacea_model.sample import FaceSample


class Drawing(Protocol):
    """The methods of `rosacea_model.engine.Engine` that the handler uses."""

    @property
    def config(self) -> GeneratorConfig: ...
    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def mapping_seconds(self) -> float: ...
    @property
    def micro_batch(self) -> int: ...
    def render_each(self, samples: Sequence[FaceSample]) -> Sequence[NDArray[np.uint8] | Exception]: ...
    def ws_each(self, samples: Sequence[FaceSample]) -> Sequence[NDArray[np.float32] | Exception]: ...
