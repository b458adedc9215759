from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import typer
from google.rpc import error_details_pb2

from rosacea_client import cli
from rosacea_client.commands.faces import save_faces
from rosacea_client.results.face import Face
from rosacea_client.seeds import parse_seeds, read_seeds
from rosacea_contract.install import install_line
from rosacea_contract.reasons import DOMAIN

from .fakes import MODEL, ROWS, WIDTH, FakeFaces, draw, failure, provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLIENT = {
    "generate": "rosacea_client.commands.faces:generate",
    "map": "rosacea_client.commands.faces:map_latents",
    "models": "rosacea_client.commands.faces:models",
    "inspect": "rosacea_client.commands.faces:inspect",
}


def entry_points(**commands: str) -> list[EntryPoint]:
    return [EntryPoint(name, value, cli.GROUP) for name, value in commands.items()]


@pytest.fixture
def rosacea(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; gives the exit code, stdout and stderr."""

    def run(*arguments: object, **more_commands: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rosacea", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main(entry_points(**CLIENT, **more_commands))
        code = caught.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a module with a command in it; gives the entry point's value."""
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda body: str((tmp_path / "plugin.py").write_text(body)) and "plugin:command"
    sys.modules.pop("plugin", None)


def test_faces_are_saved_under_their_seeds(rosacea: Any, address: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "faces"

    code, stdout, stderr = rosacea(
        "generate", "--seeds", "0-2,4000000000", "--psi", 0.7, "--out", out, "--address", address
    )

    assert (code, stderr) == (0, "")
    names = ["face_000000.png", "face_000001.png", "face_000002.png", "face_4000000000.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert stdout == f"4 faces in {out}\n"


def test_seeds_may_come_from_a_file(rosacea: Any, service: FakeFaces, address: str, tmp_path: Path) -> None:
    (tmp_path / "seeds.txt").write_text("# rosacea seeds\n12\n5  # with a remark\n")

    assert rosacea("generate", "--seeds-file", tmp_path / "seeds.txt", "--out", tmp_path, "--address", address)[0] == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["face_000005.png", "face_000012.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1\n2-5\n", "line 2: must be a seed from 0 to 2**32 - 1, got '2-5'"),
        (b"4294967296", "line 1: must be a seed"),
        (b"3\n\n3", "line 3: the seed 3 is there twice"),
        (b"# none\n", "no seeds in it"),
        (b"\xff\xfe", "must be text with a seed on each line"),
    ],
)
def test_a_file_that_lists_no_seeds_is_refused(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "seeds.txt").write_bytes(text)

    with pytest.raises(ValueError, match=re.escape(message)):
        read_seeds(tmp_path / "seeds.txt")


def test_the_grid_is_written_and_its_path_told_last(rosacea: Any, address: str, tmp_path: Path) -> None:
    code, stdout, _ = rosacea("generate", "--seeds", "0-8", "--grid", "--out", tmp_path, "--address", address)

    assert code == 0
    assert stdout.splitlines()[-1] == str(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").is_file()


def test_options_reach_the_service(rosacea: Any, service: FakeFaces, address: str, tmp_path: Path) -> None:
    code, _, _ = rosacea(
        "generate", "--seeds", 7, "--label", 2, "--format", "jpeg", "--quality", 80, "--noise", "random",
        "--noise-seed", 5, "--model", "models/squares", "--cutoff", 3, "--out", tmp_path,
        "--address", address,
    )  # fmt: skip

    spec = service.requests[0].spec
    assert code == 0
    assert (tmp_path / "face_000007.jpg").is_file()
    assert (spec.label.class_index, spec.model, spec.jpeg_quality) == (2, "models/squares", 80)
    assert (spec.noise_seed, spec.truncation_cutoff) == (5, 3)


def test_the_address_may_come_from_the_environment(rosacea: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROSACEA_ADDRESS", address)

    code, stdout, _ = rosacea("models")

    assert code == 0
    assert stdout.splitlines()[1].split() == ["models/circles", "8", "-", "yes", "draws", "squares"]


def test_models_as_json_tell_everything(rosacea: Any, address: str) -> None:
    _, stdout, _ = rosacea("models", "--json", "--address", address)

    assert [model["z_dim"] for model in json.loads(stdout)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 2),
        (grpc.StatusCode.UNAVAILABLE, 3),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 3),
        (grpc.StatusCode.INTERNAL, 1),
        (grpc.StatusCode.NOT_FOUND, 1),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(
    rosacea: Any, service: FakeFaces, address: str, tmp_path: Path, code: grpc.StatusCode, exit_code: int
) -> None:
    info = error_details_pb2.ErrorInfo(reason="RENDER_FAILED", domain=DOMAIN)
    service.failures = [failure(code, "it went wrong", info)] * 4

    found, stdout, stderr = rosacea("generate", "--seeds", 1, "--out", tmp_path, "--address", address)

    assert (found, stdout) == (exit_code, "")
    assert stderr.startswith("error: ")
    assert stderr.endswith("it went wrong\n")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--seeds", "1", "--psi", "9"), "--truncation-psi must be from -2 to 2, got 9.0"),
        (("--seeds", "5-2"), "ranges from low to high, got 5-2"),
        (("--seeds", "x" * 1000), "--seeds must be whole numbers and ranges"),
        (("--seeds", "4294967296"), "--seeds must be below 2**32"),
        (("--seeds", "0-4294967295,1"), "--seeds must name at most 10000000"),
    ],
)
def test_a_wrong_option_is_one_line_and_2(rosacea: Any, arguments: tuple[str, ...], told: str) -> None:
    code, _, stderr = rosacea("generate", *arguments)

    assert code == 2
    assert told in stderr
    assert len(stderr) < 200


