"""Starting from trained networks copies every tensor, or says which it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rosacea_model.importers.snapshot import read_snapshot
from rosacea_model.networks.discriminator import Discriminator, DiscriminatorConfig
from rosacea_model.networks.generator import Generator
from rosacea_model.training.config import TrainConfig, resolve
from rosacea_model.training.errors import TransferMismatch
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.state import TrainState
from rosacea_model.training.transfer import StartingNetworks, adapt, load_source

from .runs import Squares, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from pathlib import Path

    from rosacea_model.config import GeneratorConfig


def source_of(config: GeneratorConfig, *, with_d: bool = True, allow_partial: bool = False) -> StartingNetworks:
    torch.manual_seed(99)
    average, generator = Generator(config).state_dict(), Generator(config).state_dict()
    discriminator = Discriminator(config, DiscriminatorConfig()).state_dict() if with_d else None
    return StartingNetworks(
        path=SOURCE, config=config, G=generator, G_ema=average, D=discriminator, allow_partial=allow_partial
    )


SOURCE: Any = "SOURCE"
TINY = smoke(1).generator()


def test_a_full_match_copies_every_tensor_of_all_three_networks() -> None:
    source, state = source_of(TINY), TrainState(smoke(1))

    report = source.apply(state)

    assert report.complete
    assert report.counts() == {"matched": len(report.entries), "adapted": 0, "fresh": 0, "unused": 0}
    assert source.D is not None
    for module, tensors in ((state.G, source.G), (state.G_ema, source.G_ema), (state.D, source.D)):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapping_layers": 8}, r"mapping depth: the source has 8, this run 2"),
        ({"img_channels": 1}, r"image channels: the source has 1, this run 3"),
        ({"c_dim": 4}, r"label width: the source has 4, this run 0"),
        ({"img_resolution": 32}, r"resolution: the source has 32, this run 16"),
        ({"channel_max": 8}, r"channel maximum: the source has 8, this run 16"),
        ({"w_dim": 16}, r"w width: the source has 16, this run 32"),
    ],
)
def test_a_source_of_another_make_is_refused_with_both_sides(change: dict[str, Any], message: str) -> None:
    state = TrainState(smoke(1))
    before = {name: tensor.clone() for name, tensor in state.save().items()}

    with pytest.raises(TransferMismatch, match=message):
        source_of(replace(TINY, **change)).apply(state)

    assert all(torch.equal(tensor, before[name]) for name, tensor in state.save().items()), "nothing may be copied"


def test_a_source_without_a_discriminator_is_a_partial_one() -> None:
    with pytest.raises(TransferMismatch, match="holds no discriminator, it would start fresh"):
        source_of(TINY, with_d=False).apply(TrainState(smoke(1)))

    report = source_of(TINY, with_d=False, allow_partial=True).apply(TrainState(smoke(1)))

    assert {entry.network for entry in report.entries if entry.status == "fresh"} == {"D"}


def test_the_eight_layers_that_two_would_drop_are_named_as_unused() -> None:
    source = source_of(replace(TINY, mapping_layers=8), allow_partial=True)

    report = source.apply(TrainState(smoke(1)))

    unused = {entry.name for entry in report.entries if entry.status == "unused"}
    assert unused == {f"mapping.fc{layer}.{kind}" for layer in range(2, 8) for kind in ("weight", "bias")}
    assert "unused   G.mapping.fc7.weight 32x32 -> -" in report.lines()


def test_the_mapping_depth_follows_the_source_unless_it_is_stated() -> None:
    source = replace(TINY, mapping_layers=8)

    assert resolve("smoke-16", resolution=16, source=source).mapping_layers == 8
    assert resolve("smoke-16", {"mapping_layers": 2}, resolution=16, source=source).mapping_layers == 2


def test_a_start_from_half_the_resolution_keeps_what_lies_below() -> None:
    config = resolve("auto", {"z_dim": 32, "w_dim": 32, "channel_base": 256, "channel_max": 16}, resolution=32)
    state, source = TrainState(config), source_of(TINY, allow_partial=True)

    report = source.apply(state)

    by_status = {
        status: {entry.name for entry in report.entries if entry.status == status} for status in ("fresh", "unused")
    }
    assert all(name.startswith(("synthesis.b32.", "b32.")) for name in by_status["fresh"])
    assert by_status["unused"] == {f"b16.fromrgb.{kind}" for kind in ("weight", "bias", "resample_filter")}
    assert torch.equal(state.G.state_dict()["synthesis.b16.conv1.weight"], source.G["synthesis.b16.conv1.weight"])


def test_grey_becomes_colour_and_colour_grey() -> None:
    grey, colour = torch.randn(1, 8, 1, 1), torch.empty(3, 8, 1, 1)
    adapt("synthesis.b16.torgb.weight", grey, colour)
    assert torch.equal(colour, grey.expand(3, -1, -1, -1))

    target = torch.empty(8, 1, 1, 1)
    weight = torch.randn(8, 3, 1, 1)
    adapt("b16.fromrgb.weight", weight, target)
    torch.testing.assert_close(target, weight.sum(dim=1, keepdim=True))


def test_more_channels_hold_the_sources_in_front() -> None:
    target, source = torch.zeros(6, 4), torch.ones(3, 5)

    adapt("synthesis.b8.conv0.affine.weight", source, target)

    assert torch.equal(target[:3], torch.ones(3, 4))
    assert torch.equal(target[3:], torch.zeros(3, 4))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    training_loop(smoke(2), Run(path=path, images=Squares()))
    return path


def test_labels_added_to_a_source_without_change_nothing_at_first_and_can_be_learnt() -> None:
    source, state = source_of(TINY, allow_partial=True), TrainState(replace(smoke(1), label_width=4))
    source.apply(state)
    known = Generator(TINY)
    known.load_state_dict(dict(source.G))
    z = torch.randn(8, TINY.z_dim, requires_grad=True)
    labels = torch.eye(4).repeat(2, 1)

    w = state.G.mapping(z, labels)

    assert torch.allclose(w, known.mapping(z), rtol=1e-5, atol=1e-6)
    state.G.requires_grad_(True)
    state.G.mapping(z, labels).square().sum().backward()
    gradient = state.G.get_parameter("mapping.fc0.weight").grad
    assert gradient is not None
    assert gradient[:, TINY.z_dim :].abs().max() > 0


def test_another_run_is_a_full_source(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = {}

    def look(state: TrainState) -> None:
        seen.update({name: tensor.clone() for name, tensor in state.save().items()})

    source = load_source(run)
    training_loop(smoke(1), Run(path=tmp_path, images=Squares(), source=source, after_step=look))

    assert torch.equal(seen["G:synthesis.b4.resample_filter"], source.G["synthesis.b4.resample_filter"])
    assert float((seen["G:synthesis.b16.conv0.weight"] - source.G["synthesis.b16.conv0.weight"]).abs().max()) < 0.01
    assert "0 adapted, 0 fresh, 0 unused" in capsys.readouterr().out


def test_a_model_folder_is_a_source_of_the_generator(run: Path) -> None:
    (snapshot,) = (run / "snapshots").glob("kimg-*")

    source = load_source(snapshot, allow_partial=True)
    report = source.apply(TrainState(smoke(1)))

    assert report.counts()["matched"] == len(source.G)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unconditional", "conditional"])
def test_a_snapshot_of_the_reference_is_a_full_source(golden: Path, name: str) -> None:
    path = golden / name / "network-snapshot-000000.pkl"
    source = load_source(path)
    sizes = source.config
    config = TrainConfig(
        resolution=sizes.img_resolution,
        label_width=sizes.c_dim,
        total_kimg=1,
        batch=4,
        batch_gpu=4,
        gamma=1,
        ema_kimg=1,
        z_dim=sizes.z_dim,
        w_dim=sizes.w_dim,
        mapping_layers=sizes.mapping_layers,
        channel_base=sizes.channel_base,
        channel_max=sizes.channel_max,
        d_architecture="skip" if name == "conditional" else "resnet",
    )
    state = TrainState(config)

    report = source.apply(state)

    assert report.complete, report.refusal()
    snapshot = read_snapshot(path)
    assert snapshot.D is not None
    assert torch.equal(state.D.state_dict()["b4.fc.weight"], snapshot.D.tensors["b4.fc.weight"])
    name = "synthesis.b4.const"
    assert not torch.equal(state.G.get_parameter(name), state.G_ema.get_parameter(name))


def test_what_is_no_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--init-from must name a model folder, a run or a snapshot"):
        load_source(tmp_path / "absent")
    with pytest.raises(ValueError, match="--init-from must name a model folder, a run or a snapshot"):
        load_source(tmp_path)
