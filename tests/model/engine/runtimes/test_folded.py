"""The folded networks compute what the networks compute, and keep nothing from one image to the next."""

from __future__ import annotations

import pytest
import torch

from rosacea_model.engine.runtimes.folded import FoldedMapping, FoldedSynthesis
from rosacea_model.engine.runtimes.packed import PackedConv

from .cases import CONFIGS, build, inputs

TOLERANCE = 2e-5  # of the image's range


@pytest.mark.parametrize("kind", CONFIGS)
@torch.inference_mode()
def test_folded_synthesis_draws_what_the_network_draws(kind: str) -> None:
    generator = build(**CONFIGS[kind])
    folded = FoldedSynthesis(generator.synthesis)

    for _ in range(3):
        ws, noises = inputs(generator)
        want = generator.synthesis(ws, noises)
        torch.testing.assert_close(folded(ws, noises), want, rtol=0, atol=TOLERANCE * float(want.abs().max()))


@pytest.mark.parametrize("kind", ["skip", "conditional"])
@torch.inference_mode()
def test_folded_mapping_maps_what_the_network_maps(kind: str) -> None:
    generator = build(**CONFIGS[kind])
    z = torch.randn(1, 12)
    c = torch.eye(3)[1:2] if generator.config.c_dim else None

    torch.testing.assert_close(FoldedMapping(generator.mapping)(z, c), generator.mapping(z, c))


def test_layers_fold_only_where_their_weights_are_smaller_than_their_maps() -> None:
    folded = FoldedSynthesis(build(**CONFIGS["large"]).synthesis)

    folds = [layer.folds for block in folded.blocks for layer in (block.conv0, block.conv1) if layer is not None]
    assert folds == sorted(folds), "from the lowest resolution up"
    assert set(folds) == {True, False}


@torch.inference_mode()
def test_drawing_changes_neither_its_inputs_nor_the_next_image() -> None:
    generator = build(**CONFIGS["resnet"])
    folded = FoldedSynthesis(generator.synthesis)
    ws, noises = inputs(generator)
    kept = [ws.clone(), *(noise.clone() for noise in noises)]
    first = folded(ws, noises).clone()
    folded(*inputs(generator))

    assert all(torch.equal(now, before) for now, before in zip([ws, *noises], kept, strict=True))
    assert torch.equal(folded(ws, noises), first)


@pytest.mark.parametrize("kind", CONFIGS)
def test_later_changes_of_the_network_do_not_reach_the_folded_ones(kind: str) -> None:
    generator = build(**CONFIGS[kind])
    mapping, synthesis = FoldedMapping(generator.mapping), FoldedSynthesis(generator.synthesis)
    latents = [torch.randn(1, width) for width in (12, generator.config.c_dim) if width]
    ws, noises = inputs(generator)
    with torch.inference_mode():
        before = mapping(*latents), synthesis(ws, noises)
    for tensor in [*generator.parameters(), *generator.buffers()]:
        tensor.data.fill_(torch.nan)

    with torch.inference_mode():
        after = mapping(*latents), synthesis(ws, noises)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@torch.inference_mode()
def test_without_onednn_the_convolution_is_torch_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = torch.randn(8, 6, 3, 3), torch.randn(1, 6, 4, 4)
    packed = PackedConv(weight, 4)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = PackedConv(weight, 4)

    assert packed.is_packed
    assert not plain.is_packed
    want = torch.nn.functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(packed(x), want)
    torch.testing.assert_close(plain(x), want)
