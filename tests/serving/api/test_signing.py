"""A signed image verifies with C2PA's own reader, any change to it shows, and what cannot sign does not start."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import threading
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("c2pa", reason="signing needs the extra rosacea[c2pa]")

import c2pa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2 as pb
from rosacea_client import inspect_image
from rosacea_contract.marks import TRAINED
from rosacea_serving.api.signing import GENERATION, MAX_SIGNATURE_BYTES, Signer, signer_of
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings
from rosacea_serving.worker.encode import encode
from rosacea_serving.worker.marking import Maker, Marker

from ..certificates import Credentials, credentials, write_key
from ..fakes import FakeWorkers
from ..hosted import DIGEST, demo_file
from ..test_gateway import Service, seeds
from ..worker.test_handler import item

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FORMATS = {"png": pb.IMAGE_FORMAT_PNG, "jpeg": pb.IMAGE_FORMAT_JPEG}
MAKER = Maker(name="demo", digest=DIGEST, fingerprint="f" * 64)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return credentials(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signer(good: Credentials) -> Signer:
    return Signer(good.chain, good.key)


@pytest.fixture(params=FORMATS)
def image_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def drawn(seed: int, encoding: pb.ImageFormat.ValueType) -> bytes:
    """A marked picture with some detail, as a worker makes them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    asked = item(seed, format=encoding, jpeg_quality=90)
    return encode(pixels, encoding, 90, lambda image: Marker(MAKER).marked(image, asked))


def pixels_of(image: bytes) -> bytes:
    with Image.open(io.BytesIO(image), formats=("PNG", "JPEG")) as picture:
        return picture.tobytes()


def verified(image: bytes, image_format: str) -> tuple[str | None, dict[str, Any], set[str]]:
    """C2PA's own verdict, the assertions by label, and the codes of what is wrong."""
    with c2pa.Reader(f"image/{image_format}", io.BytesIO(image)) as reader:
        report = json.loads(reader.json())
        active = report["manifests"][report["active_manifest"]]
        wrong = report["validation_results"]["activeManifest"]["failure"]
        assert "thumbnail" not in active
        assertions = {each["label"]: each["data"] for each in active["assertions"]}
        return reader.get_validation_state(), assertions, {each["code"] for each in wrong}


def test_a_signed_image_verifies_and_tells_how_it_was_made(signer: Signer, image_format: str) -> None:
    plain = drawn(7, FORMATS[image_format])

    signed = signer.sign(plain)

    state, assertions, wrong = verified(signed, image_format)
    assert (state, wrong) == ("Valid", {"signingCredential.untrusted"}), "nobody on a trust list signed this"
    (created,) = assertions["c2pa.actions.v2"]["actions"]
    assert (created["action"], created["digitalSourceType"]) == ("c2pa.created", TRAINED)
    told = assertions[GENERATION]
    assert (told["seed"], told["truncation_psi"], told["digest"]) == (7, 0.7, DIGEST)
    mark = inspect_image(plain).mark
    assert mark is not None and told == mark.facts()
    assert inspect_image(signed).mark == mark
    assert pixels_of(signed) == pixels_of(plain)


def test_a_signature_is_small(signer: Signer, image_format: str) -> None:
    plain = drawn(7, FORMATS[image_format])

    assert len(signer.sign(plain)) - len(plain) < 6000
    assert signer.added_bytes < 6000


def test_two_signatures_differ_and_nothing_else_does(signer: Signer, image_format: str) -> None:
    one, two = (signer.sign(drawn(7, FORMATS[image_format])) for _ in range(2))

    assert one != two
    assert pixels_of(one) == pixels_of(two) and inspect_image(one).mark == inspect_image(two).mark


def test_a_signature_is_trusted_by_whoever_trusts_its_authority(
    signer: Signer, good: Credentials, image_format: str, tmp_path: Path
) -> None:
    signed = signer.sign(drawn(7, FORMATS[image_format]))
    others = credentials(tmp_path / "others").authority.read_text()

    def state(trust: str) -> str:
        signature = inspect_image(signed, trust).signature
        assert signature is not None and signature.holds and signature.signer == "signer, A test"
        return signature.state

    assert (state(good.authority.read_text()), state(others), state("")) == ("trusted", "valid", "valid")


def with_another_pixel(image: bytes) -> bytes:
    """A PNG with one value changed, whole in every other way, signature included."""
    start = image.index(b"IDAT")
    length = int.from_bytes(image[start - 4 : start], "big")
    rows = bytearray(zlib.decompress(image[start + 4 : start + 4 + length]))
    rows[1] ^= 1
    data = b"IDAT" + zlib.compress(bytes(rows))
    coded = (len(data) - 4).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")
    return image[: start - 4] + coded + image[start + 8 + length :]


def with_another_seed(image: bytes) -> bytes:
    """The same with another seed in the mark."""
    start = image.index(b"iTXtrosacea")
    length = int.from_bytes(image[start - 4 : start], "big")
    data = image[start : start + 4 + length].replace(b'"seed":7', b'"seed":8')
    return image[:start] + data + zlib.crc32(data).to_bytes(4, "big") + image[start + 8 + length :]


