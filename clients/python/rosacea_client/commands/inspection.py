"""Reads the provenance mark in an image file's metadata and verifies its signature.

    found = inspect_image(Path("face.png").read_bytes())
    found.synthetic, found.mark.seed, found.signature      # None where nobody signed it

A mark is a label, not a proof: anybody with the file can remove or change it. A C2PA signature shows a change; checking
one needs `pip install 'rosacea[c2pa]'`.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rosacea_contract.containers import metadata
from rosacea_contract.marks import SOURCE_TYPES, TRAINED, Mark, read_mark, source_type

if TYPE_CHECKING:
    from collections.abc import Iterator

# Nothing is fetched for a file that is looked at: a stranger's file does not send us anywhere.
OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Result of verifying a C2PA signature."""

    state: str  # trusted, valid (by somebody not on the trust list), invalid, unchecked
    signer: str = ""  # as the certificate has it
    problems: tuple[str, ...] = ()  # C2PA's codes

    @property
    def holds(self) -> bool:
        """Whether the signature is valid."""
        return self.state in ("trusted", "valid")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Marks and signature of a file."""

    format: str  # png or jpeg
    source_type: str | None  # IPTC's word for where the image comes from
    mark: Mark | None  # how it was made, where rosacea made it
    signature: Signature | None  # None where there is none

    @property
    def synthetic(self) -> bool:
        """Whether the file is marked as made by a trained model."""
        return self.mark is not None or self.source_type == TRAINED.removeprefix(SOURCE_TYPES)

    def to_json(self) -> dict[str, Any]:
        """The findings about an image file as JSON data."""
        signature = self.signature and {**vars(self.signature), "problems": list(self.signature.problems)}
        return {
            "format": self.format,
            "synthetic": self.synthetic,
            "source_type": self.source_type,
            "mark": self.mark and self.mark.facts(),
            "signature": signature,
        }


def inspect_image(image: bytes, trust: str = "") -> Inspection:
    """Read the provenance mark in a PNG or JPEG file's metadata (synthetic, how generated) and its signature;
    ValueError for other files.

    `trust` holds certificates (PEM) of those whose signatures are trusted.
    """
    found = metadata(image)
    stated = source_type(found)
    return Inspection(
        format=found.format,
        source_type=stated and stated.removeprefix(SOURCE_TYPES),
        mark=read_mark(found),
        signature=signature(image, found.format, trust) if found.has_c2pa else None,
    )


def signature(image: bytes, image_format: str, trust: str) -> Signature:
    """Verify a file's C2PA signature; returns its state, signer and problems, or the state `unchecked` if c2pa is not
    installed."""
    try:
        import c2pa
    except ModuleNotFoundError:
        return Signature(state="unchecked")
    settings: dict[str, Any] = {**OFFLINE, **({"trust": {"trust_anchors": trust}} if trust else {})}
    try:
        context = c2pa.Context.from_dict(settings)
        with context, c2pa.Reader(f"image/{image_format}", io.BytesIO(image), context=context) as reader:
            return _judged(json.loads(reader.json()))
    except c2pa.C2paError as error:
        return Signature(state="invalid", problems=(str(error)[:200],))


def _judged(report: dict[str, Any]) -> Signature:
    active = report.get("manifests", {}).get(report.get("active_manifest"), {})
    info = active.get("signature_info", {})
    problems = report.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    return Signature(
        state=str(report.get("validation_state", "invalid")).lower(),
        signer=", ".join(_given(info, "common_name", "issuer")),
        problems=tuple(str(each.get("code")) for each in problems),
    )


def _given(info: dict[str, Any], *names: str) -> Iterator[str]:
    yield from (str(info[name]) for name in names if info.get(name))
