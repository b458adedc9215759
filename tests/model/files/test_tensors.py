"""The table of tensor names and shapes agrees with the reference's networks."""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model.config import GeneratorConfig
from rosacea_model.files.tensors import expected_tensors, is_buffer, mismatch

if TYPE_CHECKING:
    from pathlib import Path

# The reference's counts: numbers in parameters, parameters, numbers in buffers, buffers; None = not known.
REFERENCE = {
    "1024": (GeneratorConfig(img_resolution=1024), 30_370_060, 138, 2_797_104, 44),
    "512": (GeneratorConfig(img_resolution=512), 30_276_583, None, 699_904, None),
    "512, 2 layers": (GeneratorConfig(img_resolution=512, mapping_layers=2), 28_700_647, None, 699_904, None),
    "256, half width": (GeneratorConfig(img_resolution=256, channel_base=16384), 24_767_458, None, 175_568, None),
    "256": (GeneratorConfig(img_resolution=256), 30_034_338, None, 175_568, None),
    "128": (
        GeneratorConfig(img_resolution=128, mapping_layers=2, channel_base=16384),
        22_949_277,
        None,
        None,
        None,
    ),
    "64": (GeneratorConfig(img_resolution=64, mapping_layers=2, channel_base=16384), 22_243_608, None, None, None),
}


@pytest.mark.parametrize("case", REFERENCE)
def test_counts_are_the_reference_s(case: str) -> None:
    config, parameters, parameter_tensors, buffers, buffer_tensors = REFERENCE[case]
    shapes = expected_tensors(config)
    in_parameters = [prod(shape) for name, shape in shapes.items() if not is_buffer(name)]
    in_buffers = [prod(shape) for name, shape in shapes.items() if is_buffer(name)]

    assert sum(in_parameters) == parameters
    assert buffers in (None, sum(in_buffers))
    assert parameter_tensors in (None, len(in_parameters))
    assert buffer_tensors in (None, len(in_buffers))


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_names_and_shapes_are_the_reference_s(golden: Path, kind: str) -> None:
    made = json.loads((golden / kind / "config.json").read_text())["G"]
    layers = made.pop("mapping_kwargs")["num_layers"]
    config = GeneratorConfig(**{**made.pop("synthesis_kwargs"), **made}, mapping_layers=layers)
    with np.load(golden / kind / "generator.npz") as arrays:
        assert mismatch(config, {name: arrays[name].shape for name in arrays.files}) is None


def test_architectures_differ_in_torgb_and_skip() -> None:
    def units(architecture: str) -> set[str]:
        config = GeneratorConfig.from_dict(
            {**json.loads(GeneratorConfig(img_resolution=16).to_json()), "architecture": architecture}
        )
        names = (name.removeprefix("synthesis.").rpartition(".")[0] for name in expected_tensors(config))
        return {name for name in names if name.endswith(("torgb", "skip"))}

    assert units("skip") == {"b4.torgb", "b8.torgb", "b16.torgb"}
    assert units("orig") == {"b16.torgb"}
    assert units("resnet") == {"b16.torgb", "b8.skip", "b16.skip"}


def test_a_mismatch_tells_counts_and_first_names() -> None:
    config = GeneratorConfig(img_resolution=8)
    shapes = {**expected_tensors(config), "mapping.w_avg": (3,), "more": (1,)}
    del shapes["mapping.fc0.bias"]

    text = mismatch(config, shapes)

    assert text == (
        "1 missing (mapping.fc0.bias); 1 unexpected (more); 1 of another shape (mapping.w_avg is 3, not 512)"
    )
