"""The downstream proof: helpful images help, useless ones do not, and intervals hold what they promise."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from rosacea_model import GeneratorConfig
from rosacea_model.commands.measuring.prove import prove as command
from rosacea_model.fresh import fresh_model
from rosacea_model.metrics.downstream.classifiers import ARCHITECTURES, predict, shrunk, train_classifier
from rosacea_model.metrics.downstream.proof import REAL, MixScore, ProofResult, TrainingMix, mixes, prove, scored
from rosacea_model.metrics.downstream.scores import HeldOutImages, thirds
from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.images import ArrayImages, DatasetImages
from rosacea_model.phantom.series import LabelKind, Series, write_series

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from rosacea_model.metrics.images import ImageSource


def squares(count: int, seed: int, *, wrong: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise with a bright square, upper left for class 0 and lower right for class 1; or the other way round."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 160, (count, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        place = 9 * (label != wrong)
        image[place : place + 6, 5:11] = rng.integers(120, 256, (6, 6, 3))
    return images, labels


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_classifier_learns_what_can_be_learned_and_is_the_same_for_the_same_seed(architecture: str) -> None:
    images, labels = squares(64, 0)
    unseen, truth = squares(60, 1)

    first, again = (
        train_classifier(images, labels, classes=2, architecture=architecture, seed=3, steps=60) for _ in range(2)
    )

    assert (predict(first, unseen) == truth).mean() > 0.9
    for one, other in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_training_leaves_torch_s_random_numbers_alone() -> None:
    images, labels = squares(8, 0)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    train_classifier(images, labels, classes=2, architecture="convnet", seed=0, steps=1)

    assert torch.equal(torch.rand(1), expected)


def test_images_are_shrunk_by_box_averages() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)

    found = shrunk(images, 2)

    assert found[1, 0, 1].tolist() == np.rint(images[1, :2, 2:].mean(axis=(0, 1))).astype(int).tolist()
    assert shrunk(images, 8) is images


def write_data(folder: Path, name: str, seed: int, count: int = 24) -> Path:
    path = folder / name
    list(write_series(path, Series(seed, count, 16, confounders=False), LabelKind.severity, workers=1))
    return path


@pytest.fixture
def data(tmp_path: Path) -> tuple[DatasetImages, DatasetImages]:
    return DatasetImages(write_data(tmp_path, "real.zip", 1)), DatasetImages(write_data(tmp_path, "test.zip", 2))


def other_phantoms(folder: Path) -> Any:
    """A perfect generator: more phantoms, in the order of the labels asked for."""
    more = DatasetImages(write_data(folder, "more.zip", 3, 96))
    by_class = [np.flatnonzero(more.labels.argmax(axis=1) == label) for label in range(4)]

    def draw(count: int, labels: NDArray[np.float32]) -> ImageSource:
        wanted = labels.argmax(axis=1)[np.arange(count) % len(labels)]
        chosen = [int(by_class[label][place // 4 % len(by_class[label])]) for place, label in enumerate(wanted)]
        pixels = np.stack([more.images[place][0].transpose(1, 2, 0) for place in chosen])
        return ArrayImages(pixels)

    return draw


@pytest.mark.slow
def test_every_mix_is_trained_and_reported(data: tuple[DatasetImages, DatasetImages], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    found = prove(
        *data, other_phantoms(tmp_path), amounts=[0.5, 2], seeds=2, steps=2, progress=lambda *each: seen.append(each)
    )

    assert [(score.mix.name, score.images) for score in found.scores] == [
        ("real alone", 24),
        ("real and 0.5 x synthetic", 36),
        ("real and 2 x synthetic", 72),
        ("0.5 x synthetic alone", 12),
        ("2 x synthetic alone", 48),
    ]
    assert seen[-1] == (20, 20)
    assert found.scores[0].gain is None
    assert all(len(score.recalls) == 4 and len(score.groups) == 3 for score in found.scores)
    assert found.classes == ("none", "mild", "moderate", "severe")


def made_up(rates: dict[str, float], tests: int, seed: int) -> tuple[MixScore, ...]:
    """Scores of runs that get each test image right at a known rate."""
    rng = np.random.default_rng(seed)
    planned = mixes([1.0])
    truth = np.arange(tests) % 2
    results = {mix.name: [rng.random(tests) < rates[mix.name] for _ in range(2 * 3)] for mix in planned}
    test = HeldOutImages.of(truth, rng.integers(0, 3, tests), seed=seed)
    return scored(planned, results, test, 100)


RATES = {REAL: 0.7, "real and 1 x synthetic": 0.7, "1 x synthetic alone": 0.5}


def test_intervals_cover_the_true_accuracy_and_gain() -> None:
    trials = [made_up(RATES, 80, seed) for seed in range(60)]

    accuracy = [scores[0].balanced for scores in trials]
    gains = [gain for scores in trials if (gain := scores[1].gain)]
    assert np.mean([each.low <= 0.7 <= each.high for each in accuracy]) >= 0.9
    assert np.mean([each.low <= 0 <= each.high for each in gains]) >= 0.9
    assert len(gains) == len(trials)


def result_of(scores: tuple[MixScore, ...]) -> ProofResult:
    return ProofResult(
        classes=("a", "b"), groups=("g",), architectures=("convnet", "resnet"), seeds=3, steps=1, resolution=16,
        real_images=100, test_images=400, scores=scores,
    )  # fmt: skip


def test_the_answer_says_that_they_help_hurt_or_that_nothing_can_be_told() -> None:
    helped, hurt, neither = (
        result_of(made_up({**RATES, "real and 1 x synthetic": rate}, 400, 0)).sentence() for rate in (0.85, 0.5, 0.7)
    )

    assert helped.startswith("Synthetic images help: real and 1 x synthetic gains 0.1")
    assert hurt.startswith("Synthetic images do not help: real and 1 x synthetic changes balanced accuracy by -0.")
    assert neither.startswith("No gain can be told: with 3 seeds and 400 test images")


def test_balanced_accuracy_is_the_mean_recall_and_the_worst_group_the_lowest() -> None:
    truth = np.array([0] * 6 + [1] * 3)
    groups = np.array([0, 0, 0, 1, 1, 1, 0, 1, 1])
    right = np.array([[1, 1, 0, 1, 0, 0, 1, 0, 1]], np.bool_)
    test = HeldOutImages.of(truth, groups)

    assert test.balanced(right)[0, 0] == pytest.approx((3 / 6 + 2 / 3) / 2)
    assert test.recall(right, 1)[0, 0] == pytest.approx(2 / 3)
    assert test.worst(right)[0, 0] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert thirds([5.0, 1.0, 3.0]).tolist() == [2, 0, 1]


def test_test_images_that_are_trained_on_are_refused(tmp_path: Path) -> None:
    real = DatasetImages(write_data(tmp_path, "real.zip", 1))
    leaky = DatasetImages(write_data(tmp_path, "test.zip", 1, 12))

    with pytest.raises(MetricError, match=r"12 of the images of test\.zip are in real.zip too, such as"):
        prove(real, leaky, other_phantoms(tmp_path), amounts=[1], seeds=2, steps=1)


def test_data_without_classes_is_refused(data: tuple[DatasetImages, DatasetImages], tmp_path: Path) -> None:
    bare = tmp_path / "bare.zip"
    list(write_series(bare, Series(4, 8, 16, confounders=False), LabelKind.none, workers=1))
    subtypes = tmp_path / "both.zip"
    list(write_series(subtypes, Series(4, 40, 16, confounders=False), LabelKind.both, workers=1))
    draw = other_phantoms(tmp_path)

    with pytest.raises(MetricError, match=r"bare\.zip must be labelled with at least 2 classes"):
        prove(DatasetImages(bare), data[1], draw, amounts=[1], seeds=2, steps=1)
    with pytest.raises(MetricError, match="must have the same classes, got 4 and 10"):
        prove(data[0], DatasetImages(subtypes), draw, amounts=[1], seeds=2, steps=1)
    with pytest.raises(MetricError, match="must be above 0 and at most 1000, got 0"):
        mixes([1, 0])
    assert mixes([2.0])[1] == TrainingMix(real=True, amount=2.0)


def test_the_command_writes_a_page_and_figures(tmp_path: Path) -> None:
    config = GeneratorConfig(
        c_dim=4, z_dim=8, w_dim=8, img_resolution=16, channel_base=64, channel_max=8, mapping_layers=2
    )
    model = fresh_model(tmp_path / "model", config, seed=0, name="tiny").path.parent
    app = typer.Typer()
    app.command()(command)
    words = ["--real", write_data(tmp_path, "real.zip", 1), "--test", write_data(tmp_path, "test.zip", 2)]
    words += ["--model", model, "--out", tmp_path / "proof", "--amounts", "1", "--seeds", 2, "--steps", 2]

    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)

    figures = json.loads((tmp_path / "proof" / "proof.json").read_text())
    page = (tmp_path / "proof" / "proof.html").read_text()
    assert figures["answer"] in done.output.replace("\n", "")
    assert figures["answer"] in page
    assert [score["mix"]["amount"] for score in figures["scores"]] == [0, 1, 1]
    assert page.count("<svg") == 2
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
