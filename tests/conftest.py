"""Fixtures for every suite. Tests may read reference data beside the checkout, and skip where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# As `import rosacea_client` does it; tests may import gRPC before that. What they start inherits it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed with the reference networks."""
    folder = ROOT.parent / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("no shared/golden beside the checkout")
    return folder
