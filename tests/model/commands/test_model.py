"""`rosacea model`: every command does what it says, and reports what it did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rosacea_model import GeneratorConfig, ModelRejected
from rosacea_model.commands.model import Format, ModelPreset, app, infer_format
from rosacea_model.files.archive import read_archive
from rosacea_model.files.modelfile import verify
from rosacea_model.fresh import PRESETS, demo_config, fresh_model

TINY = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=8, channel_base=64, channel_max=8, mapping_layers=2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return fresh_model(tmp_path / "tiny", TINY, seed=0, name="tiny").path.parent


def run(*arguments: object) -> str:
    """What a command prints, without the spaces of its table; what it raises is raised here."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def told(output: str) -> str:
    return "".join(output.replace("│", " ").split())


@pytest.mark.parametrize("command", ["import", "export", "info", "new", "check-phantoms"])
def test_help_names_every_command(command: str) -> None:
    assert command in run("--help")
    assert "Usage" in run(command, "--help")


def test_importing_the_commands_does_not_import_torch() -> None:
    probe = "import sys, rosacea_model.commands.model; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_info_does_not_import_torch(model: Path) -> None:
    probe = (
        "import sys; from rosacea_model.commands.model import app; "
        f"app(['info', {str(model)!r}], standalone_mode=False); sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_info_json_is_one_object_with_the_config_and_the_digest(model: Path) -> None:
    facts = json.loads(run("info", model, "--json"))

    assert facts["name"] == "tiny"
    assert facts["note"] == "untrained: drawn from a fixed seed"
    assert facts["digest"] == verify(model).digest
    assert GeneratorConfig.from_dict(facts["config"]) == TINY


def test_info_counts_parameters_and_buffers_apart(tmp_path: Path) -> None:
    from rosacea_model import load

    folder = fresh_model(tmp_path / "counted", TINY, seed=0, name="counted").path.parent
    facts = json.loads(run("info", folder, "--json"))

    generator = load(folder).generator
    assert facts["parameters"] == sum(tensor.numel() for tensor in generator.parameters())
    assert facts["buffers"] == sum(tensor.numel() for tensor in generator.buffers())
    assert facts["tensors"] == len(generator.state_dict())


def test_info_tells_the_digest_in_full(model: Path) -> None:
    assert verify(model).digest in told(run("info", model))


def test_info_obeys_no_markup_and_sends_no_control_character(tmp_path: Path) -> None:
    note = "[red]x[/blue] \x1b[31mred\x1b[0m"
    folder = fresh_model(tmp_path / "odd", TINY, seed=0, name="odd", note=note).path.parent

    output = run("info", folder)

    assert "[red]x[/blue]" in output
    assert "\x1b" not in output


def test_info_refuses_a_damaged_model(model: Path) -> None:
    path = model / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(ModelRejected, match="SHA-256 must be"):
        run("info", model)


def test_new_makes_the_demo_model_of_its_seed(tmp_path: Path) -> None:
    output = run("new", "--out", tmp_path / "demo", "--seed", 3)

    file = verify(tmp_path / "demo")
    expected = fresh_model(tmp_path / "expected", demo_config(), seed=3, name="demo")
    assert (file.name, file.config, file.digest) == ("demo", demo_config(), expected.digest)
    assert file.digest in told(output)


def test_the_presets_are_those_of_the_library() -> None:
    assert {str(preset) for preset in ModelPreset} == PRESETS.keys()
    assert PRESETS["full"]() == GeneratorConfig(img_resolution=512)


def test_new_replaces_nothing(model: Path) -> None:
    before = verify(model)

    with pytest.raises(ValueError, match="must be empty or absent"):
        run("new", "--out", model)

    assert verify(model) == before


def test_new_refuses_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="name must match"):
        run("new", "--out", tmp_path / "Demo!")


def test_export_writes_an_archive_that_reads_back(model: Path, tmp_path: Path) -> None:
    run("export", model, "--out", tmp_path / "tiny.mar", "--workers", 2)

    assert read_archive(tmp_path / "tiny.mar", tmp_path / "back").digest == verify(model).digest
    assert b"minWorkers: 2" in (tmp_path / "tiny.mar").read_bytes()


def test_export_writes_into_a_model_store(model: Path, tmp_path: Path) -> None:
    run("export", model, "--out", tmp_path / "store")

    assert verify(tmp_path / "store" / "tiny").digest == verify(model).digest
    assert (tmp_path / "store" / "tiny" / "MAR-INF" / "MANIFEST.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["const", "input"])
def test_export_writes_onnx_and_tells_the_differences(model: Path, tmp_path: Path, noise: str) -> None:
    import onnx

    output = run("export", model, "--out", tmp_path / "file", "--format", "onnx", "--noise", noise)

    names = [entry.name for entry in onnx.load(tmp_path / "file").graph.input]
    assert ("noise_4_0" in names) == (noise == "input")
    assert "largestdifferenceofanimage" in told(output)


def test_the_suffix_says_the_format(tmp_path: Path) -> None:
    (tmp_path / "store.v1").mkdir()

    assert infer_format(Path("a.mar")) is Format.archive
    assert infer_format(Path("a.onnx")) is Format.onnx
    assert infer_format(Path("store")) is Format.store
    assert infer_format(tmp_path / "store.v1") is Format.store
    with pytest.raises(ValueError, match=r"got a\.bin"):
        infer_format(Path("a.bin"))


def test_import_reads_a_snapshot_and_reports_it(golden: Path, tmp_path: Path) -> None:
    snapshot = golden / "conditional" / "network-snapshot-000000.pkl"

    output = run("import", snapshot, "--out", tmp_path / "imported", "--name", "golden", "--classes", "a,b,c,d")

    file = verify(tmp_path / "imported")
    assert (file.name, file.config.c_dim, file.classes) == ("golden", 4, ("a", "b", "c", "d"))
    assert file.digest in told(output)
    assert "G_ema" in output


def test_import_replaces_a_model_only_by_force(golden: Path, model: Path) -> None:
    snapshot = golden / "conditional" / "network-snapshot-000000.pkl"
    with pytest.raises(ValueError, match="must be empty or absent"):
        run("import", snapshot, "--out", model)

    run("import", snapshot, "--out", model, "--force")

    assert verify(model).name == "tiny"
    assert verify(model).config.c_dim == 4
