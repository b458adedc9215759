from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.convert import face_spec
from rosacea_contract.errors import MAX_VIOLATIONS
from rosacea_contract.reasons import Reason, Violation
from rosacea_contract.spec import FORMATS, NOISE_MODES, FaceSpec, InvalidSpec, SeedRange

NAN = math.nan
ONE = pb.Seeds(values=[1])
UNKNOWN: Any = 99  # no enum has so many values
SEED = st.integers(0, 2**32 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
MODELS = ["models/a", "models/a-1.b_c/revisions/latest", "models/a/revisions/" + "0f" * 32]
LABELS = [pb.Label(), pb.Label(class_index=3), pb.Label(vector=pb.LabelVector())]
BAD_MIX = {"seed": 1, "first_row": 1, "end_row": 1}
ODDITIES = [
    10**5000, 1e308, np.zeros((2, 3)), np.float64(NAN), np.array("x"), object(), 1j, [[1], [2, 3]], range(3),
]  # fmt: skip
MIX = st.builds(
    lambda seed, first, rows: {"seed": seed, "first_row": first, "end_row": first + rows},
    SEED, st.integers(0, 30), st.integers(1, 30),
)  # fmt: skip


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


@st.composite
def good_specs(draw: st.DrawFn) -> dict[str, Any]:
    latents = st.lists(FLOAT32, min_size=1, max_size=20)
    ranges = SEED.map(lambda start: {"start": start, "count": (2**32 - start + 1) // 2})
    sources = {
        "seeds": st.lists(SEED, min_size=1, max_size=20),
        "seed_range": ranges,
        "z": latents,
        "w": latents,
        "ws": latents,
    }
    source = draw(st.sampled_from(sorted(sources)))
    spec: dict[str, Any] = {source: draw(sources[source])}
    spec["model"] = draw(st.sampled_from(["", *MODELS]))
    if source not in ("w", "ws"):
        spec["truncation_psi"] = draw(maybe(st.floats(-2, 2)))
        spec["truncation_cutoff"] = draw(maybe(st.integers(0, 2**32 - 1)))
        spec["style_mixes"] = draw(st.lists(MIX, max_size=3))
    spec["noise_mode"] = draw(st.sampled_from(["const", "none", "random"]))
    spec["noise_seed"] = draw(maybe(SEED)) if spec["noise_mode"] == "random" else None
    spec["format"] = draw(st.sampled_from(["png", "jpeg", "raw"]))
    spec["jpeg_quality"] = draw(maybe(st.integers(1, 100))) if spec["format"] == "jpeg" else None
    label = draw(st.sampled_from(["", "class_index", "label_vector"]))
    if label:
        spec[label] = draw(st.integers(0, 2**32 - 1) if label == "class_index" else latents)
    return spec


@st.composite
def wild_messages(draw: st.DrawFn) -> pb.FaceSpec:
    """Anything that can be put into the message, sensible or not."""
    uint32, uint64, anything = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.floats(width=32)
    mixes = st.builds(pb.StyleMix, seed=uint64, first_row=uint32, end_row=uint32)
    latents = st.builds(pb.Latents, data=st.binary(max_size=20), values=st.lists(anything, max_size=5))
    sources = {
        "seeds": st.builds(pb.Seeds, values=st.lists(uint64, max_size=30)),
        "seed_range": st.builds(pb.SeedRange, start=uint64, count=uint64),
        "z": latents,
        "w": latents,
        "ws": latents,
    }
    source = draw(st.sampled_from(["", *sources]))
    return pb.FaceSpec(
        model=draw(st.text(max_size=100)),
        **({source: draw(sources[source])} if source else {}),  # type: ignore[arg-type]  # by name
        truncation_psi=draw(maybe(st.floats())),
        truncation_cutoff=draw(maybe(uint32)),
        noise_mode=draw(st.integers(-(2**31), 2**31 - 1)),  # type: ignore[arg-type]  # open enum
        noise_seed=draw(maybe(uint64)),
        label=draw(maybe(st.sampled_from(LABELS))),
        style_mixes=draw(st.lists(mixes, max_size=3)),
        format=draw(st.integers(-(2**31), 2**31 - 1)),  # type: ignore[arg-type]  # open enum
        jpeg_quality=draw(maybe(uint32)),
    )


def mix(**fields: int) -> dict[str, int]:
    return {"seed": 1, "end_row": 1} | fields


def violations(**fields: Any) -> list[tuple[str, Reason]]:
    with pytest.raises(InvalidSpec) as caught:
        FaceSpec(**fields)
    return [(violation.field, violation.reason) for violation in caught.value.violations]


@settings(max_examples=150, deadline=None)
@given(good_specs())
def test_a_good_spec_survives_the_wire(fields: dict[str, Any]) -> None:
    spec = FaceSpec(**fields)

    again = FaceSpec.from_pb(pb.FaceSpec.FromString(spec.to_pb().SerializeToString()))

    assert again == spec
    assert hash(again) == hash(spec)


@settings(max_examples=250, deadline=None)
@given(wild_messages())
def test_any_message_is_read_or_refused_with_field_paths(message: pb.FaceSpec) -> None:
    known = set(pb.FaceSpec.DESCRIPTOR.fields_by_name)
    try:
        spec = FaceSpec.from_pb(message)
    except InvalidSpec as error:
        assert 1 <= len(error.violations) <= MAX_VIOLATIONS
        for violation in error.violations:
            head, _, rest = violation.field.partition(".")
            assert head == "spec"
            assert not rest or rest.partition(".")[0].partition("[")[0] in known
            assert violation.description
            assert len(violation.description) < 300
            assert "pydantic" not in violation.description.lower()
    else:
        assert FaceSpec.from_pb(spec.to_pb()) == spec


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*FaceSpec.model_fields, "unknown"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.lists(st.integers() | st.text())
    | st.dictionaries(st.sampled_from(["seed", "start", "count", "end_row", "x"]), st.integers() | st.text())
    | st.sampled_from(ODDITIES),
)  # fmt: skip
def test_any_python_value_is_taken_or_refused_in_our_words(name: str, value: Any) -> None:
    try:
        FaceSpec(**{"seeds": [1], name: value})
    except InvalidSpec as error:
        assert all(violation.field.startswith("spec") for violation in error.violations)
        assert "pydantic" not in str(error).lower()


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({}, "spec", Reason.SOURCE_REQUIRED),
        ({"seeds": [1], "z": [1.0]}, "spec", Reason.SOURCE_REQUIRED),
        ({"seeds": []}, "spec.seeds.values", Reason.SOURCE_REQUIRED),
        ({"seeds": [0, 1, 2, 2**32]}, "spec.seeds.values[3]", Reason.SEED_OUT_OF_RANGE),
        ({"seeds": [0, -1]}, "spec.seeds.values[1]", Reason.SEED_OUT_OF_RANGE),
        ({"seeds": [0, 1.5]}, "spec.seeds.values[1]", Reason.INVALID_FIELD),
        ({"seeds": "123"}, "spec.seeds.values", Reason.INVALID_FIELD),
        ({"seed_range": {"start": 0, "count": 0}}, "spec.seed_range.count", Reason.SEED_OUT_OF_RANGE),
        ({"seed_range": {"start": 1, "count": 2**32}}, "spec.seed_range.count", Reason.SEED_OUT_OF_RANGE),
        ({"seed_range": {"start": 1}}, "spec.seed_range.count", Reason.INVALID_FIELD),
        ({"z": []}, "spec.z", Reason.LATENT_LENGTH_MISMATCH),
        ({"z": [0.0, NAN]}, "spec.z", Reason.LATENT_NOT_FINITE),
        ({"w": [1e308]}, "spec.w", Reason.LATENT_NOT_FINITE),
        ({"ws": ["x"]}, "spec.ws", Reason.INVALID_FIELD),
        ({"seeds": [1], "truncation_psi": NAN}, "spec.truncation_psi", Reason.TRUNCATION_OUT_OF_RANGE),
        ({"seeds": [1], "truncation_psi": math.inf}, "spec.truncation_psi", Reason.TRUNCATION_OUT_OF_RANGE),
        ({"seeds": [1], "truncation_psi": 2.001}, "spec.truncation_psi", Reason.TRUNCATION_OUT_OF_RANGE),
        ({"w": [1], "truncation_psi": 0.5}, "spec.truncation_psi", Reason.TRUNCATION_NOT_ALLOWED),
        ({"ws": [1], "truncation_cutoff": 1}, "spec.truncation_cutoff", Reason.TRUNCATION_NOT_ALLOWED),
        ({"seeds": [1], "truncation_cutoff": -1}, "spec.truncation_cutoff", Reason.INVALID_FIELD),
        ({"seeds": [1], "noise_mode": "loud"}, "spec.noise_mode", Reason.NOISE_MODE_UNKNOWN),
        ({"seeds": [1], "noise_seed": 1}, "spec.noise_seed", Reason.INVALID_FIELD),
        ({"z": [1], "noise_mode": "random", "noise_seed": -1}, "spec.noise_seed", Reason.SEED_OUT_OF_RANGE),
        ({"seeds": [1], "class_index": -1}, "spec.label.class_index", Reason.INVALID_FIELD),
        ({"seeds": [1], "label_vector": [NAN]}, "spec.label.vector.values", Reason.LATENT_NOT_FINITE),
        ({"seeds": [1], "label_vector": [1], "class_index": 1}, "spec.label", Reason.INVALID_FIELD),
        ({"w": [1], "style_mixes": [mix()]}, "spec.style_mixes", Reason.STYLE_MIX_NOT_ALLOWED),
        ({"z": [1], "style_mixes": [mix(seed=2**32)]}, "spec.style_mixes[0].seed", Reason.SEED_OUT_OF_RANGE),
        ({"z": [1], "style_mixes": [BAD_MIX]}, "spec.style_mixes[0].end_row", Reason.STYLE_MIX_OUT_OF_RANGE),
        ({"seeds": [1], "format": "bmp"}, "spec.format", Reason.FORMAT_UNKNOWN),
        ({"seeds": [1], "jpeg_quality": 90}, "spec.jpeg_quality", Reason.INVALID_FIELD),
        ({"seeds": [1], "format": "jpeg", "jpeg_quality": 101}, "spec.jpeg_quality", Reason.INVALID_FIELD),
        ({"seeds": [1], "model": "faces"}, "spec.model", Reason.MODEL_NAME_INVALID),
        ({"seeds": [1], "model": "models/a/revisions/abc"}, "spec.model", Reason.MODEL_NAME_INVALID),
        ({"seeds": [1], "model": "models/a\n"}, "spec.model", Reason.MODEL_NAME_INVALID),
        ({"seeds": [1], "colour": 1}, "spec.colour", Reason.INVALID_FIELD),
    ],
)  # fmt: skip
def test_a_broken_rule_names_its_field_and_reason(fields: dict[str, Any], field: str, reason: Reason) -> None:
    assert violations(**fields) == [(field, reason)]


