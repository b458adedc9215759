"""Features: the cache is keyed by what they depend on, and a batch is all that is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rosacea_model.data.errors import DataRejected
from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.features import cache_key, check_features, default_cache, features
from rosacea_model.metrics.images import ArrayImages, DatasetImages, all_pixels, check_alike

from .encoders import BlockEncoder, fits, random_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from rosacea_model.metrics.encoders.protocol import Levels
    from rosacea_model.metrics.images import ImageBatch


def write_images(folder: Path, pixels: NDArray[np.uint8]) -> Path:
    folder.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_features_do_not_depend_on_the_batch_size(batch: int, tmp_path: Path) -> None:
    pixels = random_pixels(10)
    encoder = fits(BlockEncoder())

    assert (features(ArrayImages(pixels), encoder, batch=batch) == encoder.encode(pixels)).all()
    assert (features(ArrayImages(pixels), encoder, batch=batch, cache=tmp_path) == encoder.encode(pixels)).all()


def test_cached_features_are_read_and_not_computed(tmp_path: Path) -> None:
    encoder = BlockEncoder()
    once = np.array(features(ArrayImages(random_pixels(9)), encoder, cache=tmp_path))
    encoder.calls = 0

    assert (features(ArrayImages(random_pixels(9), name="another name"), encoder, cache=tmp_path) == once).all()
    assert encoder.calls == 0


def test_other_pixels_weights_or_resize_rules_are_other_features() -> None:
    encoder = BlockEncoder()
    resized = BlockEncoder()
    resized.resize = "box"
    keys = {
        cache_key(ArrayImages(random_pixels(4)), encoder),
        cache_key(ArrayImages(random_pixels(4, seed=1)), encoder),
        cache_key(ArrayImages(random_pixels(4)), BlockEncoder(4)),
        cache_key(ArrayImages(random_pixels(4)), resized),
    }

    assert len(keys) == 4


def test_a_damaged_cache_file_is_computed_anew(tmp_path: Path) -> None:
    images, encoder = ArrayImages(random_pixels(4)), BlockEncoder()
    path = tmp_path / f"{cache_key(images, encoder)}.npy"
    path.write_bytes(b"\x93NUMPY")

    assert (features(images, encoder, cache=tmp_path) == encoder.encode(images.pixels)).all()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


class Endless:
    """A large set of images, of which it counts how many are alive at once."""

    name, digest, resolution, length = "many", "0" * 64, 8, 500

    def __len__(self) -> int:
        return self.length

    def batches(self, size: int = 64) -> Iterator[ImageBatch]:
        assert size <= 64
        return ArrayImages(random_pixels(self.length)).batches(size)


def test_no_more_than_a_batch_is_encoded_at_once(tmp_path: Path) -> None:
    encoder = BlockEncoder()
    seen: list[tuple[int, int]] = []

    features(Endless(), encoder, cache=tmp_path, progress=lambda done, total: seen.append((done, total)))

    assert encoder.calls == 8
    assert seen[0] == (0, 500)
    assert seen[-1] == (500, 500)


class NotANumber(BlockEncoder):
    def encode(self, images: Levels) -> NDArray[np.float32]:
        return np.where(images.mean(axis=(1, 2, 3))[:, None] > 200, np.nan, super().encode(images)).astype(np.float32)


def test_features_that_are_not_finite_name_their_image(tmp_path: Path) -> None:
    pixels = random_pixels(6)
    pixels[4] = 255

    with pytest.raises(MetricError, match="faces: blocks gave NaN or infinity for faces 4"):
        features(ArrayImages(pixels, name="faces"), NotANumber(), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MetricError, match="finite, got NaN or infinity in row 1"):
        check_features(np.array([[0.0], [np.nan]], np.float32), "faces")


def test_a_data_set_is_known_by_the_bytes_of_its_files(tmp_path: Path) -> None:
    pixels = random_pixels(5, 16)
    one = DatasetImages(write_images(tmp_path / "one", pixels))
    same = DatasetImages(write_images(tmp_path / "same", pixels))
    other = DatasetImages(write_images(tmp_path / "other", 255 - pixels))

    assert (all_pixels(one) == pixels).all()
    assert one.digest == same.digest
    assert len({one.digest, other.digest, DatasetImages(tmp_path / "one", chosen=[0, 1]).digest}) == 3
    assert (all_pixels(DatasetImages(tmp_path / "one", chosen=[3, 1])) == pixels[[3, 1]]).all()


def test_images_that_cannot_be_measured_are_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    grey = write_images(tmp_path / "grey", random_pixels(2, 16)[..., 0])
    small = ArrayImages(random_pixels(2, 8), name="small")

    with pytest.raises(DataRejected, match="no images in it"):
        DatasetImages(tmp_path / "empty")
    with pytest.raises(MetricError, match="must be in colour, got grey ones; `rosacea data prepare --channels 3`"):
        DatasetImages(grey)
    with pytest.raises(MetricError, match=r"small has 8 px and large 16: .*--resolution 16"):
        check_alike(ArrayImages(random_pixels(2, 16), name="large"), small)
    with pytest.raises(MetricError, match=r"needs features .* of at least 2 images, got \[1, 3\]"):
        check_features(np.zeros((1, 3), np.float32), "one")
    with pytest.raises(MetricError, match="no images in it"):
        features(ArrayImages(random_pixels(0)), BlockEncoder())


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert default_cache() == tmp_path / "rosacea" / "features"
