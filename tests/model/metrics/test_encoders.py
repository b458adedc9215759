"""Encoders: pinned weights, features that depend on nothing but the image, and clear words on what is missing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from rosacea_model.metrics.encoders.choose import EncoderName, open_encoder
from rosacea_model.metrics.encoders.local import default_folder, tensorflow_bilinear
from rosacea_model.metrics.errors import MetricError, WeightsMissing

from .encoders import fits, random_pixels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DIMENSIONS = {"inception": 2048, "dinov2": 1024}
SIZES = {"inception": 299, "dinov2": 224}


def projection(dimension: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(3, dimension)).astype(np.float32)


def stand_in(folder: Path, name: str, *, dimension: int | None = None, tokens: bool = False) -> Path:
    """A network of the right shape: the mean of each channel, projected at random."""
    size, width = SIZES[name], dimension or DIMENSIONS[name]
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "projection"], ["rows"]),
        helper.make_node("Unsqueeze", ["rows", "one"], ["features"]) if tokens
        else helper.make_node("Identity", ["rows"], ["features"]),
    ]  # fmt: skip
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])
    made = helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
    constants = [
        numpy_helper.from_array(projection(width), "projection"),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    graph = helper.make_graph(nodes, "stand-in", [given], [made], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    pin(path)
    return path


def pin(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")


def test_the_builtin_encoder_ships_pinned_and_says_that_it_compares_with_nothing_else() -> None:
    encoder = fits(open_encoder(EncoderName.builtin))

    assert len(encoder.digest) == 64
    assert not encoder.comparable
    assert encoder.encode(random_pixels(2, 64)).shape == (2, encoder.dimension)


@pytest.mark.parametrize("side", [16, 64, 128])
def test_builtin_features_do_not_depend_on_the_images_beside(side: int) -> None:
    encoder, pixels = open_encoder(EncoderName.builtin), random_pixels(17, side)

    together = encoder.encode(pixels)

    assert np.isfinite(together).all()
    assert np.concatenate([encoder.encode(pixels[[place]]) for place in (0, 16)]) == pytest.approx(
        together[[0, 16]], abs=1e-5
    )
    assert encoder.encode(pixels.astype(np.float32)) == pytest.approx(together, abs=1e-6)


@pytest.mark.parametrize(("name", "tokens"), [("inception", False), ("dinov2", False), ("dinov2", True)])
def test_a_local_network_gets_images_of_its_size_and_range(name: str, tokens: bool, tmp_path: Path) -> None:
    path = stand_in(tmp_path, name, tokens=tokens)
    pixels = np.full((11, 32, 32, 3), 128, np.uint8)
    pixels[:, :, :, 1] = np.arange(11)[:, None, None] * 20

    encoder = fits(open_encoder(EncoderName(name), tmp_path))

    means = pixels.reshape(11, -1, 3).mean(axis=1)
    mean, deviation = (
        (np.array([128.0] * 3), np.array([128.0] * 3))
        if name == "inception"
        else (255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225]))
    )
    expected = ((means - mean) / deviation) @ projection(DIMENSIONS[name])
    assert encoder.encode(pixels) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert encoder.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_resize_of_fid_takes_corners_at_0_and_smooths_nothing() -> None:
    levels = torch.from_numpy(random_pixels(2, 16).astype(np.float32)).permute(0, 3, 1, 2)

    half = tensorflow_bilinear(levels, 8)
    double = tensorflow_bilinear(levels, 32)

    assert torch.equal(half, levels[:, :, ::2, ::2])
    assert torch.allclose(double[:, :, ::2, ::2], levels)
    assert torch.allclose(double[:, :, 0, 1:-1:2], (levels[:, :, 0, :-1] + levels[:, :, 0, 1:]) / 2)
    assert not torch.allclose(double, F.interpolate(levels, size=(32, 32), mode="bilinear"))


def test_missing_weights_are_named_with_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"inception\.onnx: .* not downloaded; put .* there as ONNX.*sha256sum"):
        open_encoder(EncoderName.inception, tmp_path)

    path = stand_in(tmp_path, "inception")
    path.with_name(f"{path.name}.sha256").unlink()
    with pytest.raises(WeightsMissing, match=r"inception\.onnx\.sha256: must hold the SHA-256"):
        open_encoder(EncoderName.inception, tmp_path)


def test_weights_other_than_the_pinned_ones_are_refused(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "dinov2")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")

    with pytest.raises(WeightsMissing, match=r"SHA-256 must be [0-9a-f]{64}, got"):
        open_encoder(EncoderName.dinov2, tmp_path)


def test_a_file_that_is_no_network_or_another_one_is_an_error(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "dinov2", dimension=5)
    with pytest.raises(MetricError, match=r"must give features \[N, 1024\], got \[8, 5\]"):
        open_encoder(EncoderName.dinov2, tmp_path).encode(random_pixels(1, 32))

    path.write_bytes(b"no network")
    pin(path)
    with pytest.raises(MetricError, match="not a network that onnxruntime can run"):
        open_encoder(EncoderName.dinov2, tmp_path)


def test_weights_lie_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert default_folder() == tmp_path / "rosacea" / "encoders"


def test_identity_features_are_those_of_the_face_or_of_the_whole_image() -> None:
    pytest.importorskip("dlib")
    encoder: Any = open_encoder(EncoderName.identity)
    pixels = random_pixels(2, 64)

    assert encoder.encode(pixels).shape == (2, 128)
    assert encoder.encode(pixels[1:]) == pytest.approx(encoder.encode(pixels)[1:])