@pytest.mark.parametrize("change", [with_another_pixel, with_another_seed])
def test_a_change_breaks_the_signature(signer: Signer, change: Any) -> None:
    signed = signer.sign(drawn(7, FORMATS["png"]))

    changed = change(signed)

    assert pixels_of(changed), "it is still a picture"
    state, _, wrong = verified(changed, "png")
    assert state == "Invalid" and "assertion.dataHash.mismatch" in wrong
    found = inspect_image(changed)
    assert found.synthetic and found.signature is not None
    assert (found.signature.state, found.signature.holds) == ("invalid", False)


def test_a_change_of_a_jpeg_breaks_the_signature(signer: Signer) -> None:
    signed = bytearray(signer.sign(drawn(7, FORMATS["jpeg"])))

    signed[-20] ^= 1

    assert verified(bytes(signed), "jpeg")[0] == "Invalid"


def test_a_signature_moved_to_another_image_does_not_hold(signer: Signer) -> None:
    signed, other = signer.sign(drawn(7, FORMATS["png"])), drawn(8, FORMATS["png"])
    start = signed.index(b"caBX") - 4
    length = int.from_bytes(signed[start : start + 4], "big") + 12

    moved = other[:33] + signed[start : start + length] + other[33:]

    assert verified(moved, "png")[0] == "Invalid"


def test_without_the_library_a_signature_is_told_unchecked(
    signer: Signer, monkeypatch: pytest.MonkeyPatch, image_format: str
) -> None:
    signed = signer.sign(drawn(7, FORMATS[image_format]))
    monkeypatch.setitem(sys.modules, "c2pa", None)

    found = inspect_image(signed)

    assert found.signature is not None and found.signature.state == "unchecked" and not found.signature.holds


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p384", "p521", "ed25519", "rsa"],
)
def test_other_kinds_of_keys_sign(key: Any, tmp_path: Path) -> None:
    files = credentials(tmp_path, key)

    signed = Signer(files.chain, files.key).sign(drawn(7, FORMATS["png"]))

    assert verified(signed, "png")[0] == "Valid"


