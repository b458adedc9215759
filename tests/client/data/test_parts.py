"""The cache, the mixture and the coding that a pipeline is put together from."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from rosacea_client import FaceClient
from rosacea_client.data import FaceCache, Look, match_codec, mix
from rosacea_serving.worker import encode

if TYPE_CHECKING:
    from pathlib import Path

    from rosacea_client import Face


@pytest.fixture
def face(address: str) -> Face:
    with FaceClient(address) as client:
        return client.generate([7])[0]


def test_a_cached_face_is_the_face(face: Face, tmp_path: Path) -> None:
    cache = FaceCache(tmp_path)
    cache.put("ab" * 32, face)

    assert cache.get("ab" * 32) == face
    assert cache.get("cd" * 32) is None


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_entry_is_noticed_and_removed(face: Face, tmp_path: Path, place: int) -> None:
    cache = FaceCache(tmp_path)
    cache.put("ab" * 32, face)
    (path,) = tmp_path.rglob("*.face")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)

    assert cache.get("ab" * 32) is None
    assert cache.damaged == 1 and not path.exists()


def test_the_cache_keeps_to_its_bound(face: Face, tmp_path: Path) -> None:
    cache = FaceCache(tmp_path, max_bytes=20_000)
    for number in range(200):
        cache.put(f"{number:064x}", face)

    kept = list(tmp_path.rglob("*.face"))
    assert 1 < len(kept) < 200
    assert sum(path.stat().st_size for path in kept) <= 22_000 + len(face.image)


@pytest.mark.parametrize("ratio", ["0.3", "1/3", "0.5", "0.75", "0.01"])
def test_every_window_of_a_mixture_has_the_ratio(ratio: str) -> None:
    real = range(40)
    mixed = mix(real, range(100, 10_000), ratio)
    kinds = [value >= 100 for value in (mixed[slot] for slot in range(len(mixed)))]

    for size in range(1, len(kinds)):
        counts = {sum(kinds[at : at + size]) for at in range(len(kinds) - size + 1)}
        exact = size * mixed.ratio
        assert counts <= {exact.__floor__(), exact.__ceil__()}
    assert sorted(value for value in mixed if value < 100) == list(real)  # type: ignore[attr-defined]


def test_a_batch_of_a_mixture_is_its_samples() -> None:
    mixed = mix(range(30), range(100, 200), 0.4, shuffle=1)
    first = [mixed[slot] for slot in range(len(mixed))]

    assert mixed.__getitems__(range(len(mixed))) == first
    mixed.set_epoch(1)
    assert [mixed[slot] for slot in range(len(mixed))] != first


def test_too_few_synthetic_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 30 synthetic ones, got 20"):
        mix(range(30), range(20), 0.5)


@pytest.mark.parametrize("quality", [None, 50, 95])
def test_real_images_are_coded_with_the_tables_of_the_service(
    quality: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    files: list[bytes] = []
    monkeypatch.setattr("rosacea_client.data.codec.io", SimpleNamespace(BytesIO=lambda: Kept(files)))

    coded = match_codec(pixels, Look(format="jpeg", jpeg_quality=quality))

    ours, theirs = (Image.open(io.BytesIO(data)) for data in (files[0], encode.jpeg(pixels, quality or 95)))
    assert ours.quantization == theirs.quantization  # type: ignore[attr-defined]
    assert JpegImagePlugin.get_sampling(ours) == JpegImagePlugin.get_sampling(theirs) == 0  # 4:4:4
    assert not (coded == pixels).all()
    assert (match_codec(pixels, Look(format="raw")) == pixels).all()


class Kept(io.BytesIO):
    """A buffer whose last bytes can be looked at after it is closed."""

    def __init__(self, files: list[bytes]) -> None:
        super().__init__()
        self.files = files

    def flush(self) -> None:
        if not self.closed:
            self.files[:] = [self.getvalue()]


@pytest.mark.parametrize("module", ["plan", "cache", "codec", "mixing", "bulk", "commands"])
def test_only_the_torch_module_needs_torch(module: str) -> None:
    probe = f"import sys, rosacea_client.data.{module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