@pytest.mark.parametrize(
    ("message", "field", "reason"),
    [
        (pb.FaceSpec(z=pb.Latents(data=b"12345")), "spec.z.data", Reason.LATENT_LENGTH_MISMATCH),
        (pb.FaceSpec(z=pb.Latents(data=b"1234", values=[1])), "spec.z", Reason.INVALID_FIELD),
        (pb.FaceSpec(ws=pb.Latents()), "spec.ws", Reason.LATENT_LENGTH_MISMATCH),
        (pb.FaceSpec(seeds=ONE, label=pb.Label()), "spec.label", Reason.INVALID_FIELD),
        (pb.FaceSpec(seeds=ONE, format=UNKNOWN), "spec.format", Reason.FORMAT_UNKNOWN),
        (pb.FaceSpec(seeds=ONE, noise_mode=UNKNOWN), "spec.noise_mode", Reason.NOISE_MODE_UNKNOWN),
    ],
)  # fmt: skip
def test_what_only_the_wire_can_say_is_refused_too(message: pb.FaceSpec, field: str, reason: Reason) -> None:
    with pytest.raises(InvalidSpec) as caught:
        FaceSpec.from_pb(message)

    assert [(violation.field, violation.reason) for violation in caught.value.violations] == [(field, reason)]


def test_all_problems_are_told_at_once() -> None:
    found = violations(seeds=[-1], truncation_psi=9, format="bmp", model="?", noise_seed=1)

    assert {field for field, _ in found} == {
        "spec.seeds.values[0]", "spec.truncation_psi", "spec.format", "spec.model", "spec.noise_seed",
    }  # fmt: skip


