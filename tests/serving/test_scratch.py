"""What a killed process leaves in the temporary folder is removed at the next start, and nothing else is."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rosacea_serving.scratch import LOCK_NAME, Scratch, sweep
from rosacea_serving.torchserve import guard

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

OWNER = """
import sys
from pathlib import Path
from rosacea_serving.scratch import Scratch
scratch = Scratch("rosacea-models-", sys.argv[1])
(scratch.path / "0").mkdir()
(scratch.path / "0" / "generator.safetensors").write_bytes(b"weights")
print(scratch.path, flush=True)
sys.stdin.read()
scratch.remove()
"""


@contextmanager
def owner(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that uses a folder below `parent` until its standard input closes."""
    command = [sys.executable, "-c", OWNER, str(parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    with owner(tmp_path) as (killed, dead), owner(tmp_path) as (_, alive):
        assert sweep([tmp_path]) == [], "both live"
        killed.kill()
        killed.wait(120)
        assert dead.exists(), "a killed process removes nothing"

        assert sweep([tmp_path]) == [dead]

        assert not dead.exists()
        assert (alive / "0" / "generator.safetensors").read_bytes() == b"weights"
    assert list(tmp_path.iterdir()) == [], "who ends in peace tidies up"


def test_a_stopped_process_is_no_dead_one(tmp_path: Path) -> None:
    with owner(tmp_path) as (process, folder):
        os.kill(process.pid, signal.SIGSTOP)
        try:
            assert sweep([tmp_path]) == []
            assert folder.exists()
        finally:
            os.kill(process.pid, signal.SIGCONT)


def abandoned(parent: Path, name: str) -> Path:
    """Such a folder as a killed process leaves."""
    folder = parent / name
    folder.mkdir()
    (folder / LOCK_NAME).touch()
    return folder


def test_what_is_none_of_these_folders_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmarked, other = tmp_path / "rosacea-experiments", abandoned(tmp_path, "somebodys")
    unmarked.mkdir()
    (tmp_path / "rosacea-link").symlink_to(other)
    (tmp_path / "rosacea-file").write_text("text")
    assert sweep([tmp_path]) == []

    theirs = abandoned(tmp_path, "rosacea-theirs")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
        assert sweep([tmp_path]) == []
    assert sweep([tmp_path]) == [theirs], "it was its owner that saved it"
    assert {each.name for each in tmp_path.iterdir()} == {unmarked.name, other.name, "rosacea-link", "rosacea-file"}


def test_a_folder_is_never_swept_while_it_is_being_made(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        sweeps = [pool.submit(lambda: [sweep([tmp_path]) for _ in range(300)]) for _ in range(2)]
        made = [Scratch(parent=str(tmp_path)) for _ in range(200)]
        assert [each.result() for each in sweeps] == [[[]] * 300] * 2

    assert all((each.path / LOCK_NAME).exists() for each in made)
    for each in made:
        each.remove()


def test_the_lock_goes_last_so_that_an_interrupted_removal_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = abandoned(tmp_path, "rosacea-models-x")
    (folder / "a").mkdir()
    (folder / "b").write_text("text")
    left: list[set[str]] = []
    rmtree = shutil.rmtree

    def watched(path: Path, ignore_errors: bool) -> None:
        left.append({each.name for each in folder.iterdir()})
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", watched)
    assert sweep([tmp_path]) == [folder]

    assert all(LOCK_NAME in names for names in left) and left[-1] == {LOCK_NAME}


def test_where_there_are_no_locks_the_folder_works_and_is_never_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> None:
        raise OSError("no locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refused)
        made = Scratch(parent=str(tmp_path))

    assert sweep([tmp_path]) == []
    assert made.path.exists()
    made.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_guard_holds_the_folder_after_its_gateway_was_killed(tmp_path: Path) -> None:
    assert guard.LOCK_NAME == LOCK_NAME
    with owner(tmp_path) as (gateway, folder):
        command = [sys.executable, "-I", "-S", guard.__file__, str(folder), "/bin/sh", "-c", "echo up; sleep 1000"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdin is not None
            process.stdout.readline()
            gateway.kill()
            gateway.wait(120)

            assert sweep([tmp_path]) == []
            process.kill()
            process.wait(120)
            assert sweep([tmp_path]) == [folder], "both are gone"
