"""Thirty ways each in which a file of keys, a certificate and an issuer's key set can be broken.

Each takes the folder, the file and the good bytes, and leaves in the file's place what must be refused.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from .credentials import DAY, Authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Break = Callable[[Path, bytes], None]

DEEP = 100_000


def put(path: Path, data: bytes) -> None:
    """Write it as the operator should: beside, then renamed, and for nobody else to read."""
    remove(path)
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(data)
    partial.chmod(0o600)
    partial.replace(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def holding(data: bytes | Callable[[bytes], bytes]) -> Break:
    return lambda path, good: put(path, data(good) if callable(data) else data)


def place(make: Callable[[Path], Any]) -> Break:
    """Something that is no such file."""

    def broken(path: Path, good: bytes) -> None:
        remove(path)
        make(path)

    return broken


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 * 2**30)
    path.chmod(0o600)


# Of any file that is read.
FILES: dict[str, Break] = {
    "gone": place(lambda path: None),
    "folder": place(lambda path: path.mkdir()),
    "pipe": place(lambda path: os.mkfifo(path, 0o600)),
    "socket": place(_socket),
    "link to itself": place(lambda path: path.symlink_to(path)),
    "link to nothing": place(lambda path: path.symlink_to(path.with_name("nothing"))),
    "link to zeros": place(lambda path: path.symlink_to("/dev/zero")),
    "link below a file": place(lambda path: path.symlink_to("/etc/passwd/x")),
    "8 GiB of holes": place(_sparse),
    "too large": holding(b"\n" * (2**20 + 1)),
    "zeros": holding(bytes(4096)),
    "noise": holding(bytes(range(256)) * 16),
    "half of it": holding(lambda good: good[: len(good) // 2]),
    "a page": holding(b"<!doctype html><title>502 Bad Gateway</title>"),
    "a pickle": holding(b"\x80\x04\x95\x08\x00\x00\x00\x00\x00\x00\x00K\x01."),
    "surrogates": holding(b"\xed\xa0\x80" * 100),
}
JSON = {
    "nested lists": b"[" * DEEP,
    "nested objects": b'{"a":' * DEEP,
    "endless number": b"9" * 10_000,
    "null": b"null",
    "a string": b'"key"',
    "a number": b"1e999",
    "a list": b"[1, 2, 3]",
}


def _record(**changes: object) -> Callable[[bytes], bytes]:
    """The first record with other values; None leaves a field out."""

    def changed(good: bytes) -> bytes:
        first, *rest = good.splitlines(keepends=True)
        record = json.loads(first) | changes
        line = json.dumps({name: value for name, value in record.items() if value != ""})
        return b"\n".join([line.encode(), *rest])

    return changed


def _readable(path: Path, good: bytes) -> None:
    put(path, good)
    path.chmod(0o644)


KEYS: dict[str, Break] = {
    **FILES,
    **{what: holding(data) for what, data in JSON.items()},
    "readable by all": _readable,
    "UTF-16": holding(lambda good: good.decode().encode("utf-16")),
    "one line twice": holding(lambda good: good + good.splitlines(keepends=True)[0]),
    "an unknown field": holding(_record(scope="all")),
    "a field missing": holding(_record(sha256="")),
    "times that no calendar has": holding(_record(expires=float("inf"))),
    "a principal that is a list": holding(_record(principal=["alice"])),
    "revoked is a word": holding(_record(revoked="no")),
}


def _set(entry: dict[str, Any] | None, **changes: Any) -> Callable[[bytes], bytes]:
    """A key set of the first key with other values."""

    def changed(good: bytes) -> bytes:
        first = json.loads(good)["keys"][0]
        return json.dumps({"keys": [(entry if entry is not None else first) | changes]}).encode()

    return changed


def _number(value: int) -> str:
    return urlsafe_b64encode(value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")).rstrip(b"=").decode()


ISSUERS: dict[str, Break] = {
    **FILES,
    **{what: holding(data) for what, data in JSON.items()},
    "keys that are none": holding(b'{"keys": null}'),
    "no keys": holding(b'{"keys": []}'),
    "a key of another kind": holding(_set({"kty": "oct", "k": "c2VjcmV0"})),
    "a short key": holding(_set(None, n=_number(2**1023 + 1))),
    "a private key": holding(_set(None, d="AQAB")),
    "a name that is a list": holding(_set(None, kid=[["a"]])),
    "a kind that is a list": holding(_set(None, kty=["RSA"])),
    "an even modulus": holding(_set(None, n=_number(2**2047), e=_number(0))),
    "a point beside the curve": holding(_set({"kty": "EC", "crv": "P-256", "x": _number(1), "y": _number(1)})),
    "letters that are no base64": holding(_set(None, n="!" * 400)),
}


def _pem(name: str, text: bytes) -> bytes:
    return b"-----BEGIN " + name.encode() + b"-----\n" + text + b"\n-----END " + name.encode() + b"-----\n"


def _openssl(*commands: str) -> Break:
    """A pair that this library does not make. The certificate is what is broken, the key is its own."""

    def broken(path: Path, good: bytes) -> None:
        key = path.with_suffix(".odd")
        for command in commands:
            arguments = [part.format(key=key, out=path.with_suffix(".out")) for part in command.split()]
            subprocess.run(["openssl", *arguments], check=True, capture_output=True)
        put(path.with_suffix(".key"), key.read_bytes())
        put(path, path.with_suffix(".out").read_bytes())

    return broken


SELF_SIGNED = "req -x509 -new -key {key} -days 3 -subj /CN=odd -out {out}"


def _pair(key: Callable[[], Any] | None = None, **options: Any) -> Break:
    """A pair of a key or a time that must be refused, as an authority would make it."""

    def broken(path: Path, good: bytes) -> None:
        Authority(path.parent, "broken authority").issue(path.stem, key=key() if key else None, **options)

    return broken


def _key(data: Callable[[bytes], bytes]) -> Break:
    """The key is what is broken."""

    def broken(path: Path, good: bytes) -> None:
        file = path.with_suffix(".key")
        put(file, data(file.read_bytes()))

    return broken


def _other_key(good: bytes) -> bytes:
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


CERTIFICATES: dict[str, Break] = {
    **{what: each for what, each in FILES.items() if what != "half of it"},
    "half of it": holding(lambda good: good[: len(good) // 2]),
    "no base64": holding(_pem("CERTIFICATE", b"!" * 64)),
    "no certificate inside": holding(_pem("CERTIFICATE", b"AAAA" * 16)),
    "nesting without end": holding(_pem("CERTIFICATE", b"MIAw" * 1000)),
    "a second one that is none": holding(lambda good: good + _pem("CERTIFICATE", b"AAAA")),
    "a request for one": holding(_pem("CERTIFICATE REQUEST", b"AAAA")),
    "expired": _pair(lasts=-DAY / 2),
    "key with a password": _pair(password=b"secret"),
    "short RSA": _pair(lambda: rsa.generate_private_key(65537, 1024)),
    "P-521": _pair(lambda: ec.generate_private_key(ec.SECP521R1())),
    "curve that nobody knows": _openssl("ecparam -name sect113r1 -genkey -noout -out {key}", SELF_SIGNED),
    "curve by its numbers": _openssl(
        "ecparam -name prime256v1 -param_enc explicit -genkey -noout -out {key}", SELF_SIGNED
    ),
    "Ed448": _openssl("genpkey -algorithm ed448 -out {key}", SELF_SIGNED),
    "RSA-PSS": _openssl("genpkey -algorithm rsa-pss -pkeyopt rsa_keygen_bits:1024 -out {key}", SELF_SIGNED),
    "another one's key": _key(_other_key),
    "key that is none": _key(lambda good: _pem("PRIVATE KEY", b"AAAA")),
    "half a key": _key(lambda good: good[: len(good) // 2]),
}