def test_a_message_names_the_thing_the_rule_and_the_value() -> None:
    with pytest.raises(InvalidSpec) as caught:
        FaceSpec(seeds=[1], truncation_psi=3)

    assert str(caught.value) == "truncation_psi must be from -2 to 2, got 3"
    assert caught.value.reason == Reason.TRUNCATION_OUT_OF_RANGE
    assert caught.value.metadata == {"min": "-2", "max": "2", "value": "3"}


@pytest.mark.parametrize("value", ["x" * 10**6, 10**5000, b"x" * 10**6], ids=["text", "number", "bytes"])
def test_a_huge_value_is_cut_in_messages(value: Any) -> None:
    with pytest.raises(InvalidSpec) as caught:
        FaceSpec(seeds=[1], truncation_psi=value)

    assert len(str(caught.value)) < 130


def test_consecutive_seeds_are_never_written_out() -> None:
    spec = face_spec(range(10**9), {})

    assert spec.seed_list == range(10**9)
    assert spec.to_pb().ByteSize() < 100


def test_a_million_bad_seeds_make_a_short_error() -> None:
    assert len(violations(seeds=[2**32] * 10**6)) == MAX_VIOLATIONS


def test_numpy_integers_are_whole_numbers_and_booleans_are_not() -> None:
    assert FaceSpec(seeds=np.array([1, 2], np.uint8), truncation_cutoff=np.int64(3)).seeds == (1, 2)
    assert violations(seeds=[True, 2]) == [("spec.seeds.values[0]", Reason.INVALID_FIELD)]
    assert violations(seeds=[1], truncation_cutoff=True) == [("spec.truncation_cutoff", Reason.INVALID_FIELD)]


def test_latents_of_any_shape_are_flattened_copied_and_frozen() -> None:
    given = np.ones((2, 3, 4))
    spec = FaceSpec(z=given)
    given[:] = 7

    assert spec.z is not None
    assert spec.z.dtype == np.float32
    assert spec.z.tolist() == [1.0] * 24
    assert not spec.z.flags.writeable


def test_latents_travel_as_little_endian_bytes() -> None:
    assert FaceSpec(z=[1.0, -2.0]).to_pb().z.data == np.array([1, -2], "<f4").tobytes()


def test_a_part_refuses_nonsense_by_itself() -> None:
    with pytest.raises(InvalidSpec, match="count must be from 1 to"):
        SeedRange(start=1, count=0)


def test_a_spec_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        FaceSpec(seeds=[1]).format = "raw"  # type: ignore[misc]


def test_the_error_survives_pickling() -> None:
    error = InvalidSpec([Violation("spec.z", Reason.INVALID_FIELD, "z is odd")])

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.violations, again.reason) == (str(error), error.violations, error.reason)


def test_the_enum_tables_cover_the_proto() -> None:
    assert set(FORMATS) == set(pb.ImageFormat.values())
    assert set(NOISE_MODES) == set(pb.NoiseMode.values())
