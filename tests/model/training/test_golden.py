"""Discriminator, losses and their gradients give the reference's numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rosacea_model.networks.discriminator import Discriminator, DiscriminatorConfig
from rosacea_model.networks.generator import Generator
from rosacea_model.training import loss

from ..test_golden import SETS, config_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

LOGIT_TOLERANCE = 1e-5
RELATIVE = 1e-5
GRADIENT_RELATIVE = 1e-4  # of the norm of each gradient: sums of cancelling terms come to 5e-5, others to 1e-5
GRADIENT_ABSOLUTE = 1e-6  # for biases that R1 hardly reaches, whose gradients are rounding errors of others
PATH_TARGET = 0.5


class Case:
    """Both networks of one golden set, and the numbers to reach."""

    def __init__(self, folder: Path) -> None:
        self.reference = json.loads((folder / "config.json").read_text())
        config = config_of(self.reference["G"])
        self.G = Generator(config)
        self.D = Discriminator(
            config,
            DiscriminatorConfig(
                architecture=self.reference["D"].get("architecture", "resnet"),
                mbstd_group_size=self.reference["D"]["epilogue_kwargs"]["mbstd_group_size"],
            ),
        )
        self.G.load_state_dict(tensors(folder / "generator.npz"))
        self.D.load_state_dict(tensors(folder / "discriminator.npz"))
        self.want = dict(np.load(folder / "training_outputs.npz"))
        outputs = np.load(folder / "generator_outputs.npz")
        self.z = torch.from_numpy(outputs["z"])
        self.c = torch.from_numpy(outputs["c"]) if config.c_dim else None
        self.real = torch.from_numpy(self.want["real"])

    def ws(self) -> Tensor:
        w: Tensor = self.G.mapping(self.z, self.c)
        return w[:, None].repeat(1, self.G.config.num_ws, 1)

    def draw(self, ws: Tensor) -> Tensor:
        images: Tensor = self.G.synthesis(ws, self.G.synthesis.noises("const", len(ws)))
        return images

    def check_gradients(self, name: str, module: nn.Module) -> int:
        """Compare norm and first entries of every gradient that the reference recorded; how many there were."""
        checked = 0
        for parameter_name, parameter in module.named_parameters():
            key = f"{name}.{parameter_name}"
            if f"{key}#norm" not in self.want:
                continue
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            want = float(self.want[f"{key}#norm"])
            near = GRADIENT_RELATIVE * want + GRADIENT_ABSOLUTE
            assert abs(float(gradient.double().norm()) - want) <= near, key
            head = gradient.flatten()[:8].numpy()
            np.testing.assert_allclose(head, self.want[f"{key}#head"], rtol=0, atol=near, err_msg=key)
            checked += 1
        return checked


def tensors(path: Path) -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def recorded(case: Case, name: str) -> int:
    return sum(key.startswith(f"{name}.") and key.endswith("#norm") for key in case.want)


@pytest.fixture(params=SETS)
def case(request: pytest.FixtureRequest, golden: Path) -> Case:
    return Case(golden / request.param)


def test_logits_match(case: Case) -> None:
    fakes = case.draw(case.ws())

    np.testing.assert_allclose(case.D(case.real, case.c).detach(), case.want["logits.real"], atol=LOGIT_TOLERANCE)
    np.testing.assert_allclose(case.D(fakes, case.c).detach(), case.want["logits.fake"], atol=LOGIT_TOLERANCE)


def test_r1_and_its_gradients_match(case: Case) -> None:
    real = case.real.requires_grad_()
    penalty = loss.r1_penalty(case.D(real, case.c), real)
    np.testing.assert_allclose(penalty.detach(), case.want["r1_penalty"], rtol=RELATIVE)

    (penalty * (case.reference["gamma"] / 2)).mean().backward()

    assert case.check_gradients("grad_r1", case.D) == recorded(case, "grad_r1") > 0


def test_gradients_of_the_real_loss_match(case: Case) -> None:
    # The recorded gradients were taken after those of the generator loss, without clearing D's in between.
    loss.generator_loss(case.D(case.draw(case.ws()), case.c)).backward()
    loss.real_loss(case.D(case.real, case.c)).backward()

    assert case.check_gradients("grad_dreal", case.D) == recorded(case, "grad_dreal") > 0


def test_gradients_of_the_generator_loss_match(case: Case) -> None:
    loss.generator_loss(case.D(case.draw(case.ws()), case.c)).backward()

    assert case.check_gradients("grad_gmain", case.G) == recorded(case, "grad_gmain") > 0


def test_path_lengths_and_their_gradients_match(case: Case) -> None:
    ws = case.ws()
    lengths = loss.path_lengths(case.draw(ws), ws, torch.from_numpy(case.want["pl_noise"]))
    np.testing.assert_allclose(lengths.detach(), case.want["pl_lengths"], rtol=RELATIVE)

    (2 * loss.path_penalty(lengths, torch.tensor(PATH_TARGET))).backward()

    assert case.check_gradients("grad_pl", case.G) == recorded(case, "grad_pl") > 0


def test_the_names_of_both_networks_are_the_references(case: Case, golden: Path) -> None:
    kind: Any = "conditional" if case.c is not None else "unconditional"

    assert case.D.state_dict().keys() == tensors(golden / kind / "discriminator.npz").keys()
