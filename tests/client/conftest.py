"""A fake service, and its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .fakes import FakeFaces, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service() -> FakeFaces:
    return FakeFaces()


@pytest.fixture
def address(service: FakeFaces) -> Iterator[str]:
    with serving(service) as address:
        yield address
