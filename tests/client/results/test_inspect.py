"""`rosacea inspect` says what a file says, and nothing that the file likes to say instead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rosacea_contract.marks import KEYWORD, marked

from ..images import FORMATS, MARK, coded, png_with
from ..test_cli import rosacea as rosacea  # a fixture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Rosacea = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=FORMATS)
def face(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / f"face.{request.param}"
    file.write_bytes(marked(coded(request.param), MARK))
    return file


def test_a_face_is_told_line_by_line(face: Path, rosacea: Rosacea) -> None:
    code, out, err = rosacea("inspect", face)

    told = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (code, err) == (0, "")
    assert (told["synthetic"], told["source_type"]) == ("true", "trainedAlgorithmicMedia")
    assert (told["model"], told["digest"], told["seed"]) == ("models/demo", "ab" * 32, "7")
    assert (told["truncation_psi"], told["noise_seed"]) == ("0.7", str(2**32 - 1))
    assert told["signature"].startswith("none")


def test_a_face_is_told_as_json(face: Path, rosacea: Rosacea) -> None:
    code, out, _ = rosacea("inspect", face, "--json")

    told = json.loads(out)
    assert (code, told["synthetic"], told["mark"], told["signature"]) == (0, True, MARK.facts(), None)


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_image_without_a_mark_is_told_and_fails(image_format: str, tmp_path: Path, rosacea: Rosacea) -> None:
    (tmp_path / "photo").write_bytes(coded(image_format))

    code, out, err = rosacea("inspect", tmp_path / "photo")

    assert (code, "no mark of how it was made" in out) == (1, True)
    assert err == f"{tmp_path / 'photo'}: does not say that it is synthetic\n"
    code, out, _ = rosacea("inspect", tmp_path / "photo", "--json")
    assert (code, json.loads(out)["synthetic"]) == (1, False)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path, rosacea: Rosacea) -> None:
    (tmp_path / "notes.txt").write_text("dear diary")

    assert rosacea("inspect", tmp_path / "notes.txt") == (
        2, "", f"error: {tmp_path / 'notes.txt'}: neither a PNG nor a JPEG image\n"
    )  # fmt: skip


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, rosacea: Rosacea) -> None:
    for file in (tmp_path, tmp_path / "absent.png"):
        code, out, err = rosacea("inspect", file)

        assert (code, out) == (1, "") and err.startswith("error: ") and str(file) in err


def test_a_file_cannot_write_on_the_terminal_or_vouch_for_itself(tmp_path: Path, rosacea: Rosacea) -> None:
    lies = {"signature": "trusted", "signer": "Somebody", "synthetic": False, "software": "\x1b[2J\r\nsignature  good"}
    (tmp_path / "face.png").write_bytes(png_with(KEYWORD, json.dumps({**MARK.facts(), **lies})))

    code, out, _ = rosacea("inspect", tmp_path / "face.png")

    assert code == 0 and out.isascii() and "\x1b" not in out and "\r" not in out
    rows = [line.split(maxsplit=1) for line in out.splitlines()]
    (signature,) = [value for name, value in rows if name == "signature"]
    assert signature == "none: anybody could have written or changed this"
    assert not [value for name, value in rows if name == "signer"]
    assert [value for name, value in rows if name == "synthetic"] == ["true"]
