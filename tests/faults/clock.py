"""Other processes' clock on the wall, which jumps as it does where time is set; their monotonic clock goes on as ever.

libfaketime does it: of Debian's package, or of the one of that name on PyPI.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


class WallClock:
    """`WallClock(folder).environment` makes a process go by this clock, and its children; `jump` moves it at once."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "offset"
        self._library = library()
        self.jump(0)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # Java does not start with it
        }

    def jump(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        partial = self._file.with_suffix(".part")
        partial.write_text(f"{seconds:+d}")
        partial.replace(self._file)


def library() -> Path:
    """libfaketime; skips the test where there is none."""
    found = next(candidates(), None)
    if found is None:
        pytest.skip("no libfaketime here: no clock was moved")
    return found


def candidates() -> Iterator[Path]:
    yield from Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    package = find_spec("libfaketime")
    if package is not None and package.origin is not None:
        yield from Path(package.origin).parent.glob("vendor/libfaketime/src/libfaketime.so.1")
