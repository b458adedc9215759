"""Signs coded images with the operator's C2PA key, so that later changes show.

Signing happens in the gateway, so that the key is in one process only and never with the workers, and on a thread of
its own. A signature is random: the pixels and the mark of a signed image are what they always are, its bytes are not.
"""

from __future__ import annotations

import asyncio
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_client.commands.inspection import OFFLINE, inspect_image
from rosacea_client.secrets import read_bounded, read_secret
from rosacea_contract.containers import metadata
from rosacea_contract.errors import ServerError
from rosacea_contract.install import missing
from rosacea_contract.marks import TRAINED, marked, read_mark, software
from rosacea_contract.reasons import Reason

from ..worker.encode import encode
from ..worker.marking import Maker, mark_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rosacea_contract.resolved import FaceItem

    from ..scheduling.scheduler import Drawn
    from ..settings import Settings

GENERATION = "org.rosacea.generation"
MAX_SIGNATURE_BYTES = 24 * 1024  # that a signature and its certificates may add to an image
CURVES = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
# The defaults put a thumbnail of 57 kB into every file and read each one again, which takes 40 times as long.
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {**OFFLINE["verify"], "verify_after_sign": False},
}
MISSING = missing("signing", "c2pa-python", "c2pa")

log = logging.getLogger(__name__)


def signer_of(settings: Settings) -> Signer | None:
    """The signer the settings ask for, or None; ValueError if it cannot sign."""
    if settings.c2pa_certificates is None or settings.c2pa_key is None:
        return None
    return Signer(settings.c2pa_certificates, settings.c2pa_key)


class Signer:
    """Signs images. `certificates` is a PEM chain that begins with the signer's own, `key` its PEM private key.

    Proven before it is used: it signs one image of each format, and they must verify.
    """

    def __init__(self, certificates: Path, key: Path) -> None:
        algorithm, private_key = read_key(key)
        chain = read(certificates, read_bounded)
        try:
            import c2pa
        except ImportError as error:
            raise ValueError(MISSING) from error
        self._c2pa = c2pa
        self._thread = ThreadPoolExecutor(1, "sign")
        try:
            info = c2pa.C2paSignerInfo(algorithm, chain, private_key, None)
            self._context = c2pa.Context.from_dict(SETTINGS, signer=c2pa.Signer.from_info(info))
            self.added_bytes = max(self._prove(image_format) for image_format in PROBES)
        except (c2pa.C2paError, ValueError) as error:
            raise ValueError(f"{certificates} and {key} cannot sign: {error}") from None

    async def sign_all(self, faces: Sequence[FaceItem], drawn: Sequence[Drawn]) -> list[Drawn]:
        """Sign the coded faces; raw pixels stay unsigned. Raises ServerError, so that nothing leaves unsigned."""
        places = [place for place, face in enumerate(faces) if face.format != "raw"]
        if not places:
            return list(drawn)
        images = [drawn[place].image for place in places]
        try:
            loop = asyncio.get_running_loop()
            signed = await loop.run_in_executor(self._thread, lambda: [self.sign(image) for image in images])
        except (self._c2pa.C2paError, ValueError) as error:
            log.error("images cannot be signed: %s", error)
            raise ServerError("the image could not be signed", reason=Reason.RENDER_FAILED) from None
        result = list(drawn)
        for place, image in zip(places, signed, strict=True):
            result[place] = replace(drawn[place], image=image, signed=True)
        return result

    def sign(self, image: bytes) -> bytes:
        """Add a signature over the whole marked PNG or JPEG, mark included. Thread-safe."""
        found = metadata(image)
        mark = read_mark(found)
        if mark is None:
            raise ValueError("an image must be marked to be signed")
        signed = io.BytesIO()
        with self._c2pa.Builder(manifest(mark.facts()), context=self._context) as builder:
            builder.sign(f"image/{found.format}", io.BytesIO(image), signed)
        return signed.getvalue()

    def _prove(self, image_format: faces_pb2.ImageFormat.ValueType) -> int:
        """Sign and verify a small image; returns the bytes a signature adds, ValueError if it fails or adds too
        many."""
        image = probe(image_format)
        signed = self.sign(image)
        signature = inspect_image(signed).signature
        if signature is None or not signature.holds:
            problems = ", ".join(signature.problems) if signature else "there is none"
            raise ValueError(f"a signature must verify, got {problems}")
        added = len(signed) - len(image)
        if added > MAX_SIGNATURE_BYTES:
            raise ValueError(f"a signature must take at most {MAX_SIGNATURE_BYTES} bytes, got {added}")
        return added


PROBES = (faces_pb2.IMAGE_FORMAT_PNG, faces_pb2.IMAGE_FORMAT_JPEG)


def probe(image_format: faces_pb2.ImageFormat.ValueType) -> bytes:
    """A grey test image with which signing is tried at start."""
    item = render_pb2.RenderItem(seed=0, noise_mode=faces_pb2.NOISE_MODE_CONST, format=image_format)
    maker = Maker(name="probe", digest="0" * 64, fingerprint="0" * 64)
    mark = mark_of(item, maker)
    return encode(np.full((8, 8, 3), 128, np.uint8), image_format, 90, lambda image: marked(image, mark))


def manifest(generation: dict[str, Any]) -> dict[str, Any]:
    """The C2PA manifest: the image was created by a trained model, and how."""
    name, _, version = software().partition(" ")
    created = {"action": "c2pa.created", "digitalSourceType": TRAINED}
    return {
        "claim_generator_info": [{"name": name, "version": version}],
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [created]}},
            {"label": GENERATION, "data": generation},
        ],
    }


def read_key(path: Path) -> tuple[bytes, bytes]:
    """The key's algorithm under C2PA's name, and the key as PKCS 8; ValueError for unsupported kinds."""
    data = read(path, read_secret)
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    except ImportError as error:
        raise ValueError(MISSING) from error
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path}: must be a private key in PEM, not encrypted: {error}") from None
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return CURVES[key.curve.name], plain
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"ed25519", plain
    if isinstance(key, rsa.RSAPrivateKey):
        return b"ps256", plain
    raise ValueError(f"{path}: must be a key for P-256, P-384, P-521, Ed25519 or RSA")


def read(path: Path, reader: Callable[[Path], bytes]) -> bytes:
    """Read an operator's file; a ValueError says why it cannot be read."""
    try:
        return reader(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
