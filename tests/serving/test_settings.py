"""Who wins where a setting is given more than once, and what a wrong one says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from rosacea_model.commands.sources import unknown_variables
from rosacea_serving.cli import serve
from rosacea_serving.flags import flag
from rosacea_serving.settings import CONFIG_VARIABLE, GROUPS, PREFIX, Settings, changed, groups

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text('models = ["a", "b.mar"]\nworkers = 2\nmax_batch = 3\nqueue_images = 400\n')
    return path


def test_flags_beat_variables_beat_the_file_beats_defaults(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROSACEA_SERVE_MAX_BATCH", "5")
    monkeypatch.setenv("ROSACEA_SERVE_QUEUE_IMAGES", "500")

    settings = Settings.read({"queue_images": 600}, config)

    assert (settings.workers, settings.max_batch, settings.queue_images) == (2, 5, 600)
    assert settings.grace_seconds == Settings().grace_seconds == 30
    assert settings.models == (Path("a"), Path("b.mar"))


def test_models_in_a_variable_are_separated_as_paths_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROSACEA_SERVE_MODELS", "one:two words")

    assert Settings().models == (Path("one"), Path("two words"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker = 3", "worker: Extra inputs are not permitted, got 3"),
        ("workers = 0", "workers: Input should be greater than or equal to 1, got 0"),
        ("workers = 'many'", "workers: Input should be a valid integer"),
        ("grace_seconds = inf", "grace_seconds: Input should be a finite number"),
        ("address = 'here'", "an address must be HOST:PORT, got 'here'"),
        ("queue_images = 3", "queue_images must be at least max_images_per_request (64), got 3"),
        ("workers = ", "serve.toml: not TOML"),
        ("[serve]\nworkers = 1", "serve: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)

    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Settings.read({}, path)

    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there must be a configuration file"):
        Settings.read({}, tmp_path / "none.toml")


def test_a_variable_with_a_typing_error_is_noticed() -> None:
    known = {f"{PREFIX}{name.upper()}": "" for name in Settings.model_fields} | {CONFIG_VARIABLE: "", "PATH": ""}

    names = [*Settings.model_fields, "config"]

    assert unknown_variables(known, PREFIX, names) == []
    assert unknown_variables([*known, "ROSACEA_SERVE_WORKER"], PREFIX, names) == ["ROSACEA_SERVE_WORKER"]


def test_a_difference_is_named() -> None:
    assert changed(Settings(), Settings()) == []
    assert changed(Settings(), Settings(workers=2, grace_seconds=1)) == ["workers", "grace_seconds"]


def test_every_setting_has_a_flag_and_a_place_in_the_help() -> None:
    flags = set(inspect.signature(serve).parameters) - {"config", "check"}

    assert flags == set(Settings.model_fields)
    assert [name for names in groups().values() for name in names] == list(Settings.model_fields)
    assert list(groups()) == list(GROUPS.values()) and all(groups().values())


def test_every_flag_reaches_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    stated: dict[str, object] = {}

    def read(flags: Mapping[str, object], config: Path | None) -> Settings:
        stated.update(flags)
        raise ValueError("enough")

    monkeypatch.setattr(Settings, "read", read)
    app = typer.Typer()
    app.command()(serve)
    words = {"device": ["cuda"], "log_format": ["json"], "insecure": [], "reflection": [], "channelz": []}
    words |= {"engine": ["torch"], "precision": ["bf16"]}
    flags = [[flag(name), *words.get(name, ["7"])] for name in Settings.model_fields if name != "models"]

    result = CliRunner().invoke(app, ["here.mar", *(word for each in flags for word in each)])

    assert str(result.exception) == "enough", result.output
    assert list(stated) == list(Settings.model_fields)
    assert (stated["models"], stated["device"], stated["insecure"]) == ([Path("here.mar")], "cuda", True)
    assert (stated["workers"], stated["grace_seconds"], stated["tls_key"]) == (7, 7.0, Path("7"))


def test_an_engine_that_is_not_installed_or_cannot_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rosacea_model.engines.find_spec", lambda package: None)

    with pytest.raises(ValueError, match=r"the engine openvino needs openvino.*\[openvino\]"):
        Settings(engine="openvino")
    with pytest.raises(ValueError, match="precision bf16 needs the engine openvino, got 'auto'"):
        Settings(precision="bf16")
