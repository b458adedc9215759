"""A model that is signed is its signer's, bit for bit; anything else is refused."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from rosacea_model import GeneratorConfig, ModelRejected
from rosacea_model.files.archive import WorkerOptions, read_archive, write_archive, write_store_folder
from rosacea_model.files.modelfile import MANIFEST_NAME, SIGNATURE_NAME, WEIGHTS_NAME, sha256, verify, write_manifest
from rosacea_model.files.signing import check_signature, sign
from rosacea_model.fresh import fresh_model

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

CONFIG = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=8, channel_base=64, channel_max=8, mapping_layers=2)


def write_keys(folder: Path, name: str, private: PrivateKeyTypes | None = None) -> tuple[Path, Path]:
    """A new pair, private and public, as an operator has them."""
    private = private or ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    key, public = folder / f"{name}.pem", folder / f"{name}.pub"
    key.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    key.chmod(0o400)
    return key, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "ours")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return fresh_model(tmp_path / "model", CONFIG, seed=0, name="small").path.parent


def test_a_signed_model_is_its_signer_s_wherever_it_lies(model: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    assert sign(model, keys[0]) == model / SIGNATURE_NAME
    (model / "README.md").write_text("a card beside it is not part of the model")
    shutil.copytree(model, tmp_path / "elsewhere")

    check_signature(verify(model), keys[1])
    check_signature(verify(tmp_path / "elsewhere" / WEIGHTS_NAME), keys[1])


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_other_curves_sign_as_well(model: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private, public = write_keys(tmp_path, curve.name, ec.generate_private_key(curve))
    sign(model, private)

    check_signature(verify(model), public)


def test_an_archive_carries_the_signature(model: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign(model, keys[0])
    write_archive(verify(model), tmp_path / "a.mar", WorkerOptions())

    check_signature(read_archive(tmp_path / "a.mar", tmp_path / "back"), keys[1])


def test_a_signature_does_not_outlive_the_model_it_was_made_for(
    model: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    unsigned = tmp_path / "unsigned.mar"
    write_archive(verify(model), unsigned, WorkerOptions())
    sign(model, keys[0])
    signed = tmp_path / "signed.mar"
    write_archive(verify(model), signed, WorkerOptions())
    store = write_store_folder(verify(model), tmp_path / "store", WorkerOptions())
    assert (store / SIGNATURE_NAME).exists()

    read_archive(signed, tmp_path / "again")
    read_archive(unsigned, tmp_path / "again")
    (model / SIGNATURE_NAME).unlink()
    write_store_folder(verify(model), tmp_path / "store", WorkerOptions())

    assert not (tmp_path / "again" / SIGNATURE_NAME).exists()
    assert not (store / SIGNATURE_NAME).exists()


def test_an_unsigned_model_is_refused(model: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(ModelRejected, match=r"not signed; there must be a model\.sig"):
        check_signature(verify(model), keys[1])


def test_a_model_signed_with_another_key_is_refused(model: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    theirs, _ = write_keys(tmp_path, "theirs")
    sign(model, theirs)

    with pytest.raises(ModelRejected, match="not of this model by the owner of"):
        check_signature(verify(model), keys[1])


def test_another_key_is_refused_even_where_the_signature_names_ours(
    model: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    sign(model, keys[0])
    hint = bundle(model)["verificationMaterial"]
    theirs, _ = write_keys(tmp_path, "theirs")
    sign(model, theirs)
    (model / SIGNATURE_NAME).write_text(json.dumps(bundle(model) | {"verificationMaterial": hint}))

    with pytest.raises(ModelRejected, match="not of this model by the owner of"):
        check_signature(verify(model), keys[1])


def bundle(model: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((model / SIGNATURE_NAME).read_text())
    return found


def test_tampered_weights_are_refused_although_their_manifest_fits(model: Path, keys: tuple[Path, Path]) -> None:
    sign(model, keys[0])
    weights = bytearray((model / WEIGHTS_NAME).read_bytes())
    weights[-1] ^= 1
    (model / WEIGHTS_NAME).write_bytes(weights)
    write_manifest(model, name="small", digest=sha256(model / WEIGHTS_NAME))

    with pytest.raises(ModelRejected, match="not of this model by the owner of"):
        check_signature(verify(model), keys[1])


def test_a_tampered_manifest_is_refused(model: Path, keys: tuple[Path, Path]) -> None:
    sign(model, keys[0])
    write_manifest(model, name="another", digest=sha256(model / WEIGHTS_NAME))

    with pytest.raises(ModelRejected, match="not of this model by the owner of"):
        check_signature(verify(model), keys[1])


def test_the_signature_of_another_model_is_refused(model: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = fresh_model(tmp_path / "other", CONFIG, seed=1, name="small").path.parent
    sign(other, keys[0])
    shutil.copy(other / SIGNATURE_NAME, model)

    with pytest.raises(ModelRejected, match="not of this model by the owner of"):
        check_signature(verify(model), keys[1])


def test_a_damaged_signature_is_refused_whatever_the_damage(model: Path, keys: tuple[Path, Path]) -> None:
    whole = sign(model, keys[0]).read_bytes()
    rubbish = [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b" " * (2**20 + 1)]
    cut = [whole[:length] for length in range(0, len(whole), 101)]

    for data in [*rubbish, *cut]:
        (model / SIGNATURE_NAME).write_bytes(data)
        with pytest.raises(ModelRejected, match=SIGNATURE_NAME):
            check_signature(verify(model), keys[1])


def test_every_changed_byte_of_what_is_signed_is_refused(model: Path, keys: tuple[Path, Path]) -> None:
    signature = sign(model, keys[0])
    whole = signature.read_bytes()
    begin = whole.index(b'"payload":"') + len(b'"payload":"')
    end = whole.index(b'"', begin)

    for place in range(begin, end, 37):
        changed = bytearray(whole)
        changed[place] = ord("A") if changed[place] != ord("A") else ord("B")
        signature.write_bytes(changed)
        with pytest.raises(ModelRejected, match="not of this model by the owner of"):
            check_signature(verify(model), keys[1])


def test_a_damaged_model_is_not_signed(model: Path, keys: tuple[Path, Path]) -> None:
    (model / MANIFEST_NAME).write_text("{}")

    with pytest.raises(ModelRejected):
        sign(model, keys[0])
    assert not (model / SIGNATURE_NAME).exists()


def test_a_private_key_that_others_can_read_is_not_used(model: Path, keys: tuple[Path, Path]) -> None:
    keys[0].chmod(0o440)

    with pytest.raises(ValueError, match="readable by its owner only, got 440"):
        sign(model, keys[0])


def test_keys_that_are_none_are_told(model: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign(model, keys[0])
    other_kind, other_public = write_keys(tmp_path, "ed", ed25519.Ed25519PrivateKey.generate())

    for private in (tmp_path / "none", keys[1], other_kind):
        with pytest.raises(ValueError, match=f"{private.name}: not a private elliptic key|readable by its owner"):
            sign(model, private)
    for public in (tmp_path / "none", keys[0], other_public, model / WEIGHTS_NAME):
        with pytest.raises(ValueError, match=f"{public.name}: not a public elliptic key"):
            check_signature(verify(model), public)


def test_without_the_extra_it_is_told_what_to_install(
    model: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.setitem(sys.modules, "model_signing.signing", None)

    with pytest.raises(ValueError, match=r"pip install 'rosacea\[signing\]'"):
        sign(model, keys[0])
