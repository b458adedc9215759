"""`rosacea serve --check`: what would be in effect, or what is wrong, and nothing started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from rosacea_model import GeneratorConfig, demo
from rosacea_model.files.modelfile import WEIGHTS_NAME, verify
from rosacea_model.files.signing import sign
from rosacea_model.fresh import fresh_model
from rosacea_serving.cli import reader
from rosacea_serving.models.shelf import Shelf
from rosacea_serving.settings import Settings

from ..model.files.test_signing import write_keys

if TYPE_CHECKING:
    from rosacea_model.files.modelfile import ModelFile

CONFIG = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=8, mapping_layers=1, channel_base=64, channel_max=8)


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    return fresh_model(tmp_path / "model", CONFIG, seed=1, name="demo")


def check(*arguments: str) -> tuple[int, str]:
    before = psutil.Process().children(recursive=True)
    command = [str(Path(sys.executable).with_name("rosacea")), "serve", "--check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert psutil.Process().children(recursive=True) == before
    return result.returncode, result.stdout + result.stderr


def test_a_good_configuration_is_told(model: ModelFile, tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(f'models = ["{model.path.parent}"]\nworkers = 2\n')

    code, output = check("--config", str(tmp_path / "serve.toml"), "--queue-images", "100")

    assert code == 0, output
    assert "workers = 2\n" in output and "queue_images = 100\n" in output
    assert f"model demo {model.digest} (8 px)" in output


def test_without_a_model_it_is_the_demo_model_that_is_served() -> None:
    code, output = check()

    assert code == 0
    assert f"model demo {verify(demo.folder()).digest} (64 px)" in output


def test_a_damaged_model_is_told(model: ModelFile) -> None:
    (model.path.parent / WEIGHTS_NAME).write_bytes(b"damage")

    code, output = check(str(model.path.parent))

    assert code == 1
    assert "SHA-256 must be" in output


@pytest.mark.slow
def test_a_model_of_another_signer_is_told(model: ModelFile, tmp_path: Path) -> None:
    key, public = write_keys(tmp_path, "ours")
    _, theirs = write_keys(tmp_path, "theirs")
    folder = str(model.path.parent)

    assert check(folder, "--model-public-key", str(public))[0] == 1
    sign(model.path, key)
    assert check(folder, "--model-public-key", str(public))[0] == 0
    code, output = check(folder, "--model-public-key", str(theirs))

    assert code == 1
    assert "not of this model by the owner of" in output and "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "workers: Input should be greater than or equal to 1, got 0"),
        (["--config", "none.toml"], "there must be a configuration file"),
    ],
)
def test_a_wrong_setting_is_told(arguments: list[str], message: str) -> None:
    code, output = check(*arguments)

    assert code == 2
    assert message in output


def test_a_java_that_is_none_is_told(model: ModelFile, tmp_path: Path) -> None:
    code, output = check(str(model.path.parent), "--java", str(tmp_path / "java"))

    assert code == 1
    assert "java must be an executable file" in output


def test_only_the_models_are_read_again(model: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    began = Settings(models=(model.path.parent,))
    now = Settings(models=(model.path.parent,), workers=2)

    (file,) = reader(Shelf(tmp_path / "shelf"), began, lambda: now)([])

    assert file.digest == model.digest
    assert "only the models are read again; a restart is needed for workers" in caplog.text
