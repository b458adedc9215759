"""A client that reads a stream, tells of every face, and does not live to see the end of it.

Usage:

    python -m tests.soak.crasher ADDRESS FIRST_SEED
"""

from __future__ import annotations

import sys

from rosacea_client import FaceClient
from tests.faults.history import digest

from .orders import SEEDS

FACES = 20_000  # more than anybody waits for


def crash_seeds(first: int, count: int = FACES) -> list[int]:
    """The seeds of its stream, in order."""
    return [(first + index) % len(SEEDS) for index in range(count)]


def main(address: str, first_seed: int) -> None:
    """Print revision, seed, format and digest of each face, as it comes."""
    with FaceClient(address, timeout_seconds=600) as client:
        for face in client.stream(crash_seeds(first_seed), format="raw"):
            print(face.model, face.seed, face.format, digest(face.image), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