def test_a_key_in_the_older_form_signs(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    files = credentials(tmp_path, key)
    write_key(files.key, key, form=serialization.PrivateFormat.TraditionalOpenSSL)

    assert Signer(files.chain, files.key)


# What is refused at start, and what is said.


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o660, 0o644, 0o777])
def test_a_key_that_others_may_touch_is_refused(good: Credentials, tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(good.key.read_bytes())
    key.chmod(mode)

    with pytest.raises(ValueError, match=f"a file with secrets must have mode 0600 or less, it has {mode:04o}"):
        Signer(good.chain, key)


# A key on secp112r1, which the library that reads keys does not know.
UNKNOWN_CURVE = b"""-----BEGIN EC PRIVATE KEY-----
MD4CAQEEDkyBP3hr1c8jTfzm9BI+oAcGBSuBBAAGoSADHgAE2cJ3oSdYcm1Gd0CM
fhgc22XJrpkcFFBSyYV13Q==
-----END EC PRIVATE KEY-----
"""


def test_bad_files_are_refused(good: Credentials, tmp_path: Path) -> None:
    def refused(chain: Path, key: Path, rule: str) -> None:
        with pytest.raises(ValueError, match=rule) as error:
            Signer(chain, key)
        assert "PRIVATE KEY" not in str(error.value) and "\n" not in str(error.value)

    private = good.key.read_bytes()
    garbage, huge, encrypted, unfit = (tmp_path / name for name in ("garbage", "huge", "encrypted", "unfit"))
    garbage.write_bytes(b"nothing\n")
    garbage.chmod(0o600)
    huge.write_bytes(private + b" " * 2**20)
    huge.chmod(0o600)
    write_key(encrypted, serialization.load_pem_private_key(private, None), serialization.BestAvailableEncryption(b"x"))
    write_key(unfit, dsa.generate_private_key(2048))
    refused(good.chain, tmp_path / "absent", "absent: cannot be read: No such file")
    refused(tmp_path / "absent", good.key, "absent: cannot be read: No such file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    refused(good.chain, tmp_path / "pipe", "must be a file")
    refused(good.chain, tmp_path, "cannot be read: Is a directory")
    refused(good.chain, garbage, "must be a private key in PEM, not encrypted")
    garbage.write_bytes(UNKNOWN_CURVE)
    refused(good.chain, garbage, "must be a private key in PEM, not encrypted")
    refused(good.chain, encrypted, "must be a private key in PEM, not encrypted")
    refused(good.chain, unfit, "must be a key for P-256")
    refused(good.chain, huge, "must have at most 1048576 bytes")
    refused(garbage, good.key, "cannot sign")


def test_credentials_that_do_not_verify_are_refused(good: Credentials, tmp_path: Path) -> None:
    other = credentials(tmp_path / "other")
    expired = credentials(tmp_path / "expired", days=-1)
    long = credentials(tmp_path / "long", intermediates=50)

    with pytest.raises(ValueError, match=r"cannot sign: a signature must verify, got .*claimSignature.mismatch"):
        Signer(good.chain, other.key)
    with pytest.raises(ValueError, match=r"cannot sign: .*not valid at time of signing"):
        Signer(expired.chain, expired.key)
    with pytest.raises(ValueError, match="self-signed"):
        Signer(good.authority, good.key)
    with pytest.raises(ValueError, match=rf"must take at most {MAX_SIGNATURE_BYTES} bytes, got \d+"):
        Signer(long.chain, long.key)


def test_without_the_extra_signing_is_refused(good: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)

    with pytest.raises(ValueError, match=r"pip install 'rosacea\[c2pa\]'"):
        Signer(good.chain, good.key)


def test_nobody_signs_unless_asked_and_half_of_the_files_is_refused(good: Credentials) -> None:
    assert signer_of(Settings()) is None
    for half in ({"c2pa_key": good.key}, {"c2pa_certificates": good.chain}):
        with pytest.raises(ValueError, match="c2pa_certificates and c2pa_key must be set together"):
            Settings.read(half)


# In the gateway.


class Painters(FakeWorkers):
    """Fake workers whose images are images."""

    def _outcome(
        self, item: render_pb2.RenderItem, job: render_pb2.RenderJob, slot: int, config: Any
    ) -> render_pb2.RenderOutcome:
        if item.output or item.format == pb.IMAGE_FORMAT_RAW:
            return super()._outcome(item, job, slot, config)
        return render_pb2.RenderOutcome(image=drawn(item.seed, item.format))


@asynccontextmanager
async def signing(good: Credentials) -> AsyncIterator[Service]:
    settings = Settings(address="127.0.0.1:0", max_batch=4, c2pa_certificates=good.chain, c2pa_key=good.key)
    made: list[Painters] = []

    def supervise(options: Any, on_state: Any) -> Painters:
        made.append(Painters(options, on_state))
        return made[0]

    async with Gateway([demo_file()], settings, supervise) as gateway:
        await gateway.wait_until_ready(120)
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            yield Service(gateway, made[0], channel)


async def test_all_coded_faces_of_calls_and_streams_are_signed(good: Credentials, image_format: str) -> None:
    async with signing(good) as service:
        answer = await service.generate(seeds=seeds(5, 3, 5), format=FORMATS[image_format])
        messages = [each async for each in service.stream(seeds=seeds(5, 3, 5), format=FORMATS[image_format])]

    for faces in (answer.faces, [face for message in messages for face in message.faces]):
        assert [face.seed for face in faces] == [5, 3, 5]
        for face in faces:
            state, assertions, _ = verified(face.image, image_format)
            assert (state, assertions[GENERATION]["seed"]) == ("Valid", face.seed)
    fingerprints = {each.provenance.fingerprint for each in (answer, *messages)}
    assert fingerprints == {"fake+c2pa"}, "the bytes of signed images are not promised"


async def test_raw_pixels_and_latents_are_never_signed(good: Credentials) -> None:
    async with signing(good) as service:
        answer = await service.generate(seeds=seeds(5, 3), format=pb.IMAGE_FORMAT_RAW)
        mapped = await service.stub.MapLatents(pb.MapLatentsRequest(spec=pb.LatentSpec(seeds=seeds(1))), timeout=120)

    assert [face.image for face in answer.faces] == [b"5", b"3"]
    assert answer.provenance.fingerprint == mapped.provenance.fingerprint == "fake"


async def test_signing_happens_off_the_event_loop(good: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    sign = Signer.sign

    def noting(self: Signer, image: bytes) -> bytes:
        threads.append(threading.get_ident())
        return sign(self, image)

    async with signing(good) as service:
        monkeypatch.setattr(Signer, "sign", noting)
        await service.generate(seeds=seeds(*range(8)))

    assert len(threads) == 8 and threading.get_ident() not in threads


async def test_an_image_that_cannot_be_signed_does_not_leave(
    good: Credentials, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Signer, image: bytes) -> bytes:
        raise c2pa.C2paError("the certificate was not valid at time of signing")

    async with signing(good) as service:
        monkeypatch.setattr(Signer, "sign", fail)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await service.generate(seeds=seeds(1))
        with pytest.raises(grpc.aio.AioRpcError):
            assert [message async for message in service.stream(seeds=seeds(1))] == []
        assert (await service.generate(seeds=seeds(1), format=pb.IMAGE_FORMAT_RAW)).faces[0].image == b"1"

    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.INTERNAL, "the image could not be signed")
    assert "not valid at time of signing" in caplog.text


async def test_many_calls_are_signed_each_as_its_own(good: Credentials) -> None:
    async with signing(good) as service:
        answers = await asyncio.gather(*(service.generate(seeds=seeds(seed)) for seed in range(20)))

    told = [verified(answer.faces[0].image, "png")[1][GENERATION]["seed"] for answer in answers]
    assert told == list(range(20))
