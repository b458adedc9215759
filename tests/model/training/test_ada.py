"""The augmentation probability follows the target, stays in its bounds, and leaks are seen."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from rosacea_model.training.ada import ORIENTATIONS, AdaController, leak, orientation_statistics
from rosacea_model.training.config import TrainConfig

BATCH, INTERVAL, ADA_KIMG = 4, 4, 1.0
MOVE = BATCH * INTERVAL / (ADA_KIMG * 1000)


def controller(p: float = 0.0, **settings: Any) -> AdaController:
    config = TrainConfig(
        resolution=16,
        total_kimg=1,
        batch=BATCH,
        batch_gpu=BATCH,
        gamma=1,
        ema_kimg=1,
        p=p,
        ada_interval=INTERVAL,
        ada_kimg=ADA_KIMG,
        **settings,
    )
    return AdaController(config, torch.tensor(p))


def run(ada: AdaController, sign: float, steps: int, start: int = 0) -> list[float]:
    ps = []
    for step in range(start + 1, start + steps + 1):
        ada.record(sign * BATCH, BATCH)
        ada.adjust(step)
        ps.append(float(ada.p))
    return ps


def test_p_moves_by_the_rules_amount_in_every_interval() -> None:
    ps = run(controller(), 1.0, 12)

    assert ps == pytest.approx([0, 0, 0, MOVE, MOVE, MOVE, MOVE, 2 * MOVE, 2 * MOVE, 2 * MOVE, 2 * MOVE, 3 * MOVE])


@pytest.mark.parametrize(("sign", "direction"), [(1.0, 1), (0.6, 0), (0.5, -1), (-1.0, -1)])
def test_p_moves_towards_the_target(sign: float, direction: int) -> None:
    (*_, p) = run(controller(p=0.4), sign, INTERVAL)

    assert p == pytest.approx(0.4 + direction * MOVE)


def test_p_never_exceeds_its_bound_and_comes_down_at_once_after_a_long_stay_there() -> None:
    ada = controller()
    steps = 100 * INTERVAL * int(1 / MOVE)

    ps = run(ada, 1.0, steps)

    assert max(ps) == pytest.approx(0.8)
    assert ps[-1] == pytest.approx(0.8)
    # A wound-up integrator would stay at the bound for as long again.
    (*_, p) = run(ada, -1.0, INTERVAL, start=steps)
    assert p == pytest.approx(0.8 - MOVE)


def test_p_is_not_negative_and_rises_at_once_after_a_long_stay_at_zero() -> None:
    ada = controller()
    assert run(ada, -1.0, 4000)[-1] == 0

    assert run(ada, 1.0, INTERVAL, start=4000)[-1] == pytest.approx(MOVE)


def test_another_bound_is_kept_too() -> None:
    assert max(run(controller(p_max=0.3), 1.0, 4000)) == pytest.approx(0.3)


def test_the_statistic_is_over_the_whole_interval_and_no_longer() -> None:
    ada = controller(p=0.4)
    run(ada, 1.0, INTERVAL)
    for step, sign in zip(range(5, 9), (-1.0, 1.0, 1.0, 1.0), strict=True):
        ada.record(sign * BATCH, BATCH)
        ada.adjust(step)

    assert float(ada.p) == pytest.approx(0.4), "0.5 is below the target, whatever came before"


def faces(count: int, seed: int) -> torch.Tensor:
    """Upright images: bright at the top, with a horizontal bar, all of similar colour."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 3, 32, 32)
    images += torch.linspace(0.5, -0.5, 32)[:, None] + 0.1 * torch.randn(count, 3, 1, 1, generator=generator)
    images[:, :, 12:15, 6:26] -= 0.6 + 0.1 * torch.randn(count, 1, 1, 1, generator=generator)
    return (images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(-1, 1)


def test_fakes_like_reals_raise_no_alarm() -> None:
    assert not leak(faces(64, 0), faces(64, 1)).alarm


def test_leaked_rotations_raise_an_alarm() -> None:
    fakes = faces(64, 1)
    fakes[::4] = fakes[::4].rot90(1, dims=(2, 3))

    found = leak(faces(64, 0), fakes)

    assert found.alarm
    assert found.orientation > found.color


def test_leaked_colours_raise_an_alarm() -> None:
    fakes = faces(64, 1)
    fakes[::4] = -fakes[::4]
    fakes[1::4, 0] += 0.8

    found = leak(faces(64, 0), fakes.clamp(-1, 1))

    assert found.alarm
    assert found.color > 2


def test_a_collapsed_generator_raises_no_alarm() -> None:
    assert not leak(faces(64, 0), faces(1, 1).expand(64, -1, -1, -1)).alarm


def test_a_single_image_has_no_spread_and_raises_no_alarm() -> None:
    found = leak(faces(1, 0), faces(1, 1))

    assert (found.orientation, found.color) == (0, 0)


def test_orientations_are_shares_of_what_varies_and_each_image_has_its_own() -> None:
    images = torch.zeros(2, 3, 16, 16)
    images[0] += torch.linspace(-1, 1, 16)  # rises to the right
    images[1] += torch.linspace(1, -1, 16)[:, None]  # falls to the bottom

    across, down = orientation_statistics(images)

    assert across[:ORIENTATIONS].argmax() == 0
    assert down[:ORIENTATIONS].argmax() == ORIENTATIONS // 2
    assert across[:ORIENTATIONS].sum() == pytest.approx(1)
    assert across[-2:].tolist() == pytest.approx([0, -16 / 15])
    assert down[-2:].tolist() == pytest.approx([16 / 15, 0])


MEMORY = """
import resource, torch
from rosacea_model.training.ada import leak
torch.set_num_threads(1)
leak(torch.rand(2, 3, 256, 256), torch.rand(2, 3, 256, 256))
images = torch.rand(64, 3, 256, 256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
leak(images, images)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (images.numel() * 4))
"""


@pytest.mark.slow
def test_looking_for_leaks_takes_less_memory_than_the_images_themselves() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)

    assert float(done.stdout) < 0.5
