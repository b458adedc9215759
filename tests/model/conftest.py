"""The same random numbers for every test, whichever tests ran before it in the same process."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def seeded_module() -> None:
    """For what the tests of a module share."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
