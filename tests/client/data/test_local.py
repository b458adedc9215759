"""Three lines from nothing to a DataLoader: a model on the disk, and no service."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from rosacea_client.data import Look
from rosacea_client.data.torch import FaceDataset, FaceLoader, FaceStream
from rosacea_model import demo
from rosacea_model.engine import Engine
from rosacea_model.sample import FaceSample, one_hot


def test_three_lines_make_a_data_loader_without_a_service() -> None:
    data = FaceDataset(model=str(demo.folder()), count=8, look=Look(truncation_psi=0.7))
    loader: DataLoader[object] = DataLoader(data, batch_size=4)
    batches = list(loader)

    assert [batch["image"].shape for batch in batches] == [(4, 3, 64, 64)] * 2
    assert sorted(torch.cat([batch["label"] for batch in batches]).tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    first = data[0]
    sample = FaceSample(seed=first["seed"], label=one_hot(first["label"], 4), truncation_psi=0.7)
    (wanted,) = Engine.load(demo.folder()).render([sample])
    assert np.array_equal(first["image"].permute(1, 2, 0).numpy(), wanted)


def test_workers_draw_the_same_as_the_process_itself() -> None:
    stream = FaceStream(model=str(demo.folder()), count=6)
    alone = [sample["image"] for sample in stream]

    found = torch.cat([batch["image"] for batch in FaceLoader(stream, batch_size=2, num_workers=2)])

    assert torch.equal(found, torch.stack(alone))


def test_what_needs_a_service_is_said() -> None:
    with pytest.raises(ValueError, match="must be raw or png where no service codes the images, got jpeg"):
        FaceDataset(model=str(demo.folder()), count=1, look=Look(format="jpeg"))
    with pytest.raises(ValueError, match=r"got a path: start a service with `rosacea serve \./nowhere/at/all`"):
        FaceDataset("127.0.0.1:9", model="./nowhere/at/all", count=1)
