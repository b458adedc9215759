"""An import leaves a verified model folder or nothing, and reads the file behind walls."""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
import stat
import subprocess
import sys
import textwrap
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from rosacea_model.errors import CheckpointRejected, ModelRejected
from rosacea_model.files import weights
from rosacea_model.files.modelfile import SIGNATURE_NAME, read_manifest, verify
from rosacea_model.importers.formats import NETWORKS_NAME
from rosacea_model.importers.importer import ImportReport, NetworkSummary, import_checkpoint

PACKAGE_ROOT = Path(weights.__file__).parents[1]
KINDS = ("unconditional", "conditional")


@pytest.fixture
def snapshot(golden: Path) -> Path:
    return golden / "unconditional" / "network-snapshot-000000.pkl"


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_snapshot_holds_the_reference_s_numbers(
    golden: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_FILE", str(tmp_path / "canary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    source = golden / kind / "network-snapshot-000000.pkl"

    report = import_checkpoint(source, tmp_path / "models" / "face", "face-1")
    file = verify(tmp_path / "models" / "face")
    tensors = weights.read(file)

    with np.load(golden / kind / "generator.npz") as arrays:
        assert set(tensors) == set(arrays.files)
        assert all(tensors[name].numpy().tobytes() == arrays[name].tobytes() for name in arrays.files)
    assert (file.name, file.digest, file.config) == ("face-1", report.digest, report.config)
    assert list((tmp_path / "models").iterdir()) == [report.folder]
    assert not (tmp_path / "canary").exists() and not (tmp_path / "unpickle-canary").exists()


def test_the_report_tells_what_the_file_held(snapshot: Path, tmp_path: Path) -> None:
    report = import_checkpoint(snapshot, tmp_path / "face", "face")
    manifest = read_manifest(tmp_path / "face" / "model.json")

    assert isinstance(report, ImportReport)
    assert report.kind == "stylegan2-ada snapshot"
    assert report.networks == (
        NetworkSummary(name="G", class_name="Generator", tensors=75, parameters=263_987),
        NetworkSummary(name="D", class_name="Discriminator", tensors=37, parameters=288_993),
        NetworkSummary(name="G_ema", class_name="Generator", tensors=75, parameters=263_987),
    )
    assert (report.config.img_resolution, report.config.mapping_layers, report.augment_p) == (32, 2, 0.25)
    assert "program text in the file was not run" in report.notes
    assert report.source_sha256 == sha256(snapshot.read_bytes()).hexdigest() == manifest["source_sha256"]
    assert manifest["source"] == "stylegan2-ada snapshot"


@pytest.mark.slow
def test_the_same_file_gives_the_same_digest(snapshot: Path, tmp_path: Path) -> None:
    reports = [import_checkpoint(snapshot, tmp_path / name, "face") for name in ("a", "b")]

    assert reports[0].digest == reports[1].digest


@pytest.mark.slow
def test_a_folder_in_use_is_left_alone_unless_forced(snapshot: Path, tmp_path: Path) -> None:
    folder = tmp_path / "face"
    folder.mkdir()
    import_checkpoint(snapshot, folder, "first")  # an empty folder is free

    with pytest.raises(ValueError, match="must be empty or absent"):
        import_checkpoint(snapshot, folder, "second")
    assert verify(folder).name == "first"

    (folder / SIGNATURE_NAME).write_text("of the first")
    (folder / NETWORKS_NAME).touch()
    import_checkpoint(snapshot, folder, "third", force=True)
    assert not (folder / SIGNATURE_NAME).exists()
    assert verify(folder).name == "third"
    assert list(tmp_path.iterdir()) == [folder]


def test_force_never_removes_what_is_not_a_model(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()

    with pytest.raises(ValueError, match=r"it holds thesis.tex"):
        import_checkpoint(snapshot, tmp_path / "home", "face", force=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_a_name_that_is_not_one_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="name must match"):
        import_checkpoint(tmp_path / "absent", tmp_path / "face", "../face")


def test_a_hostile_file_is_refused_by_name_runs_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "evil.pkl"
    source.write_bytes(pickle.dumps({"G_ema": Evil(f"touch {tmp_path}/marker")}))

    with pytest.raises(CheckpointRejected, match=r"evil.pkl: the file asks for posix.system") as caught:
        import_checkpoint(source, tmp_path / "face", "face")

    assert caught.value.offender == "posix.system"
    assert list(tmp_path.iterdir()) == [source]


def old_torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"g": 1}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"text", "neither a snapshot"),
        (b"PK\x03\x04", r"not a readable .pt"),
        (b"\x80\x04N.", "must be a dict of networks"),
        (old_torch_file(), "before 1.6"),
    ],
    ids=["empty", "text", "broken zip", "no networks", "old torch"],
)
def test_a_file_of_another_kind_is_refused_in_words(content: bytes, text: str, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(content)

    with pytest.raises(CheckpointRejected, match=text):
        import_checkpoint(source, tmp_path / "face", "face")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for source in (tmp_path / "absent", tmp_path, Path("/dev/zero")):
        with pytest.raises(CheckpointRejected, match="not a file"):
            import_checkpoint(source, tmp_path / "face", "face")


def test_a_reader_that_takes_too_long_is_ended(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = in_its_place("exec sleep 600", tmp_path, monkeypatch)
    with pytest.raises(CheckpointRejected, match=r"not read within 0.01 seconds"):
        import_checkpoint(snapshot, tmp_path / "face", "face", timeout=0.01)
    assert list(tmp_path.iterdir()) == [fake]


def in_its_place(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a script of the shell be the reader."""
    fake = folder / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(fake))
    return fake


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("kill -9 $$", "stopped by SIGKILL"),
        ("echo out of luck >&2; exit 3", "status 3: out of luck"),
        ("exit 1", "status 1: no message"),
        ("true", "no readable answer"),
        ("echo '[]'", "no readable answer"),
        ("echo nonsense", "no readable answer"),
    ],
)
def test_a_reader_that_dies_is_a_refusal(
    script: str, text: str, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = in_its_place(script, tmp_path, monkeypatch)

    with pytest.raises(CheckpointRejected, match=text):
        import_checkpoint(snapshot, tmp_path / "face", "face")
    assert list(tmp_path.iterdir()) == [fake]


# The walls. Each attempt is a line of Python that succeeds without them and fails behind them.

ATTEMPTS = {
    "socket": "import socket; socket.socket().close()",
    "name lookup": "import socket; socket.getaddrinfo('localhost', 80)",
    "program": "import subprocess; subprocess.run(['true'])",
    "shell": "import os; os.system('true')",
    "fork": "import os; os._exit(0) if os.fork() == 0 else os.wait()",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "library": "import ctypes; ctypes.CDLL(None)",
    "unpickler": "import pickle; pickle.loads(b'cbuiltins\\nlen\\n.')",
    "write outside": "open('../outside', 'w')",
    "append outside": "open('../present', 'a')",
    "descriptor outside": "import os; os.open('../outside', os.O_CREAT | os.O_WRONLY)",
    "write through a link": "open('link', 'w')",
    "remove outside": "import os; os.remove('../present')",
    "rename out": "import os; os.rename('inside', '../outside')",
    "rename in": "import os; os.rename('../present', 'here')",
    "link outside": "import os; os.symlink('inside', '../outside')",
    "folder outside": "import os; os.mkdir('../outside')",
}


def attempt(code: str, folder: Path, *, walled: bool) -> subprocess.CompletedProcess[str]:
    """Run a line in a fresh process whose work folder is the one place where it may write."""
    walls = "sandbox.forbid_all_but(Path.cwd())" if walled else "pass"
    script = textwrap.dedent(f"""
        from pathlib import Path
        from rosacea_model.importers import sandbox
        import ctypes, pickle, socket, subprocess
        {walls}
        {code}
    """)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "inside").touch()
    (folder / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "present").touch()
    return folder


@pytest.mark.parametrize("kind", ATTEMPTS)
def test_nothing_gets_past_the_walls(kind: str, work: Path) -> None:
    behind = attempt(ATTEMPTS[kind], work, walled=True)

    assert behind.returncode == 1
    assert "ForbiddenError" in behind.stderr
    assert {path.name for path in work.parent.iterdir()} == {"work", "present"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ATTEMPTS)
def test_without_the_walls_each_attempt_succeeds(kind: str, work: Path) -> None:
    free = attempt(ATTEMPTS[kind], work, walled=False)

    assert free.returncode == 0, free.stderr


def test_inside_the_folder_work_goes_on(work: Path) -> None:
    code = "import os; open('new', 'w').write('x'); os.rename('new', 'newer'); open('newer').read()"
    behind = attempt(code, work, walled=True)

    assert behind.returncode == 0, behind.stderr
    assert (work / "newer").read_text() == "x"


def test_the_limits_hold(work: Path) -> None:
    code = (
        "import resource; sandbox.set_limits(memory=2**30, cpu_seconds=9, file_bytes=5); "
        "print([resource.getrlimit(k) for k in "
        "(resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)]); "
        "bytearray(2**31)"
    )
    bounded = attempt(code, work, walled=True)

    assert bounded.stdout.strip() == str([(2**30, 2**30), (9, 9), (5, 5), (0, 0)])
    assert "MemoryError" in bounded.stderr


def test_the_child_stays_within_four_gibibytes(golden: Path, tmp_path: Path) -> None:
    source = tmp_path / "copy.pkl"
    shutil.copy(golden / "conditional" / "network-snapshot-000000.pkl", source)

    import_checkpoint(source, tmp_path / "face", "face")

    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 * 2**20  # in KiB
