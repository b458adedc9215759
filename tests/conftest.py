"""Fixtures for every suite. Tests may read reference data beside the checkout, and skip where it is absent."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from .virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable

# As `import rosacea_client` does it; tests may import gRPC before that. What they start inherits it.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# Processes of tests that run side by side share the cores; torch's threads would only wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes import the same modules: compile each once, also where the environment keeps no bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed with the reference networks."""
    folder = ROOT.parent / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("no shared/golden beside the checkout")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long as well, minutes each")


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis try the same examples in every run, however long each takes; the long tests try others each time,
    and remember those that failed."""
    settings.load_profile("default" if config.getoption("--long") else "ci")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests unless they are asked for, and begin with the files that have slow ones: with several
    processes the short ones then fill the gaps at the end."""
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Time is virtual in tests that are marked so."""
    return {"loop": VirtualTimeLoop if item.get_closest_marker("virtual_time") else asyncio.new_event_loop}
