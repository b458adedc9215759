"""How many threads torch uses in this process. The bytes of a face may depend on it, so tests tell both sides."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many for the time of the block, whatever OMP_NUM_THREADS says. Load engines in it: they note the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
