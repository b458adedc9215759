"""The generator gives the reference's numbers: both golden networks, every latent, truncation, noise and mix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rosacea_model import FaceSample, GeneratorConfig, Model, latents, load
from rosacea_model.engine import Engine
from rosacea_model.engine.outputs import Pixels
from rosacea_model.engine.runtimes.pytorch import plain_runtime
from rosacea_model.files import weights

if TYPE_CHECKING:
    from pathlib import Path

SETS = ("unconditional", "conditional")
TRUNCATIONS = {"psi1": (1.0, None), "psi0.5": (0.5, None), "psi0.7_cutoff4": (0.7, 4)}
WS_TOLERANCE = 1e-6
IMAGE_TOLERANCE = 1e-5


class Case:
    """One golden set: our model made of its tensors, and the numbers to reach."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.config = config_of(json.loads((folder / "config.json").read_text())["G"])
        with np.load(folder / "generator.npz") as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        weights.save(scratch, self.config, tensors, name="golden")
        self.model: Model = load(scratch)
        self.want = dict(np.load(folder / "generator_outputs.npz"))
        self.labels = self.want["c"] if self.config.c_dim else None
        self.z: Any = self.want["z"]


def config_of(reference: dict[str, Any]) -> GeneratorConfig:
    return GeneratorConfig(
        z_dim=reference["z_dim"],
        c_dim=reference["c_dim"],
        w_dim=reference["w_dim"],
        img_resolution=reference["img_resolution"],
        img_channels=reference["img_channels"],
        mapping_layers=reference["mapping_kwargs"]["num_layers"],
        **reference["synthesis_kwargs"],
    )


@pytest.fixture(scope="module", params=SETS)
def case(request: pytest.FixtureRequest, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(golden / request.param, tmp_path_factory.mktemp(request.param))


def test_a_seed_gives_the_reference_latent_to_the_bit(case: Case) -> None:
    assert np.array_equal(latents(case.want["seeds"].tolist(), case.config.z_dim), case.z)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_ws_match(case: Case, truncation: str) -> None:
    psi, cutoff = TRUNCATIONS[truncation]

    ws = case.model.map(case.z, case.labels, truncation_psi=psi, truncation_cutoff=cutoff)

    np.testing.assert_allclose(ws.numpy(), case.want[f"ws.{truncation}"], rtol=0, atol=WS_TOLERANCE)


@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_images_match(case: Case, truncation: str, noise: Any) -> None:
    images = case.model.synthesize(case.want[f"ws.{truncation}"], noise_mode=noise)

    want = case.want[f"image.{truncation}.{noise}"]
    np.testing.assert_allclose(images.numpy(), want, rtol=0, atol=IMAGE_TOLERANCE)


def test_style_mixing_matches(case: Case) -> None:
    ws = case.model.map(case.z, case.labels).clone()
    ws[0, 3:] = ws[1, 3:]

    np.testing.assert_allclose(ws[:1].numpy(), case.want["mix.ws"], rtol=0, atol=WS_TOLERANCE)
    images = case.model.synthesize(ws[:1]).numpy()
    np.testing.assert_allclose(images, case.want["mix.image"], rtol=0, atol=IMAGE_TOLERANCE)


@pytest.mark.parametrize("source", ["seed", "z"])
def test_the_engine_draws_the_reference_pixels(case: Case, source: str) -> None:
    values = case.want["seeds"].tolist() if source == "seed" else list(case.z)
    labels = [None] * len(values) if case.labels is None else list(case.labels)
    samples = [FaceSample(**{source: value}, label=label) for value, label in zip(values, labels, strict=True)]

    plain = Engine(case.model, plain_runtime(case.model, 1)).render(samples)
    folded = Engine(case.model).render(samples)

    want = case.want["uint8.psi1.const"]
    assert np.array_equal(plain, want)
    apart = np.abs(folded.astype(int) - want)
    assert apart.max() <= 1, "another order of operations rounds otherwise, and no more"
    assert np.count_nonzero(apart) <= apart.size / 1000


def test_pixels_are_floored_and_clamped() -> None:
    image = torch.tensor([-2.0, -1.0, 0.0, 0.0039, 0.999, 2.0]).view(1, 1, 1, 6)

    (pixels,) = Pixels(image).wait()

    assert isinstance(pixels, np.ndarray)
    assert pixels.ravel().tolist() == [0, 0, 128, 128, 255, 255]
