"""Options from flags, variables and a file: which of them wins, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from rosacea_model.commands.sources import with_sources

seen: dict[str, Any] = {}


def draw(
    data: Annotated[Path, typer.Option()],
    batch: Annotated[int, typer.Option(min=1)] = 2,
    rate: Annotated[float, typer.Option()] = 0.5,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror")] = False,
) -> None:
    """Draw."""
    seen.update(data=data, batch=batch, rate=rate, mirror=mirror)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("draw.toml").write_text('data = "faces.zip"\nbatch = 3\nrate = 1e-8\nmirror = true\n')
    return Path("draw.toml")


def run(*arguments: str, **variables: str) -> str:
    """The error, if any; what was drawn is in `seen`."""
    seen.clear()
    app = typer.Typer()
    app.command()(with_sources(draw, "DRAW_"))
    result = CliRunner().invoke(app, arguments, env=variables)
    return str(result.exception) + result.output if result.exception else result.output


def test_flags_beat_variables_beat_the_file_beats_defaults(config: Path) -> None:
    assert run("--config", "draw.toml", "--rate", "7", DRAW_RATE="6", DRAW_BATCH="5") == ""
    assert seen == {"data": Path("faces.zip"), "batch": 5, "rate": 7.0, "mirror": True}

    assert run("--data", "other.zip") == ""
    assert seen == {"data": Path("other.zip"), "batch": 2, "rate": 0.5, "mirror": False}


def test_a_variable_may_name_the_file(config: Path) -> None:
    assert run("--no-mirror", DRAW_CONFIG="draw.toml") == ""
    assert seen == {"data": Path("faces.zip"), "batch": 3, "rate": 1e-8, "mirror": False}


def test_a_variable_with_a_typing_error_is_noticed(config: Path) -> None:
    assert run("--config", "draw.toml", DRAW_BATHC="5") == "DRAW_BATHC is no setting\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bathc = 3", "draw.toml: bathc is no option of this command; did you mean batch?"),
        ("zzz = 3", "draw.toml: zzz is no option of this command; did you mean batch, data, mirror, rate?"),
        ("batch = [3]", "draw.toml: batch must be a text, a number, true or false, got [3]"),
        ("[draw]\nbatch = 3", "draw.toml: draw is no option of this command"),
        ("batch = ", "draw.toml: not TOML"),
        ("data = 'a'\nbatch = 0", "Invalid value for '--batch'"),
        ("data = 'a'\nbatch = 'many'", "Invalid value for '--batch'"),
    ],
)
def test_a_wrong_file_is_refused(config: Path, text: str, message: str) -> None:
    config.write_text(text)

    assert message in run("--config", "draw.toml")
    assert seen == {}


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there must be a configuration file of that name" in run("--config", str(tmp_path / "none.toml"))