def test_seeds_keep_their_order() -> None:
    assert parse_seeds("0-3") == range(4)
    assert parse_seeds(" 3, 0-1,3") == [3, 0, 1, 3]


def test_ctrl_c_keeps_what_is_complete(rosacea: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> Iterator[Face]:
        yield Face.from_pb(draw(0, 5), provenance())
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as caught:
        save_faces(interrupted(), tmp_path, total=9, keep=False)

    assert caught.value.exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["face_000005.png"]
    assert "1 of 9 faces" in capsys.readouterr().err


def test_a_command_is_not_imported_before_it_runs(rosacea: Any, plugin: Callable[[str], str]) -> None:
    value = plugin('"""Module."""\nraise RuntimeError\n\ndef command() -> None:\n    """Does it."""\n')

    code, stdout, _ = rosacea("--help", other=value)

    assert code == 0
    assert "Does it." in stdout
    assert "plugin" not in sys.modules


def test_an_app_is_a_group_of_commands(rosacea: Any, plugin: Callable[[str], str]) -> None:
    app = "import typer\ncommand = typer.Typer(help='Many things.')\n"
    value = plugin(app + "@command.command()\ndef one(): print(1)\n")

    assert "Many things." in rosacea("--help", other=value)[1]
    assert rosacea("other", "one", other=value)[:2] == (0, "1\n")


@pytest.mark.parametrize("body", ["import nowhere\ndef command(): 1", "def command():\n    import nowhere"])
def test_a_missing_module_is_named_with_what_to_install(rosacea: Any, plugin: Callable[[str], str], body: str) -> None:
    code, _, stderr = rosacea("other", other=plugin(body))

    assert code == 2
    assert stderr == "error: `rosacea other` needs nowhere, which is not installed: pip install 'nowhere'\n"


def test_a_missing_part_names_its_extra() -> None:
    missing = ModuleNotFoundError("No module named 'ts'", name="ts")
    entry_point = EntryPoint("serve", "rosacea_serving.cli:serve", cli.GROUP)

    told = cli.explain(missing, entry_point)

    assert told == (f"`rosacea serve` needs ts, which is not installed: {install_line('serving')}", 2)


def test_a_part_that_is_not_there_is_listed_with_what_to_install() -> None:
    (entry_point,) = entry_points(other="nowhere.cli:app")

    assert cli.summary(entry_point) == f"Not installed: {install_line()}"


def test_a_bug_keeps_its_traceback(plugin: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rosacea", "other"])

    with pytest.raises(ZeroDivisionError):
        cli.main(entry_points(other=plugin("def command(): 1 / 0")))


def test_a_traceback_is_shown_on_request(rosacea: Any, plugin: Callable[[str], str]) -> None:
    value = plugin("def command(): raise ValueError('too odd')")

    assert rosacea("other", other=value) == (2, "", "error: too odd\n")
    assert "Traceback" in rosacea("--traceback", "other", other=value)[2]


def test_the_version_is_one_line(rosacea: Any) -> None:
    code, stdout, _ = rosacea("--version")

    assert code == 0
    assert stdout.startswith("rosacea ")


@pytest.mark.parametrize(
    "statement",
    [
        "import rosacea_client",
        "from rosacea_client import *",
        "import rosacea_contract.spec",
        "from rosacea_client import cli; cli.build().main(['--help'], standalone_mode=False)",
    ],
)
def test_no_import_and_no_help_needs_torch(statement: str) -> None:
    probe = f"import sys\n{statement}\nsys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_every_exported_name_exists() -> None:
    import rosacea_client

    assert all(hasattr(rosacea_client, name) for name in rosacea_client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rosacea_client.nothing


def test_ctrl_c_ends_a_hanging_call_quietly(tmp_path: Path) -> None:
    script = (
        "import signal, sys\n"
        "from importlib.metadata import EntryPoint\n"
        "from rosacea_client.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "main([EntryPoint('generate', 'rosacea_client.commands.faces:generate', 'rosacea.commands')])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", script, "generate", "--seeds", "1", "--out", str(tmp_path)]
        command += ["--address", address]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, silent.accept()[0]:
            # The call is on its way now, and nobody will answer it.
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=240)

    assert process.returncode == 130
    assert stderr == f"interrupted: 0 of 1 faces are in {tmp_path}\n"


@pytest.mark.parametrize(("space", "shape"), [("w", (3, WIDTH)), ("ws", (3, ROWS, WIDTH))])
def test_latents_are_saved_as_one_array(rosacea: Any, address: str, tmp_path: Path, space: str, shape: Any) -> None:
    out = tmp_path / "latents.npy"

    code, stdout, _ = rosacea("map", "--seeds", "4-6", "--space", space, "--out", out, "--address", address)

    assert code == 0
    assert stdout.startswith(f"{space} {list(shape)} of {MODEL} in ")
    array = np.load(out)
    assert array.shape == shape
    assert array.reshape(3, -1)[:, 0].tolist() == [4, 5, 6]


def test_a_name_that_is_no_array_is_refused_before_anything_is_asked(
    rosacea: Any, service: FakeFaces, address: str, tmp_path: Path
) -> None:
    code, _, stderr = rosacea("map", "--seeds", "1", "--out", tmp_path / "w.txt", "--address", address)

    assert (code, service.calls) == (2, 0)
    assert "--out must end in .npy, got w.txt" in stderr


def test_latents_of_a_file_are_drawn_as_what_their_shape_says(
    rosacea: Any, address: str, service: FakeFaces, tmp_path: Path
) -> None:
    np.save(tmp_path / "w.npy", np.ones((2, 4)))
    np.save(tmp_path / "ws.npy", np.ones((3, 4, 4)))
    np.save(tmp_path / "odd.npy", np.ones((3, 7)))

    for name, field, count in (("w", "w", 2), ("ws", "ws", 3)):
        rosacea("generate", "--latents", tmp_path / f"{name}.npy", "--out", tmp_path / "out", "--address", address)
        spec = service.requests[-1].spec
        assert spec.WhichOneof("source") == field
        assert len(getattr(spec, field).data) == 4 * count * (4 if field == "w" else 16)
    code, _, stderr = rosacea("generate", "--latents", tmp_path / "odd.npy", "--address", address)
    assert code == 2 and "must have the shape [N, 4, 4] for ws or [N, 4] for w, got [3, 7]" in stderr


def test_mixes_and_label_vectors_travel(rosacea: Any, address: str, service: FakeFaces, tmp_path: Path) -> None:
    options = ("--style-mix", "9:1-3", "--style-mix", "8:0-1", "--label-vector", "0,0.5", "--out", tmp_path)
    assert rosacea("generate", "--seeds", 1, *options, "--address", address)[0] == 0

    spec = service.requests[-1].spec
    assert [(mix.seed, mix.first_row, mix.end_row) for mix in spec.style_mixes] == [(9, 1, 3), (8, 0, 1)]
    assert list(spec.label.vector.values) == [0, 0.5]
    code, _, stderr = rosacea("generate", "--seeds", 1, "--style-mix", "9", "--address", address)
    assert code == 2 and "--style-mix must be SEED:FIRST-END, such as 7:0-4" in stderr


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("rosacea gen", ["generate"]), ("rosacea generate --trunc", ["--truncation-psi", "--truncation-cutoff"])],
)
def test_a_shell_completes_commands_and_their_options(
    rosacea: Any, monkeypatch: pytest.MonkeyPatch, typed: str, completed: list[str]
) -> None:
    monkeypatch.setenv("_ROSACEA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))

    assert rosacea() == (0, "".join(f"{each}\n" for each in completed), "")
