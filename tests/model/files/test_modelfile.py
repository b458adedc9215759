"""A model file is exactly the file that its manifest names, or it is refused before any of it is parsed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

from rosacea_model import GeneratorConfig, ModelRejected, load
from rosacea_model.files import modelfile, weights
from rosacea_model.files.modelfile import MANIFEST_NAME, WEIGHTS_NAME, check_name, sha256, verify, write_manifest
from rosacea_model.fresh import fresh_model

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=8, channel_base=64, channel_max=8, mapping_layers=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fresh_model(tmp_path / "model", CONFIG, seed=0, name="small", note="for tests").path.parent


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def pin(folder: Path) -> None:
    """Make the manifest agree with the weights file, as someone who can write both would."""
    write_manifest(folder, name="small", digest=sha256(folder / WEIGHTS_NAME))


def write_header(folder: Path, header: bytes, length: int | None = None) -> None:
    """Put bytes where the header belongs, and pin them."""
    size = len(header) if length is None else length
    (folder / WEIGHTS_NAME).write_bytes(size.to_bytes(8, "little") + header)
    pin(folder)


def test_a_saved_model_is_verified_and_told(folder: Path) -> None:
    file = verify(folder)

    assert (file.name, file.note, file.config) == ("small", "for tests", CONFIG)
    assert file.digest == sha256(folder / WEIGHTS_NAME)
    assert verify(folder / WEIGHTS_NAME) == file
    assert load(folder).file == file


def test_1000_random_bit_flips_are_refused_before_anything_is_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(file: object, path: Path) -> dict[str, Any]:
        raise AssertionError(f"{path} was parsed before it was verified")

    monkeypatch.setattr(modelfile, "parse_header", parsed)
    path = folder / WEIGHTS_NAME
    bits = [0, 63, 64, 8 * path.stat().st_size - 1]
    bits += np.random.RandomState(0).randint(0, 8 * path.stat().st_size, 996).tolist()

    for bit in bits:
        flip(path, bit)
        with pytest.raises(ModelRejected, match="SHA-256 must be"):
            load(folder)
        flip(path, bit)


def test_every_flipped_bit_of_the_manifest_s_digest_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(file: object, path: Path) -> dict[str, Any]:
        raise AssertionError(f"{path} was parsed before it was verified")

    monkeypatch.setattr(modelfile, "parse_header", parsed)
    manifest = folder / MANIFEST_NAME
    start = 8 * manifest.read_bytes().index(pinned_digest(folder).encode())

    for bit in range(start, start + 8 * 64):
        flip(manifest, bit)
        with pytest.raises(ModelRejected):
            load(folder)
        flip(manifest, bit)


def pinned_digest(folder: Path) -> str:
    digest: str = json.loads((folder / MANIFEST_NAME).read_text())["digest"]
    return digest


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_refused(folder: Path, kept: int) -> None:
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(ModelRejected, match="SHA-256 must be"):
        load(folder)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_truncated_file_with_a_matching_digest_is_refused(folder: Path, kept: int) -> None:
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:kept])
    pin(folder)

    with pytest.raises(ModelRejected):
        load(folder)


def test_an_appended_byte_is_refused_even_with_a_matching_digest(folder: Path) -> None:
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelRejected, match="SHA-256"):
        load(folder)

    pin(folder)
    with pytest.raises(ModelRejected, match=r"its tensors must have [0-9]+ bytes"):
        load(folder)


def test_the_manifest_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = fresh_model(tmp_path / "other", CONFIG, seed=1, name="small").path.parent
    (folder / MANIFEST_NAME).write_bytes((other / MANIFEST_NAME).read_bytes())

    with pytest.raises(ModelRejected, match="SHA-256 must be"):
        load(folder)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, MANIFEST_NAME])
@pytest.mark.parametrize("replace", ["nothing", "folder", "broken link"])
def test_a_missing_part_is_refused_and_named(folder: Path, name: str, replace: str) -> None:
    (folder / name).unlink()
    if replace == "folder":
        (folder / name).mkdir()
    if replace == "broken link":
        (folder / name).symlink_to("nowhere")

    with pytest.raises(ModelRejected, match=name):
        load(folder)


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="absent"):
        load(tmp_path / "absent")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b"{}",
        b'{"name": "small"}',
        b'{"digest": "00"}',
        b"[" * 10**5,
        b" " * (2**20 + 1),
        b'{"name": 1, "digest": "' + b"0" * 64 + b'"}',
        b'{"name": "small", "digest": "' + b"A" * 64 + b'"}',
        b'{"name": "small", "digest": "' + b"0" * 64 + b'", "note": 1}',
    ],
    ids=lambda text: repr(text[:24]),
)
def test_a_malformed_manifest_is_refused(folder: Path, text: bytes) -> None:
    (folder / MANIFEST_NAME).write_bytes(text)

    with pytest.raises(ModelRejected, match=MANIFEST_NAME):
        load(folder)


@pytest.mark.parametrize("name", ["a", "rff300-512", "a.b_c-d", "0", "x" * 63])
def test_names_that_fit_a_path_and_an_address_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", ".x", "-x", "a/b", "..", "a b", "a\n", "\u00e9", "x" * 64])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelRejected, match="name must match"):
        check_name(name)
    with pytest.raises(ModelRejected, match="name must match"):
        write_manifest(tmp_path, name=name, digest="0" * 64)


@pytest.mark.parametrize("length", [0, 1, 2**24 + 1, 2**63, 2**64 - 1])
def test_a_header_of_an_absurd_length_is_refused(folder: Path, length: int) -> None:
    write_header(folder, b"{}", length)

    with pytest.raises(ModelRejected, match="header must have 2 to"):
        load(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"__metadata__": []}',
        b'{"__metadata__": {}}',
        b'{"__metadata__": {"config": 1}}',
        b'{"__metadata__": {"config": "{}"}}',
        b'{"__metadata__": {"config": "' + b"[" * 100_000 + b'"}}',
        b'{"n": ' + b"9" * 100_000 + b"}",
    ],
    ids=lambda header: f"{header[:30]!r} of {len(header)}",
)
def test_a_header_bomb_is_refused(folder: Path, header: bytes) -> None:
    write_header(folder, header)

    with pytest.raises(ModelRejected):
        load(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"w_dim": 9},
        {"c_dim": 2},
        {"mapping_layers": 3},
        {"img_resolution": 16},
        {"img_resolution": 4096},
        # Terabytes of weights, if they were made before they are compared with the file.
        {"z_dim": 2**16, "w_dim": 2**16, "channel_base": 2**24, "channel_max": 2**16},
    ],
    ids=str,
)
def test_a_config_that_its_tensors_do_not_fit_is_refused(folder: Path, settings: dict[str, Any]) -> None:
    entries = json.loads(CONFIG.to_json()) | {"channel_base": 8192} | settings
    tensors = safetensors.torch.load_file(folder / WEIGHTS_NAME)
    data = safetensors.torch.save(tensors, metadata={"config": json.dumps(entries)})
    (folder / WEIGHTS_NAME).write_bytes(data)
    pin(folder)

    with pytest.raises(ModelRejected, match="tensors do not fit the config: "):
        load(folder)


def test_the_same_tensors_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    tensors = weights.read(verify(folder))
    reversed_order = dict(reversed(tensors.items()))
    strided = {key: torch.stack([value, value], dim=-1)[..., 0] for key, value in tensors.items()}

    for index, same in enumerate((tensors, reversed_order, strided)):
        file = weights.save(tmp_path / str(index), CONFIG, same, name="small")
        assert file.path.read_bytes() == (folder / WEIGHTS_NAME).read_bytes()


def test_loaded_tensors_are_the_saved_ones(folder: Path) -> None:
    loaded = load(folder).generator.state_dict()

    for name, tensor in weights.read(verify(folder)).items():
        assert torch.equal(loaded[name], tensor), name


def test_a_failed_write_leaves_the_old_bytes_and_no_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        weights.save(folder, CONFIG, load(folder).generator.state_dict(), name="other")

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_put_in_its_place_while_it_is_verified_is_not_what_is_described(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fresh_model(tmp_path / "other", replace(CONFIG, z_dim=2 * CONFIG.z_dim), seed=1, name="small")
    before = verify(folder)
    hashed = hashlib.file_digest

    def exchanged(file: Any, name: str) -> Any:
        digest = hashed(file, name)
        other.path.replace(folder / WEIGHTS_NAME)
        return digest

    monkeypatch.setattr(hashlib, "file_digest", exchanged)

    assert verify(folder) == before
    monkeypatch.undo()
    with pytest.raises(ModelRejected, match="SHA-256 must be"):
        verify(folder)


def test_a_file_that_changed_after_it_was_verified_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    other = fresh_model(tmp_path / "other", CONFIG, seed=1, name="small")
    file = verify(folder)
    other.path.replace(file.path)

    with pytest.raises(ModelRejected, match="it has changed"):
        weights.read(file)
