"""Images from the real service, saved and looked at by the programs that people have."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from rosacea_client import FaceClient, inspect_image, replay_image
from rosacea_contract.marks import TRAINED, marked
from rosacea_model import GeneratorConfig
from rosacea_model.fresh import fresh_model

from ..contract.test_marks import exiftool, needs_exiftool
from .service import RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

TINY = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=32, mapping_layers=2, channel_base=512, channel_max=16)
SUFFIXES = {"png": "png", "jpeg": "jpg"}
SEED, PSI = 7, 0.7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    fresh_model(folder, TINY, seed=3, name="tiny")
    return folder


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[RunningService]:
    with RunningService([model]) as running:
        yield running


def inspect(file: Path, *options: str) -> tuple[int, dict[str, Any]]:
    command = [str(Path(sys.executable).with_name("rosacea")), "inspect", str(file), "--json", *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, json.loads(result.stdout)


@needs_exiftool
@pytest.mark.parametrize("image_format", SUFFIXES)
def test_a_saved_face_tells_anyone_what_it_is(service: RunningService, image_format: Any, tmp_path: Path) -> None:
    with FaceClient(service.address) as client:
        (face,) = client.generate([SEED], truncation_psi=PSI, format=image_format)
        (raw,) = client.generate([SEED], truncation_psi=PSI, format="raw")
        (again,) = client.generate([SEED], truncation_psi=PSI, format=image_format)

    file = face.save(tmp_path / f"face.{SUFFIXES[image_format]}")

    told = exiftool(file)
    assert (told["XMP-iptcExt:DigitalSourceType"], told["XMP-rosacea:Seed"]) == (TRAINED, SEED)
    assert told["XMP-rosacea:Digest"] == face.digest
    code, found = inspect(file)
    assert (code, found["mark"]["model"], found["mark"]["fingerprint"]) == (0, "models/tiny", face.fingerprint)
    assert (found["mark"]["seed"], found["mark"]["truncation_psi"]) == (SEED, PSI)
    with Image.open(file) as image:
        assert TRAINED in str(image.info["xmp"])
        pixels = np.asarray(image)
    assert again.image == face.image
    assert len(raw.image) == 32 * 32 * 3
    if image_format == "png":
        assert np.array_equal(pixels, raw.array())


def replayed(file: Path, address: str) -> tuple[int, set[str]]:
    """The exit code of `rosacea replay`, and which parts it says differ."""
    command = [str(Path(sys.executable).with_name("rosacea")), "replay", str(file), "--json", "--address", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = json.loads(done.stdout) if done.stdout else {"differences": []}
    return done.returncode, {each["part"] for each in found["differences"]}


@pytest.mark.parametrize("image_format", SUFFIXES)
def test_a_saved_face_is_replayed_byte_for_byte(service: RunningService, image_format: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "truncation_psi": PSI, "truncation_cutoff": 4, "noise_mode": "random", "noise_seed": 5, "format": image_format,
        "style_mixes": [{"seed": 8, "first_row": 2, "end_row": 4}],
    }  # fmt: skip
    with FaceClient(service.address) as client:
        (face,) = client.generate([SEED], **options)
        file = face.save(tmp_path / f"face.{SUFFIXES[image_format]}")
        found = replay_image(file.read_bytes(), client)

    assert (found.same, found.differences) == (True, ())
    assert found.face is not None
    assert found.face.image == face.image
    assert inspect_image(face.image).mark == inspect_image(found.face.image).mark
    assert replayed(file, service.address) == (0, set())


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, set()),
        ({"seed_scheme": "another"}, {"seed scheme"}),
        ({"digest": "0" * 64}, {"model"}),
        ({"model": "models/another"}, {"model"}),
        ({"fingerprint": "another"}, {"fingerprint"}),
        ({"truncation_psi": 0.5}, {"image"}),
        ({"truncation_psi": None}, {"settings", "image"}),
    ],
)
def test_replay_says_what_differs(
    service: RunningService, changes: dict[str, Any], parts: set[str], tmp_path: Path
) -> None:
    with FaceClient(service.address) as client:
        (face,) = client.generate([SEED], truncation_psi=PSI)
    mark = inspect_image(face.image).mark
    assert mark is not None
    plain = io.BytesIO()
    Image.fromarray(face.array()).save(plain, "PNG")
    file = tmp_path / "face.png"
    file.write_bytes(marked(plain.getvalue(), mark.model_copy(update=changes)) if changes else face.image)

    assert replayed(file, service.address) == (int(bool(parts)), parts)


def test_a_signed_service_signs_what_is_saved(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa", reason="signing needs the extra rosacea[c2pa]")
    from ..serving.certificates import credentials

    files = credentials(tmp_path / "keys")
    with (
        RunningService([model], "--c2pa-certificates", str(files.chain), "--c2pa-key", str(files.key)) as running,
        FaceClient(running.address) as client,
    ):
        saved = {name: next(client.stream([SEED], format=name)) for name in ("png", "jpeg")}
        (raw,) = client.generate([SEED], format="raw")
        assert str(files.key) not in " ".join(" ".join(worker.cmdline()) for worker in running.family())

    for name, face in saved.items():
        file = face.save(tmp_path / f"face.{SUFFIXES[name]}")
        code, found = inspect(file, "--trust", str(files.authority))
        assert (code, found["signature"]["state"], found["mark"]["seed"]) == (0, "trusted", SEED)
        assert face.fingerprint == f"{found['mark']['fingerprint']}+c2pa"
        file.write_bytes(file.read_bytes().replace(b"not for diagnosis", b"fit for diagnosis"))
        code, found = inspect(file, "--trust", str(files.authority))
        assert (code, found["signature"]["state"]) == (1, "invalid")
    assert np.array_equal(saved["png"].array(), raw.array())
    assert not raw.fingerprint.endswith("+c2pa")
    assert inspect_image(saved["png"].image).synthetic


def test_a_service_that_cannot_sign_does_not_start(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa", reason="signing needs the extra rosacea[c2pa]")
    from ..serving.certificates import credentials

    files = credentials(tmp_path)
    files.key.chmod(0o644)
    command = [str(Path(sys.executable).with_name("rosacea")), "serve", str(model), "--address", "127.0.0.1:0"]
    command += ["--c2pa-certificates", str(files.chain), "--c2pa-key", str(files.key)]

    for more in ([], ["--check"]):
        result = subprocess.run([*command, *more], capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 2
        assert "a file with secrets must have mode 0600 or less, it has 0644" in result.stderr
        assert "TorchServe" not in result.stderr
