"""A TorchServe handler as one writes it in an afternoon: a batch of seeds in, Pillow's PNGs out.

`bench_naive` compares the service with it. It draws with the package's networks as they are, and keeps freed memory as
the service does, so that what differs is the handler.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class NaiveHandler:
    """Draws what TorchServe has gathered as one batch."""

    def initialize(self, context: Any) -> None:
        """Load the model beside this file."""
        import os

        import torch

        from rosacea_model import load
        from rosacea_model.memory import keep_freed_memory

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        keep_freed_memory()
        self.model = load(context.system_properties["model_dir"])

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """One PNG for each row's seed."""
        import numpy as np
        from PIL import Image

        seeds = [int(bytes(row["seed"])) for row in rows]
        width, classes = self.model.config.z_dim, self.model.config.c_dim
        z = np.stack([np.random.RandomState(seed).randn(width) for seed in seeds])
        label = np.zeros((len(seeds), classes), np.float32) if classes else None
        images = self.model.synthesize(self.model.map(z.astype(np.float32), label, truncation_psi=0.7))
        pixels = (images * 127.5 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        return [self.png(Image.fromarray(each)) for each in pixels]

    @staticmethod
    def png(image: Any) -> bytes:
        """Pillow's PNG at its default level."""
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()
