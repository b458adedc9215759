"""`rosacea replay`: the same face again, or what is not the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer

from rosacea.v1 import faces_pb2 as pb
from rosacea_client import FaceClient, Mark, replay_image
from rosacea_client.commands import faces as commands
from rosacea_client.commands.replay import CannotReplay, spec_of
from rosacea_contract.containers import without_signature
from rosacea_contract.marks import marked

from ..fakes import FakeFaces, draw
from ..images import MARK, coded

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = {"software": "rosacea 1", "fingerprint": "f1", "seed_scheme": "numpy-randomstate", "latent": "seed"}


def mark(**changes: Any) -> Mark:
    fields: dict[str, Any] = {
        **PLAIN, "model": "models/squares", "digest": "ab" * 32, "seed": 7, "truncation_psi": 1.0,
        "noise_mode": "const", "format": "png", **changes,
    }  # fmt: skip
    return Mark(**fields)


def image(image_format: str = "png", seed: int = 7, **changes: Any) -> bytes:
    number = pb.IMAGE_FORMAT_PNG if image_format == "png" else pb.IMAGE_FORMAT_JPEG
    quality = {"jpeg_quality": 95} if image_format == "jpeg" else {}
    return marked(draw(0, seed, number).image, mark(format=image_format, **quality, **changes))


@pytest.fixture(autouse=True)
def service(service: FakeFaces) -> FakeFaces:
    """A service that marks what it draws."""

    def with_mark(face: pb.Face) -> pb.Face:
        face.image = image("png" if face.format == pb.IMAGE_FORMAT_PNG else "jpeg", face.seed)
        return face

    service.spoil = with_mark
    return service


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_a_file_as_it_was_drawn_is_the_same(service: FakeFaces, address: str, image_format: str) -> None:
    with FaceClient(address) as client:
        found = replay_image(image(image_format), client)

    assert (found.same, found.differences) == (True, ())
    assert service.requests[0].spec.model == "models/squares/revisions/" + "ab" * 32


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        (image(seed_scheme="other"), {"seed scheme"}),
        (image(fingerprint="f2"), {"fingerprint"}),
        (image(truncation_psi=0.5), {"settings"}),
        (image(software="rosacea 0"), {"software"}),
        (marked(draw(0, 8).image, mark()), {"image"}),
        (image() + b"x", {"image"}),
    ],
)
def test_what_differs_is_named(address: str, file: bytes, parts: set[str]) -> None:
    with FaceClient(address) as client:
        found = replay_image(file, client)

    assert not found.same
    assert {each.part for each in found.differences} == parts


@pytest.mark.parametrize(
    "changes", [{"latent": "z", "seed": None}, {"label_left_out": True}, {"seed": 2**40}, {"truncation_psi": 9.0}]
)
def test_what_the_file_does_not_say_cannot_be_asked(changes: dict[str, Any]) -> None:
    with pytest.raises(CannotReplay):
        spec_of(mark(**changes))

    assert spec_of(MARK).noise_seed == MARK.noise_seed


def test_exit_codes_are_0_1_and_2(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.command()(commands.replay)
    file = tmp_path / "a.png"

    def run(data: bytes, *more: str) -> Any:
        file.write_bytes(data)
        return app([str(file), "--address", address, *more], standalone_mode=False)

    assert run(image()) in (None, 0)
    assert capsys.readouterr().out == f"{file}: the same\n"
    assert run(image(fingerprint="f2"), "--json") == 1
    assert json.loads(capsys.readouterr().out)["differences"][0]["part"] == "fingerprint"
    for data in (coded("png"), b"text"):
        with pytest.raises(CannotReplay) as caught:
            run(data)
        assert caught.value.exit_code == 2


def test_only_the_signature_is_left_out() -> None:
    plain = image()
    chunk = b"\0\0\0\x04caBXabcd\0\0\0\0"
    signed = plain[:33] + chunk + plain[33:]

    assert without_signature(signed) == plain == without_signature(plain)
