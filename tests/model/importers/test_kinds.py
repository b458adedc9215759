"""A file is what its content says: state dicts of either family, and what is no checkpoint at all."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rosacea_model.config import GeneratorConfig
from rosacea_model.errors import CheckpointRejected
from rosacea_model.importers.convert import read
from rosacea_model.importers.formats import is_checkpoint
from rosacea_model.networks.discriminator import Discriminator, DiscriminatorConfig
from rosacea_model.networks.generator import Generator
from rosacea_model.training.transfer import load_source

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

CONFIG = GeneratorConfig(
    z_dim=6,
    w_dim=8,
    c_dim=3,
    img_resolution=16,
    mapping_layers=2,
    channel_base=64,
    channel_max=8,
    num_fp16_res=0,
    conv_clamp=None,
)


def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {name: value.clone() for name, value in Generator(CONFIG).state_dict().items()}


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda g: g,
        lambda g: {"g_ema": g, "iter": 3},
        lambda g: {"state_dict": {f"module.{name}": value for name, value in g.items()}},
        lambda g: {"params_ema": g, "params": {name: value + 1 for name, value in g.items()}},
    ],
)
def test_a_state_dict_under_the_references_names_is_read_and_its_sizes_counted(wrapped: Any) -> None:
    ours = state()

    found = read(saved(wrapped(ours)))

    assert found.config == CONFIG
    assert all(torch.equal(found.G_ema[name], value) for name, value in ours.items())


def test_what_a_state_dict_lacks_is_made_and_noted() -> None:
    ours = {name: value for name, value in state().items() if "noise_const" not in name and "w_avg" not in name}

    found = read(saved(ours))

    assert float(found.G_ema["mapping.w_avg"].norm()) > 0 and "10,000 mapped latents" in found.card["note"]
    assert any("noise mode 'const' adds none" in note for note in found.notes)


def test_half_weights_are_converted_with_a_note() -> None:
    found = read(saved({name: value.half() for name, value in state().items()}))

    assert found.G_ema["synthesis.b4.const"].dtype == torch.float32
    assert any("were float16" in note for note in found.notes)


def test_a_state_dict_that_lacks_a_weight_is_refused_by_name() -> None:
    ours = state()
    del ours["synthesis.b8.conv1.affine.weight"]

    with pytest.raises(CheckpointRejected, match=r"1 missing \(synthesis.b8.conv1.affine.weight"):
        read(saved(ours))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        (b'{"error": "not found"}', "JSON"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"", "empty"),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(data: bytes, text: str) -> None:
    with pytest.raises(CheckpointRejected, match=text):
        read(data)


def test_a_run_starts_from_a_checkpoint_of_any_suffix_with_its_discriminator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(4)
    d = Discriminator(CONFIG, DiscriminatorConfig()).state_dict()
    path = tmp_path / "weights.bin"
    path.write_bytes(saved({"G_ema": state(), "D": dict(d)}))

    source = load_source(path)

    assert is_checkpoint(path) and source.config == CONFIG
    assert source.D is not None and all(torch.equal(source.D[name], value) for name, value in d.items())
    assert "float16" in capsys.readouterr().out
