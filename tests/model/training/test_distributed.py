"""Several processes do what one would do."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest
import safetensors.torch
import torch

from rosacea_model.training import feed as feed_module
from rosacea_model.training.checkpoint import existing
from rosacea_model.training.distributed import Ranks
from rosacea_model.training.errors import LoaderDied
from rosacea_model.training.feed import Order, RankShare, feed

from .runs import STEP_KIMG, Squares, launch, train_in_process

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

pytestmark = pytest.mark.slow  # together they take half a minute

TOLERANCE = 1e-5
STEPS = 4


def trained(path: Path, *, processes: int, **overrides: object) -> list[dict[str, Tensor]]:
    """What each rank holds at the end."""
    code, output = train_in_process(
        path / "run", STEPS, processes=processes, dump=str(path / "state"), overrides=overrides
    )
    assert code == 0, output
    states = [safetensors.torch.load_file(f"{path / 'state'}.{rank}") for rank in range(processes)]
    for state in states:
        state.pop("best:distance")  # only the leading rank looks at samples
    return states


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("aug", [pytest.param("noaug", marks=pytest.mark.long), "ada"])
def test_two_processes_of_batch_2_equal_one_of_batch_4(tmp_path: Path, aug: str) -> None:
    # The same micro batches on both sides: minibatch deviation groups never reach over two of them.
    settings = {"batch": 4, "batch_gpu": 2, "mbstd_group": 2, "aug": aug}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (one,) = trained(tmp_path / "one", processes=1, **settings)
    first, second = trained(tmp_path / "two", processes=2, **settings)

    assert largest_difference(first, second) == 0, "both ranks must hold the same state, w_avg and ADA too"
    assert largest_difference(one, first) <= TOLERANCE


def test_without_torchrun_there_is_a_world_of_one() -> None:
    ranks = Ranks()

    assert ranks.leads
    assert ranks.any(True)
    assert not ranks.any(False)
    assert torch.equal(ranks.sum(torch.ones(3)), torch.ones(3))


def test_ranks_together_see_what_one_would_see() -> None:
    shares = [RankShare(batch=6, rank=rank, world=3) for rank in range(3)]

    positions = [list(share.positions(12)) for share in shares]

    assert [place for part in positions for place in part] == list(RankShare(batch=6).positions(12))


def test_every_epoch_shows_each_image_once_in_an_order_of_its_own() -> None:
    order = Order(0, 10)

    epochs = [[order[position] for position in range(epoch * 10, epoch * 10 + 10)] for epoch in range(3)]

    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert Order(0, 10)[25] == epochs[2][5], "a position tells the image without those before it"
    assert [Order(1, 10)[position] for position in range(10)] != epochs[0]


def test_mirrored_images_are_flipped_and_keep_their_label() -> None:
    images = Squares(classes=2)
    seen = feed(images, seed=0, mirror=True, share=RankShare(batch=2 * len(images)), position=0)

    shown, labels = next(seen)

    wanted = {}
    for index in range(len(images)):
        image, label = images[index]
        wanted[image.tobytes()] = wanted[image[:, :, ::-1].tobytes()] = label.tobytes()
    got = {image.numpy().tobytes(): label.numpy().tobytes() for image, label in zip(shown, labels, strict=True)}
    assert got == wanted


def test_a_killed_loading_process_ends_the_run_with_its_reason_and_no_hang(tmp_path: Path) -> None:
    run = launch(tmp_path, 100_000, announce=True, overrides={"workers": 1})
    assert run.stdout is not None
    for line in run.stdout:
        if line == "step 2\n":
            break
    (loader,) = (child.pid for child in psutil.Process(run.pid).children())

    os.kill(loader, signal.SIGKILL)

    output, _ = run.communicate(timeout=240)
    assert run.returncode == 1
    # Wherever torch's signal handler struck, or if it did not.
    assert re.search(r"LoaderDied: a process that loads images died", output), output


@pytest.mark.long
def test_ranks_wait_for_a_leader_that_draws_for_longer_than_a_hung_one_is_borne(tmp_path: Path) -> None:
    code, output = train_in_process(
        tmp_path,
        STEPS,
        processes=2,
        hurry_after=1,
        hurry_s=20,
        slow_snapshot_s=30,
        overrides={"batch_gpu": 2, "mbstd_group": 2, "snap_kimg": 2 * STEP_KIMG},
    )

    assert code == 0, output
    assert len(list((tmp_path / "snapshots").glob("kimg-*"))) == 2


def test_a_stop_that_all_processes_hear_still_saves(tmp_path: Path) -> None:
    run = launch(tmp_path, 100_000, announce=True, pause=0.2, overrides={"workers": 1})
    assert run.stdout is not None
    for line in run.stdout:
        if line == "step 2\n":
            break

    os.killpg(run.pid, signal.SIGTERM)

    output, _ = run.communicate(timeout=240)
    assert run.returncode == 0, output
    assert len(existing(tmp_path / "checkpoints")) == 1


class Stuck(Squares):
    """Images behind a file system that stopped to answer."""

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        time.sleep(3600)
        raise AssertionError


def test_a_loading_process_that_hangs_ends_the_run_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "SILENCE_S", 1.0)
    batches = feed(Stuck(), seed=0, mirror=False, share=RankShare(batch=4), position=0, workers=1)

    with pytest.raises(LoaderDied, match=r"died or hangs: DataLoader timed out after 1\.0 seconds"):
        next(batches)


def test_other_errors_are_not_taken_for_dead_loaders() -> None:
    with pytest.raises(RuntimeError, match="something else"), feed_module.dead_loaders_reported():
        raise RuntimeError("something else")


def test_loading_in_other_processes_gives_the_same_images() -> None:
    share = RankShare(batch=4)
    here = feed(Squares(), seed=3, mirror=False, share=share, position=8)
    there = feed(Squares(), seed=3, mirror=False, share=share, position=8, workers=2)

    for _ in range(3):
        assert torch.equal(next(here)[0], next(there)[0])
