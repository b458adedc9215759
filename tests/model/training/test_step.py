"""The passes do what the reference does, and never step with what is not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rosacea_model.training import loss
from rosacea_model.training.config import TrainConfig
from rosacea_model.training.distributed import Ranks
from rosacea_model.training.errors import NotFinite
from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.state import TrainState
from rosacea_model.training.step import Figure, Outcome, Passes

from .runs import Squares, equal, smoke
from .runs import one_thread as one_thread  # for every test here
from .test_golden import Case

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

W_AVG_TOLERANCE = 1e-6
SKIPPED = {"skipped": Figure(total=1, count=1)}


def reals(count: int = 4) -> Tensor:
    return torch.from_numpy(np.stack([Squares()[index][0] for index in range(count)]))


def passes_of(config: TrainConfig) -> Passes:
    return Passes(TrainState(config), Ranks())


@pytest.mark.parametrize("name", ["unconditional", "conditional"])
def test_a_pass_moves_w_avg_by_the_references_share_of_the_mean_w(golden: Path, name: str) -> None:
    case = Case(golden / name)
    sizes = case.reference["G"]
    synthesis = sizes["synthesis_kwargs"]
    config = TrainConfig(
        resolution=sizes["img_resolution"],
        label_width=sizes["c_dim"],
        total_kimg=1,
        batch=4,
        batch_gpu=4,
        gamma=1,
        ema_kimg=1,
        z_dim=sizes["z_dim"],
        w_dim=sizes["w_dim"],
        mapping_layers=sizes["mapping_kwargs"]["num_layers"],
        channel_base=synthesis["channel_base"],
        channel_max=synthesis["channel_max"],
        aug="noaug",
        style_mixing=0,
    )
    state = TrainState(config)
    state.G.load_state_dict(case.G.state_dict())
    passes = Passes(state, Ranks(), None if case.c is None else case.c)

    def one_step(micro: object) -> Outcome:
        w = state.G.mapping(case.z, case.c)
        return Outcome(loss=w.sum() * 0, figures={"nothing": w.sum() * 0}, w=w)

    passes._run("G/main", reals(), None, one_step, trains_d=False)

    # The recorded `w_avg_after_one_step` is what the recorded generator itself holds, so the pass starts from it.
    ws = np.load(golden / name / "generator_outputs.npz")["ws.psi1"][:, 0]
    wanted = 0.995 * case.want["w_avg_after_one_step"] + 0.005 * ws.mean(axis=0)
    np.testing.assert_allclose(state.G.mapping.w_avg, wanted, rtol=0, atol=W_AVG_TOLERANCE)


def test_a_pass_steps_with_the_gradient_of_the_whole_batch() -> None:
    config = smoke(1, batch_gpu=2, mbstd_group=2, aug="noaug", style_mixing=0)
    whole, halves = passes_of(config), passes_of(config)
    draws = list(whole._draw(reals(), None))
    whole.state.G.requires_grad_(True)
    total = sum(loss.generator_loss(whole.state.D(whole._fakes(micro)[0], None)) for micro in draws) / 2
    assert isinstance(total, torch.Tensor)
    total.backward()

    halves.generator(reals(), None)

    for one, other in zip(whole.state.G.parameters(), halves.state.G.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_lazy_regularisation_corrects_rate_betas_and_weight() -> None:
    config = smoke(1, batch=4)
    state = TrainState(config)

    for optimiser, rate, interval in ((state.G_opt, config.glr, 2), (state.D_opt, config.dlr, 2)):
        (group,) = optimiser.param_groups
        assert group["lr"] == pytest.approx(rate * interval / (interval + 1))
        assert group["betas"] == (0.0, pytest.approx(0.99 ** (interval / (interval + 1))))

    gradients = []
    for interval in (1, 16):
        passes = passes_of(smoke(1, r1_interval=interval, aug="noaug"))
        passes.r1(reals(), None)
        gradients.append(torch.cat([p.grad.flatten() for p in passes.state.trainable_D if p.grad is not None]))
    torch.testing.assert_close(gradients[0] * 16, gradients[1])


def test_the_discriminator_stays_as_it_is_while_the_generator_trains_and_the_other_way_round() -> None:
    passes = passes_of(smoke(1))
    before = {name: tensor.clone() for name, tensor in passes.state.save().items()}
    passes.generator(reals(), None)
    after = {name: tensor.clone() for name, tensor in passes.state.save().items()}
    assert not [name for name in before if name.startswith("D:") and not torch.equal(before[name], after[name])]

    passes.discriminator(reals(), None)
    last = passes.state.save()

    changed = [name for name in after if name.startswith("G:") and not torch.equal(after[name], last[name])]
    assert changed == ["G:mapping.w_avg"]


def test_frozen_layers_do_not_move() -> None:
    passes = passes_of(smoke(1, freeze_d=3))
    before = {name: tensor.clone() for name, tensor in passes.state.D.state_dict().items()}
    passes.discriminator(reals(), None)
    passes.r1(reals(), None)

    moved = {name for name, tensor in passes.state.D.state_dict().items() if not torch.equal(tensor, before[name])}

    assert not {name for name in moved if name.startswith(("b16.fromrgb", "b16.conv0", "b16.conv1"))}
    assert "b16.skip.weight" in moved


def test_the_first_average_is_the_generator_itself_and_later_ones_lag_behind() -> None:
    passes = passes_of(smoke(1))
    state = passes.state
    passes.generator(reals(), None)
    passes.update_ema()
    assert equal(state.G.state_dict(), state.G_ema.state_dict()) == []

    state.nimg += 4000
    passes.generator(reals(), None)
    name = "synthesis.b4.const"
    before = state.G_ema.get_parameter(name).clone()
    passes.update_ema()

    keep = 0.5 ** (4 / min(0.05 * 1000, 0.05 * 4000))
    wanted = keep * before + (1 - keep) * state.G.get_parameter(name)
    torch.testing.assert_close(state.G_ema.get_parameter(name), wanted)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", ["weight", "loss", "gradient"])
def test_what_is_not_finite_is_named_before_the_optimiser_uses_it(place: str, value: float) -> None:
    passes = passes_of(smoke(1))
    state = passes.state
    passes.generator(reals(), None)
    name = "synthesis.b8.conv0.weight"
    parameter = state.G.get_parameter(name)
    wanted = {"weight": f"weight G.{name}", "loss": "G/loss", "gradient": f"gradient of G.{name}"}[place]
    if place == "weight":
        parameter.data[0, 0, 0, 0] = value
    elif place == "gradient":
        parameter.requires_grad_(True)
        parameter.register_hook(lambda gradient: torch.full_like(gradient, value))
    else:
        passes._generator = lambda micro: Outcome(  # type: ignore[method-assign]
            loss=parameter.sum() * value, figures={"G/loss": torch.tensor(value)}
        )
    before = {key: tensor.clone() for key, tensor in state.save().items() if not key.startswith("rng")}

    with pytest.raises(NotFinite, match=r"not finite in step 0 \(G/main\)") as caught:
        passes.generator(reals(), None)

    assert caught.value.tensor == wanted
    after = state.save()
    for key, tensor in before.items():
        torch.testing.assert_close(after[key], tensor, rtol=0, atol=0, equal_nan=True)


def test_a_few_bad_steps_may_be_skipped_where_that_is_asked_for() -> None:
    passes = passes_of(smoke(1, bad_steps=2))
    parameter = passes.state.G.get_parameter("synthesis.b8.conv0.weight")
    parameter.requires_grad_(True)
    handle = parameter.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    before = parameter.clone()

    assert passes.generator(reals(), None) == SKIPPED
    assert "D/loss" in passes.discriminator(reals(), None), "a pass that can step forgives no other"
    assert passes.generator(reals(), None) == SKIPPED
    with pytest.raises(NotFinite):
        passes.generator(reals(), None)
    assert torch.equal(parameter, before)

    handle.remove()
    assert passes.generator(reals(), None)
    assert not passes.state.bad_steps.any()


def test_a_run_that_meets_nan_ends_with_its_last_good_checkpoint(tmp_path: Path) -> None:
    def poison(state: TrainState) -> None:
        if int(state.step) == 3:
            state.D.get_parameter("b4.fc.weight").data[0, 0] = torch.nan

    with pytest.raises(NotFinite, match=r"weight D\.b4\.fc\.weight is not finite in step 3"):
        training_loop(smoke(8, snap_kimg=0.008), Run(path=tmp_path, images=Squares(), after_step=poison))

    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_the_global_generators_are_not_touched(tmp_path: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()

    training_loop(smoke(2), Run(path=tmp_path, images=Squares()))

    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1][1])  # type: ignore[index]
