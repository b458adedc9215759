"""Phantoms as pictures: the same face at every size, the same bytes from every process, no face like another."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from rosacea_model.phantom import Condition, FaceIdentity, Phantom, Subtype, render, sample_phantom
from rosacea_model.phantom.drawing.noise import pyramid_noise
from rosacea_model.phantom.drawing.skin import MELANIN_RANGE
from rosacea_model.phantom.identity import MAX_SEED, TONE_POWER
from rosacea_model.phantom.render import RESOLUTIONS, shrink

# Code values of 255 between 64 px and the box average of 128 px: the mean of a face, and 99 of 100 values.
MEAN_BOUND, P99_BOUND = 2.5, 26.0


def digest(phantom: Phantom) -> str:
    planes = (phantom.image, phantom.haemoglobin, phantom.face_mask)
    return hashlib.sha256(b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes)).hexdigest()


def halved(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    size = len(image) // 2
    return np.asarray(image.reshape(size, 2, size, 2, 3).mean(axis=(1, 3)), dtype=np.float64)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_every_size_renders_whole(resolution: int) -> None:
    phantom = render(sample_phantom(0, 5), resolution)

    assert phantom.image.shape == (resolution, resolution, 3)
    assert phantom.image.dtype == np.uint8
    assert phantom.haemoglobin.shape == phantom.face_mask.shape == (resolution, resolution)
    assert phantom.haemoglobin.dtype == phantom.face_mask.dtype == np.float32
    assert np.isfinite(phantom.haemoglobin).all()
    assert phantom.face_mask.min() >= 0 and phantom.face_mask.max() <= 1
    assert 0.15 < phantom.face_mask.mean() < 0.6
    assert phantom.image.std() > 20


@pytest.mark.parametrize("index", range(24))
def test_64_px_is_the_box_average_of_128_px_within_the_bound(index: int) -> None:
    spec = sample_phantom(0, index)

    difference = np.abs(halved(render(spec, 128).image) - render(spec, 64).image)

    assert difference.mean() <= MEAN_BOUND
    assert np.percentile(difference, 99) <= P99_BOUND


def test_the_bound_tells_one_face_from_another() -> None:
    difference = np.abs(halved(render(sample_phantom(0, 1), 128).image) - render(sample_phantom(0, 2), 64).image)

    assert difference.mean() > 4 * MEAN_BOUND


@pytest.mark.parametrize("index", (3, 8, 22))
def test_blood_has_the_same_map_at_64_and_128_px(index: int) -> None:
    spec = sample_phantom(0, index)
    fine, coarse = render(spec, 128).haemoglobin, render(spec, 64).haemoglobin

    assert np.abs(shrink(fine, 64) - coarse).mean() < 0.05 * coarse[coarse > 0].mean()


def test_camera_noise_of_half_the_size_is_the_average() -> None:
    fine = pyramid_noise(np.random.default_rng(7), 128, 3)
    coarse = pyramid_noise(np.random.default_rng(7), 64, 3)

    np.testing.assert_allclose(fine.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3)), coarse, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    probe = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from tests.model.phantom.test_faces import digest\n"
        "from rosacea_model.phantom import render, sample_phantom\n"
        "print(*(digest(render(sample_phantom(11, index), 128)) for index in range(6)))"
    )
    here = [digest(render(sample_phantom(11, index), 128)) for index in range(6)]

    run = subprocess.run([sys.executable, "-c", probe, "."], capture_output=True, text=True, check=True)

    assert run.stdout.split() == here


def test_a_face_does_not_depend_on_how_many_are_drawn() -> None:
    of_eighteen = [sample_phantom(4, index) for index in range(18)]
    of_twenty = [sample_phantom(4, index) for index in reversed(range(20))][::-1]

    assert of_eighteen[17] == of_twenty[17]
    assert digest(render(of_eighteen[17], 64)) == digest(render(of_twenty[17], 64))


def test_seed_and_index_each_make_another_face() -> None:
    digests = {digest(render(sample_phantom(seed, index), 64)) for seed in range(5) for index in range(20)}

    assert len(digests) == 100


def test_identities_are_distinct_to_the_eye() -> None:
    """Any two of 150 faces differ by more than camera noise does: 16 px pictures, centred, code values of 255."""
    small = np.stack([render(sample_phantom(2, index), 16).image.astype(np.float32) for index in range(150)])
    flat = small.reshape(len(small), -1)
    squares = (flat**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * flat @ flat.T, 0) / flat.shape[1])

    assert distance[~np.eye(len(flat), dtype=bool)].min() > 4


def test_severity_leaves_the_identity_alone() -> None:
    healthy = replace(sample_phantom(0, 3), condition=Condition())
    severe = replace(healthy, condition=Condition(subtype=Subtype.etr, severity=3.0))
    a, b = render(healthy, 128), render(severe, 128)

    np.testing.assert_array_equal(a.face_mask, b.face_mask)
    outside = a.haemoglobin == 0
    assert np.abs(a.image[outside].astype(int) - b.image[outside]).max() <= 40  # where a pixel has some skin
    assert (a.image[outside] == b.image[outside]).mean() > 0.97


def test_attributes_are_complete_and_survive_json() -> None:
    spec = sample_phantom(9, 31)
    attributes = render(spec, 16).attributes

    assert json.loads(json.dumps(attributes)) == json.loads(json.dumps(spec.attributes()))
    assert {"seed", "index", "subtype", "severity", "melanin", "identity", "condition", "scene"} == set(attributes)
    identity = attributes["identity"]
    assert isinstance(identity, dict)
    assert set(identity) == set(FaceIdentity.__dataclass_fields__)


def test_grades_are_balanced_and_melanin_is_spread_evenly() -> None:
    specs = [sample_phantom(0, index) for index in range(2000)]
    grades = np.bincount([spec.condition.grade for spec in specs], minlength=4)
    low, high = np.log(MELANIN_RANGE)
    tones = ((np.log([spec.identity.melanin for spec in specs]) - low) / (high - low)) ** (1 / TONE_POWER)
    bins, _ = np.histogram(tones, bins=10, range=(0, 1))

    assert grades.tolist() == [500, 500, 500, 500]
    assert bins.min() > 190 and bins.max() < 210
    assert all((spec.condition.grade == 0) == (spec.condition.subtype is Subtype.healthy) for spec in specs)


def test_melanin_and_severity_are_independent() -> None:
    specs = [sample_phantom(0, index) for index in range(4000)]
    tones = np.log([spec.identity.melanin for spec in specs])
    grades = np.array([spec.condition.grade for spec in specs])

    assert abs(np.corrcoef(tones, grades)[0, 1]) < 0.05


def test_no_confounders_when_not_wanted() -> None:
    conditions = [sample_phantom(0, index, confounders=False).condition for index in range(60)]

    assert all(c.flush == c.makeup == c.glasses == c.beard == 0 for c in conditions)
    assert any(sample_phantom(0, index).condition.beard for index in range(60))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: render(sample_phantom(0, 0), 100), "resolution must be one of .* got 100"),
        (lambda: render(sample_phantom(0, 0), 1024), "resolution must be one of .* got 1024"),
        (lambda: sample_phantom(-1, 0), "seed must be from 0 to 2\\*\\*63 - 1, got -1"),
        (lambda: sample_phantom(0, MAX_SEED), f"index must be .* got {MAX_SEED}"),
        (lambda: Condition(subtype=Subtype.etr, severity=3.5), "severity must be from 0 to 3, got 3.5"),
        (lambda: Condition(subtype=Subtype.healthy, severity=1), "severity must be 0 for healthy skin .* got 1"),
        (lambda: Condition(subtype=Subtype.ppr), "severity must be 0 for healthy skin .* got 0.0"),
        (lambda: Condition(flush=2.0), "flush must be from 0 to 1, got 2.0"),
        (lambda: Condition(glasses=7), "glasses must be 0, 1, 2 or 3, got 7"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_value(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=message):
        call()
