"""Loads a TLS certificate and its private key, and checks that they match."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from rosacea_client.secrets import read_bounded, read_secret

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

CURVES = ("secp256r1", "secp384r1")  # those that clients of grpc offer
RSA_BITS = 2048


@dataclass(frozen=True)
class Certificate:
    """Server certificate, key and trusted roots in the form grpc takes; `expires` in seconds since 1970."""

    configuration: grpc.ServerCertificateConfiguration
    expires: float


def read_certificate(chain_file: Path, key_file: Path, client_ca_file: Path | None) -> Certificate:
    """Read the files and check that they match. A ValueError or OSError names the file and what is wrong with it."""
    chain_pem, key_pem = read_bounded(chain_file), read_secret(key_file)
    chain = _certificates(chain_file, chain_pem)
    _check_usable(chain_file, chain[0])
    key = _private_key(key_file, key_pem)
    if _raw(chain[0].public_key()) != _raw(key.public_key()):
        raise ValueError(f"{key_file} must be the key of the first certificate in {chain_file}, it is another one's")
    roots = None
    if client_ca_file is not None:
        roots = read_bounded(client_ca_file)
        _certificates(client_ca_file, roots)
    configuration = grpc.ssl_server_certificate_configuration([(key_pem, chain_pem)], root_certificates=roots)
    return Certificate(configuration, chain[0].not_valid_after_utc.timestamp())


def _check_usable(path: Path, certificate: x509.Certificate) -> None:
    """Raise ValueError if grpc or clients would reject the certificate; grpc itself reports neither."""
    key, end = _public_key(certificate), certificate.not_valid_after_utc
    named = isinstance(key, ec.EllipticCurvePublicKey) and _raw(key) in certificate.tbs_certificate_bytes
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) and named else ""  # not by its numbers
    if curve not in CURVES and not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS):
        raise ValueError(f"{path} must be for an RSA key of {RSA_BITS} bits or more, or one on {' or '.join(CURVES)}")
    if end <= datetime.now(UTC):
        raise ValueError(f"{path} must be in force, it expired on {end:%Y-%m-%d %H:%M} UTC")


def _public_key(certificate: x509.Certificate) -> PublicKeyTypes | None:
    """The certificate's public key; None for an unsupported kind of key."""
    try:
        return certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"{path} must hold certificates in PEM") from None


def _private_key(path: Path, pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a password
        raise ValueError(f"{path} must hold a private key in PEM, without a password") from None


def _raw(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
