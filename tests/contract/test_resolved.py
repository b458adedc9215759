from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rosacea_contract.resolved import FaceItem, ModelLimits, resolve
from rosacea_contract.spec import FaceSpec, InvalidSpec, StyleMix

MIXES = [StyleMix(seed=1, end_row=7)]
LIMITS = ModelLimits(name="models/tiny", z_dim=4, w_dim=3, num_ws=6, label_dim=0, max_images=10)


def test_seeds_become_faces_with_every_default_filled_in() -> None:
    faces = resolve(FaceSpec(seeds=[7, 7, 2]), LIMITS)

    assert len(faces) == 3
    assert faces.item(2) == FaceItem(index=2, seed=2)
    assert [face.seed for face in faces] == [7, 7, 2]


def test_a_range_of_four_billion_seeds_is_never_written_out() -> None:
    faces = resolve(FaceSpec(seed_range={"start": 0, "count": 2**32}), replace(LIMITS, max_images=2**32))

    assert len(faces) == 2**32
    assert faces.item(2**32 - 1).seed == 2**32 - 1
    assert next(faces.items(start=10**9)).index == 10**9


@pytest.mark.parametrize(("source", "shape"), [("z", (4,)), ("w", (3,)), ("ws", (6, 3))])
def test_latents_are_cut_into_faces(source: str, shape: tuple[int, ...]) -> None:
    latents = np.random.RandomState(0).randn(5, *shape).astype(np.float32)

    faces = resolve(FaceSpec(**{source: latents}), LIMITS)

    assert len(faces) == 5
    np.testing.assert_array_equal(getattr(faces.item(3), source), latents[3])
    assert getattr(faces.item(3), source).shape == shape


def test_settings_reach_every_face() -> None:
    mix = StyleMix(seed=9, first_row=2, end_row=6)
    spec = FaceSpec(
        z=np.zeros(8), truncation_psi=0.5, truncation_cutoff=6, noise_mode="random", noise_seed=3,
        class_index=1, style_mixes=[mix], format="jpeg",
    )  # fmt: skip

    face = resolve(spec, replace(LIMITS, label_dim=5)).item(1)

    assert face.label is not None
    assert face.label.tolist() == [0, 1, 0, 0, 0]
    assert (face.truncation_psi, face.truncation_cutoff, face.style_mixes) == (0.5, 6, (mix,))
    assert (face.noise_mode, face.noise_seed, face.format, face.jpeg_quality) == ("random", 3, "jpeg", 95)


@pytest.mark.parametrize(
    ("fields", "limits", "field", "reason"),
    [
        ({"z": np.zeros(7)}, {}, "spec.z", "LATENT_LENGTH_MISMATCH"),
        ({"ws": np.zeros(17)}, {}, "spec.ws", "LATENT_LENGTH_MISMATCH"),
        ({"seeds": range(11)}, {}, "spec.seeds", "BATCH_TOO_LARGE"),
        ({"seed_range": {"count": 11}}, {}, "spec.seed_range", "BATCH_TOO_LARGE"),
        ({"z": np.zeros(44)}, {}, "spec.z", "BATCH_TOO_LARGE"),
        ({"seeds": [1], "truncation_cutoff": 7}, {}, "spec.truncation_cutoff", "TRUNCATION_OUT_OF_RANGE"),
        ({"seeds": [1], "style_mixes": MIXES}, {}, "spec.style_mixes[0].end_row", "STYLE_MIX_OUT_OF_RANGE"),
        ({"seeds": [1], "class_index": 5}, {"label_dim": 5}, "spec.label.class_index", "LABEL_OUT_OF_RANGE"),
        ({"seeds": [1], "class_index": 0}, {}, "spec.label", "LABEL_UNSUPPORTED"),
        ({"seeds": [1]}, {"label_dim": 5}, "spec.label", "LABEL_REQUIRED"),
        ({"z": np.zeros(4)}, {"label_dim": 5}, "spec.label", "LABEL_REQUIRED"),
        ({"w": [1] * 3, "label_vector": [1]}, {"label_dim": 5}, "spec.label.vector.values", "LABEL_LENGTH_MISMATCH"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_names_its_field_and_reason(
    fields: dict[str, Any], limits: dict[str, int], field: str, reason: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        resolve(FaceSpec(**fields), replace(LIMITS, **limits))  # type: ignore[arg-type]  # by name

    assert [(violation.field, violation.reason) for violation in caught.value.violations] == [(field, reason)]


def test_a_model_with_classes_names_them_where_none_is_asked_for() -> None:
    limits = replace(LIMITS, label_dim=5)
    with pytest.raises(InvalidSpec, match="models/tiny is conditional: class_index must be one of 0 to 4"):
        resolve(FaceSpec(seeds=[1]), limits)

    assert len(resolve(FaceSpec(seeds=[1], label_vector=[0] * 5), limits)) == 1, "zeros may be asked for"
    assert len(resolve(FaceSpec(w=np.zeros(3)), limits)) == 1, "the label is in w"


def test_a_default_class_stands_in_where_no_label_is_asked_for_and_only_there() -> None:
    limits = replace(LIMITS, label_dim=5, default_class=3)

    def label(**fields: Any) -> Any:
        found = resolve(FaceSpec(**fields), limits).item(0).label
        return None if found is None else found.tolist()

    assert label(seeds=[1]) == label(z=np.zeros(4)) == [0, 0, 0, 1, 0]
    assert label(seeds=[1], class_index=0) == [1, 0, 0, 0, 0]
    assert label(seeds=[1], label_vector=[0] * 5) == [0] * 5, "zeros may be asked for"
    assert label(w=np.zeros(3)) is None, "the label is in w"


def test_a_wrong_length_tells_the_expected_and_the_actual_one() -> None:
    with pytest.raises(InvalidSpec, match="z must hold a multiple of 4 numbers") as caught:
        resolve(FaceSpec(z=np.zeros(7)), LIMITS)

    assert caught.value.metadata == {"expected": "4", "actual": "7"}


def test_a_face_beyond_the_last_is_an_index_error() -> None:
    with pytest.raises(IndexError, match="from 0 to 0, got 1"):
        resolve(FaceSpec(seeds=[1]), LIMITS).item(1)
