"""A device that is not there is refused by name, with the way out."""

from __future__ import annotations

import pytest
import torch

from rosacea_model.device import usable_device


@pytest.mark.parametrize("name", ["tpu", "", "cuda:", "cuda:x", "cpu:x", "cuda:-1", "mps"])
def test_a_name_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be cpu, cuda or cuda:N"):
        usable_device(name)


@pytest.mark.parametrize(("name", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_gpu_that_torch_does_not_see_is_refused(name: str, gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=f"device {name}: torch .* GPUs here; use cpu"):
        usable_device(name)


def test_what_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert [usable_device(name).type for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda"]
