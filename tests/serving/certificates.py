"""Certificates for signing images, made for one test and thrown away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8


@dataclass(frozen=True)
class Credentials:
    """Files of a signer: its chain, its key (mode 0600), and the authority that vouches for it."""

    chain: Path
    key: Path
    authority: Path


def credentials(folder: Path, key: Any = None, days: int = 30, intermediates: int = 0) -> Credentials:
    """A signer whose certificate ends in so many days, below so many authorities beside the root."""
    folder.mkdir(exist_ok=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer_name, issuer = "root", ec.generate_private_key(ec.SECP256R1())
    chain = [certificate("root", issuer.public_key(), "root", issuer, 3650, authority=True)]
    for count in range(intermediates):
        own = ec.generate_private_key(ec.SECP256R1())
        chain.insert(0, certificate(f"authority {count}", own.public_key(), issuer_name, issuer, 3650, authority=True))
        issuer_name, issuer = f"authority {count}", own
    chain.insert(0, certificate("signer", key.public_key(), issuer_name, issuer, days, authority=False))
    made = Credentials(folder / "chain.pem", folder / "key.pem", folder / "root.pem")
    made.chain.write_bytes(b"".join(each.public_bytes(PEM) for each in chain))
    made.authority.write_bytes(chain[-1].public_bytes(PEM))
    write_key(made.key, key)
    return made


def write_key(
    path: Path,
    key: Any,
    encryption: serialization.KeySerializationEncryption | None = None,
    form: serialization.PrivateFormat = PKCS8,
) -> None:
    """A key as PEM, for its owner's eyes."""
    path.write_bytes(key.private_bytes(PEM, form, encryption or serialization.NoEncryption()))
    path.chmod(0o600)


def certificate(name: str, public: Any, issuer: str, issuer_key: Any, days: int, authority: bool) -> x509.Certificate:
    """As C2PA wants them: an authority's, or a signer's for e-mail protection."""
    now = datetime.now(UTC)
    use = "key_cert_sign" if authority else "digital_signature"
    usage = x509.KeyUsage(**{each: each == use for each in USAGES})
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A test")]
    )
