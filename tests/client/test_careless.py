"""Forty things that people type without care, and the answers that help them: each says what to type instead.

Written down before any of the answers was: what is typed on the left, words of the answer on the right.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rosacea_client import FaceClient, cli

from ..serving.hosted import CONDITIONAL, hosted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rosacea_client.results.face import Face

NOBODY = "127.0.0.1:9"  # the discard port, where nothing listens


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A gateway with one model, models/demo, that knows three classes; its workers are fakes."""
    with hosted(config=CONDITIONAL) as service:
        yield service.gateway.address


def seeds_of(faces: list[Face]) -> list[int | None]:
    return [face.seed for face in faces]


# What is done with a client => words of the error's message.
REFUSED: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "label=": (lambda ask: ask.generate(1, label=2), ("label", "class_index")),
    "psi=": (lambda ask: ask.generate(1, psi=0.7), ("psi", "truncation_psi")),
    "trunc=": (lambda ask: ask.map_latents(1, trunc=0.7), ("trunc", "truncation_psi")),
    "class=": (lambda ask: ask.generate(1, **{"class": 1}), ("class", "class_index")),
    "noise=": (lambda ask: ask.stream(1, noise="random"), ("noise", "noise_mode")),
    "seed=": (lambda ask: ask.generate(seed=1), ("seed", "seeds")),
    "quality=": (lambda ask: ask.generate(1, class_index=1, quality=90), ("quality", "jpeg_quality")),
    "no label": (lambda ask: ask.generate(1), ("models/demo", "class_index", "0", "2")),
    "no label for latents": (lambda ask: ask.map_latents(1), ("class_index", "label_vector")),
    "a class too many": (lambda ask: ask.generate(1, class_index=3), ("class_index", "below 3", "got 3")),
    "psi as text": (lambda ask: ask.generate(1, class_index=1, truncation_psi="0.7"), ("number", "'0.7'")),
    "psi in per cent": (lambda ask: ask.generate(1, class_index=1, truncation_psi=70), ("from -2 to 2", "70")),
    "seeds that are none": (lambda ask: ask.generate("a-b", class_index=1), ("seeds", "0-15,42", "'a-b'")),
    "a format": (lambda ask: ask.generate(1, class_index=1, format="bmp"), ("png", "jpeg", "raw", "bmp")),
    "a model's misspelling": (lambda ask: ask.generate(1, class_index=1, model="dmeo"), ("models/demo", "dmeo")),
    "a model's path": (lambda ask: ask.generate(1, model="./models/mine"), ("rosacea serve ./models/mine",)),
    "w of another model": (lambda ask: ask.generate(w=np.ones((1, 7))), ("multiple of 4", "models/demo", "got 7")),
}

# What is done with a client => what comes of it.
TAKEN: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "seeds as text": (lambda ask: seeds_of(ask.generate("0-2,7", class_index=1)), [0, 1, 2, 7]),
    "a model by its name alone": (lambda ask: seeds_of(ask.generate(1, class_index=1, model="demo")), [1]),
    "jpg": (lambda ask: ask.generate(1, class_index=1, format="jpg")[0].format, "jpeg"),
    "JPEG": (lambda ask: ask.generate(1, class_index=1, format="JPEG")[0].format, "jpeg"),
    "numbers of torch": (
        lambda ask: seeds_of(ask.generate(torch.arange(3), class_index=torch.tensor(2), truncation_psi=torch.ones(()))),
        [0, 1, 2],
    ),
    "a number of numpy": (lambda ask: seeds_of(ask.generate(np.uint8(3), class_index=np.int64(0))), [3]),
}

# Addresses => words of the error's message.
ADDRESSES: dict[str, tuple[str, ...]] = {
    "localhost": ("HOST:PORT", "localhost:7433"),
    "http://127.0.0.1:7433": ("HOST:PORT", "127.0.0.1:7433", "http://"),
    NOBODY: (NOBODY, "nothing listens", "start one with `rosacea serve`"),
}

# Command lines, ADDRESS standing for the service => exit code, and words of what is printed.
TYPED: dict[str, tuple[int, tuple[str, ...]]] = {
    "genrate --seeds 0": (2, ("genrate", "generate")),
    "generate --seed 0 --class-index 1": (2, ("--seed", "--seeds")),
    "generate --seeds 0 --class 1": (2, ("--class", "--class-index")),
    "generate --seeds 0 --trunc 0.7": (2, ("--trunc", "--truncation-psi")),
    "generate --seeds 0..3 --label 1": (2, ("0-15,42", "0..3")),
    "generate --seeds 0 --address ADDRESS": (2, ("models/demo", "--class-index", "0 to 2")),
    "generate --seeds 0 --psi 0.7 --label 1 --format jpg --model demo --address ADDRESS": (0, ("1 faces",)),
    "generate --seeds 0 --label 1 --out face.png --address ADDRESS": (2, ("--out", "folder", "face.png")),
    "models --address localhost": (2, ("localhost:7433",)),
    "serve no/such/model": (1, ("no/such/model", "folder", "archive")),
    "train --data missing.zip --outdir run": (1, ("missing.zip",)),
    "train --data a.zip --outdir run --epochs 10": (2, ("--epochs", "--kimg")),
    "train --data a.zip --outdir run --lr 0.001": (2, ("--lr", "--glr", "--dlr")),
    "model export demo --out demo.pth": (2, ("demo.pth", ".onnx", ".mar")),
}


def test_there_are_forty() -> None:
    assert len(REFUSED) + len(TAKEN) + len(ADDRESSES) + len(TYPED) == 40


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_type_instead(address: str, name: str) -> None:
    done, words = REFUSED[name]
    with FaceClient(address) as client, pytest.raises((ValueError, TypeError, Exception)) as caught:
        list(done(client))

    told = str(caught.value)
    assert [word for word in words if word not in told] == [], told


@pytest.mark.parametrize("name", TAKEN)
def test_what_can_be_meant_in_one_way_only_is_taken(address: str, name: str) -> None:
    done, wanted = TAKEN[name]
    with FaceClient(address) as client:
        assert done(client) == wanted


@pytest.mark.parametrize("target", ADDRESSES)
def test_an_address_that_cannot_be_is_told_from_one_where_nothing_listens(target: str) -> None:
    with pytest.raises((ValueError, Exception)) as caught, FaceClient(target, retries=False) as client:
        client.models()

    assert [word for word in ADDRESSES[target] if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize("line", TYPED)
def test_a_command_line_says_what_to_type_instead(
    address: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = TYPED[line]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr(sys, "argv", ["rosacea", *line.replace("ADDRESS", address).split()])

    with pytest.raises(SystemExit) as caught:
        cli.main()

    told = "".join(capsys.readouterr())
    assert [word for word in words if word not in told] == [], told
    assert caught.value.code == code, told
    assert "Traceback" not in told
