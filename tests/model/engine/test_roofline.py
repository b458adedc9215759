"""The work that the roofline states is what torch counts; the rows name every layer that draws."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from rosacea_model import GeneratorConfig, load
from rosacea_model.commands.model import app
from rosacea_model.engine.roofline.report import roofline
from rosacea_model.engine.roofline.work import work
from rosacea_model.fresh import fresh_model
from rosacea_model.networks.generator import Generator

if TYPE_CHECKING:
    from pathlib import Path

SIZES: dict[str, Any] = {"z_dim": 12, "w_dim": 16, "mapping_layers": 3, "channel_base": 512, "channel_max": 24}
CONFIGS: dict[str, dict[str, Any]] = {
    "skip": {"img_resolution": 32},
    "resnet": {"img_resolution": 16, "architecture": "resnet"},
    "orig": {"img_resolution": 16, "architecture": "orig"},
    "conditional": {"img_resolution": 8, "c_dim": 3},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_operations_are_those_that_torch_counts(kind: str) -> None:
    config = GeneratorConfig(**SIZES, **CONFIGS[kind])
    generator = Generator(config).eval().requires_grad_(False)
    counter = FlopCounterMode(display=False, depth=4)
    with counter, torch.no_grad():
        w = generator.mapping(torch.randn(1, 12), torch.zeros(1, 3) if config.c_dim else None)
        generator.synthesis(w[:, None].expand(-1, config.num_ws, -1), generator.synthesis.noises("const", 1))
    counted = counter.get_flop_counts()
    convolutions = torch.ops.aten.convolution

    assert counted["MappingNetwork"][torch.ops.aten.addmm] == work(config)[0].operations
    for layer in work(config)[1:]:
        found = counted[layer.name.replace("synthesis", "SynthesisNetwork")]
        assert found[convolutions] == layer.operations, layer.name
    assert {layer.name for layer in work(config)[1:]} == {
        name.replace("SynthesisNetwork", "synthesis")
        for name, found in counted.items()
        if name.count(".") == 2 and found[convolutions]
    }


def test_every_layer_has_a_time_and_a_floor(tmp_path: Path) -> None:
    fresh_model(tmp_path / "m", GeneratorConfig(**SIZES, **CONFIGS["skip"]), seed=0, name="m")
    found = roofline(load(tmp_path / "m"), repeats=1)

    assert [row.name for row in found.layers] == [layer.name for layer in work(load(tmp_path / "m").config)]
    assert all(row.seconds > 0 and row.floor_seconds > 0 for row in [*found.layers, found.total])
    assert found.total.operations == sum(row.operations for row in found.layers)


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    fresh_model(tmp_path / "m", GeneratorConfig(**SIZES, **CONFIGS["orig"]), seed=0, name="m")
    arguments = ["roofline", str(tmp_path / "m"), "--repeats", "1"]

    table = CliRunner().invoke(app, arguments)
    facts = CliRunner().invoke(app, [*arguments, "--json"])

    assert "synthesis.b16.conv1" in table.stdout
    assert "GFLOP/s" in table.stdout
    assert json.loads(facts.stdout)["total"]["name"] == "total"
