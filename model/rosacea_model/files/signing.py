"""Signs and verifies models with the operator's own key.

A digest says that a model is whole; a signature says whose it is. The key is an elliptic one (P-256, P-384 or P-521) in
PEM, the signature a sigstore bundle as the `model-signing` package writes it, over the names and the SHA-256 of the
weights file and its manifest. Nothing is asked of the network. Needs the extra `rosacea[signing]`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosacea_contract.install import missing

from ..errors import ModelRejected
from .modelfile import MANIFEST_NAME, MAX_MANIFEST_BYTES, SIGNATURE_NAME, WEIGHTS_NAME, verify, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .modelfile import ModelFile

OTHERS_MAY_READ = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


def sign(path: Path, key: Path) -> Path:
    """Sign a model folder (or its weights file) with a private key, and return the signature's path.

    Raises ModelRejected for what is no whole model, and ValueError for a key that cannot be used or that others can
    read.
    """
    model = verify(path)
    if key.is_file() and key.stat().st_mode & OTHERS_MAY_READ:
        raise ValueError(f"{key}: a private key must be readable by its owner only, got {key.stat().st_mode & 0o777:o}")
    config = _library("signing").Config()
    try:
        config.use_elliptic_key_signer(private_key=key)
    except Exception as error:
        raise ValueError(f"{key}: not a private elliptic key in PEM: {_cause(error)}") from error
    with _alone(model) as folder, tempfile.TemporaryDirectory() as beside:
        signature = Path(beside) / SIGNATURE_NAME
        config.sign(folder, signature)
        target = model.path.with_name(SIGNATURE_NAME)
        write_atomically(target, signature.read_bytes())
    return target


def check_signature(model: ModelFile, public_key: Path) -> None:
    """Raise ModelRejected unless the model is signed with this key.

    `model` must be where nobody else can write, or what is checked is not what is used. Raises ValueError for a key
    that cannot be used.
    """
    verifier = key_verifier(public_key)
    signature = model.path.with_name(SIGNATURE_NAME)
    if not signature.exists():
        raise ModelRejected(f"{model.path}: not signed; there must be a {SIGNATURE_NAME} by the owner of {public_key}")
    if signature.stat().st_size > MAX_MANIFEST_BYTES:
        raise ModelRejected(f"{signature}: a signature has at most {MAX_MANIFEST_BYTES} bytes")
    with _alone(model) as folder:
        try:
            verifier.verify(folder, signature)
        except Exception as error:  # whatever a library does about somebody else's bytes: it did not say yes
            raise ModelRejected(f"{signature}: not of this model by the owner of {public_key}") from error


def key_verifier(public_key: Path) -> Any:
    """The verifier for a public key; ValueError if the key is unusable or the extra `signing` is not installed."""
    config = _library("verifying").Config()
    try:
        return config.use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        raise ValueError(f"{public_key}: not a public elliptic key in PEM: {_cause(error)}") from error


def _library(name: str) -> Any:
    try:
        import model_signing.signing
        import model_signing.verifying
    except ModuleNotFoundError as error:
        raise ValueError(missing("a signature", str(error.name), "signing")) from error
    return getattr(model_signing, name)


@contextlib.contextmanager
def _alone(model: ModelFile) -> Iterator[Path]:
    """Context manager that yields a temporary folder with only the files to sign, under the model's name."""
    with tempfile.TemporaryDirectory(prefix="rosacea-signed-") as parent:
        folder = Path(parent) / model.name
        folder.mkdir()
        for source in (model.path, model.path.with_name(MANIFEST_NAME)):
            name = WEIGHTS_NAME if source == model.path else MANIFEST_NAME
            try:
                os.link(source.resolve(), folder / name)
            except OSError:
                shutil.copyfile(source, folder / name)
        yield folder


def _cause(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
